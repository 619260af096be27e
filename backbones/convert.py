"""Any published checkpoint to a backbone file: find the layout, take the branch, prove that nothing is left over."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.checkpoint import load_checkpoint
from backbones.file import Source, check_fills, is_backbone_file, is_timm_name, read_backbone_file, write_backbone_file
from backbones.layouts import FORMATS, Conversion, FormatError, abbreviate, describe, identify, layouts_of
from backbones.timm_model import convert_timm_model
from common.files import file_sha256

_WEIGHTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COUNTS = (torch.int64, torch.int32)


def open_backbone(
    path: Path, format_name: str | None = None, branch: str | None = None, num_heads: int | None = None
) -> Conversion:
    """The backbone of whatever people have: a checkpoint of any known layout, a model of timm, or a backbone file.

    A backbone file must not be taken for a bare state dict: its spec states the heads, which its weights do not show.

    Args:
        path: The file, or `timm:NAME` for a pretrained model of timm.
        format_name: Layout of a checkpoint; None to find it from the keys.
        branch: Which of its networks; None for the layout's default.
        num_heads: Attention heads per block; None for what the layout or the convention of 64 channels says.

    Raises:
        ValueError: If the file holds no backbone, or options are given that a backbone file leaves no room for.
    """
    if is_timm_name(path) or not is_backbone_file(path):
        return convert_checkpoint(path, format_name, branch, num_heads)
    if not format_name is branch is num_heads is None:
        raise FormatError(
            f"{path}: is a backbone file already, which states its own layout, branch and heads; leave these options out"
        )
    content = read_backbone_file(path)
    return Conversion(
        format=content.source.format,
        branch=content.source.branch,
        spec=content.spec,
        state_dict=content.state_dict,
        dropped={},
        epoch=content.source.epoch,
        recipe_sha256=content.source.recipe_sha256,
        seed=content.source.seed,
    )


def convert_checkpoint(
    path: Path, format_name: str | None = None, branch: str | None = None, num_heads: int | None = None
) -> Conversion:
    """`open_backbone` of anything but a backbone file. Every error is one line that names the file."""
    try:
        if is_timm_name(path):
            if format_name not in (None, "timm") or branch not in (None, *FORMATS["timm"].branches):
                raise FormatError("a model of timm has no other layout or branch; leave out --format and --branch")
            return convert_timm_model(path, num_heads)
        return convert_content(load_checkpoint(path), format_name, branch, num_heads)
    except ValueError as error:
        message = " ".join(str(error).splitlines())  # names in a checkpoint may contain anything
        raise FormatError(message if message.startswith(f"{path}: ") else f"{path}: {message}") from error


def convert_content(
    checkpoint: Any, format_name: str | None = None, branch: str | None = None, num_heads: int | None = None
) -> Conversion:
    """Take the backbone of a loaded checkpoint: complete, finite, and of exactly the spec's names and shapes, else ValueError."""
    if format_name is None:
        layout = identify(checkpoint)
    elif format_name not in FORMATS:
        raise FormatError(f"unknown format {format_name!r}; known: {', '.join(FORMATS)}")
    else:
        layout = FORMATS[format_name]
        if layout not in layouts_of(checkpoint):
            raise FormatError(
                f"not in the {layout.name} layout (which has {layout.typical}); the checkpoint holds {describe(checkpoint)}"
            )
    conversion = layout.convert(checkpoint, branch, num_heads)
    check_fills(conversion.spec, conversion.state_dict)
    _check_numbers(conversion.state_dict)
    return conversion


def _check_numbers(state_dict: Mapping[str, Tensor]) -> None:
    """Raise FormatError if a weight is NaN or infinite, or not stored as a usual floating-point number.

    Integers are right for BatchNorm's counters only.
    """
    odd = [
        f"{name} ({tensor.dtype})"
        for name, tensor in state_dict.items()
        if tensor.dtype not in (_COUNTS if name.endswith("num_batches_tracked") else _WEIGHTS)
    ]
    if odd:
        raise FormatError(f"weights that are not stored as floating-point numbers: {abbreviate(odd)}")
    bad = [name for name, tensor in state_dict.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise FormatError(f"weights that are not finite numbers: {abbreviate(bad)}")


def write_conversion(conversion: Conversion, checkpoint: Path, output: Path) -> Source:
    """Write what was taken from a checkpoint (a file, or a model of timm) as a backbone file."""
    source = Source(
        format=conversion.format,
        branch=conversion.branch,
        file_name=checkpoint.name,
        sha256=source_sha256(checkpoint, conversion),
        epoch=conversion.epoch,
        recipe_sha256=conversion.recipe_sha256,
        seed=conversion.seed,
    )
    write_backbone_file(output, conversion.spec, source, conversion.state_dict)
    return source


def source_sha256(source: Path, conversion: Conversion) -> str:
    """The digest of a checkpoint file; of the weights (names, types, shapes, values) for a model of timm, which has no file."""
    if not is_timm_name(source):
        return file_sha256(source)
    digest = hashlib.sha256()
    for name, tensor in sorted(conversion.state_dict.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
