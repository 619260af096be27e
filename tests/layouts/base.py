"""The small networks, their weights, and what most layouts are made with."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backbones.build import build_backbone
from backbones.spec import BackboneSpec, ResNetSpec, SwinSpec, ViTSpec

Weights = dict[str, Tensor]

VIT = ViTSpec(embed_dim=64, depth=2, num_heads=1, patch_size=16, image_size=64, class_token=True, final_norm=True)
BARE_VIT = replace(VIT, class_token=False, final_norm=False)
DINOV2 = replace(VIT, patch_size=14, image_size=56, layer_scale=True)
REGISTERS = replace(DINOV2, mlp="swiglu", mlp_ratio=2.75, register_tokens=3, class_position=False, position_rule="antialias")
SWIN = SwinSpec(embed_dim=16, depths=(2, 1), num_heads=(2, 4), window_size=4, image_size=224)
RESNET = ResNetSpec(layers=(1, 1, 1, 1))


class Made(NamedTuple):
    """A checkpoint and what must come out of it."""

    layout: str
    checkpoint: Any
    spec: BackboneSpec
    weights: Weights
    num_heads: int | None = None


def weights_of(spec: BackboneSpec, seed: int = 0) -> Weights:
    """Weights all of which matter: PyTorch starts norms, biases and LayerScale at values that hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in build_backbone(spec).state_dict().items():
        if not tensor.is_floating_point() or name == "rope.periods":  # which training does not change
            weights[name] = tensor
        elif name.endswith(("running_var", "gamma")) or "norm" in name or ".bn" in name or name.startswith("bn"):
            weights[name] = 0.5 + torch.rand(tensor.shape, generator=generator)
        else:
            weights[name] = torch.randn(tensor.shape, generator=generator) * (0.05 if tensor.ndim > 1 else 0.2)
    return weights


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def zeros_like(weights: Weights) -> Weights:
    return {name: torch.zeros_like(tensor) for name, tensor in weights.items()}


def head(prefix: str, *names: str) -> Weights:
    return {prefix + name: torch.ones(2) for name in names}


def old_downsampling(weights: Weights) -> Weights:
    """Swin's own order: downsampling at the end of the stage before."""
    return {
        re.sub(r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) - 1}.downsample", name): tensor
        for name, tensor in weights.items()
    }


def split_qkv(weights: Weights, names: Callable[[str], str]) -> Weights:
    """Separate query, key and value; `names` gives their prefix within the block."""
    split: Weights = {}
    for name, tensor in weights.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(\w+)", name):
            for part, value in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                split[f"{names(match[1])}{part}.{match[2]}"] = value.clone()
        else:
            split[name] = tensor
    return split


def substituted(weights: Weights, *rules: tuple[str, str]) -> Weights:
    renamed = {}
    for name, tensor in weights.items():
        new = name
        for pattern, target in rules:
            new, count = re.subn(pattern, target, name)
            if count:
                break
        renamed[new] = tensor
    assert len(renamed) == len(weights)
    return renamed
