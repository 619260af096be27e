"""A backbone in another tool's checkpoint layout: the inverse of `backbones.layouts`.

    timm        bare names; .pth or .safetensors
    dino        `{teacher: {backbone.*}, epoch}` for DINO's `--checkpoint_key teacher` (facebookresearch/dino 7c446df, utils.py)
    selfpatch   the same with SelfPatch's backbone, which has neither CLS token nor final norm (alinlab/SelfPatch 81aef149)

safetensors cannot nest: there, all three hold the bare names, as DINO's released backbones do. Nothing is written unless converting
it back gives the same spec and the same weights.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.convert import Selection, convert_content
from backbones.file import TIMM_PREFIX, prepare_weights, save_tensors
from backbones.layouts.architecture import usual_heads
from backbones.spec import DINOV3_PERIODS, BackboneSpec, DINOv3Spec, PlainViTSpec, TimmSpec, ViTSpec
from backbones.vit import computed_periods
from common.files import write_atomically

LAYOUTS = ("timm", "dino", "selfpatch")
_SAFETENSORS = ".safetensors"
_PICKLES = (".pth", ".pt")

# What the networks of these repositories always have.
_FIXED: dict[str, dict[str, Any]] = {
    "dino": {"class_token": True, "final_norm": True, "mlp_ratio": 4.0},
    "selfpatch": {"class_token": False, "final_norm": False, "mlp_ratio": 4.0},
}


def export_backbone(path: Path, layout: str, spec: BackboneSpec, state_dict: Mapping[str, Tensor], epoch: int) -> str:
    """Write a backbone in one of `LAYOUTS`, atomically, after proving that converting it back is the identity.

    Floating-point weights are written as float32. The suffix `.safetensors`, `.pth` or `.pt` decides how. The text returned is
    what a reader of the file must know beside it, empty if nothing. ValueError if the layout cannot hold the backbone or is
    unknown, or the weights do not fit the spec.
    """
    check_export(path, layout)
    weights = prepare_weights(spec, state_dict)
    _check_fits(layout, spec, weights)
    stored = {name: tensor for name, tensor in weights.items() if name != DINOV3_PERIODS}
    content: dict[str, Any] = stored
    if layout in _FIXED and path.suffix in _PICKLES:
        content = {"teacher": {f"backbone.{name}": tensor for name, tensor in stored.items()}}
        if epoch >= 0:
            content["epoch"] = epoch
    _check_round_trip(layout, content, spec, weights)
    if path.suffix == _SAFETENSORS:
        # Hugging Face's readers ask for this entry.
        save_tensors(path, stored, {"format": "pt"})
    else:

        def write(temporary: Path) -> None:
            with temporary.open("wb") as stream:  # of which torch's errors say more than of a path
                torch.save(content, stream)

        write_atomically(path, write)
    if isinstance(spec, PlainViTSpec) and spec.num_heads != usual_heads(type(spec), spec.embed_dim):
        return f"this layout does not store the attention heads; read it back with --num-heads {spec.num_heads}"
    if isinstance(spec, TimmSpec):
        return f"this layout does not store the model's name; read it back with --format {TIMM_PREFIX}{spec.name}"
    return ""


def check_export(path: Path, layout: str) -> None:
    """Raise ValueError for a layout or a suffix that does not exist."""
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r} to write; known: {', '.join(LAYOUTS)}")
    if path.suffix not in (_SAFETENSORS, *_PICKLES):
        raise ValueError(f"{path}: the suffix chooses how it is written; use {_SAFETENSORS} or {' or '.join(_PICKLES)}")


def _check_fits(layout: str, spec: BackboneSpec, weights: Mapping[str, Tensor]) -> None:
    """Refuse what the layout's own tool would build differently."""
    if isinstance(spec, DINOv3Spec) and layout == "timm":
        difference = (weights[DINOV3_PERIODS] / computed_periods(spec.embed_dim // spec.num_heads) - 1).abs().max().item()
        if difference:
            what = f"this backbone's differ from those by up to {difference:.2%} (the authors' files hold rounded ones)"
            raise ValueError(f"timm computes the rotary periods itself, and {what}; take timm's own file, by timm:NAME")
    if layout not in _FIXED:
        return
    if not isinstance(spec, ViTSpec):
        raise ValueError(f"the {layout} layout holds ViTs only, this is a {spec.family}; use --to timm")
    numbers = {name: getattr(spec, name) for name in ("embed_dim", "depth", "num_heads", "patch_size", "image_size")}
    expected = ViTSpec(**numbers, **_FIXED[layout])
    if differing := _differences(spec, expected):
        raise ValueError(f"the {layout} layout cannot hold this ViT, its network has {differing}; use --to timm")


def _check_round_trip(layout: str, content: Mapping[str, Any], spec: BackboneSpec, weights: Mapping[str, Tensor]) -> None:
    """Convert back in memory and compare."""
    refusal = f"the {layout} layout cannot hold this backbone"
    num_heads = spec.num_heads if isinstance(spec, PlainViTSpec) else None
    try:
        named = f"{TIMM_PREFIX}{spec.name}" if isinstance(spec, TimmSpec) else None
        found = convert_content(content, Selection(layout=named, num_heads=num_heads))
    except ValueError as error:
        raise ValueError(f"{refusal}: {error}") from error
    if found.spec != spec:
        raise ValueError(f"{refusal}: converted back it would have {_differences(spec, found.spec)}")
    tensors = found.state_dict
    changed = [name for name in weights if name not in tensors or not torch.equal(tensors[name], weights[name])]
    if changed or len(tensors) != len(weights):
        raise ValueError(f"{refusal}: converted back, {len(changed)} of its {len(weights)} tensors would differ")


def _differences(spec: BackboneSpec, other: BackboneSpec) -> str:
    """Which numbers `other` has where it differs from `spec`."""
    if type(spec) is not type(other):
        return f"family {other.family} (not {spec.family})"
    names = [field.name for field in fields(spec) if getattr(spec, field.name) != getattr(other, field.name)]
    return ", ".join(f"{name}={getattr(other, name)} (not {getattr(spec, name)})" for name in names)
