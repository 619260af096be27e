"""Any published checkpoint to a backbone file: find the layout, take the branch, prove that nothing is left over.

A pretrained model of timm by its name (`timm:vit_small_patch16_224.dino`) is taken only if its network is one of ours, and that is
proved for each: on the same random image the converted backbone must give timm's own features.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from backbones.build import build_backbone
from backbones.checkpoint import load_checkpoint
from backbones.file import Source, check_fills, is_backbone_file, is_timm_name, read_backbone_file, write_backbone_file
from backbones.layouts import LAYOUTS, Conversion, LayoutError, abbreviate, describe, identify, layouts_of
from backbones.layouts.architecture import refuse_num_heads
from backbones.spec import ResNetSpec, SwinSpec, typical_image_size
from common.files import file_sha256, one_line

_TIMM_TOLERANCE = 1e-4
_LONGEST_MESSAGE = 800
# Fields of a conversion and of a file's source.
_SHARED = ("branch", "epoch", "recipe_sha256", "seed", "recipe", "pretraining_data", "log")


def open_backbone(
    path: Path, layout_name: str | None = None, branch: str | None = None, num_heads: int | None = None
) -> Conversion:
    """The backbone of whatever people have: a checkpoint of any known layout, a model of timm (`timm:NAME`), or a backbone file.

    None stands for the layout that the keys show, for its default branch, and for as many heads as it or 64 channels per head say.
    ValueError, in one line that names the file, if there is no backbone, or an option is given where there is no choice.
    """
    try:
        if is_timm_name(path):
            if layout_name not in (None, "timm") or branch not in (None, *LAYOUTS["timm"].branches):
                raise LayoutError("a model of timm has no other layout or branch; leave out --format and --branch")
            return convert_timm_model(path, num_heads)
        # A backbone file must not be taken for a bare state dict: its spec states the heads, which its weights do not show.
        if not is_backbone_file(path):
            return convert_content(load_checkpoint(path), layout_name, branch, num_heads)
        if not layout_name is branch is num_heads is None:
            raise LayoutError("is a backbone file already, which states its layout, branch and heads; leave these options out")
        content = read_backbone_file(path)
    except ValueError as error:
        message = one_line(str(error).removeprefix(f"{path}: "), _LONGEST_MESSAGE)  # names in a checkpoint may contain anything
        raise LayoutError(f"{path}: {message}") from error
    known = {name: getattr(content.source, name) for name in _SHARED}
    return Conversion(**known, layout=content.source.format, spec=content.spec, state_dict=content.state_dict, dropped={})


def convert_content(
    checkpoint: Any, layout_name: str | None = None, branch: str | None = None, num_heads: int | None = None
) -> Conversion:
    """Take the backbone of a loaded checkpoint: complete, finite, and of exactly the spec's names and shapes, else ValueError."""
    if layout_name is None:
        layout = identify(checkpoint)
    elif layout_name not in LAYOUTS:
        raise LayoutError(f"unknown layout {layout_name!r}; known: {', '.join(LAYOUTS)}")
    else:
        layout = LAYOUTS[layout_name]
        if layout not in layouts_of(checkpoint):
            missing = f"not in the {layout.name} layout (which has {layout.typical})"
            raise LayoutError(f"{missing}; the checkpoint holds {describe(checkpoint)}")
    conversion = layout.convert(checkpoint, branch, num_heads)
    check_fills(conversion.spec, conversion.state_dict)
    return conversion


def convert_timm_model(
    source: Path, num_heads: int | None = None, create: Callable[..., nn.Module] = timm.create_model
) -> Conversion:
    """Fetch a pretrained model `timm:NAME` through timm's factory `create`, take its backbone, and prove it by its features.

    LayoutError if timm has no such model or no weights for it, they cannot be fetched, the network is none of ours, or `num_heads`
    is not the model's own.
    """
    name = os.fspath(source).partition(":")[2]
    if not timm.is_model(name) or not timm.is_model_pretrained(name):
        similar = timm.list_pretrained(f"{name.split('.')[0]}*") if name else []
        raise LayoutError(f"timm has no pretrained model {name!r}; of a similar name: {abbreviate(similar) or 'none'}")
    try:
        model: Any = create(name, pretrained=True).eval()
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LayoutError(f"timm cannot fetch the weights of {name} ({reason}); check the network") from error
    weights = model.state_dict()
    layout = next((LAYOUTS[name] for name in ("timm", "timm_dinov3") if LAYOUTS[name].matches(weights)), None)
    if layout is None:
        raise LayoutError(f"timm's {type(model).__name__} is none of the supported families (ViT, DINOv3's ViT, Swin, ResNet)")
    # All blocks of a ViT have the same number; a Swin's weights show theirs.
    own_heads = model.blocks[0].attn.num_heads if hasattr(model, "blocks") else None
    if own_heads is None:
        refuse_num_heads(num_heads)
    elif num_heads not in (None, own_heads):
        raise LayoutError(f"--num-heads {num_heads} contradicts the model, which has {own_heads}")
    conversion = layout.convert(weights, num_heads=own_heads)
    if isinstance(conversion.spec, SwinSpec):
        spec = dataclasses.replace(conversion.spec, image_size=model.patch_embed.img_size[0])
        conversion = dataclasses.replace(conversion, spec=spec)
    _check_features(model, conversion)
    return conversion


@torch.no_grad()
def _check_features(model: Any, conversion: Conversion) -> None:
    """Compare our features with timm's, at the stored grid where there is one, so that no positions are resampled."""
    spec = conversion.spec
    check_fills(spec, conversion.state_dict)
    network = build_backbone(spec).eval()
    network.load_state_dict(conversion.state_dict)
    side = typical_image_size(spec)
    images_13HW = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    found_1ND = network.forward_tokens(images_13HW).patches
    expected_1ND = model.forward_features(images_13HW)
    if isinstance(spec, SwinSpec):
        expected_1ND = expected_1ND.flatten(1, 2)  # [1, h, w, D]
    elif isinstance(spec, ResNetSpec):
        expected_1ND = expected_1ND.flatten(2).transpose(1, 2)  # [1, D, h, w]
    expected_1ND = expected_1ND[:, -found_1ND.shape[1] :]
    same = partial(torch.allclose, rtol=_TIMM_TOLERANCE, atol=_TIMM_TOLERANCE)
    if found_1ND.shape != expected_1ND.shape or not same(found_1ND, expected_1ND):
        raise LayoutError(f"timm's {type(model).__name__} computes other features than our {spec.family} with its weights")


def write_conversion(conversion: Conversion, checkpoint: Path, output: Path) -> Source:
    """Write what was taken from a checkpoint (a file, or a model of timm) as a backbone file."""
    known = {name: getattr(conversion, name) for name in _SHARED}
    digest = source_sha256(checkpoint, conversion)
    source = Source(**known, format=conversion.layout, file_name=one_line(checkpoint.name), sha256=digest)
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
