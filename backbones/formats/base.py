"""What every checkpoint layout's module provides, and the tools that they share.

A layout is a module of this package with

    NAME: str                                        what `--format` calls it
    TYPICAL: str                                     one path in it that no other layout has, such as `teacher/backbone.cls_token`
    BRANCHES: tuple[str, ...]                        the networks in it that can be taken, the default first
    LICENCE: str                                     of published weights in it, as their authors state it; else "not stated"
    matches(checkpoint) -> bool                      whether this is the layout, from the keys alone
    convert(checkpoint, branch, num_heads) -> Conversion

and, where the default depends on the checkpoint,

    default_branch(checkpoint) -> str
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

from backbones.spec import BackboneSpec

_LONGEST_NAME = 100
_WEIGHTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COUNTS = (torch.int64, torch.int32)


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
    recipe_sha256: str = ""
    """Digest of the pretraining's settings apart from its seed; empty where the checkpoint states none."""
    seed: int = -1
    """Seed of the pretraining; -1 where the checkpoint states none."""


def is_state_dict(value: Any) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether this is a non-empty mapping from names to tensors."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


def weights_under(checkpoint: Any, *keys: str) -> Mapping[str, Tensor]:
    """The first state dict among the checkpoint itself (where no key is given, or for the key "") and its entries; else empty."""
    if isinstance(checkpoint, Mapping) and "format" not in checkpoint:
        for key in keys or ("",):
            candidate = checkpoint.get(key) if key else checkpoint
            if is_state_dict(candidate):
                return candidate
    return {}


def teacher_weights(checkpoint: Any) -> Mapping[str, Tensor]:
    """The teacher's state dict of an authors' student-teacher checkpoint; empty where there is none.

    A checkpoint that names its format itself is not theirs.
    """
    return weights_under(checkpoint, "teacher")


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


def count_numbered(state_dict: Iterable[str], prefix: str) -> int:
    """How many consecutive numbers from 0 follow a prefix among the names."""
    found = {name.removeprefix(prefix).split(".")[0] for name in state_dict if name.startswith(prefix)}
    if not all(number.isdecimal() for number in found):
        raise FormatError(f"{prefix}N is not numbered: {abbreviate(found)}")
    numbers = {int(number) for number in found}
    if numbers != set(range(len(numbers))):
        raise FormatError(f"{prefix}N is not numbered 0 to {len(numbers) - 1} without gaps: {sorted(numbers)}")
    return len(numbers)


def stated_epoch(checkpoint: Mapping[str, Any], key: str = "epoch") -> int:
    """The completed epochs that a checkpoint states, -1 where it states none."""
    epoch = checkpoint.get(key, -1)
    if isinstance(epoch, Tensor):
        epoch = epoch.item()
    return int(epoch) if isinstance(epoch, (int, float)) else -1


def check_numbers(state_dict: Mapping[str, Tensor]) -> None:
    """Raise FormatError if a weight is NaN or infinite, or stored as anything but usual floating-point numbers, naming it.

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


def abbreviate(names: Iterable[str], most: int = 6) -> str:
    """The first few names in alphabetical order, and how many more there are; on one line, whatever they contain."""
    shown = sorted(names)
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(_printable(name) for name in shown[:most]) + more


def _printable(name: str) -> str:
    escaped = name.encode("unicode_escape").decode()
    return escaped if len(escaped) <= _LONGEST_NAME else f"{escaped[:_LONGEST_NAME]}..."
