"""Proof that a conversion computes what the network does from which its weights are: the features of one random image.

Shapes: T tokens, N patches, D channels, h x w positions.
"""

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from backbones.build import network_of
from backbones.layouts import Conversion, LayoutError
from backbones.spec import TimmSpec, typical_image_size
from common.files import one_line

_TOLERANCE = 1e-4

logger = logging.getLogger(__name__)


def own_heads(network: nn.Module) -> int | None:
    """The heads that the blocks state under the names of timm and DINO or of Hugging Face; None unless all have the same number."""
    names = ("num_heads", "num_attention_heads")
    stated = [getattr(module, name, None) for module in network.modules() for name in names]
    counts = {count for count in stated if type(count) is int}
    return counts.pop() if len(counts) == 1 else None


@torch.no_grad()
def proved(network: nn.Module, conversion: Conversion, must: bool = True) -> Conversion:
    """The conversion of the network; LayoutError if that gives other features, since weights show no activation or epsilon.

    One of our networks is compared by `forward_features`, which timm and DINOv2 have, or by the last map of its forward, and timm's
    own by the last of its maps. Unless it must be proved, a network that cannot be run so is taken by its weights alone, and the log
    says so.
    """
    spec = conversion.spec
    converted = network_of(spec, conversion.state_dict)
    side = typical_image_size(spec)
    images_13HW = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    last = [spec.num_blocks - 1]
    is_timms = isinstance(spec, TimmSpec)
    found = converted.forward_maps(images_13HW, last)[0] if is_timms else converted.forward_tokens(images_13HW).patches
    try:
        given = quiet_copy(network)
        if is_timms:
            (expected,) = given.forward_intermediates(images_13HW, indices=last, intermediates_only=True)
        else:
            expected = _patches(_features(given, images_13HW), *found.shape[1:])
    except Exception as error:  # whatever a network of somebody else's raises
        name = type(network).__name__
        if must:
            raise LayoutError(f"the features of {name} cannot be compared: {one_line(repr(error), 200)}") from error
        logger.info("%s: not compared with its conversion, which rests on its weights alone (%r)", name, error)
        return conversion
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise LayoutError(f"has the weights of the {conversion.source.format} layout, but computes other features with them")
    return conversion


def quiet_copy(network: nn.Module) -> Any:
    """A copy to run: evaluation mode, float32 and the CPU are not for a network that is being trained, nor are its hooks for us."""
    given = copy.deepcopy(network).cpu().float().eval()
    for module in given.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return given


def _features(network: Any, images_13HW: Tensor) -> Any:
    if hasattr(network, "forward_features"):
        return network.forward_features(images_13HW)
    found = network(images_13HW)
    last = found[-1] if isinstance(found, list | tuple) else found
    if last.ndim != 4:
        raise TypeError("its forward gives no map")
    return last


def _patches(found: Any, count: int, channels: int) -> Tensor:
    """The patches [1, N, D] in what `forward_features` returned: timm's tokens or map, or DINOv2's dictionary."""
    if isinstance(found, Mapping):
        found = found["x_norm_patchtokens"]
    if found.ndim == 4:  # [1, D, h, w] of a ResNet, [1, h, w, D] of a Swin
        found = found.flatten(2).transpose(1, 2) if found.shape[1] == channels else found.flatten(1, 2)
    tokens_1TD: Tensor = found
    return tokens_1TD[:, -count:]
