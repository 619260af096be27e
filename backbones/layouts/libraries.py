"""Checkpoints of libraries: Detectron2, mmpretrain, Hugging Face's ViTs, timm and torchvision.

ConvNeXts are recognised and refused.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from backbones.layouts.base import Conversion, Layout, convert_by_table, is_state_dict, state_dict_at
from backbones.layouts.dinov2 import HUGGINGFACE_ATTENTION, HUGGINGFACE_EMBEDDINGS
from backbones.layouts.keys import RESNET_KEYS, KeyTable, LayoutError, abbreviate, join_qkv, nested, same

_NUMBERS = ("float16", "float32", "float64", "int32", "int64")
_DETECTRON2_PREFIXES = ("", "backbone.bottom_up.")
_DETECTRON2_BLOCK: KeyTable = {
    "conv{j}.weight": "conv{j}.weight",
    "conv{j}.norm.*": "bn{j}.*",
    "shortcut.weight": "downsample.0.weight",
    "shortcut.norm.*": "downsample.1.*",
}
_DETECTRON2_KEYS: KeyTable = {
    "stem.conv1.weight": "conv1.weight",
    "stem.conv1.norm.*": "bn1.*",
    **nested("res2.{i}.", "layer1.{i}.", _DETECTRON2_BLOCK),
    **nested("res3.{i}.", "layer2.{i}.", _DETECTRON2_BLOCK),
    **nested("res4.{i}.", "layer3.{i}.", _DETECTRON2_BLOCK),
    **nested("res5.{i}.", "layer4.{i}.", _DETECTRON2_BLOCK),
}
_MMPRETRAIN_MARKS = {
    "backbone.layer1.0.conv1.weight",
    "backbone.patch_embed.projection.weight",
    "patch_embed.projection.weight",
}
_MMPRETRAIN_KEYS: KeyTable = {
    **RESNET_KEYS,
    **same("cls_token", "pos_embed"),
    "mask_token": None,
    "patch_embed.projection.*": "patch_embed.proj.*",
    **nested(
        "layers.{i}.",
        "blocks.{i}.",
        {
            "ln1.*": "norm1.*",
            **same("attn.qkv.*", "attn.proj.*"),
            "attn.gamma1.weight": "ls1.gamma",
            "ln2.*": "norm2.*",
            "ffn.layers.0.0.*": "mlp.fc1.*",
            "ffn.layers.1.*": "mlp.fc2.*",
            "ffn.w12.*": "mlp.fc1.*",
            "ffn.w3.*": "mlp.fc2.*",
            "ffn.gamma2.weight": "ls2.gamma",
        },
    ),
    "ln1.*": "norm.*",
}
_HUGGINGFACE_KEYS: KeyTable = {
    **HUGGINGFACE_EMBEDDINGS,
    **nested(
        "encoder.layer.{i}.",
        "blocks.{i}.",
        {
            **HUGGINGFACE_ATTENTION,
            "layernorm_before.*": "norm1.*",
            "layernorm_after.*": "norm2.*",
            "intermediate.dense.*": "mlp.fc1.*",
            "output.dense.*": "mlp.fc2.*",
        },
    ),
    "layernorm.*": "norm.*",
    "pooler.*": None,
}


def _is_detectron2(checkpoint: Any) -> bool:
    """Whether there is a stem under Detectron2's name; the weights may be NumPy arrays, beside their author's name."""
    model = checkpoint.get("model") if isinstance(checkpoint, Mapping) else None
    if not isinstance(model, Mapping) or not (is_state_dict(model) or "__author__" in checkpoint):
        return False
    return any(f"{prefix}stem.conv1.weight" in model for prefix in _DETECTRON2_PREFIXES)


def _convert_detectron2(layout: Layout, checkpoint: Any, branch: str | None, num_heads: int | None) -> Conversion:
    author = checkpoint.get("__author__")
    if isinstance(author, str) and author == "Caffe2":
        raise LayoutError(
            "a network of Detectron's own (MSRA): its strides and its BGR input differ from torchvision's ResNets"
        )
    weights = {str(name): _as_tensor(name, value) for name, value in checkpoint["model"].items()}
    return convert_by_table(layout, {"model": weights}, branch, num_heads)


def _as_tensor(name: object, value: object) -> Any:
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.name in _NUMBERS:
        return torch.from_numpy(np.array(value))
    raise LayoutError(f"{abbreviate([str(name)])} is neither a tensor nor an array of numbers but {type(value).__name__}")


def _is_mmpretrain(checkpoint: Any) -> bool:
    """Whether there is a ViT under mmpretrain's names, or a ResNet behind `backbone.`."""
    return bool(_MMPRETRAIN_MARKS & set(state_dict_at(checkpoint, "state_dict") or state_dict_at(checkpoint, "")))


