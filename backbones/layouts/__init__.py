"""Published checkpoint layouts as tables, which of them a checkpoint has, and how its table takes the backbone out of it.

To add a layout, put a `Layout` into the `LAYOUTS` of the module that it fits best. A new module also goes into `LAYOUTS` below.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from backbones.layouts import authors, dinov2, dinov3, libraries, patchbench
from backbones.layouts.architecture import PUBLISHED_HEADS, complete_backbone
from backbones.layouts.base import Conversion, Layout, Network, Source, entry_at, stated_epoch
from backbones.layouts.keys import LayoutError, UnknownNetworkError, Weights, abbreviate, apply_table, nested, own_keys
from backbones.layouts.search import beside, choose, find_networks, groups, most_special
from backbones.spec import DINOV3_PERIODS, BackboneSpec, DINOv3Spec, PlainViTSpec, ViTSpec

__all__ = ["LAYOUTS", "NAMINGS", "Conversion", "Layout", "LayoutError", "abbreviate", "convert"]

LAYOUTS: dict[str, Layout] = {
    layout.name: layout for module in (patchbench, authors, dinov2, dinov3, libraries) for layout in module.LAYOUTS
}
"""Every known layout by name."""
NAMINGS = [layout for layout in LAYOUTS.values() if layout.marks and layout.place is None]
"""Those that say how the tensors of a network are called."""

_GROUPS_SHOWN = 3
# Which averaged models hold: torch's, latent diffusion's, mmengine's.
_COUNTERS = ("n_averaged", "decay", "num_updates", "steps")
_DINOV3_EPSILON = 1e-5  # that of all released models


def layouts_of(checkpoint: Any, networks: list[Network]) -> list[Layout]:
    """The layouts that a checkpoint with these networks may have, without those that another one of them specialises.

    Where an author's file is recognised, the namings of its networks are not a choice.
    """
    in_files = [network for network in networks if network.naming.name in ("timm", "mmpretrain")]  # the names that authors have
    files = []
    for layout in LAYOUTS.values():
        if layout.place is None or (layout.also is not None and not layout.also(checkpoint)):
            continue
        place = layout.place.replace("{branch}", layout.branches[0])
        if any(network.place == place and layout.bears_marks(network.weights.keys()) for network in in_files):
            files.append(layout)
    return most_special(files) or list({network.naming.name: network.naming for network in networks}.values())


def convert(checkpoint: Any, layout_name: str | None, branch: str | None, num_heads: int | None) -> Conversion:
    """Take the backbone of a loaded checkpoint; ValueError if it is of no known layout, of several, or does not fit.

    Its names are those that `search.in_plain_names` gives.
    """
    if layout_name not in (None, *LAYOUTS):
        raise LayoutError(f"unknown layout {layout_name!r}; known: {', '.join(LAYOUTS)}")
    if patchbench.is_own_checkpoint(checkpoint) and layout_name in (None, patchbench.PATCHBENCH.name):
        try:
            return patchbench.convert(checkpoint, branch, num_heads)
        except KeyError as error:
            raise LayoutError(f"incomplete checkpoint, it has no {error}") from error
    networks = find_networks(checkpoint, NAMINGS)
    layouts = layouts_of(checkpoint, networks)
    layout = identify(checkpoint, layouts) if layout_name is None else LAYOUTS[layout_name]
    if layout not in layouts:
        raise LayoutError(f"not in the {layout.name} layout; the checkpoint holds {describe(checkpoint)}")
    if layout.place is None:
        network, branch, reason = choose(checkpoint, [network for network in networks if network.naming == layout], branch)
    else:
        branch, reason = branch or layout.branches[0], ""
        network = _network_of(branch, layout, networks)
    found = _take(layout, checkpoint, network, branch, num_heads)
    others = beside(checkpoint, network, networks, layout.drops)
    return replace(found, dropped={**found.dropped, **others}, branch_reason=reason)


def _network_of(branch: str, layout: Layout, networks: list[Network]) -> Network:
    if branch not in layout.branches:
        raise LayoutError(f"the {layout.name} layout has no branch {branch!r}; it has {', '.join(layout.branches)}")
    place = (layout.place or "").replace("{branch}", branch)
    for network in networks:
        if network.place == place:
            return network
    raise LayoutError(f"incomplete checkpoint, it has no {branch} in the {layout.name} layout")


def _take(layout: Layout, checkpoint: Any, network: Network, branch: str, num_heads: int | None) -> Conversion:
    """Take a network that was found in the checkpoint; ValueError if its content does not fit.

    Every tensor behind the prefix is taken or dropped by a rule. What lies beside it is listed by its first different part.
    """
    naming, prefix = network.naming, network.prefix
    if naming.refusal:
        raise UnknownNetworkError(naming.refusal)
    inside = {name: tensor for name, tensor in network.group.items() if name.startswith(prefix)}
    keys = naming.keys or own_keys(network.weights)
    drops = dict.fromkeys((*_COUNTERS, *naming.drops, *layout.drops))
    try:
        taken: Weights
        taken, dropped = apply_table(inside, nested(prefix, "", {**drops, **keys}))
        for step in naming.steps:
            taken = step(taken)
        masks = {name: tensor for name, tensor in inside.items() if name.endswith("attn_mask")}
        heads_of = layout.heads or naming.heads
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
    epoch = stated_epoch(checkpoint)
    if layout.epoch_is_index and epoch >= 0:
        epoch += 1
    return Conversion(
        source=Source(format=layout.name, branch=branch, epoch=epoch),
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


def identify(checkpoint: Any, layouts: list[Layout]) -> Layout:
    """The only one of the layouts; else LayoutError, with what the checkpoint holds."""
    if len(layouts) == 1:
        return layouts[0]
    holds = f"the checkpoint holds {describe(checkpoint)}"
    if layouts:
        names = [layout.name for layout in layouts]
        hints = [("--format", name) for name in names]
        raise LayoutError(f"several layouts match: {', '.join(names)}; choose one with --format; {holds}", hints)
    raise UnknownNetworkError(f"no known layout matches; {holds}")


def describe(checkpoint: Any) -> str:
    """Top-level keys, and a sample of the names in each group of weights below them."""
    if not isinstance(checkpoint, Mapping):
        return f"a {type(checkpoint).__name__}"
    if not checkpoint:
        return "nothing"
    samples = (
        f"in {abbreviate([path])}: {abbreviate(map(str, node), 4)}"
        for path, node in groups(checkpoint)
        if path and not any(isinstance(value, Mapping) for value in node.values())
    )
    return "; ".join([f"the top-level keys {abbreviate(map(str, checkpoint), 8)}", *islice(samples, _GROUPS_SHOWN)])
