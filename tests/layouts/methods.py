"""Checkpoints of pretraining methods (a student and a teacher, contrastive encoders, MAE) and of libraries."""

import argparse
import re
from typing import Any

import torch

from backbones.spec import spec_to_dict
from tests.layouts.base import (
    BARE_VIT,
    DINOV2,
    REGISTERS,
    RESNET,
    SWIN,
    VIT,
    Made,
    Weights,
    head,
    old_downsampling,
    prefixed,
    substituted,
    weights_of,
    zeros_like,
)

MOCO_V3_HEADS = 12


def student_teacher(weights: Weights, heads: tuple[str, ...], prefix: str = "backbone.", **rest: Any) -> dict[str, Any]:
    teacher = prefixed(prefix, weights) | head("", *heads)
    return {
        "student": prefixed("module.", zeros_like(teacher)),
        "teacher": teacher,
        "epoch": 3,
        "args": argparse.Namespace(arch="toy"),
        **rest,
    }


def make_student_teacher() -> dict[str, Made]:
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


def make_contrastive() -> dict[str, Made]:
    vit, swin, resnet = (weights_of(spec) for spec in (VIT, SWIN, RESNET))
    moco_v3 = prefixed("module.base_encoder.", vit) | head("module.base_encoder.", "head.0.weight")
    moby = prefixed("encoder.", vit) | head("", "queue1", "projector.x")
    moby_swin = prefixed("encoder.", old_downsampling(swin)) | {
        "encoder.layers.0.blocks.1.attn_mask": torch.zeros(14**2, 16, 16),
        "encoder.layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.int64),
    }
    densecl = prefixed("encoder_q.0.", resnet) | head("encoder_q.1.", "mlp.0.weight", "mlp2.0.weight")
    swav = prefixed("module.", resnet | head("", "projection_head.0.weight", "prototypes.weight"))
    mae_decoder = head("", "mask_token", "decoder_pos_embed", "decoder_embed.weight", "decoder_blocks.0.norm1.weight")
    return {
        "moco": Made("moco", _moco(resnet), RESNET, resnet),
        "resim": Made("resim", _moco(resnet, ("fpn_lateral3.weight", "fpn_output4.bias")), RESNET, resnet),
        "densecl": Made("densecl", _densecl(densecl, resnet), RESNET, resnet),
        "swav": Made("swav", swav, RESNET, resnet),
        "moby": Made("moby", {"model": moby, "epoch": 299}, VIT, vit),
        "moby_swin": Made("moby", {"model": moby_swin, "epoch": 299}, SWIN, swin),
        "moco_v3": Made("moco_v3", {"state_dict": moco_v3, "arch": "vit_small", "epoch": 300}, VIT, vit, num_heads=1),
        "mae": Made("mae", {"model": vit | mae_decoder, "epoch": 799}, VIT, vit),
    }


def _moco(weights: Weights, extra: tuple[str, ...] = ()) -> Any:
    encoder = prefixed("module.encoder_q.", weights) | head("module.encoder_q.", "fc.0.weight", "fc.2.weight", *extra)
    queues = head("module.", "queue", "queue_ptr")
    return {"epoch": 200, "arch": "resnet50", "state_dict": encoder | _other(encoder) | queues, "optimizer": {}}


def _densecl(encoder: Weights, backbone: Weights) -> dict[str, Any]:
    queues = head("", "queue", "queue_ptr", "queue2", "queue2_ptr")
    return {
        "meta": {"epoch": 200},
        "state_dict": encoder | _other(encoder) | queues | prefixed("backbone.", zeros_like(backbone)),
    }


def _other(encoder: Weights) -> Weights:
    """The momentum encoder, all zeros."""
    return {name.replace("encoder_q", "encoder_k"): tensor for name, tensor in zeros_like(encoder).items()}


MMPRETRAIN_VIT = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^blocks\.(\d+)\.norm(\d)\.", r"layers.\1.ln\2."),
    (r"^blocks\.(\d+)\.attn\.", r"layers.\1.attn."),
    (r"^blocks\.(\d+)\.ls1\.gamma", r"layers.\1.attn.gamma1.weight"),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"layers.\1.ffn.layers.0.0."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"layers.\1.ffn.layers.1."),
    (r"^blocks\.(\d+)\.ls2\.gamma", r"layers.\1.ffn.gamma2.weight"),
    (r"^norm\.", "ln1."),
)


def detectron2_names(weights: Weights) -> Weights:
    renamed = {}
    for name, tensor in weights.items():
        new = name if "layer" in name else f"stem.{name}"
        new = re.sub(r"layer(\d)\.", lambda match: f"res{int(match[1]) + 1}.", new)
        new = re.sub(r"bn(\d)", r"conv\1.norm", new)
        renamed[new.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")] = tensor
    return renamed


def make_libraries() -> dict[str, Made]:
    vit, registers, dinov2 = weights_of(VIT), weights_of(REGISTERS), weights_of(DINOV2)
    swin, resnet = weights_of(SWIN), weights_of(RESNET)
    mm_vit = prefixed("backbone.", substituted(dinov2, *MMPRETRAIN_VIT)) | head("", "head.x")
    mm_resnet = prefixed("backbone.", resnet) | head("", "neck.x", "queue")
    microsoft = {"model": old_downsampling(swin) | head("", "head.weight")}
    return {
        "detectron2": Made("detectron2", _detectron2(resnet), RESNET, resnet),
        "mmpretrain_vit": Made("mmpretrain", _mm(mm_vit), DINOV2, dinov2),
        "mmpretrain_resnet": Made("mmpretrain", _mm(mm_resnet), RESNET, resnet),
        "timm_vit": Made("timm", {"state_dict": vit | head("", "head.weight")}, VIT, vit),
        "timm_registers": Made("timm", registers, REGISTERS, registers),
        "timm_swin": Made("timm", {"model": swin}, SWIN, swin),
        "microsoft_swin": Made("timm", microsoft, SWIN, swin),
        "torchvision_resnet": Made("timm", resnet | head("", "fc.weight", "fc.bias"), RESNET, resnet),
    }


def _detectron2(weights: Weights) -> dict[str, Any]:
    model = {name: tensor.numpy() for name, tensor in detectron2_names(weights).items()}
    return {"model": model, "__author__": "MOCO", "matching_heuristics": True}


def _mm(weights: Weights) -> dict[str, Any]:
    return {"meta": {"epoch": 100}, "state_dict": weights}
