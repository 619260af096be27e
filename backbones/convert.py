"""Any published checkpoint to a backbone file: find the layout, take the branch, prove that nothing is left over."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from backbones.build import build_backbone
from backbones.checkpoint import load_checkpoint
from backbones.describe import closest_layouts, describe
from backbones.file import Source, check_weights, write_backbone_file
from backbones.formats import (
    convnext,
    densecl,
    detectron2,
    dino,
    dino_vissl,
    dinov2,
    dinov3,
    esvit,
    huggingface_dinov2,
    huggingface_dinov3,
    huggingface_vit,
    ibot,
    mae,
    mmpretrain,
    moby,
    moco,
    moco_v3,
    patchbench,
    pw_self,
    resim,
    selfpatch,
    swav,
    timm,
    timm_dinov3,
)
from backbones.formats.base import Conversion, FormatError, check_numbers
from backbones.timm_model import convert_timm_model, is_timm_name
from common.files import file_sha256

_STUDENT_TEACHER = (patchbench, selfpatch, dino, pw_self, ibot, esvit, dino_vissl, dinov2, dinov3)
_CONTRASTIVE = (moco, resim, densecl, swav, moby, moco_v3, mae)
_LIBRARIES = (detectron2, mmpretrain, huggingface_vit, huggingface_dinov2, huggingface_dinov3, timm, timm_dinov3, convnext)
FORMATS: dict[str, ModuleType] = {module.NAME: module for module in (*_STUDENT_TEACHER, *_CONTRASTIVE, *_LIBRARIES)}
"""Every known layout by name."""


def identify(checkpoint: Any) -> str:
    """The name of the one layout that a checkpoint has.

    Raises:
        FormatError: If none or several match; shows what the checkpoint holds and which layouts come closest.
    """
    names = [name for name, module in FORMATS.items() if module.matches(checkpoint)]
    if len(names) == 1:
        return names[0]
    holds = f"the checkpoint holds {describe(checkpoint)}"
    if names:
        raise FormatError(f"several layouts match: {', '.join(names)}; choose one with --format; {holds}")
    closest = closest_layouts(checkpoint, {name: module.TYPICAL for name, module in FORMATS.items()})
    raise FormatError(f"no known layout matches; {holds}; the closest of {len(FORMATS)} layouts: {closest or 'none'}")


def convert_checkpoint(
    path: Path, format_name: str | None = None, branch: str | None = None, num_heads: int | None = None
) -> Conversion:
    """Read a checkpoint and take its backbone.

    Args:
        path: The checkpoint, or `timm:NAME` for a pretrained model of timm (`backbones.timm_model`).
        format_name: Its layout; None to find it from the keys.
        branch: Which of its networks; None for the layout's default, the one behind the published numbers.
        num_heads: Attention heads per block; None for what the layout or the convention of 64 channels says.

    Raises:
        ValueError: If the file is unreadable, the layout unknown, or the content does not fit; one line that names the file.
    """
    try:
        if is_timm_name(path):
            if format_name not in (None, timm.NAME) or branch not in (None, *timm.BRANCHES):
                raise FormatError("a model of timm has no other layout or branch; leave out --format and --branch")
            return convert_timm_model(path, num_heads)
        return convert_content(load_checkpoint(path), format_name, branch, num_heads)
    except ValueError as error:
        message = " ".join(str(error).splitlines())  # names in a checkpoint may contain anything
        raise FormatError(message if message.startswith(f"{path}: ") else f"{path}: {message}") from error


def convert_content(
    checkpoint: Any, format_name: str | None = None, branch: str | None = None, num_heads: int | None = None
) -> Conversion:
    """Take the backbone of a loaded checkpoint; complete, finite, and of exactly the spec's names and shapes.

    Args:
        checkpoint: What the file holds.
        format_name: As for `convert_checkpoint`, and so the others.
        branch: Which of its networks.
        num_heads: Attention heads per block.

    Raises:
        ValueError: If the layout is unknown or the content does not fit it.
    """
    name = format_name or identify(checkpoint)
    if name not in FORMATS:
        raise FormatError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    module = FORMATS[name]
    if not module.matches(checkpoint):
        raise FormatError(f"not in the {name} layout (which has {module.TYPICAL}); the checkpoint holds {describe(checkpoint)}")
    if branch is not None and branch not in module.BRANCHES:
        raise FormatError(f"the {name} layout has no branch {branch!r}; it has {', '.join(module.BRANCHES)}")
    try:
        chosen = branch or _default_branch(module, checkpoint)
        conversion: Conversion = module.convert(checkpoint, chosen, num_heads)
    except KeyError as error:
        raise FormatError(f"incomplete checkpoint, it has no {error}") from error
    with torch.device("meta"):
        check_weights(build_backbone(conversion.spec), conversion.state_dict)
    check_numbers(conversion.state_dict)
    return conversion


def _default_branch(module: ModuleType, checkpoint: Any) -> str:
    if hasattr(module, "default_branch"):
        return str(module.default_branch(checkpoint))
    return str(module.BRANCHES[0])


def write_conversion(conversion: Conversion, checkpoint: Path, output: Path) -> Source:
    """Write a converted checkpoint as a backbone file.

    Args:
        conversion: From `convert_checkpoint`.
        checkpoint: What it was given; a model of timm has no file, so the digest is that of its weights.
        output: The backbone file.

    Raises:
        ValueError: If the weights do not fill the spec's network exactly.
    """
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
    """The digest of a checkpoint file; of its weights for a model of timm, which has no file."""
    return weights_sha256(conversion.state_dict) if is_timm_name(source) else file_sha256(source)


def weights_sha256(state_dict: Mapping[str, Tensor]) -> str:
    """A digest of names, types, shapes and values, whatever their order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state_dict.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
