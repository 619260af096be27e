"""Any published checkpoint to a backbone file: find the layout, take the branch, prove that nothing is left over."""

from pathlib import Path
from types import ModuleType
from typing import Any

from backbones.checkpoint import load_checkpoint
from backbones.file import Source, write_backbone_file
from backbones.formats import dino, dino_vissl, moby, moco_v3, patchbench, selfpatch, timm
from backbones.formats.base import Conversion, FormatError, abbreviate, check_finite
from common.files import file_sha256

FORMATS: dict[str, ModuleType] = {
    module.NAME: module for module in (patchbench, selfpatch, dino, dino_vissl, moby, moco_v3, timm)
}
"""Every known layout by name."""


def identify(checkpoint: Any) -> str:
    """The name of the one layout that a checkpoint has.

    Raises:
        FormatError: If none or several match; shows what the checkpoint holds.
    """
    names = [name for name, module in FORMATS.items() if module.matches(checkpoint)]
    if len(names) == 1:
        return names[0]
    if names:
        raise FormatError(f"several layouts match: {', '.join(names)}; choose one with --format")
    raise FormatError(f"no known layout ({', '.join(FORMATS)}) matches; the checkpoint holds {_describe(checkpoint)}")


def convert_checkpoint(
    path: Path, format_name: str | None = None, branch: str | None = None, num_heads: int | None = None
) -> Conversion:
    """Read a checkpoint and take its backbone.

    Args:
        path: The checkpoint.
        format_name: Its layout; None to find it from the keys.
        branch: Which of its networks; None for the layout's default, the one behind the published numbers.
        num_heads: Attention heads per block; None for what the layout or the convention of 64 channels says.

    Raises:
        ValueError: If the file is unreadable, the layout unknown, or the content does not fit; one line that names the file.
    """
    checkpoint = load_checkpoint(path)
    try:
        name = format_name or identify(checkpoint)
        if name not in FORMATS:
            raise FormatError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
        module = FORMATS[name]
        if not module.matches(checkpoint):
            raise FormatError(f"not in the {name} layout; the checkpoint holds {_describe(checkpoint)}")
        chosen = branch or module.BRANCHES[0]
        if chosen not in module.BRANCHES:
            raise FormatError(f"the {name} layout has no branch {chosen!r}; it has {', '.join(module.BRANCHES)}")
        conversion: Conversion = module.convert(checkpoint, chosen, num_heads)
        check_finite(conversion.state_dict)
    except KeyError as error:
        raise FormatError(f"{path}: incomplete checkpoint, it has no {error}") from error
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from error
    return conversion


def write_conversion(conversion: Conversion, checkpoint: Path, output: Path) -> Source:
    """Write a converted checkpoint as a backbone file.

    Raises:
        ValueError: If the weights do not fill the spec's network exactly.
    """
    source = Source(
        format=conversion.format,
        branch=conversion.branch,
        file_name=checkpoint.name,
        sha256=file_sha256(checkpoint),
        epoch=conversion.epoch,
    )
    write_backbone_file(output, conversion.spec, source, conversion.state_dict)
    return source


def _describe(checkpoint: Any) -> str:
    if not isinstance(checkpoint, dict) or not checkpoint:
        return f"a {type(checkpoint).__name__}"
    inner = next((value for value in checkpoint.values() if isinstance(value, dict) and value), None)
    sample = f"; inside the first group: {abbreviate(map(str, inner), 4)}" if inner else ""
    return f"{abbreviate(map(str, checkpoint))}{sample}"
