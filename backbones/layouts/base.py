"""What a published checkpoint layout is, and how its table takes the backbone out of a checkpoint.

A layout is one `Layout` in the `LAYOUTS` of a module of this package. These modules load torch only where they use it, so that a
command's `--help` can list the layouts at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from backbones.layouts.architecture import PUBLISHED_HEADS, complete_backbone
from backbones.layouts.keys import KeyTable, LayoutError, UnknownNetworkError, Weights, apply_table, nested, own_keys, under
from backbones.spec import DINOV3_PERIODS, BackboneSpec, DINOv3Spec, PlainViTSpec, ViTSpec

if TYPE_CHECKING:
    from torch import Tensor

NOT_STATED = "not stated"
_MOST_EPOCHS = 10**9
# Which averaged models hold: torch's, latent diffusion's, mmengine's.
_COUNTERS = ("n_averaged", "decay", "num_updates", "steps")
_DINOV3_EPSILON = 1e-5  # that of all released models
# Where the number of completed epochs may be: PyTorch Lightning's, most authors', OpenMMLab's, VISSL's.
_EPOCHS = ("loops/fit_loop/epoch_progress/current/processed", "epoch", "meta/epoch", "phase_idx")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the weights of a backbone come from."""

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

    def convert(self, checkpoint: Any, network: Network, branch: str, num_heads: int | None) -> Conversion:
        """Take a network that was found in the checkpoint; ValueError if its content does not fit.

        Every tensor behind the prefix is taken or dropped by a rule. What lies beside it is listed by its first different part.
        """
        naming, prefix = network.naming, network.prefix
        if naming.refusal:
            raise UnknownNetworkError(naming.refusal)
        inside = {name: tensor for name, tensor in network.group.items() if name.startswith(prefix)}
        keys = naming.keys or own_keys(network.weights)
        drops = dict.fromkeys((*_COUNTERS, *naming.drops, *self.drops))
        try:
            taken: Weights
            taken, dropped = apply_table(inside, nested(prefix, "", {**drops, **keys}))
            for step in naming.steps:
                taken = step(taken)
            masks = {name: tensor for name, tensor in inside.items() if name.endswith("attn_mask")}
            heads_of = self.heads or naming.heads
            stated = heads_of(checkpoint) if num_heads is None and heads_of is not None else num_heads
            hides_heads = DINOV3_PERIODS not in taken
            spec, taken = complete_backbone(taken, stated, masks)
            config = entry_at(checkpoint, "config") if naming.heads else None
            spec = _as_configured(spec, config) if isinstance(config, Mapping) else spec
        except KeyError as error:
            raise LayoutError(f"incomplete checkpoint, it has no {error}") from error
        is_unusual = isinstance(spec, PlainViTSpec) and spec.embed_dim not in PUBLISHED_HEADS[type(spec)]
        # Only a network that pools its patches has a CLS token and no final norm, and then it has timm's fc_norm.
        is_pooled = f"{prefix}fc_norm.*" in dropped
        if isinstance(spec, ViTSpec) and spec.class_token and not spec.final_norm and not is_pooled:
            raise LayoutError("incomplete checkpoint, it has neither norm.weight nor fc_norm.weight (timm's names)")
        epochs = (stated_epoch(checkpoint, path) for path in _EPOCHS)
        epoch = next((epoch for epoch in epochs if epoch >= 0), -1)
        if self.epoch_is_index and epoch >= 0:
            epoch += 1
        return Conversion(
            source=Source(format=self.name, branch=branch, epoch=epoch),
            spec=spec,
            state_dict=dict(taken),
            dropped=dropped,
            heads_assumed=stated is None and hides_heads and is_unusual,
        )


def _as_configured(spec: BackboneSpec, config: Mapping[str, Any]) -> BackboneSpec:
    """The spec with the epsilon that a configuration of Hugging Face's states; LayoutError for what our networks cannot have."""
    epsilon, activation = config.get("layer_norm_eps"), config.get("hidden_act", "gelu")
    usual = _DINOV3_EPSILON if isinstance(spec, DINOv3Spec) else spec.norm_epsilon if isinstance(spec, ViTSpec) else None
    is_plain = isinstance(spec, (ViTSpec, DINOv3Spec)) and spec.mlp == "gelu"
    if type(epsilon) not in (float, type(None)) or (is_plain and activation != "gelu"):
        raise LayoutError(f"config.json: our {spec.family} has no layer_norm_eps={epsilon} or hidden_act={activation}")
    if epsilon in (None, usual):
        return spec
    if not isinstance(spec, ViTSpec):
        raise LayoutError(f"config.json: our {spec.family} has an epsilon of {usual}, not {epsilon}")
    return replace(spec, norm_epsilon=epsilon)


def is_state_dict(value: Any) -> TypeGuard[Weights]:
    """Whether this is a non-empty mapping from names to tensors."""
    from torch import Tensor

    is_filled = isinstance(value, Mapping) and len(value) > 0
    return is_filled and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())


def state_dict_at(checkpoint: Any, path: str) -> Weights:
    """The state dict at a path of keys joined by `/`; the empty path means the checkpoint itself. Empty where there is none."""
    found = entry_at(checkpoint, path)
    return found if is_state_dict(found) else {}


def stated_epoch(checkpoint: Any, path: str) -> int:
    """The number of epochs at a path of keys, -1 where there is none."""
    import numpy as np
    from torch import Tensor

    epoch: Any = -1 if is_state_dict(checkpoint) else entry_at(checkpoint, path)
    if isinstance(epoch, (Tensor, np.generic)) and math.prod(epoch.shape) == 1:
        epoch = epoch.item()
    return int(epoch) if type(epoch) in (int, float) and 0 <= epoch < _MOST_EPOCHS else -1


def entry_at(node: Any, path: str) -> Any:
    for key in path.split("/") if path else ():
        node = node.get(key) if isinstance(node, Mapping) else None
    return node