def _refuse_convnext(layout: Layout, checkpoint: Any, branch: str | None, num_heads: int | None) -> NoReturn:
    raise LayoutError("a ConvNeXt (DINOv3's small models are such): not supported; ViTs, DINOv3's ViTs, Swins and ResNets are")


# A ResNet under Detectron2's names, as ReSim's `*_backbone_*` files and the converters of MoCo, DenseCL and DetCo write it:
# `{model, __author__, matching_heuristics}`, the weights NumPy arrays or tensors. Such files hold torchvision-style networks
# (stride in the 3 x 3 convolution, RGB); Detectron2's own MSRA models have the same names but another stride, and are refused
# by their author.
DETECTRON2 = Layout(
    name="detectron2",
    typical="model/res2.0.conv1.norm.weight",
    licence="CC-BY-NC-4.0",  # of ReSim's and MoCo's repositories; other authors' files have their own
    weights_at=("model/backbone.bottom_up.", "model/"),
    also=_is_detectron2,
    keys=_DETECTRON2_KEYS,
    drops=tuple(
        f"{prefix}{name}"
        for prefix in _DETECTRON2_PREFIXES
        for name in ("stem.fc.*", "stem.fc1000.*", "fc1000.*", "fpn_lateral{i}.*", "fpn_output{i}.*")
    ),
    converter=_convert_detectron2,
)
# ViTs and ResNets of mmpretrain, mmselfsup and mmcls (mmpretrain/models/backbones/vision_transformer.py, resnet.py): `{meta,
# state_dict}` with `backbone.` before each name; files reduced to their backbone may lack it (ViT only; a ResNet without it
# is torchvision's layout). Necks, heads, queues and momentum encoders are dropped. ResNets are taken as mmpretrain's default
# style `pytorch` (stride in the 3 x 3 convolution), which the weights do not show. The repositories are Apache-2.0; many
# models are converted from others.
MMPRETRAIN = Layout(
    name="mmpretrain",
    typical="state_dict/backbone.layers.0.ffn.layers.0.0.weight",
    branches=("backbone",),
    weights_at=("state_dict/backbone.", "backbone.", "state_dict/", ""),
    also=_is_mmpretrain,
    keys=_MMPRETRAIN_KEYS,
    drops=(
        *("neck.*", "head.*", "fc.*", "data_preprocessor.*", "target_generator.*"),
        *("encoder_k.*", "momentum_encoder.*", "target_net.*", "queue", "queue_ptr"),
    ),
    epoch_at="meta/epoch",
)
# `ViTModel` and the encoder of `ViTMAEModel` (transformers, modeling_vit.py, modeling_vit_mae.py): bare state dicts, as
# `pytorch_model.bin` or `model.safetensors`. In models with a head the names begin with `vit.`. Query, key and value are
# separate. Its configurations state a LayerNorm epsilon of 1e-12; the weights that people convert to it were trained with
# 1e-6, which is used here. Each model's card states its own licence.
HUGGINGFACE_VIT = Layout(
    name="huggingface_vit",
    typical="vit.encoder.layer.0.attention.attention.query.weight",
    weights_at=("", "vit."),
    marks=({"embeddings.patch_embeddings.projection.weight", "encoder.layer.0.layernorm_before.weight"},),
    keys=_HUGGINGFACE_KEYS,
    drops=("classifier.*", "decoder.*"),
    steps=(join_qkv,),
)
# Plain state dicts with timm's names: timm itself, torchvision's ResNets, DINO's and iBOT's released backbones, MAE's
# encoder, DetCo's and DenseCL's published ResNets, Microsoft's Swin transformers. Classifiers are dropped, and so is
# `fc_norm`, which follows the pooling.
TIMM = Layout(
    name="timm",
    typical="blocks.0.attn.qkv.weight",
    weights_at=("", "state_dict/", "model/"),
    marks=(
        {"pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"},
        {"patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table"},
        {"conv1.weight", "layer1.0.conv3.weight"},
    ),
    drops=("head.*", "fc.*", "fc_norm.*", "masked_embed"),
)
# ConvNeXts, among them DINOv3's smaller models: no adapter here runs them. The marks are the names of facebookresearch
# (dinov3 and ConvNeXt, models/convnext.py), of timm (convnext.py) and of transformers (modeling_dinov3_convnext.py).
CONVNEXT = Layout(
    name="convnext",
    typical="stages.0.0.dwconv.weight",
    weights_at=("", "model/", "state_dict/"),
    marks=(
        {"stages.0.0.dwconv.weight"},
        {"stages.0.blocks.0.conv_dw.weight"},
        {"stages.0.layers.0.depthwise_conv.weight"},
        {"model.stages.0.layers.0.depthwise_conv.weight"},
    ),
    converter=_refuse_convnext,
)
LAYOUTS = (DETECTRON2, MMPRETRAIN, HUGGINGFACE_VIT, TIMM, CONVNEXT)
