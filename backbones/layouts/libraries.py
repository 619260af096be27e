"""Checkpoints of libraries: Detectron2, mmpretrain, Hugging Face's ViTs, timm and torchvision.

ConvNeXts are recognised and refused.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backbones.layouts.base import Layout, entry_at
from backbones.layouts.dinov2 import HUGGINGFACE_KEYS, HUGGINGFACE_LAYERS, config_heads
from backbones.layouts.keys import RESNET_KEYS, KeyTable, join_qkv, nested, same
from backbones.layouts.search import state_dicts

_DETECTRON2_BLOCK: KeyTable = {
    "conv{j}.weight": "conv{j}.weight",
    "conv{j}.norm.*": "bn{j}.*",
    "shortcut.weight": "downsample.0.weight",
    "shortcut.norm.*": "downsample.1.*",
}
_SEQUENTIAL_BLOCK = same("conv{j}.weight", "bn{j}.*", "downsample.0.weight", "downsample.1.*")
_DETECTRON2_KEYS: dict[str, str | None] = {"stem.conv1.weight": "conv1.weight", "stem.conv1.norm.*": "bn1.*"}
_SEQUENTIAL_KEYS: dict[str, str | None] = {"0.weight": "conv1.weight", "1.*": "bn1.*"}
for _stage in (1, 2, 3, 4):
    _DETECTRON2_KEYS |= nested(f"res{_stage + 1}.{{i}}.", f"layer{_stage}.{{i}}.", _DETECTRON2_BLOCK)
    _SEQUENTIAL_KEYS |= nested(f"{_stage + 3}.{{i}}.", f"layer{_stage}.{{i}}.", _SEQUENTIAL_BLOCK)
_MMPRETRAIN_VIT = "patch_embed.projection.weight"
_MMPRETRAIN_BLOCK: KeyTable = {
    "ln1.*": "norm1.*",
    **same("attn.qkv.*", "attn.proj.*"),
    "attn.gamma1.weight": "ls1.gamma",
    "ln2.*": "norm2.*",
    "ffn.layers.0.0.*": "mlp.fc1.*",
    "ffn.layers.1.*": "mlp.fc2.*",
    "ffn.w12.*": "mlp.fc1.*",
    "ffn.w3.*": "mlp.fc2.*",
    "ffn.gamma2.weight": "ls2.gamma",
}
_MMPRETRAIN_KEYS: KeyTable = {
    **RESNET_KEYS,
    **same("cls_token", "pos_embed"),
    "mask_token": None,
    "patch_embed.projection.*": "patch_embed.proj.*",
    **nested("layers.{i}.", "blocks.{i}.", _MMPRETRAIN_BLOCK),
    "ln1.*": "norm.*",
}


def _is_mmpretrain(checkpoint: Any) -> bool:
    """Whether there are the facts that its runner writes, without which a ResNet is torchvision's, or a ViT under its names."""
    is_run = isinstance(entry_at(checkpoint, "meta"), Mapping)
    return is_run or any(name.endswith(_MMPRETRAIN_VIT) for _, weights in state_dicts(checkpoint) for name in weights)


def _is_of_caffe2(checkpoint: Any) -> bool:
    author = entry_at(checkpoint, "__author__")
    return isinstance(author, str) and author == "Caffe2"


