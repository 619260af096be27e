"""Key tables: every name of a layout, and where it goes.

A table maps a source name to its target under timm's names, or to None where the layout drops it on purpose. In a source name `{i}`,
`{j}` and `{k}` stand for a number, and a closing `*` for any rest of at least one character; the target repeats them. The first row
that fits decides. A name that no row fits is an error: nothing is kept, dropped or renamed by accident.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Weights = Mapping[str, "Tensor"]
KeyTable = Mapping[str, str | None]  # Source name -> target name, or None where it is dropped on purpose.

_LONGEST_NAME = 100
FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")
COUNTS = ("torch.int32", "torch.int64")
NUMBERS = (*FLOATS, *COUNTS)


class LayoutError(ValueError):
    """A checkpoint of no known layout, or one whose content does not fit its layout.

    `hints` are the options of a command, each list of which would take a network of the checkpoint.
    """

    def __init__(self, message: str, hints: Iterable[Sequence[str]] = ()) -> None:
        super().__init__(message)
        self.hints = [hint for hint in hints if hint]


class UnknownNetworkError(LayoutError):
    """A checkpoint none of whose networks is one of ours."""


def same(*names: str) -> dict[str, str | None]:
    """Rows that keep names as they are."""
    return {name: name for name in names}


def nested(source: str, target: str, table: KeyTable) -> dict[str, str | None]:
    """Rows below a part of the network that is called `source` in the layout and `target` in timm."""
    return {source + inner: None if outer is None else target + outer for inner, outer in table.items()}


def under(weights: Weights, prefix: str) -> dict[str, Tensor]:
    """What lies behind a prefix, under names without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


VIT_BLOCK = same("norm1.*", "attn.qkv.*", "attn.proj.*", "ls1.gamma", "norm2.*", "mlp.fc1.*", "mlp.fc2.*", "ls2.gamma")
VIT_KEYS: KeyTable = {
    **same("cls_token", "pos_embed", "reg_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.*"),
    **nested("blocks.{i}.", "blocks.{i}.", VIT_BLOCK),
}
"""A ViT under timm's own names."""

RESNET_KEYS: KeyTable = {
    **same("conv1.weight", "bn1.*", "layer{i}.{j}.conv{k}.weight", "layer{i}.{j}.bn{k}.*"),
    **same("layer{i}.{j}.downsample.0.weight", "layer{i}.{j}.downsample.1.*"),
}
"""A ResNet under torchvision's names, which are timm's."""

SWIN_KEYS: KeyTable = {
    **same("patch_embed.*", "norm.*"),
    "layers.{i}.blocks.{j}.attn.relative_position_index": None,  # follows from the window size
    "layers.{i}.blocks.{j}.attn_mask": None,  # follows from the image size
    **same("layers.{i}.blocks.{j}.*", "layers.{i}.downsample.*"),
}
"""A Swin transformer; `backbones.layouts.architecture` moves its downsampling where timm has it."""


def own_keys(names: Collection[str]) -> KeyTable:
    """The table of the family whose own names these are."""
    if "layer1.0.conv1.weight" in names:
        return RESNET_KEYS
    return SWIN_KEYS if any(name.startswith("layers.0.blocks.") for name in names) else VIT_KEYS


def apply_table(state_dict: Weights, table: KeyTable) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """The backbone's weights under their target names, and the dropped names by the row that drops them.

    LayoutError if no row fits a name, two names have the same target, or nothing is kept.
    """
    kept: dict[str, Tensor] = {}
    dropped: dict[str, list[str]] = {}
    origins: dict[str, str] = {}
    unknown = []
    for name, tensor in state_dict.items():
        matches = ((match, source) for source in table if (match := _pattern(source).fullmatch(name)))
        match, source = next(matches, (None, ""))
        if match is None:
            unknown.append(name)
        elif (target := table[source]) is None:
            dropped.setdefault(source, []).append(name)
        else:
            target = target.replace("*", "{rest}").format(**match.groupdict())
            if target in kept:
                raise LayoutError(f"{origins[target]} and {name} are both the layout's {target}")
            kept[target], origins[target] = tensor, name
    if unknown:
        raise LayoutError(f"names that no rule of the layout covers: {abbreviate(unknown)}")
    if not kept:
        raise LayoutError(f"no backbone among the names {abbreviate(state_dict)}")
    # With others, such as float8, torch cannot compute what layouts and specs ask of weights.
    if odd := [f"{name} ({tensor.dtype})" for name, tensor in kept.items() if str(tensor.dtype) not in NUMBERS]:
        raise LayoutError(f"weights that are not stored as floating-point numbers: {abbreviate(odd)}")
    return kept, {source: tuple(names) for source, names in dropped.items()}


@cache
def _pattern(source: str) -> re.Pattern[str]:
    pattern = re.sub(r"\\\{([ijk])\\\}", r"(?P<\1>[0-9]+)", re.escape(source.removesuffix("*")))
    return re.compile(pattern + ("(?P<rest>.+)" if source.endswith("*") else ""))


def join_qkv(state_dict: Weights) -> dict[str, Tensor]:
    """Stack `attn.query`, `attn.key`, `attn.value` of each block into timm's `attn.qkv`; LayoutError if they do not fit."""
    import torch

    joined: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        match = re.fullmatch(r"(blocks\.\d+\.attn\.)(query|key|value)\.(weight|bias)", name)
        if match is None:
            joined[name] = tensor
            continue
        names = [f"{match[1]}{part}.{match[3]}" for part in ("query", "key", "value")]
        if missing := [part for part in names if part not in state_dict]:
            raise LayoutError(f"incomplete attention: there is {name} but no {', '.join(missing)}")
        parts = [state_dict[part] for part in names]
        if len({part.shape for part in parts}) > 1 or tensor.ndim == 0:
            raise LayoutError(f"the shapes of {', '.join(names)} differ or are empty: {[tuple(part.shape) for part in parts]}")
        joined[f"{match[1]}qkv.{match[3]}"] = torch.cat(parts)
    return joined


def count_numbered(names: Iterable[str], prefix: str) -> int:
    """How many consecutive numbers from 0 follow a prefix among the names; LayoutError if there are gaps."""
    found = {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
    if found != set(map(str, range(len(found)))):
        raise LayoutError(f"{prefix}N is not numbered 0 to {len(found) - 1} without gaps: {abbreviate(found)}")
    return len(found)


def abbreviate(names: Iterable[str], most: int = 6) -> str:
    """The first few names in alphabetical order, and how many more there are; on one line, whatever they contain."""
    escaped = [name.encode("unicode_escape").decode() for name in sorted(names)]
    shown = [name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..." for name in escaped[:most]]
    return ", ".join(shown) + (f" and {len(escaped) - most} more" if len(escaped) > most else "")
