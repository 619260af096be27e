"""A plain state dict with timm's names: timm itself, torchvision's ResNets, DINO's and iBOT's released backbones, MAE's encoder.

Bare, or under `state_dict` or `model`. Classifiers are dropped, and so is `fc_norm`, which follows the pooling. DetCo's and
DenseCL's published ResNets and Microsoft's Swin transformers are such files too.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, FormatError, is_state_dict, stated_epoch, weights_under
from backbones.formats.keys import dropped
from backbones.spec import ViTSpec

NAME = "timm"
TYPICAL = "blocks.0.attn.qkv.weight"
BRANCHES = ("model",)
LICENCE = "not stated"  # many sources share these names
_DROPS = dropped("head.*", "fc.*", "fc_norm.*", "masked_embed")
_VIT = {"pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"}
_SWIN = {"patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table"}
_RESNET = {"conv1.weight", "layer1.0.conv3.weight"}
# Layouts of their own that share timm's block names: DINOv2, MAE with its decoder.
_OTHERS = {"mask_token", "register_tokens", "decoder_embed.weight"}


def matches(checkpoint: Any) -> bool:
    """Whether the names are those of one of the three families, without any prefix."""
    names = set(_weights(checkpoint))
    return not names & _OTHERS and any(family <= names for family in (_VIT, _SWIN, _RESNET))


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    weights = _weights(checkpoint)
    taken = take_backbone(weights, "", _DROPS, num_heads)
    spec = taken.spec
    # Only a network that pools its patches has a CLS token and no final norm, and then it has fc_norm.
    if isinstance(spec, ViTSpec) and spec.class_token and not spec.final_norm and "fc_norm.weight" not in weights:
        raise FormatError("incomplete checkpoint, it has neither norm.weight nor fc_norm.weight")
    return Conversion(
        format=NAME,
        branch=branch,
        spec=spec,
        state_dict=taken.state_dict,
        dropped=taken.dropped,
        epoch=stated_epoch(checkpoint) if "epoch" in checkpoint and not is_state_dict(checkpoint) else -1,
    )


def _weights(checkpoint: Any) -> Mapping[str, Tensor]:
    return weights_under(checkpoint, "", "state_dict", "model")
