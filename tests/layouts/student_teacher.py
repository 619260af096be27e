"""Checkpoints of a student and a teacher."""

import argparse
from typing import Any

import torch

from backbones.spec import spec_to_dict
from tests.layouts.base import (
    BARE_VIT,
    RESNET,
    SWIN,
    VIT,
    Made,
    Weights,
    head,
    old_downsampling,
    prefixed,
    weights_of,
    zeros_like,
)


def student_teacher(weights: Weights, heads: tuple[str, ...], prefix: str = "backbone.", **rest: Any) -> dict[str, Any]:
    teacher = prefixed(prefix, weights) | head("", *heads)
    return {
        "student": prefixed("module.", zeros_like(teacher)),
        "teacher": teacher,
        "epoch": 3,
        "args": argparse.Namespace(arch="toy"),
        **rest,
    }


def make() -> dict[str, Made]:
    vit, bare, swin, resnet = (weights_of(spec) for spec in (VIT, BARE_VIT, SWIN, RESNET))
    old_swin = old_downsampling(swin)
    selfpatch = student_teacher(bare, ("ca_head.cls_token", "c_head.x", "p_head.x"))
    dino = student_teacher(vit, ("head.last_layer.weight_g",), dino_loss={"center": torch.zeros(1, 8)})
    pw_self = student_teacher(vit, ("head.x",), dino_loss={"center": torch.zeros(1, 17, 8)})
    ibot = student_teacher(vit, ("head.mlp.0.weight", "head.last_layer2.weight_g"))
    esvit = student_teacher(old_swin, ("head.x", "head_dense.x"), prefix="")
    return {
        "patchbench": Made("patchbench", _own(vit), VIT, vit),
        "selfpatch": Made("selfpatch", selfpatch, BARE_VIT, bare),
        "dino": Made("dino", dino, VIT, vit),
        "pw_self": Made("pw_self", pw_self, VIT, vit),
        "ibot": Made("ibot", ibot, VIT, vit),
        "ibot_swin": Made("ibot", student_teacher(old_swin, ("head.last_layer2.weight_g",)), SWIN, swin),
        "esvit": Made("esvit", esvit, SWIN, swin),
        "dino_resnet": Made("dino", student_teacher(resnet, ("head.x",)), RESNET, resnet),
        "dino_vissl": Made("dino_vissl", _vissl(vit), VIT, vit),
    }


def _own(weights: Weights) -> dict[str, Any]:
    networks = {name: prefixed("backbone.", weights) | head("heads.", "x") for name in ("student", "teacher")}
    return {
        "format": "patchbench-pretraining",
        "version": 1,
        "settings": {"method": "dino"},
        "backbone_spec": spec_to_dict(VIT),
        "epoch": 3,
        **networks,
    }


def _vissl(weights: Weights) -> dict[str, Any]:
    model = {"trunk": weights, "heads": {"0.mlp.0.weight": torch.ones(2)}}
    return {"classy_state_dict": {"base_model": {"model": model}}, "phase_idx": 299}
