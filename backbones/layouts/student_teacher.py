"""Training checkpoints with a student and a teacher: SelfPatch, DINO, PW-Self, iBOT, EsViT, and DINO's with VISSL.

All but VISSL's have DINO's layout, `{student, teacher, optimizer, epoch, args, ...}`. DistributedDataParallel puts `module.` before
the student's names, and before the teacher's where the network contains batch normalisation. The authors evaluate the teacher.
Backbones that DINO and iBOT released alone are plain timm state dicts (`backbones.layouts.libraries`).
"""

from dataclasses import replace
from typing import Any

from backbones.layouts.base import Conversion, Layout, convert_by_table, state_dict_at

_BRANCHES = ("teacher", "student")
_BACKBONE = ("{branch}/backbone.", "{branch}/module.backbone.")
_SWIN_MARK = "layers.0.blocks.0.attn.relative_position_bias_table"
_VISSL_MODEL = "classy_state_dict/base_model/model"


def _maybe_wrapped(*names: str) -> tuple[str, ...]:
    """Names with and without the wrapper's prefix."""
    return (*names, *(f"module.{name}" for name in names))


def _has_patch_centre(checkpoint: Any) -> bool:
    """Whether PW-Self's loss keeps a centre for each token."""
    centre = state_dict_at(checkpoint, "dino_loss").get("center")
    return centre is not None and centre.ndim == 3


def _has_ibot_head(checkpoint: Any) -> bool:
    """Whether there is a second last layer, or a second MLP where the head has no bottleneck."""
    heads = _maybe_wrapped("head.last_layer2.", "head.mlp2.")
    return any(name.startswith(heads) for name in state_dict_at(checkpoint, "teacher"))


def _convert_vissl(layout: Layout, checkpoint: Any, branch: str | None, num_heads: int | None) -> Conversion:
    """VISSL keeps the heads in a dictionary of their own, beside the trunk."""
    conversion = convert_by_table(layout, checkpoint, branch, num_heads)
    heads = tuple(f"heads.{name}" for name in state_dict_at(checkpoint, f"{_VISSL_MODEL}/heads"))
    return replace(conversion, dropped={**conversion.dropped, "heads.*": heads}) if heads else conversion


# alinlab/SelfPatch 81aef149, main_selfpatch.py. The backbone has neither CLS token nor final norm: these are in the
# aggregation module `ca_head`.
SELFPATCH = Layout(
    name="selfpatch",
    typical="teacher/ca_head.cls_token",
    branches=_BRANCHES,
    licence="Apache-2.0",  # of the authors' repository
    weights_at=_BACKBONE,
    marks=({"pos_embed"},),
    lacks={"cls_token"},
    drops=_maybe_wrapped("ca_head.*", "c_head.*", "p_head.*"),
)
# facebookresearch/dino 7c446df, main_dino.py. A ViT with CLS token and final norm, or a ResNet-50.
DINO = Layout(
    name="dino",
    typical="teacher/backbone.cls_token",
    branches=_BRANCHES,
    licence="Apache-2.0",  # of the authors' repository
    weights_at=_BACKBONE,
    marks=({"cls_token"}, {"layer1.0.conv1.weight"}),
    drops=_maybe_wrapped("head.*"),
)
# alijavidani/Local_Global_Representation_Learning 7eeff8c, built on DINO's code, with one head for all tokens. What tells it
# from DINO's is the centre of its loss: [1, 1 + N, K], one for each token, where DINO has [1, K].
PW_SELF = replace(
    DINO,
    name="pw_self",
    typical="dino_loss/center of shape [1, 1 + N, K]",
    marks=({"cls_token"},),
    also=_has_patch_centre,
    specialises=("dino",),
)
# bytedance/ibot, main_ibot.py and models/head.py: a ViT or a Swin, and a head with a second last layer for patches. The
# student alone has the learnt mask embedding.
IBOT = replace(
    DINO,
    name="ibot",
    typical="teacher/head.last_layer2.weight_g",
    marks=(),
    also=_has_ibot_head,
    specialises=("dino",),
    drops=_maybe_wrapped("head.*", "backbone.masked_embed"),
)
# microsoft/esvit, main_esvit.py, with a Swin; its other backbones (Longformer, CvT) are not supported. The heads are
# attributes of the network, so the backbone's names have no prefix of their own.
ESVIT = Layout(
    name="esvit",
    typical=f"teacher/{_SWIN_MARK}",
    branches=_BRANCHES,
    licence="MIT",  # of the authors' repository
    weights_at=("{branch}/", "{branch}/module."),
    marks=({_SWIN_MARK},),
    drops=_maybe_wrapped("head.*", "head_dense.*"),
)
# DINO trained with VISSL: the 300-epoch ViT-S/16 behind the paper's DINO rows. The trunk has timm's names.
DINO_VISSL = Layout(
    name="dino_vissl",
    typical=f"{_VISSL_MODEL}/trunk/cls_token",
    branches=("trunk",),
    licence="MIT",  # of VISSL's repository
    weights_at=(f"{_VISSL_MODEL}/{{branch}}/",),
    marks=({"patch_embed.proj.weight"},),
    epoch_at="phase_idx",
    epoch_is_index=True,
    converter=_convert_vissl,
)
LAYOUTS = (SELFPATCH, DINO, PW_SELF, IBOT, ESVIT, DINO_VISSL)
