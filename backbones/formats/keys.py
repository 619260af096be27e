"""Key tables: every name of a layout, and where it goes.

A table maps a source name to its target under timm's names, or to None where the layout drops it on purpose. In a source name
`{i}`, `{j}` and `{k}` stand for a number, and a closing `*` for any rest of at least one character; the target repeats them. The
first row that fits decides. A name that no row fits is an error: nothing is kept, dropped or renamed by accident.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from backbones.formats.base import FormatError, abbreviate

KeyTable = Mapping[str, str | None]
"""Source name -> target name, or None where it is dropped on purpose."""

VIT_KEYS: KeyTable = {
    name: name
    for name in (
        "cls_token",
        "pos_embed",
        "reg_token",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
        "blocks.{i}.norm1.*",
        "blocks.{i}.attn.qkv.*",
        "blocks.{i}.attn.proj.*",
        "blocks.{i}.ls1.gamma",
        "blocks.{i}.norm2.*",
        "blocks.{i}.mlp.fc1.*",
        "blocks.{i}.mlp.fc2.*",
        "blocks.{i}.ls2.gamma",
        "norm.*",
    )
}
"""A ViT under timm's own names."""

RESNET_KEYS: KeyTable = {
    name: name
    for name in (
        "conv1.weight",
        "bn1.*",
        "layer{i}.{j}.conv{k}.weight",
        "layer{i}.{j}.bn{k}.*",
        "layer{i}.{j}.downsample.0.weight",
        "layer{i}.{j}.downsample.1.*",
    )
}
"""A ResNet under torchvision's names, which are timm's."""

SWIN_KEYS: KeyTable = {
    **{name: name for name in ("patch_embed.*", "norm.*")},
    "layers.{i}.blocks.{j}.attn.relative_position_index": None,  # follows from the window size
    "layers.{i}.blocks.{j}.attn_mask": None,  # follows from the image size
    **{name: name for name in ("layers.{i}.blocks.{j}.*", "layers.{i}.downsample.*")},
}
"""A Swin transformer; where its downsampling belongs is the format's business."""


def prefixed(prefix: str, table: KeyTable) -> dict[str, str | None]:
    """The table of a layout that puts a prefix before each source name."""
    return {prefix + source: target for source, target in table.items()}


def dropped(*sources: str) -> dict[str, str | None]:
    """Rows that drop names on purpose."""
    return dict.fromkeys(sources)


def apply_table(state_dict: Mapping[str, Tensor], table: KeyTable) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Rename a state dict.

    Args:
        state_dict: The checkpoint's names and weights.
        table: See the module.

    Returns:
        The backbone's weights under their target names, and the dropped names by the row that drops them.

    Raises:
        FormatError: If no row fits a name, two names have the same target, or nothing is kept.
    """
    rows = _compiled(tuple(table.items()))
    kept: dict[str, Tensor] = {}
    left_out: dict[str, tuple[str, ...]] = {}
    origins: dict[str, str] = {}
    unknown = []
    for name, tensor in state_dict.items():
        found = _lookup(name, rows)
        if found is None:
            unknown.append(name)
            continue
        source, target = found
        if target is None:
            left_out[source] = (*left_out.get(source, ()), name)
        elif target in kept:
            raise FormatError(f"{origins[target]} and {name} are both the layout's {target}")
        else:
            kept[target], origins[target] = tensor, name
    if unknown:
        raise FormatError(f"names that no rule of the layout covers: {abbreviate(unknown)}")
    if not kept:
        raise FormatError(f"no backbone among the names {abbreviate(state_dict)}")
    return kept, left_out


def join_qkv(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stack `attn.query`, `attn.key`, `attn.value` of each block into timm's `attn.qkv`, in this order.

    Raises:
        FormatError: If one of the three is missing, or their shapes differ.
    """
    joined: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        match = re.fullmatch(r"(blocks\.\d+\.attn\.)(query|key|value)\.(weight|bias)", name)
        if match is None:
            joined[name] = tensor
            continue
        names = [f"{match[1]}{part}.{match[3]}" for part in ("query", "key", "value")]
        if missing := [part for part in names if part not in state_dict]:
            raise FormatError(f"incomplete attention: there is {name} but no {', '.join(missing)}")
        parts = [state_dict[part] for part in names]
        if len({part.shape for part in parts}) > 1 or tensor.ndim == 0:
            raise FormatError(f"the shapes of {', '.join(names)} differ or are empty: {[tuple(part.shape) for part in parts]}")
        joined[f"{match[1]}qkv.{match[3]}"] = torch.cat(parts)
    return joined


Row = tuple[str, re.Pattern[str], str | None]


@lru_cache(maxsize=128)
def _compiled(rows: tuple[tuple[str, str | None], ...]) -> tuple[Row, ...]:
    compiled = []
    for source, target in rows:
        pattern = re.sub(r"\\\{([ijk])\\\}", r"(?P<\1>[0-9]+)", re.escape(source.removesuffix("*")))
        rest = "(?P<rest>.+)" if source.endswith("*") else ""
        compiled.append((source, re.compile(pattern + rest), target))
    return tuple(compiled)


def _lookup(name: str, rows: tuple[Row, ...]) -> tuple[str, str | None] | None:
    """The first row that fits a name: its source, and the name's target."""
    for source, pattern, target in rows:
        if match := pattern.fullmatch(name):
            groups = match.groupdict()
            rest = groups.pop("rest", "")
            return source, None if target is None else target.removesuffix("*").format(**groups) + rest
    return None
