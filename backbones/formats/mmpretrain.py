"""ViTs and ResNets of mmpretrain, mmselfsup and mmcls (mmpretrain/models/backbones/vision_transformer.py, resnet.py).

`{meta, state_dict}` with `backbone.` before each name; files reduced to their backbone may lack it (ViT only; a ResNet without it
is torchvision's layout, see `backbones.formats.timm`). Necks, heads, queues and momentum encoders are dropped. ResNets are taken as
mmpretrain's default style `pytorch` (stride in the 3 x 3 convolution), which the weights do not show.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from backbones.formats.architecture import take_backbone, vit_spec
from backbones.formats.base import Conversion, FormatError, stated_epoch, weights_under
from backbones.formats.keys import KeyTable, apply_table, dropped, prefixed
from backbones.spec import BackboneSpec

NAME = "mmpretrain"
TYPICAL = "state_dict/backbone.layers.0.ffn.layers.0.0.weight"
BRANCHES = ("backbone",)
LICENCE = "not stated"  # the repositories are Apache-2.0; many models are converted from others
_VIT_MARK = "patch_embed.projection.weight"
_VIT_KEYS: KeyTable = {
    "cls_token": "cls_token",
    "pos_embed": "pos_embed",
    "mask_token": None,
    "patch_embed.projection.*": "patch_embed.proj.*",
    "layers.{i}.ln1.*": "blocks.{i}.norm1.*",
    "layers.{i}.attn.qkv.*": "blocks.{i}.attn.qkv.*",
    "layers.{i}.attn.proj.*": "blocks.{i}.attn.proj.*",
    "layers.{i}.attn.gamma1.weight": "blocks.{i}.ls1.gamma",
    "layers.{i}.ln2.*": "blocks.{i}.norm2.*",
    "layers.{i}.ffn.layers.0.0.*": "blocks.{i}.mlp.fc1.*",
    "layers.{i}.ffn.layers.1.*": "blocks.{i}.mlp.fc2.*",
    "layers.{i}.ffn.w12.*": "blocks.{i}.mlp.fc1.*",
    "layers.{i}.ffn.w3.*": "blocks.{i}.mlp.fc2.*",
    "layers.{i}.ffn.gamma2.weight": "blocks.{i}.ls2.gamma",
    "ln1.*": "norm.*",
}
_DROPS = dropped(
    *("neck.*", "head.*", "fc.*", "data_preprocessor.*", "target_generator.*"),
    *("encoder_k.*", "momentum_encoder.*", "target_net.*", "queue", "queue_ptr"),
)


def matches(checkpoint: Any) -> bool:
    """Whether there is a ViT under mmpretrain's names, or a ResNet behind `backbone.`."""
    names = weights_under(checkpoint, "state_dict", "")
    is_resnet = "backbone.layer1.0.conv1.weight" in names and "encoder_q.0.conv1.weight" not in names
    return is_resnet or f"backbone.{_VIT_MARK}" in names or _VIT_MARK in names


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    weights = weights_under(checkpoint, "state_dict", "")
    spec: BackboneSpec
    if "backbone.layer1.0.conv1.weight" in weights:
        taken = take_backbone(weights, "backbone.", _DROPS, num_heads)
        spec, state_dict, left_out = taken.spec, taken.state_dict, taken.dropped
    else:
        state_dict, left_out = _take_vit(weights)
        spec = vit_spec(state_dict, num_heads)
    meta = checkpoint.get("meta")
    epoch = stated_epoch(meta) if isinstance(meta, Mapping) else -1
    return Conversion(format=NAME, branch=branch, spec=spec, state_dict=state_dict, dropped=left_out, epoch=epoch)


def _take_vit(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    prefix = "backbone." if f"backbone.{_VIT_MARK}" in weights else ""
    state_dict, left_out = apply_table(weights, {**_DROPS, **prefixed(prefix, _VIT_KEYS)})
    if "norm.weight" not in state_dict and "cls_token" in state_dict:
        raise FormatError("incomplete checkpoint, it has a CLS token and no final ln1")
    return state_dict, left_out
