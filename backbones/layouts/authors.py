"""Training checkpoints as authors' codes write them.

With a student and a teacher, of which the authors evaluate the teacher: SelfPatch, DINO, PW-Self, iBOT, EsViT (all in DINO's layout,
`{student, teacher, optimizer, epoch, args, ...}`) and DINO with VISSL. Contrastive: MoCo, ReSim, DenseCL, SwAV, MoBY, MoCo-v3; and
MAE. What authors release as backbones alone mostly are plain state dicts (`backbones.layouts.libraries`).
"""

from dataclasses import replace
from typing import Any

from backbones.layouts.base import Layout, state_dict_at
from backbones.layouts.keys import LayoutError
from backbones.spec import shown

_BRANCHES = ("teacher", "student")
_BACKBONE = "{branch}/backbone."
MOCO_V3_HEADS = {"vit_small": 12, "vit_base": 12}
_SWAV_HEADS = ("projection_head.0.weight", "projection_head.weight", "prototypes.weight", "prototypes.prototypes0.weight")


def _has_patch_centre(checkpoint: Any) -> bool:
    """Whether PW-Self's loss keeps a centre for each token, [1, 1 + N, K], where DINO has [1, K]."""
    centre = state_dict_at(checkpoint, "dino_loss").get("center")
    return centre is not None and centre.ndim == 3


def _has_ibot_head(checkpoint: Any) -> bool:
    """Whether there is a second last layer, or a second MLP where the head has no bottleneck."""
    return any(name.startswith(("head.last_layer2.", "head.mlp2.")) for name in state_dict_at(checkpoint, "teacher"))


def _moco_v3_heads(checkpoint: Any) -> int:
    """Its ViT-S has 12 heads of 32 channels on purpose (issue moco-v3#7), where every other ViT-S has 6."""
    arch = checkpoint.get("arch")
    num_heads = MOCO_V3_HEADS.get(arch) if isinstance(arch, str) else None
    if num_heads is None:
        raise LayoutError(f"MoCo-v3's arch {shown(arch)} is none of {', '.join(MOCO_V3_HEADS)}; pass --num-heads")
    return num_heads


def _is_moby(checkpoint: Any) -> bool:
    """Whether there is nothing but encoders, projectors, a predictor and queues under MoBY's names."""
    known = ("encoder.", "encoder_k.", "projector.", "projector_k.", "predictor.", "queue1", "queue2", "queue_ptr")
    return all(name.startswith(known) for name in state_dict_at(checkpoint, "model"))


