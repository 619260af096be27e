"""Checkpoints of detectron2, mmpretrain, timm and torchvision."""

import re
from typing import Any

from tests.layouts.base import (
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
)

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


def make() -> dict[str, Made]:
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
