"""What a published checkpoint layout is, and how its table takes the backbone out of a checkpoint.

A layout is one `Layout` in the `LAYOUTS` of a module of this package. These modules load torch only where they use it, so that a
command's `--help` can list the layouts at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from backbones.layouts.architecture import complete_backbone
from backbones.layouts.keys import KeyTable, LayoutError, Weights, apply_table, nested, own_keys
from backbones.spec import BackboneSpec, ViTSpec

if TYPE_CHECKING:
    from torch import Tensor

NOT_STATED = "not stated"
_MOST_EPOCHS = 10**9


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A checkpoint's backbone under timm's names. The fields from the epoch on are as in `backbones.file.Source`."""

    layout: str
    branch: str
    spec: BackboneSpec
    state_dict: dict[str, Tensor]
    dropped: dict[str, tuple[str, ...]]
    """Names that the layout leaves out on purpose (heads, other branches), by the rule that says so, such as `head.*`."""
    epoch: int
    recipe_sha256: str = ""
    seed: int = -1
    recipe: str = ""
    pretraining_data: str = ""
    log: str = ""


def convert_by_table(layout: Layout, checkpoint: Any, branch: str | None, num_heads: int | None) -> Conversion:
    """Take a branch's backbone as the layout's table says; see `Layout.converter`."""
    branch = branch or layout.branches[0]
    other = next((name for name in layout.branches if name != branch), "")
    found = layout.find(checkpoint, branch)
    if found is None:
        raise LayoutError(f"incomplete checkpoint, it has no {branch} in the {layout.name} layout")
    weights, prefix = found
    keys = layout.keys or own_keys({name.removeprefix(prefix) for name in weights if name.startswith(prefix)})
    drops = dict.fromkeys(row.replace("{branch}", branch).replace("{other}", other) for row in layout.drops)
    taken: Weights
    taken, dropped = apply_table(weights, {**drops, **nested(prefix, "", keys)})
    for step in layout.steps:
        taken = step(taken)
    masks = {name: tensor for name, tensor in weights.items() if name.startswith(prefix) and name.endswith("attn_mask")}
    spec, taken = complete_backbone(taken, num_heads, masks)
    # Only a network that pools its patches has a CLS token and no final norm, and then it has timm's fc_norm.
    if isinstance(spec, ViTSpec) and spec.class_token and not spec.final_norm and "fc_norm.*" not in dropped:
        raise LayoutError("incomplete checkpoint, it has neither norm.weight nor fc_norm.weight (timm's names)")
    epoch = stated_epoch(checkpoint, layout.epoch_at)
    if epoch >= 0 and layout.epoch_is_index:
        epoch += 1
    return Conversion(layout=layout.name, branch=branch, spec=spec, state_dict=dict(taken), dropped=dropped, epoch=epoch)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A published checkpoint layout: how to recognise it, and how to take its backbone."""

    name: str  # What `--format` calls it.
    typical: str  # One path that no other layout has, such as `teacher/backbone.cls_token`; error messages show it.
    branches: tuple[str, ...] = ("model",)  # The networks in it that can be taken, the default first.
    licence: str = NOT_STATED  # Of published weights in this layout, as their authors state it.
    weights_at: tuple[str, ...]
    """Where the weights may be: the keys of nested dictionaries, joined by `/`, and after the last `/` what stands before each of the
    backbone's names. The first place that bears one of the marks counts. `{branch}` stands for the wanted branch."""
    marks: tuple[AbstractSet[str], ...] = ()
    """Groups of the backbone's names: the layout is recognised by all the names of one group. Without any: by `also` alone."""
    lacks: AbstractSet[str] = frozenset()  # Names of a backbone that is not of this layout, although it bears a mark.
    also: Callable[[Any], bool] | None = None  # What else must be true of the checkpoint.
    specialises: tuple[str, ...] = ()  # Layouts whose marks this one bears, too. Where both are recognised, this one is meant.
    keys: KeyTable | None = None
    """The backbone's names behind the prefix; None where they are timm's, torchvision's or Swin's own."""
    drops: tuple[str, ...] = ()
    """What else a branch's dictionary holds and is left out on purpose, written as the sources of `keys` are, and looked at first.
    `{branch}` stands for the wanted branch, `{other}` for the other one."""
    steps: tuple[Callable[[Weights], Weights], ...] = ()
    """What else turns the renamed weights into timm's, such as joining queries, keys and values."""
    epoch_at: str = "epoch"  # Path of the number of completed epochs.
    epoch_is_index: bool = False  # Whether that number is the index of the last epoch, counted from 0.
    converter: Callable[[Layout, Any, str | None, int | None], Conversion] = convert_by_table
    """Takes a branch's backbone: gets the layout, the checkpoint, the branch (None for the default) and `--num-heads`."""

    def matches(self, checkpoint: Any) -> bool:
        """Whether a checkpoint bears this layout's marks; it may be of one that specialises it."""
        is_found = not self.marks or self.find(checkpoint, self.branches[0]) is not None
        return is_found and (self.also is None or self.also(checkpoint))

    def convert(self, checkpoint: Any, branch: str | None = None, num_heads: int | None = None) -> Conversion:
        """Take the backbone of a checkpoint in this layout; ValueError if its content does not fit.

        The default branch is the one behind the published numbers, the default heads what the layout or 64 channels per head say.
        """
        if branch is not None and branch not in self.branches:
            raise LayoutError(f"the {self.name} layout has no branch {branch!r}; it has {', '.join(self.branches)}")
        try:
            return self.converter(self, checkpoint, branch, num_heads)
        except KeyError as error:
            raise LayoutError(f"incomplete checkpoint, it has no {error}") from error

    def find(self, checkpoint: Any, branch: str) -> tuple[Weights, str] | None:
        """The dictionary that holds a branch, and the prefix of the backbone's names in it; None where there is none."""
        for place in self.weights_at:
            path, _, prefix = place.replace("{branch}", branch).rpartition("/")
            weights = state_dict_at(checkpoint, path)
            names = {name.removeprefix(prefix) for name in weights if name.startswith(prefix)}
            is_marked = any(group <= names for group in self.marks) and not names & self.lacks
            if is_marked or (names and not self.marks):
                return weights, prefix
        return None


def is_state_dict(value: Any) -> TypeGuard[Weights]:
    """Whether this is a non-empty mapping from names to tensors."""
    from torch import Tensor

    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())


def state_dict_at(checkpoint: Any, path: str) -> Weights:
    """The state dict at a path of keys joined by `/`; the empty path means the checkpoint itself. Empty where there is none.

    A checkpoint with an entry `format` is PatchBench's own and not in any other author's layout.
    """
    if isinstance(checkpoint, Mapping) and "format" in checkpoint:
        return {}
    found = _entry(checkpoint, path)
    return found if is_state_dict(found) else {}


def stated_epoch(checkpoint: Any, path: str) -> int:
    """The number of epochs at a path of keys, -1 where there is none."""
    import numpy as np
    from torch import Tensor

    epoch: Any = -1 if is_state_dict(checkpoint) else _entry(checkpoint, path)
    if isinstance(epoch, (Tensor, np.generic)) and math.prod(epoch.shape) == 1:
        epoch = epoch.item()
    return int(epoch) if type(epoch) in (int, float) and 0 <= epoch < _MOST_EPOCHS else -1


def _entry(node: Any, path: str) -> Any:
    for key in path.split("/") if path else ():
        node = node.get(key) if isinstance(node, Mapping) else None
    return node
