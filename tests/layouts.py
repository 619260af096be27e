"""Small networks in every layout that `backbones.formats` reads, written down independently of its key tables."""

import argparse
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backbones.build import build_backbone
from backbones.spec import BackboneSpec, ResNetSpec, SwinSpec, ViTSpec

Weights = dict[str, Tensor]

VIT = ViTSpec(embed_dim=64, depth=2, num_heads=1, patch_size=16, image_size=64, class_token=True, final_norm=True)
BARE_VIT = ViTSpec(embed_dim=64, depth=2, num_heads=1, patch_size=16, image_size=64, class_token=False, final_norm=False)
DINOV2 = ViTSpec(
    embed_dim=64, depth=2, num_heads=1, patch_size=14, image_size=56, class_token=True, final_norm=True, layer_scale=True
)
REGISTERS = ViTSpec(
    embed_dim=64,
    depth=2,
    num_heads=1,
    patch_size=14,
    image_size=56,
    class_token=True,
    final_norm=True,
    layer_scale=True,
    mlp="swiglu",
    mlp_ratio=2.75,
    register_tokens=3,
    class_position=False,
    position_rule="antialias",
)
SWIN = SwinSpec(embed_dim=16, depths=(2, 1), num_heads=(2, 4), window_size=4, image_size=224)
RESNET = ResNetSpec(layers=(1, 1, 1, 1))
MOCO_V3_HEADS = 12


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
        if not tensor.is_floating_point():
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


def student_teacher(weights: Weights, heads: tuple[str, ...], prefix: str = "backbone.", **rest: Any) -> dict[str, Any]:
    teacher = prefixed(prefix, weights) | head("", *heads)
    return {
        "student": prefixed("module.", zeros_like(teacher)),
        "teacher": teacher,
        "epoch": 3,
        "args": argparse.Namespace(arch="toy"),
        **rest,
    }


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


def with_class_position(weights: Weights) -> Weights:
    """DINOv2's own: the positions begin with one for CLS, here 0.25 everywhere, which timm's CLS token contains."""
    position = torch.full_like(weights["cls_token"], 0.25)
    return {
        **weights,
        "cls_token": weights["cls_token"] - position,
        "pos_embed": torch.cat([position, weights["pos_embed"]], dim=1),
    }


