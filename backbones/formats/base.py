"""What every checkpoint layout's module provides, and the tools that they share.

A layout is a module of this package with

    NAME: str                                        what `--format` calls it
    BRANCHES: tuple[str, ...]                        the networks in it that can be taken, the default first
    LICENCE: str                                     of published weights in it, as their authors state it; else "not stated"
    matches(checkpoint) -> bool                      whether this is the layout, from the keys alone
    convert(checkpoint, branch, num_heads) -> Conversion
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

from backbones.spec import BackboneSpec, ViTSpec, standard_num_heads


class FormatError(ValueError):
    """A checkpoint of no known layout, or one whose content does not fit its layout."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A checkpoint's backbone under timm's names."""

    format: str
    """The layout's name."""
    branch: str
    """Which of the checkpoint's networks was taken."""
    spec: BackboneSpec
    """The architecture."""
    state_dict: dict[str, Tensor]
    """Weights under timm's names."""
    dropped: dict[str, tuple[str, ...]]
    """Names that the layout leaves out on purpose (heads, other branches), by the rule that says so, such as `head.*`."""
    epoch: int
    """Completed epochs as the checkpoint states them; -1 where it states none."""


def is_state_dict(value: Any) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether this is a non-empty mapping from names to tensors."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


def teacher_weights(checkpoint: Any) -> Mapping[str, Tensor]:
    """The teacher's state dict of an authors' student-teacher checkpoint; empty where there is none.

    A checkpoint that names its format itself is not theirs.
    """
    if not isinstance(checkpoint, Mapping) or "format" in checkpoint:
        return {}
    teacher = checkpoint.get("teacher")
    return teacher if is_state_dict(teacher) else {}


def take(
    state_dict: Mapping[str, Tensor], keep_prefix: str, drop_prefixes: Iterable[str]
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Split a branch into the backbone and what a rule drops; every name must fall under one of them.

    Args:
        state_dict: The branch.
        keep_prefix: Prefix of the backbone's names; stripped.
        drop_prefixes: Prefixes of names that are left out on purpose. They win over `keep_prefix`.

    Returns:
        Backbone weights, and the dropped names by rule.

    Raises:
        FormatError: If a name falls under no rule, or nothing is kept; lists them.
    """
    drops = tuple(drop_prefixes)
    kept: dict[str, Tensor] = {}
    dropped: dict[str, tuple[str, ...]] = {}
    unknown = []
    for name, tensor in state_dict.items():
        if drop := next((prefix for prefix in drops if name.startswith(prefix)), None):
            rule = f"{drop}*" if drop.endswith(".") else drop
            dropped[rule] = (*dropped.get(rule, ()), name)
        elif name.startswith(keep_prefix):
            kept[name.removeprefix(keep_prefix)] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise FormatError(f"names that no rule of the layout covers: {abbreviate(unknown)}")
    if not kept:
        raise FormatError(f"no name begins with {keep_prefix!r}; the names are {abbreviate(state_dict)}")
    return kept, dropped


def vit_spec(state_dict: Mapping[str, Tensor], num_heads: int | None) -> ViTSpec:
    """Read a ViT's numbers off its weights (timm's names).

    Args:
        state_dict: The backbone's weights.
        num_heads: Heads per block, which the weights do not show; None for the usual 64 channels per head.

    Raises:
        FormatError: If the weights are not a ViT's.
        ValueError: If the number of heads is needed and not given.
    """
    try:
        embed_dim, _, patch_size, _ = state_dict["patch_embed.proj.weight"].shape
        positions = state_dict["pos_embed"].shape[1] - ("cls_token" in state_dict)
        hidden = state_dict["blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise FormatError(f"not the weights of a ViT ({error}); the names are {abbreviate(state_dict)}") from error
    grid_side = round(positions**0.5)
    if grid_side**2 != positions:
        raise FormatError(f"pos_embed covers {positions} patches, which is not a square grid")
    return ViTSpec(
        embed_dim=embed_dim,
        depth=count_numbered(state_dict, "blocks."),
        num_heads=num_heads or standard_num_heads(embed_dim),
        patch_size=patch_size,
        image_size=grid_side * patch_size,
        class_token="cls_token" in state_dict,
        final_norm="norm.weight" in state_dict,
        mlp_ratio=hidden / embed_dim,
    )


def count_numbered(state_dict: Iterable[str], prefix: str) -> int:
    """How many consecutive numbers from 0 follow a prefix among the names."""
    numbers = {int(name.removeprefix(prefix).split(".")[0]) for name in state_dict if name.startswith(prefix)}
    if numbers != set(range(len(numbers))):
        raise FormatError(f"{prefix}N is not numbered 0 to {len(numbers) - 1} without gaps: {sorted(numbers)}")
    return len(numbers)


def stated_epoch(checkpoint: Mapping[str, Any], key: str = "epoch") -> int:
    """The completed epochs that a checkpoint states, -1 where it states none."""
    epoch = checkpoint.get(key, -1)
    if isinstance(epoch, Tensor):
        epoch = epoch.item()
    return int(epoch) if isinstance(epoch, (int, float)) else -1


def check_finite(state_dict: Mapping[str, Tensor]) -> None:
    """Raise FormatError if a weight is NaN or infinite, naming it."""
    bad = [name for name, tensor in state_dict.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise FormatError(f"weights that are not finite numbers: {abbreviate(bad)}")


def abbreviate(names: Iterable[str], most: int = 6) -> str:
    """The first few names, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
