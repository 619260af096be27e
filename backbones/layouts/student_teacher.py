"""Training checkpoints with a student and a teacher: SelfPatch, DINO, PW-Self, iBOT, EsViT, and DINO's with VISSL.

All but VISSL's have DINO's layout, `{student, teacher, optimizer, epoch, args, ...}`. The authors evaluate the teacher.
Backbones that DINO and iBOT released alone are plain timm state dicts (`backbones.layouts.libraries`).
"""

from dataclasses import replace
from typing import Any

from backbones.layouts.base import Layout, state_dict_at

_BRANCHES = ("teacher", "student")
_BACKBONE = "{branch}/backbone."
_SWIN_MARK = "layers.0.blocks.0.attn.relative_position_bias_table"


def _has_patch_centre(checkpoint: Any) -> bool:
    """Whether PW-Self's loss keeps a centre for each token, [1, 1 + N, K], where DINO has [1, K]."""
    centre = state_dict_at(checkpoint, "dino_loss").get("center")
    return centre is not None and centre.ndim == 3


def _has_ibot_head(checkpoint: Any) -> bool:
    """Whether there is a second last layer, or a second MLP where the head has no bottleneck."""
    return any(name.startswith(("head.last_layer2.", "head.mlp2.")) for name in state_dict_at(checkpoint, "teacher"))


# alinlab/SelfPatch 81aef149, main_selfpatch.py. The backbone has neither CLS token nor final norm: these are in the
# aggregation module `ca_head`.
SELFPATCH = Layout(
    name="selfpatch",
    branches=_BRANCHES,
    licence="Apache-2.0",  # of the authors' repository
    place=_BACKBONE,
    marks=({"pos_embed"},),
    lacks={"cls_token"},
    drops=("ca_head.*",),  # which has a CLS token
)
# facebookresearch/dino 7c446df, main_dino.py. A ViT with CLS token and final norm, or a ResNet-50.
DINO = Layout(
    name="dino",
    branches=_BRANCHES,
    licence="Apache-2.0",  # of the authors' repository
    place=_BACKBONE,
    marks=({"cls_token"}, {"layer1.0.conv1.weight"}),
)
# alijavidani/Local_Global_Representation_Learning 7eeff8c, built on DINO's code, with one head for all tokens.
PW_SELF = replace(
    DINO,
    name="pw_self",
    marks=({"cls_token"},),
    also=_has_patch_centre,
    specialises=("dino",),
)
# bytedance/ibot, main_ibot.py and models/head.py: a ViT or a Swin; the student alone has the learnt mask embedding.
IBOT = replace(
    DINO,
    name="ibot",
    marks=(),
    also=_has_ibot_head,
    specialises=("dino",),
)
# microsoft/esvit, main_esvit.py, with a Swin; its other backbones (Longformer, CvT) are not supported. The heads are
# attributes of the network, so the backbone's names have no prefix of their own.
ESVIT = Layout(
    name="esvit",
    branches=_BRANCHES,
    licence="MIT",  # of the authors' repository
    place="{branch}/",
    marks=({_SWIN_MARK},),
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
LAYOUTS = (SELFPATCH, DINO, PW_SELF, IBOT, ESVIT, DINO_VISSL)
