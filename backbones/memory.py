"""The backbone of a network in memory, such as one that is being trained: taken by its weights, as from a checkpoint of it.

The network itself is only read: it keeps its mode, its device, its gradients and its hooks' silence.

Shapes: T tokens, N patches, D channels, h x w positions.
"""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from backbones.base import Backbone
from backbones.build import build_backbone
from backbones.convert import convert_content, convert_timm_weights
from backbones.file import Source, load_strictly, prepare_weights, read_header, write_backbone_file
from backbones.foreign import weights_sha256
from backbones.layouts import Conversion, LayoutError
from backbones.layouts.keys import UnknownNetworkError
from backbones.spec import typical_image_size
from common.files import one_line

_TOLERANCE = 1e-4

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


def convert_network(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    layout_name: str | None = None,
    branch: str | None = None,
    num_heads: int | None = None,
) -> Conversion:
    """Take the backbone of a network with these weights (`weights_of`) as `convert_content` does from a checkpoint.

    The heads, which the weights do not show, are the network's own where all its blocks have the same number. A network with timm's
    `forward_features` must then compute what its conversion does, because the weights show no activation or epsilon either. Any other
    model of timm becomes timm's own network of its name.
    """
    network = unwrapped(network)
    if isinstance(network, Backbone):
        if not layout_name is branch is num_heads is None:
            raise LayoutError(f"{type(network).__name__} is a backbone of PatchBench; leave out layout, branch and num_heads")
        known = {"layout": "patchbench", "branch": "model", "dropped": {}, "epoch": -1}
        return Conversion(**known, spec=network.spec, state_dict=dict(weights))  # type: ignore[arg-type]
    try:
        conversion = convert_content(dict(weights), layout_name, branch, num_heads or _own_heads(network))
        _check_features(network, conversion)
        return conversion
    except ValueError as error:
        reason = error
    architecture = getattr(network, "pretrained_cfg", {}).get("architecture")
    if architecture is not None and layout_name is branch is num_heads is None:
        try:
            return convert_timm_weights(architecture, weights, _quiet_copy(network))
        except ValueError as error:
            # Of a network that has our names, what is wrong with it as one of ours says more.
            reason = error if isinstance(reason, UnknownNetworkError) else reason
    raise LayoutError(f"{type(network).__name__} in memory: {one_line(str(reason))}") from reason


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
    source = Source(
        format=conversion.layout, branch=conversion.branch, file_name=f"{name} in memory", sha256=digest, epoch=epoch
    )
    write_backbone_file(output, conversion.spec, source, state_dict)


def _own_heads(network: nn.Module) -> int | None:
    """The heads that the blocks state under the names of timm and DINO or of Hugging Face; None unless all have the same number."""
    names = ("num_heads", "num_attention_heads")
    stated = [getattr(module, name, None) for module in network.modules() for name in names]
    counts = {count for count in stated if type(count) is int}
    return counts.pop() if len(counts) == 1 else None


def _quiet_copy(network: nn.Module) -> Any:
    """A copy to run: evaluation mode, float32 and the CPU are not for a network that is being trained, nor are its hooks for us."""
    given = copy.deepcopy(network).cpu().float().eval()
    for module in given.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return given


@torch.no_grad()
def _check_features(network: nn.Module, conversion: Conversion) -> None:
    """ValueError if the network's own `forward_features` gives other patches than its conversion for a random image.

    The method is timm's and DINOv2's; a network that has none, or one with other outputs, stays unproved, and the log says so.
    """
    converted = build_backbone(conversion.spec).eval()
    load_strictly(converted, conversion.state_dict)
    side = typical_image_size(conversion.spec)
    images_13HW = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    expected_1ND = converted.forward_tokens(images_13HW).patches
    try:
        found = _patches(_quiet_copy(network).forward_features(images_13HW), expected_1ND.shape[-1])
    except Exception as error:  # whatever a network of somebody else's raises
        logger.info(
            "%s: not compared with its conversion, which rests on its weights alone (%r)", type(network).__name__, error
        )
        return
    found_1ND = found[:, -expected_1ND.shape[1] :]
    if found_1ND.shape != expected_1ND.shape or not torch.allclose(found_1ND, expected_1ND, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise LayoutError(f"has the weights of the {conversion.layout} layout, but computes other features with them")


def _patches(found: Any, channels: int) -> Tensor:
    """The tokens [1, T, D] in what `forward_features` returned: timm's tokens or map, or DINOv2's dictionary."""
    if isinstance(found, Mapping):
        found = found["x_norm_patchtokens"]
    if found.ndim == 4:  # [1, D, h, w] of a ResNet, [1, h, w, D] of a Swin
        found = found.flatten(2).transpose(1, 2) if found.shape[1] == channels else found.flatten(1, 2)
    tokens_1TD: Tensor = found
    return tokens_1TD