# A ResNet under Detectron2's names, as ReSim's `*_backbone_*` files and the converters of MoCo, DenseCL and DetCo write it:
# `{model, __author__, matching_heuristics}`, the weights NumPy arrays or tensors. Such files hold torchvision-style networks
# (stride in the 3 x 3 convolution, RGB); Detectron2's own MSRA models have the same names but another stride, and are refused
# by their author.
DETECTRON2 = Layout(
    name="detectron2",
    licence="CC-BY-NC-4.0",  # of ReSim's and MoCo's repositories; other authors' files have their own
    marks=({"stem.conv1.weight", "res2.0.conv1.weight"},),
    keys=_DETECTRON2_KEYS,
    drops=("stem.fc.*", "stem.fc1000.*", "fc1000.*", "fpn_lateral{i}.*", "fpn_output{i}.*"),
)
DETECTRON2_MSRA = replace(
    DETECTRON2,
    name="detectron2_msra",
    also=_is_of_caffe2,
    specialises=("detectron2",),
    refusal="a network of Detectron's own (MSRA): its strides and its BGR input differ from torchvision's ResNets",
)
# ViTs and ResNets of mmpretrain, mmselfsup and mmcls (mmpretrain/models/backbones/vision_transformer.py, resnet.py): `{meta,
# state_dict}` with `backbone.` before each name; files reduced to their backbone may lack it. ResNets are taken as mmpretrain's
# default style `pytorch` (stride in the 3 x 3 convolution), which the weights do not show. The repositories are Apache-2.0; many
# models are converted from others.
MMPRETRAIN = Layout(
    name="mmpretrain",
    branches=("backbone",),
    marks=({_MMPRETRAIN_VIT, "layers.0.ffn.layers.0.0.weight"}, {"conv1.weight", "layer1.0.conv3.weight"}),
    also=_is_mmpretrain,
    specialises=("timm",),
    keys=_MMPRETRAIN_KEYS,
    drops=("head.*", "fc.*"),
)
# `ViTModel` and the encoder of `ViTMAEModel` (transformers, modeling_vit.py, modeling_vit_mae.py). Its configurations state a
# LayerNorm epsilon of 1e-12, which is used where a folder holds one; else 1e-6, with which the weights that people convert to it
# were trained. Each model's card states its own licence.
HUGGINGFACE_VIT = Layout(
    name="huggingface_vit",
    marks=tuple(
        {"embeddings.patch_embeddings.projection.weight", f"{layer}0.layernorm_before.weight"} for layer in HUGGINGFACE_LAYERS
    ),
    keys=HUGGINGFACE_KEYS,
    drops=("classifier.*", "decoder.*", "pooler.*"),
    steps=(join_qkv,),
    heads=config_heads,
)
# Plain state dicts with timm's names: timm itself, torchvision's ResNets, DINO's and iBOT's released backbones, MAE's
# encoder, DetCo's and DenseCL's published ResNets, Microsoft's Swin transformers. Classifiers are dropped, and so is
# `fc_norm`, which follows the pooling.
TIMM = Layout(
    name="timm",
    marks=(
        {"pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"},
        {"patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table"},
        {"conv1.weight", "layer1.0.conv3.weight"},
    ),
    specialises=("timm_dinov3",),  # which has no stored positions
    drops=("head.*", "fc.*", "fc_norm.*", "masked_embed"),
)
# torchvision's ResNet as `nn.Sequential(*list(resnet.children())[:-1])`, the form of lightly's examples: the places of the children.
SEQUENTIAL_RESNET = Layout(
    name="sequential_resnet",
    marks=({"0.weight", "1.running_mean", "4.0.conv3.weight"},),
    keys=_SEQUENTIAL_KEYS,
)
# ConvNeXts, among them DINOv3's smaller models: no adapter here runs them. The marks are the names of facebookresearch
# (dinov3 and ConvNeXt, models/convnext.py), of timm (convnext.py) and of transformers (modeling_dinov3_convnext.py).
CONVNEXT = Layout(
    name="convnext",
    marks=({"stages.0.0.dwconv.weight"}, {"stages.0.blocks.0.conv_dw.weight"}, {"stages.0.layers.0.depthwise_conv.weight"}),
    refusal="a ConvNeXt (DINOv3's small models are such): not supported; ViTs, DINOv3's ViTs, Swins and ResNets are",
)
LAYOUTS = (DETECTRON2, DETECTRON2_MSRA, MMPRETRAIN, HUGGINGFACE_VIT, TIMM, SEQUENTIAL_RESNET, CONVNEXT)
