"""A pretrained model by its name in timm: `timm:vit_small_patch16_224.dino`.

Only models whose network is one of ours are taken, and that is proved for each: on the same random image the converted backbone must
give timm's own features.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from backbones.build import build_backbone
from backbones.file import TIMM_PREFIX, load_strictly
from backbones.layouts import FORMATS, Conversion, FormatError, abbreviate
from backbones.layouts.architecture import refuse_num_heads
from backbones.spec import ResNetSpec, SwinSpec, typical_image_size

FEATURE_TOLERANCE = 1e-4
_SEED = 0


def convert_timm_model(
    source: Path, num_heads: int | None = None, create: Callable[..., nn.Module] = timm.create_model
) -> Conversion:
    """Fetch a pretrained model `timm:NAME` through timm's factory `create`, and take its backbone.

    Raises:
        FormatError: If timm has no such model or no weights for it, they cannot be fetched, the network is none of ours, or
            `num_heads` is not the model's own.
    """
    name = os.fspath(source).removeprefix(TIMM_PREFIX)
    if not timm.is_model(name) or not timm.is_model_pretrained(name):
        similar = timm.list_pretrained(f"{name.split('.')[0]}*") if name else []
        raise FormatError(f"timm has no pretrained model {name!r}; of a similar name: {abbreviate(similar) or 'none'}")
    try:
        model = create(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FormatError(f"timm cannot fetch the weights of {name} ({reason}); check the network") from error
    return convert_timm_module(model, num_heads)


def convert_timm_module(model: Any, num_heads: int | None = None) -> Conversion:
    """Take the backbone of a timm model, which is switched to evaluation mode, and prove it by its features.

    Raises:
        FormatError: If its names, numbers or features are not those of a backbone of ours, or `num_heads` is not its own.
    """
    weights = model.state_dict()
    layout = next((FORMATS[name] for name in ("timm", "timm_dinov3") if FORMATS[name].matches(weights)), None)
    if layout is None:
        raise FormatError(f"timm's {type(model).__name__} is none of the supported families (ViT, DINOv3's ViT, Swin, ResNet)")
    # All blocks of a ViT have the same number; a Swin's weights show theirs.
    own_heads = model.blocks[0].attn.num_heads if hasattr(model, "blocks") else None
    if own_heads is None:
        refuse_num_heads(num_heads)
    elif num_heads not in (None, own_heads):
        raise FormatError(f"--num-heads {num_heads} contradicts the model, which has {own_heads}")
    conversion = layout.convert(weights, num_heads=own_heads)
    if isinstance(conversion.spec, SwinSpec):
        spec = dataclasses.replace(conversion.spec, image_size=model.patch_embed.img_size[0])
        conversion = dataclasses.replace(conversion, spec=spec)
    _prove(model, conversion)
    return conversion


@torch.no_grad()
def _prove(model: Any, conversion: Conversion) -> None:
    """Compare features, at the stored grid where there is one, so that no positions are resampled."""
    spec = conversion.spec
    network = build_backbone(spec).eval()
    load_strictly(network, conversion.state_dict)
    side = typical_image_size(spec)
    images_13HW = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(_SEED))
    found_1ND = network.forward_tokens(images_13HW).patches
    expected_1ND = _as_tokens(model.eval().forward_features(images_13HW), spec)[:, -found_1ND.shape[1] :]
    if found_1ND.shape != expected_1ND.shape or not torch.allclose(
        found_1ND, expected_1ND, atol=FEATURE_TOLERANCE, rtol=FEATURE_TOLERANCE
    ):
        raise FormatError(f"timm's {type(model).__name__} computes other features than our {spec.family} with its weights")


def _as_tokens(features: Tensor, spec: object) -> Tensor:
    """Timm's features of any family as [B, N, D]: a Swin gives [B, h, w, D], a ResNet [B, D, h, w]."""
    if isinstance(spec, SwinSpec):
        return features.flatten(1, 2)
    if isinstance(spec, ResNetSpec):
        return features.flatten(2).transpose(1, 2)
    return features
