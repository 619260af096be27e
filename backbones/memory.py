"""The backbone of a network in memory, such as one that is being trained: taken by its weights, as from a checkpoint, or copied.

The network itself is only read: it keeps its mode, its device, its gradients and its hooks' silence.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

from backbones.base import Backbone
from backbones.convert import UNCHOSEN, Selection, convert_content, convert_timm_weights
from backbones.file import prepare_weights, read_backbone_file, read_header, write_backbone_file
from backbones.foreign import has_own_methods, held_networks, weights_sha256
from backbones.layouts import Conversion, LayoutError
from backbones.layouts.base import Source
from backbones.layouts.keys import UnknownNetworkError
from backbones.proof import own_heads, proved, quiet_copy
from common.files import one_line

logger = logging.getLogger(__name__)


class OtherWeightsError(ValueError):
    """A backbone file that is there already holds other weights than those that were to be written."""


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel, DataParallel and torch.compile, in any order."""
    while True:
        if isinstance(network, nn.parallel.DistributedDataParallel | nn.DataParallel):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        else:
            return network


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The weights on the CPU, also of a network that FSDP shards; where there are several processes, all call it.

    Of these, only the first is certain to get them; what the others get may be empty.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Any] = get_model_state_dict(unwrapped(network), options=options)
    return weights


def convert_network(network: nn.Module, weights: Mapping[str, Tensor], chosen: Selection = UNCHOSEN) -> Conversion:
    """Take the backbone of a network with these weights (`weights_of`) as `convert_content` does from a checkpoint.

    The heads, which the weights do not show, are the network's own where all its blocks have the same number. It must then compute
    what its conversion does. Any other model of timm becomes timm's own network of its name. What is none of these is a network of
    an own architecture, whose spec is a function's under the name of its class; `held_network` lets the tasks have it.
    """
    network = unwrapped(network)
    by_itself = chosen == UNCHOSEN
    if isinstance(network, Backbone):
        if not by_itself:
            raise LayoutError(f"{type(network).__name__} is a backbone of PatchBench; leave out layout, branch and num_heads")
        return Conversion(source=Source(format="patchbench", branch="model"), spec=network.spec, state_dict=dict(weights))
    if by_itself and has_own_methods(network):
        return _convert_own(network)
    try:
        with_heads = replace(chosen, num_heads=chosen.num_heads or own_heads(network))
        return proved(network, convert_content(dict(weights), with_heads), must=False)
    except ValueError as error:
        reason = error
    architecture = getattr(network, "pretrained_cfg", {}).get("architecture")
    if architecture is not None and by_itself and hasattr(network, "forward_intermediates"):
        try:
            return proved(network, convert_timm_weights(architecture, weights))
        except ValueError as error:
            # Of a network that has our names, what is wrong with it as one of ours says more.
            reason = error if isinstance(reason, UnknownNetworkError) else reason
    message = f"{type(network).__name__} in memory: {one_line(str(reason))}"
    if not by_itself:
        raise LayoutError(message) from reason
    try:
        own = _convert_own(network)
    except ValueError as error:
        raise LayoutError(f"{message}; and it is no network of an own architecture: {one_line(str(error))}") from reason
    if not isinstance(reason, UnknownNetworkError):
        logger.warning(
            "%s; so it is taken by the maps of its forward; to evaluate a known network in it, give that part", message
        )
    return own


def _convert_own(network: nn.Module) -> Conversion:
    """A network of an own architecture; ValueError if it cannot be copied or gives no maps."""
    with held_network(network) as reference:
        content = read_backbone_file(Path(reference))
    return Conversion(source=content.source, spec=content.spec, state_dict=content.state_dict)


@contextmanager
def held_network(network: nn.Module, epoch: int = -1, weights: Mapping[str, Tensor] | None = None) -> Iterator[str]:
    """Let tasks of this process take a copy of a network by the name of its class, `module:Class`, in place of a function's.

    `weights` are those of the first process, where there are several. ValueError if the network cannot be copied.
    """
    network = unwrapped(network)
    kind = type(network)
    advice = "give a function that returns the network, package.module:build"
    if any(isinstance(value, DTensor) for value in network.parameters()):
        raise ValueError(
            f"{kind.__name__}: FSDP has sharded it, and an own architecture can be copied only as a whole; {advice}"
        )
    try:
        given = quiet_copy(network)
    except Exception as error:  # whatever a network of somebody else's raises
        raise ValueError(f"{kind.__name__}: it cannot be copied ({one_line(repr(error), 200)}); {advice}") from error
    if weights is not None:
        given.load_state_dict(dict(weights))
    reference = f"{kind.__module__}:{kind.__name__}"
    held_networks[reference] = given, epoch
    try:
        yield reference
    finally:
        del held_networks[reference]


def write_network(conversion: Conversion, name: str, epoch: int, output: Path) -> None:
    """Write a backbone file of `convert_network`'s; one of the same weights stays, OtherWeightsError for one of others."""
    state_dict = prepare_weights(conversion.spec, conversion.state_dict)
    digest = weights_sha256(state_dict)
    if output.exists():
        spec, source = read_header(output)
        if (spec, source.sha256) != (conversion.spec, digest):
            advice = f"choose another output, or remove {output.parent}"
            raise OtherWeightsError(f"{output} holds other weights than this network; {advice}")
        return
    source = replace(conversion.source, file_name=f"{name} in memory", sha256=digest, epoch=epoch)
    write_backbone_file(output, conversion.spec, source, state_dict)