# alinlab/SelfPatch 81aef149, main_selfpatch.py. The backbone has neither CLS token nor final norm: these are in the
# aggregation module `ca_head`.
SELFPATCH = Layout(
    name="selfpatch",
    branches=_BRANCHES,
    licence="Apache-2.0",  # of the authors' repository
    place=_BACKBONE,
    marks=({"pos_embed"},),
    drops=("ca_head.*",),  # which has a CLS token
)
# facebookresearch/dino 7c446df, main_dino.py. A ViT with CLS token and final norm, or a ResNet-50.
DINO = Layout(
    name="dino",
    branches=_BRANCHES,
    licence="Apache-2.0",  # of the authors' repository
    place=_BACKBONE,
    marks=({"cls_token"}, {"layer1.0.conv1.weight"}),
    specialises=("selfpatch",),
)
# alijavidani/Local_Global_Representation_Learning 7eeff8c, built on DINO's code, with one head for all tokens.
PW_SELF = replace(DINO, name="pw_self", marks=({"cls_token"},), also=_has_patch_centre, specialises=("dino",))
# bytedance/ibot, main_ibot.py and models/head.py: a ViT or a Swin; the student alone has the learnt mask embedding.
IBOT = replace(DINO, name="ibot", marks=(), also=_has_ibot_head, specialises=("dino",))
# microsoft/esvit, main_esvit.py, with a Swin; its other backbones (Longformer, CvT) are not supported. The heads are
# attributes of the network, so the backbone's names have no prefix of their own.
ESVIT = Layout(
    name="esvit",
    branches=_BRANCHES,
    licence="MIT",  # of the authors' repository
    place="{branch}/",
    marks=({"layers.0.blocks.0.attn.relative_position_bias_table"},),
    drops=("head_dense.*",),
)
# DINO trained with VISSL: the 300-epoch ViT-S/16 behind the paper's DINO rows. The trunk has timm's names.
DINO_VISSL = Layout(
    name="dino_vissl",
    branches=("trunk",),
    licence="MIT",  # of VISSL's repository
    place="classy_state_dict/base_model/model/{branch}/",
    marks=({"patch_embed.proj.weight"},),
    epoch_is_index=True,
)
# facebookresearch/moco, main_moco.py (v2), and what others train with its code: `{epoch, arch, state_dict, optimizer}`. The
# evaluated network is the query encoder; `fc` is the projection head.
MOCO = Layout(
    name="moco",
    branches=("encoder_q", "encoder_k"),
    licence="CC-BY-NC-4.0",  # of the authors' repository
    place="state_dict/{branch}.",
    marks=({"conv1.weight"},),
)
# The authors' `resim_fpn_*` files: MoCo's layout and a feature pyramid, which evaluation does not use. ReSim's C4 file has no
# pyramid and is MoCo's layout; its `*_backbone_*` files are Detectron2's.
RESIM = replace(
    MOCO,
    name="resim",
    marks=({"conv1.weight", "fpn_lateral3.weight"},),
    specialises=("moco",),
    drops=("fpn_lateral{i}.*", "fpn_output{i}.*"),
)
# WXinlong/DenseCL 5d1c456, openselfsup/models/densecl.py: `{meta, state_dict, optimizer}`. Each encoder is a sequence of
# backbone (`.0.`) and neck (`.1.`); `backbone.` repeats the query encoder's backbone. The released backbones are plain
# torchvision state dicts.
DENSECL = Layout(
    name="densecl",
    branches=("encoder_q", "encoder_k"),
    licence="GPL-3.0",  # of the authors' repository
    place="state_dict/{branch}.0.",
    marks=({"conv1.weight"},),
    specialises=("mmpretrain",),
)
# facebookresearch/swav, main_swav.py. The released files are bare state dicts; own runs put them under `state_dict`, beside
# `epoch`, `optimizer` and `amp`. Several sets of prototypes are numbered: prototypes.prototypes0.weight. SwAV pads before its
# first convolution, which pads one pixel less in return: together that is torchvision's.
SWAV = Layout(
    name="swav",
    licence="CC-BY-NC-4.0",  # of the authors' repository
    marks=tuple({"conv1.weight", "layer1.0.conv3.weight", head} for head in _SWAV_HEADS),
    specialises=("timm",),
    drops=("projection_head.*", "prototypes.*"),
)
# SwinTransformer/Transformer-SSL: `{model, optimizer, lr_scheduler, max_accuracy, epoch, config}` with a DeiT-S with CLS
# token, or a Swin-T. The evaluated network is the online encoder. The published links of the two models are swapped (issues
# Transformer-SSL#16, #9), so the architecture is read from the names, never from the file name.
MOBY = Layout(
    name="moby",
    branches=("encoder", "encoder_k"),
    licence="MIT",  # of the authors' repository
    place="model/{branch}.",
    marks=({"patch_embed.proj.weight"},),
    also=_is_moby,
    epoch_is_index=True,
)
# facebookresearch/moco-v3, as its own conversion script reads it: `{epoch, arch, state_dict, optimizer, scaler}`. The evaluated
# network is the base encoder, not the momentum encoder. Positions are fixed sine-cosine ones, stored.
MOCO_V3 = Layout(
    name="moco_v3",
    branches=("base_encoder", "momentum_encoder"),
    licence="CC-BY-NC-4.0",  # of the authors' repository
    place="state_dict/{branch}.",
    marks=({"pos_embed"},),
    heads=_moco_v3_heads,
)
# facebookresearch/mae, models_mae.py and util/misc.py: `{model, optimizer, epoch, scaler, args}` with the decoder; the released
# encoders (`{model}` without a decoder) are timm's layout. Positions are fixed sine-cosine ones, stored.
MAE = Layout(
    name="mae",
    branches=("encoder",),
    licence="CC-BY-NC-4.0",  # of the authors' repository
    marks=({"decoder_embed.weight", "patch_embed.proj.weight"},),
    specialises=("timm", "dinov2"),
    drops=("mask_token", "decoder_pos_embed", "decoder_embed.*", "decoder_blocks.*", "decoder_norm.*", "decoder_pred.*"),
    epoch_is_index=True,
)
LAYOUTS = (SELFPATCH, DINO, PW_SELF, IBOT, ESVIT, DINO_VISSL, MOCO, RESIM, DENSECL, SWAV, MOBY, MOCO_V3, MAE)
