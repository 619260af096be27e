"""Reading config files that inherit from mmdet's and mmseg's own."""

from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from eval.openmmlab.compatibility import quiet_packages


def read_config(path: Path) -> Config:
    """Read a config file whose `_base_` may name `mmdet::...` and `mmseg::...`.

    mmengine looks for mmseg's files in an installed distribution named mmsegmentation; the maintained successor has another
    distribution name and the same module name, by which mmengine finds it as well.
    """
    MODULE2PACKAGE["mmseg"] = "mmseg"
    with quiet_packages():
        return Config.fromfile(str(path))