def detectron2_names(weights: Weights) -> Weights:
    renamed = {}
    for name, tensor in weights.items():
        new = name if "layer" in name else f"stem.{name}"
        for stage in (1, 2, 3, 4):
            new = new.replace(f"layer{stage}.", f"res{stage + 1}.")
        new = (
            re.sub(r"bn(\d)", r"conv\1.norm", new).replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        )
        renamed[new] = tensor
    return renamed


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
HUGGINGFACE = (
    (r"^cls_token", "embeddings.cls_token"),
    (r"^pos_embed", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^norm\.", "layernorm."),
)
HUGGINGFACE_VIT = (
    *HUGGINGFACE,
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.layer.\1.layernorm_before."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.layer.\1.layernorm_after."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
)
HUGGINGFACE_DINOV2 = (
    *HUGGINGFACE,
    (r"^reg_token", "embeddings.register_tokens"),
    (r"^blocks\.(\d+)\.norm(\d)\.", r"encoder.layer.\1.norm\2."),
    (r"^blocks\.(\d+)\.ls(\d)\.gamma", r"encoder.layer.\1.layer_scale\2.lambda1"),
)


def huggingface_attention(block: str) -> str:
    return f"encoder.layer.{block}.attention.attention."


def make_moco(extra: tuple[str, ...] = ()) -> Any:
    weights = weights_of(RESNET)
    encoder = prefixed("module.encoder_q.", weights) | head("module.encoder_q.", "fc.0.weight", "fc.2.weight", *extra)
    other = {name.replace("encoder_q", "encoder_k"): tensor for name, tensor in zeros_like(encoder).items()}
    queues = head("module.", "queue", "queue_ptr")
    return {"epoch": 200, "arch": "resnet50", "state_dict": encoder | other | queues, "optimizer": {}}


def make_all() -> dict[str, Made]:
    """Every layout by a name of its own; some layouts have several variants."""
    vit, bare, dinov2, registers = (weights_of(spec) for spec in (VIT, BARE_VIT, DINOV2, REGISTERS))
    swin, resnet = weights_of(SWIN), weights_of(RESNET)
    plain_resnet = resnet | head("", "fc.weight", "fc.bias")
    dinov2_file = {**dinov2, "mask_token": torch.zeros(1, 64)}
    registers_file = substituted(
        with_class_position(registers),
        (r"^reg_token", "register_tokens"),
        (r"\.fc1\.", ".w12."),
        (r"\.fc2\.", ".w3."),
    ) | {"mask_token": torch.zeros(1, 64)}
    chunked = substituted(dinov2_file, (r"^blocks\.(\d+)\.", r"blocks.0.\1."))
    mae_decoder = head("", "mask_token", "decoder_pos_embed", "decoder_embed.weight", "decoder_blocks.0.norm1.weight")
    hf_vit = substituted(split_qkv(vit, huggingface_attention), *HUGGINGFACE_VIT)
    mlp = (r"^blocks\.(\d+)\.mlp\.fc(\d)\.", r"encoder.layer.\1.mlp.fc\2.")
    hf_dinov2 = substituted(split_qkv(dinov2, huggingface_attention), *HUGGINGFACE_DINOV2, mlp)
    gated = (
        (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.mlp.weights_in."),
        (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.mlp.weights_out."),
    )
    hf_registers = substituted(split_qkv(with_class_position(registers), huggingface_attention), *HUGGINGFACE_DINOV2, *gated)
    moco_v3 = prefixed("module.base_encoder.", vit) | head("module.base_encoder.", "head.0.weight")
    moby_swin = prefixed("encoder.", old_downsampling(swin)) | {
        "encoder.layers.0.blocks.1.attn_mask": torch.zeros(14**2, 16, 16),
        "encoder.layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.int64),
    }
    densecl = prefixed("encoder_q.0.", resnet) | head("encoder_q.1.", "mlp.0.weight", "mlp2.0.weight")
    mm_vit = substituted(dinov2, *MMPRETRAIN_VIT)
    made = [
        ("patchbench", Made("patchbench", _own(vit), VIT, vit)),
        ("selfpatch", Made("selfpatch", student_teacher(bare, ("ca_head.cls_token", "c_head.x", "p_head.x")), BARE_VIT, bare)),
        (
            "dino",
            Made(
                "dino", student_teacher(vit, ("head.last_layer.weight_g",), dino_loss={"center": torch.zeros(1, 8)}), VIT, vit
            ),
        ),
        ("pw_self", Made("pw_self", student_teacher(vit, ("head.x",), dino_loss={"center": torch.zeros(1, 17, 8)}), VIT, vit)),
        ("ibot", Made("ibot", student_teacher(vit, ("head.mlp.0.weight", "head.last_layer2.weight_g")), VIT, vit)),
        ("ibot_swin", Made("ibot", student_teacher(old_downsampling(swin), ("head.last_layer2.weight_g",)), SWIN, swin)),
        ("esvit", Made("esvit", student_teacher(old_downsampling(swin), ("head.x", "head_dense.x"), prefix=""), SWIN, swin)),
        ("dino_resnet", Made("dino", student_teacher(resnet, ("head.x",)), RESNET, resnet)),
        ("dino_vissl", Made("dino_vissl", _vissl(vit), VIT, vit)),
        ("dinov2", Made("dinov2", dinov2_file, DINOV2, dinov2)),
        ("dinov2_registers", Made("dinov2", registers_file, REGISTERS, registers)),
        (
            "dinov2_training",
            Made("dinov2", {"teacher": prefixed("backbone.", chunked) | head("dino_head.", "x")}, DINOV2, dinov2),
        ),
        ("moco", Made("moco", make_moco(), RESNET, resnet)),
        ("resim", Made("resim", make_moco(("fpn_lateral3.weight", "fpn_output4.bias")), RESNET, resnet)),
        ("densecl", Made("densecl", _densecl(densecl, resnet), RESNET, resnet)),
        (
            "swav",
            Made(
                "swav", prefixed("module.", resnet | head("", "projection_head.0.weight", "prototypes.weight")), RESNET, resnet
            ),
        ),
        (
            "moby",
            Made("moby", {"model": prefixed("encoder.", vit) | head("", "queue1", "projector.x"), "epoch": 299}, VIT, vit),
        ),
        ("moby_swin", Made("moby", {"model": moby_swin, "epoch": 299}, SWIN, swin)),
        ("moco_v3", Made("moco_v3", {"state_dict": moco_v3, "arch": "vit_small", "epoch": 300}, VIT, vit, num_heads=1)),
        ("mae", Made("mae", {"model": vit | mae_decoder, "epoch": 799}, VIT, vit)),
        ("detectron2", Made("detectron2", _detectron2(resnet), RESNET, resnet)),
        ("mmpretrain_vit", Made("mmpretrain", _mm(prefixed("backbone.", mm_vit) | head("", "head.x")), DINOV2, dinov2)),
        (
            "mmpretrain_resnet",
            Made("mmpretrain", _mm(prefixed("backbone.", resnet) | head("", "neck.x", "queue")), RESNET, resnet),
        ),
        ("huggingface_vit", Made("huggingface_vit", prefixed("vit.", hf_vit) | head("", "classifier.weight"), VIT, vit)),
        ("huggingface_vit_bare", Made("huggingface_vit", hf_vit | head("", "pooler.dense.weight"), VIT, vit)),
        ("huggingface_dinov2", Made("huggingface_dinov2", hf_dinov2 | head("embeddings.", "mask_token"), DINOV2, dinov2)),
        ("huggingface_registers", Made("huggingface_dinov2", hf_registers, REGISTERS, registers)),
        ("timm_vit", Made("timm", {"state_dict": vit | head("", "head.weight")}, VIT, vit)),
        ("timm_registers", Made("timm", registers, REGISTERS, registers)),
        ("timm_swin", Made("timm", {"model": swin}, SWIN, swin)),
        ("microsoft_swin", Made("timm", {"model": old_downsampling(swin) | head("", "head.weight")}, SWIN, swin)),
        ("torchvision_resnet", Made("timm", plain_resnet, RESNET, resnet)),
    ]
    return dict(made)


def _own(weights: Weights) -> dict[str, Any]:
    from backbones.spec import spec_to_dict

    networks = {name: prefixed("backbone.", weights) | head("heads.", "x") for name in ("student", "teacher")}
    return {"format": "patchbench-pretraining", "version": 1, "backbone_spec": spec_to_dict(VIT), "epoch": 3, **networks}


def _vissl(weights: Weights) -> dict[str, Any]:
    model = {"trunk": weights, "heads": {"0.mlp.0.weight": torch.ones(2)}}
    return {"classy_state_dict": {"base_model": {"model": model}}, "phase_idx": 299}


def _densecl(encoder: Weights, backbone: Weights) -> dict[str, Any]:
    other = {name.replace("encoder_q", "encoder_k"): tensor for name, tensor in zeros_like(encoder).items()}
    queues = head("", "queue", "queue_ptr", "queue2", "queue2_ptr")
    return {"meta": {"epoch": 200}, "state_dict": encoder | other | queues | prefixed("backbone.", zeros_like(backbone))}


def _detectron2(weights: Weights) -> dict[str, Any]:
    model = {name: tensor.numpy() for name, tensor in detectron2_names(weights).items()}
    return {"model": model, "__author__": "MOCO", "matching_heuristics": True}


def _mm(weights: Weights) -> dict[str, Any]:
    return {"meta": {"epoch": 100}, "state_dict": weights}
