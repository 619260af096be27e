"""What a published checkpoint layout is, and what is said of the backbone that is taken from a checkpoint.

A layout is one `Layout` in the `LAYOUTS` of a module of this package. These modules load torch only where they use it, so that a
command's `--help` can list the layouts at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from backbones.layouts.keys import KeyTable, Weights, under
from backbones.spec import BackboneSpec

if TYPE_CHECKING:
    from torch import Tensor

NOT_STATED = "not stated"
_MOST_EPOCHS = 10**9
_LONGEST_TEXT = 1000
# Where the number of completed epochs may be: PyTorch Lightning's, most authors', OpenMMLab's, VISSL's.
_EPOCHS = ("loops/fit_loop/epoch_progress/current/processed", "epoch", "meta/epoch", "phase_idx")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the weights of a backbone come from; ValueError for a field that no backbone file could hold."""

    format: str  # Name of the checkpoint layout, as in `LAYOUTS`.
    branch: str  # Which of the checkpoint's networks was taken, such as `teacher`.
    file_name: str = ""  # Name of the checkpoint file, without its folder.
    sha256: str = ""  # Digest of the checkpoint file.
    epoch: int = -1  # Completed epochs; like the seed -1 where the checkpoint states none.
    recipe_sha256: str = ""
    """Digest of the pretraining's settings apart from its seed; empty where the checkpoint states none (all but PatchBench's own)."""
    seed: int = -1
    recipe: str = ""  # Name of the pretraining's recipe; like the next two, only PatchBench's own checkpoints state it.
    pretraining_data: str = ""  # The last two parts of the path of the images, such as `imagenet/train`.
    log: str = ""  # Path of the pretraining's log, as its command named the folder.

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in ("epoch", "seed"):
                if type(value) is not int or not -1 <= value < 2**64:
                    raise ValueError(f"{name} of the source is not a count")
            elif type(value) is not str or not value.isprintable() or len(value) > _LONGEST_TEXT:
                raise ValueError(f"{name} of the source is not a usual text")
            elif "sha256" in name and not re.fullmatch("[0-9a-f]{64}|", value):
                raise ValueError(f"{name} of the source is not a digest")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A checkpoint's backbone under timm's names. The name and the digest of its file are known only when it is written."""

    source: Source
    spec: BackboneSpec
    state_dict: dict[str, Tensor]
    dropped: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names that are left out on purpose (heads, other branches), by the rule that says so, such as `head.*`."""
    branch_reason: str = ""  # Why this branch was taken where the checkpoint holds several and nobody chose.
    heads_assumed: bool = False  # Whether nobody stated the number of heads, and it is not the published one of this width.


class Network(NamedTuple):
    """Where in a checkpoint a network lies."""

    naming: Layout  # The layout whose names its tensors have.
    path: str  # The keys of the nested dictionaries, joined by `/`.
    prefix: str  # What stands before each of its names.
    group: Weights  # All tensors at the path.

    @property
    def place(self) -> str:
        return f"{self.path}/{self.prefix}" if self.path else self.prefix

    @property
    def weights(self) -> Weights:
        """Its tensors, by their names without the prefix."""
        return under(self.group, self.prefix)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A published checkpoint layout: how to recognise it, and how to take its backbone.

    Without a `place` it is a way of naming a network's tensors, and found wherever a complete network lies. With one it says what
    an author's file around a network in timm's naming means.
    """

    name: str  # What `--format` calls it.
    branches: tuple[str, ...] = ("model",)  # The networks in it that can be taken, the default first.
    licence: str = NOT_STATED  # Of published weights in this layout, as their authors state it.
    place: str | None = None
    """Where the network is: the keys of nested dictionaries, joined by `/`, and after the last `/` what stands before each of its
    names, without the wrappers of torch. `{branch}` stands for the wanted branch."""
    marks: tuple[AbstractSet[str], ...] = ()
    """Groups of the network's names: the layout is recognised by all the names of one group. Without any: by its place alone."""
    also: Callable[[Any], bool] | None = None  # What else must be true of the checkpoint.
    specialises: tuple[str, ...] = ()  # Layouts whose marks this one bears, too. Where both are recognised, this one is meant.
    keys: KeyTable | None = None
    """The backbone's names behind the prefix; None where they are timm's, torchvision's or Swin's own."""
    drops: tuple[str, ...] = ()
    """What else lies behind the prefix, or with a place beside it, and is left out on purpose; written as the sources of `keys`."""
    steps: tuple[Callable[[Weights], Weights], ...] = ()
    """What else turns the renamed weights into timm's, such as joining queries, keys and values."""
    heads: Callable[[Any], int | None] | None = None
    """The number of heads that the checkpoint states; LayoutError if it is needed."""
    refusal: str = ""  # Why no network of this layout can be taken.
    epoch_is_index: bool = False  # Whether the stated epoch is the index of the last one, counted from 0.

    def bears_marks(self, names: AbstractSet[str]) -> bool:
        return not self.marks or any(group <= names for group in self.marks)


def is_state_dict(value: Any) -> TypeGuard[Weights]:
    """Whether this is a non-empty mapping from names to tensors."""
    from torch import Tensor

    is_filled = isinstance(value, Mapping) and len(value) > 0
    return is_filled and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())


def state_dict_at(checkpoint: Any, path: str) -> Weights:
    """The state dict at a path of keys joined by `/`; the empty path means the checkpoint itself. Empty where there is none."""
    found = entry_at(checkpoint, path)
    return found if is_state_dict(found) else {}


def stated_epoch(checkpoint: Any) -> int:
    """The number of epochs that a checkpoint states, -1 where there is none."""
    import numpy as np
    from torch import Tensor

    for path in () if is_state_dict(checkpoint) else _EPOCHS:
        epoch = entry_at(checkpoint, path)
        if isinstance(epoch, (Tensor, np.generic)) and math.prod(epoch.shape) == 1:
            epoch = epoch.item()
        if type(epoch) in (int, float) and 0 <= epoch < _MOST_EPOCHS:
            return int(epoch)
    return -1


def entry_at(node: Any, path: str) -> Any:
    for key in path.split("/") if path else ():
        node = node.get(key) if isinstance(node, Mapping) else None
    return node
