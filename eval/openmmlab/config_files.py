"""Reading config files that inherit from mmdet's and mmseg's own."""

from copy import deepcopy
from functools import cache
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from backbones.spec import BackboneSpec
from eval.openmmlab.compatibility import quiet_packages

BASE_CONFIG = "base"
"""Name of the file that a task's other configs inherit."""


def read_config(path: Path) -> Config:
    """Read a config file whose `_base_` may name `mmdet::...` and `mmseg::...`.

    mmengine looks for mmseg's files in an installed distribution named mmsegmentation; the maintained successor has another
    distribution name and the same module name, by which mmengine finds it as well.
    """
    return deepcopy(_read_once(path))


@cache
def _read_once(path: Path) -> Config:
    """A config takes a third of a second to read, and is asked for by several steps of a run."""
    MODULE2PACKAGE["mmseg"] = "mmseg"
    with quiet_packages():
        return Config.fromfile(str(path))


def read_family_config(folder: Path, spec: BackboneSpec, head: str = "") -> Config:
    """The config file of a task for a family of backbones, as written: `FAMILY.py`, or `FAMILY_HEAD.py` for another head.

    Args:
        folder: The task's configs.
        spec: Of the backbone.
        head: Of the network that is fine-tuned; "" for the task's usual one.

    Raises:
        ValueError: If there is none for this family and head.
    """
    suffix = f"_{head}" if head else ""
    path = folder / f"{spec.family}{suffix}.py"
    if not path.is_file():
        families = [file.stem.removesuffix(suffix) for file in sorted(folder.glob(f"*{suffix}.py"))]
        known = [family for family in families if family != BASE_CONFIG and "_" not in family]
        raise ValueError(
            f"there is no {folder.parent.name} config for a {spec.family} backbone{f' with the head {head}' if head else ''}; "
            f"there is one for: {', '.join(known)}"
        )
    return read_config(path)
