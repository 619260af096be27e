"""Small networks in every layout that `backbones.layouts` reads, written down independently of its key tables."""

import argparse
import re
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backbones.build import build_backbone
from backbones.spec import BackboneSpec, DINOv3Spec, ResNetSpec, SwinSpec, ViTSpec, spec_to_dict

Weights = dict[str, Tensor]

VIT = ViTSpec(embed_dim=64, depth=2, num_heads=1, patch_size=16, image_size=64, class_token=True, final_norm=True)
BARE_VIT = replace(VIT, class_token=False, final_norm=False)
DINOV2 = replace(VIT, patch_size=14, image_size=56, layer_scale=True)
REGISTERS = replace(DINOV2, mlp="swiglu", mlp_ratio=2.75, register_tokens=3, class_position=False, position_rule="antialias")
DINOV3 = DINOv3Spec(embed_dim=128, depth=2, num_heads=2, patch_size=16, hidden_dim=192, register_tokens=3)
GATED = replace(DINOV3, mlp="swiglu", query_value_bias=False)
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


def substituted(weights: Weights, *rules: tuple[str, str]) -> Weights:
    """Names changed by the first rule, a pattern and its replacement, that fits."""
    renamed = {}
    for name, tensor in weights.items():
        fitting = ((pattern, target) for pattern, target in rules if re.search(pattern, name))
        renamed[re.sub(*next(fitting, ("$^", "")), name)] = tensor
    assert len(renamed) == len(weights)
    return renamed


def old_downsampling(weights: Weights) -> Weights:
    """Swin's own order: downsampling at the end of the stage before."""
    return substituted(
        weights, *((rf"^layers\.{stage}\.downsample", f"layers.{stage - 1}.downsample") for stage in range(1, 9))
    )


def split_qkv(weights: Weights, attention: str) -> Weights:
    """Separate query, key and value; `attention` is their prefix, in which `{}` stands for the block's number."""
    split: Weights = {}
    for name, tensor in weights.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(\w+)", name):
            for part, value in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                split[f"{attention.format(match[1])}{part}.{match[2]}"] = value.clone()
        else:
            split[name] = tensor
    return split


@cache
def make_all() -> dict[str, Made]:
    """Every layout by a name of its own; some layouts have several variants."""
    return {
        **make_student_teacher(),
        **make_contrastive(),
        **make_dinov2(),
        **make_dinov3(),
        **make_huggingface(),
        **make_libraries(),
    }


def student_teacher(weights: Weights, *heads: str, prefix: str = "backbone.", **rest: Any) -> dict[str, Any]:
    teacher = prefixed(prefix, weights) | head("", *heads)
    student = prefixed("module.", zeros_like(teacher))
    return {"student": student, "teacher": teacher, "epoch": 3, "args": argparse.Namespace(arch="toy"), **rest}


def make_student_teacher() -> dict[str, Made]:
    vit, bare, swin, resnet = (weights_of(spec) for spec in (VIT, BARE_VIT, SWIN, RESNET))
    own = prefixed("backbone.", vit) | head("heads.", "x")
    facts = {"format": "patchbench-pretraining", "version": 1, "settings": {"method": "dino"}, "epoch": 3}
    patchbench = {**facts, "backbone_spec": spec_to_dict(VIT), "student": own, "teacher": own}
    selfpatch = student_teacher(bare, "ca_head.cls_token", "c_head.x", "p_head.x")
    dino = student_teacher(vit, "head.last_layer.weight_g", dino_loss={"center": torch.zeros(1, 8)})
    pw_self = student_teacher(vit, "head.x", dino_loss={"center": torch.zeros(1, 17, 8)})
    ibot = student_teacher(vit, "head.mlp.0.weight", "head.last_layer2.weight_g")
    ibot_swin = student_teacher(old_downsampling(swin), "head.last_layer2.weight_g")
    esvit = student_teacher(old_downsampling(swin), "head.x", "head_dense.x", prefix="")
    vissl_model = {"trunk": vit, "heads": {"0.mlp.0.weight": torch.ones(2)}}
    dino_vissl = {"classy_state_dict": {"base_model": {"model": vissl_model}}, "phase_idx": 299}
    return {
        "patchbench": Made("patchbench", patchbench, VIT, vit),
        "selfpatch": Made("selfpatch", selfpatch, BARE_VIT, bare),
        "dino": Made("dino", dino, VIT, vit),
        "pw_self": Made("pw_self", pw_self, VIT, vit),
        "ibot": Made("ibot", ibot, VIT, vit),
        "ibot_swin": Made("ibot", ibot_swin, SWIN, swin),
        "esvit": Made("esvit", esvit, SWIN, swin),
        "dino_resnet": Made("dino", student_teacher(resnet, "head.x"), RESNET, resnet),
        "dino_vissl": Made("dino_vissl", dino_vissl, VIT, vit),
    }


def two_encoders(encoder: Weights) -> Weights:
    """Add the momentum encoder, all zeros, to the encoder."""
    return encoder | {name.replace("encoder_q", "encoder_k"): tensor for name, tensor in zeros_like(encoder).items()}


def moco(weights: Weights, *further: str) -> dict[str, Any]:
    encoder = prefixed("module.encoder_q.", weights) | head("module.encoder_q.", "fc.0.weight", "fc.2.weight", *further)
    state_dict = two_encoders(encoder) | head("module.", "queue", "queue_ptr")
    return {"epoch": 200, "arch": "resnet50", "state_dict": state_dict, "optimizer": {}}


def make_contrastive() -> dict[str, Made]:
    vit, swin, resnet = (weights_of(spec) for spec in (VIT, SWIN, RESNET))
    densecl = two_encoders(prefixed("encoder_q.0.", resnet) | head("encoder_q.1.", "mlp.0.weight", "mlp2.0.weight"))
    densecl |= prefixed("backbone.", zeros_like(resnet)) | head("", "queue", "queue_ptr", "queue2", "queue2_ptr")
    swav = prefixed("module.", resnet | head("", "projection_head.0.weight", "prototypes.weight"))
    moby = prefixed("encoder.", vit) | head("", "queue1", "projector.x")
    moby_swin = prefixed("encoder.", old_downsampling(swin)) | {
        "encoder.layers.0.blocks.1.attn_mask": torch.zeros(14**2, 16, 16),
        "encoder.layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.int64),
    }
    moco_v3 = prefixed("module.base_encoder.", vit) | head("module.base_encoder.", "head.0.weight")
    mae_decoder = head("", "mask_token", "decoder_pos_embed", "decoder_embed.weight", "decoder_blocks.0.norm1.weight")
    return {
        "moco": Made("moco", moco(resnet), RESNET, resnet),
        "resim": Made("resim", moco(resnet, "fpn_lateral3.weight", "fpn_output4.bias"), RESNET, resnet),
        "densecl": Made("densecl", {"meta": {"epoch": 200}, "state_dict": densecl}, RESNET, resnet),
        "swav": Made("swav", swav, RESNET, resnet),
        "moby": Made("moby", {"model": moby, "epoch": 299}, VIT, vit),
        "moby_swin": Made("moby", {"model": moby_swin, "epoch": 299}, SWIN, swin),
        "moco_v3": Made("moco_v3", {"state_dict": moco_v3, "arch": "vit_small", "epoch": 300}, VIT, vit, num_heads=1),
        "mae": Made("mae", {"model": vit | mae_decoder, "epoch": 799}, VIT, vit),
    }


MMPRETRAIN = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^blocks\.(\d+)\.norm(\d)\.", r"layers.\1.ln\2."),
    (r"^blocks\.(\d+)\.attn\.", r"layers.\1.attn."),
    (r"^blocks\.(\d+)\.ls1\.gamma", r"layers.\1.attn.gamma1.weight"),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"layers.\1.ffn.layers.0.0."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"layers.\1.ffn.layers.1."),
    (r"^blocks\.(\d+)\.ls2\.gamma", r"layers.\1.ffn.gamma2.weight"),
    (r"^norm\.", "ln1."),
)
DETECTRON2 = (
    *((rf"^layer{stage}\.(.*)downsample\.0", rf"res{stage + 1}.\1shortcut") for stage in (1, 2, 3, 4)),
    *((rf"^layer{stage}\.(.*)downsample\.1", rf"res{stage + 1}.\1shortcut.norm") for stage in (1, 2, 3, 4)),
    *((rf"^layer{stage}\.(.*)bn(\d)", rf"res{stage + 1}.\1conv\2.norm") for stage in (1, 2, 3, 4)),
    *((rf"^layer{stage}\.", f"res{stage + 1}.") for stage in (1, 2, 3, 4)),
    *((r"^bn1", "stem.conv1.norm"), (r"^conv1", "stem.conv1")),
)


def make_libraries() -> dict[str, Made]:
    vit, registers, dinov2, swin, resnet = (weights_of(spec) for spec in (VIT, REGISTERS, DINOV2, SWIN, RESNET))
    arrays = {name: tensor.numpy() for name, tensor in substituted(resnet, *DETECTRON2).items()}
    detectron2 = {"model": arrays, "__author__": "MOCO", "matching_heuristics": True}
    mm_vit = prefixed("backbone.", substituted(dinov2, *MMPRETRAIN)) | head("", "head.x")
    mm_resnet = prefixed("backbone.", resnet) | head("", "neck.x", "queue")
    microsoft = {"model": old_downsampling(swin) | head("", "head.weight")}
    return {
        "detectron2": Made("detectron2", detectron2, RESNET, resnet),
        "mmpretrain_vit": Made("mmpretrain", {"meta": {"epoch": 100}, "state_dict": mm_vit}, DINOV2, dinov2),
        "mmpretrain_resnet": Made("mmpretrain", {"meta": {"epoch": 100}, "state_dict": mm_resnet}, RESNET, resnet),
        "timm_vit": Made("timm", {"state_dict": vit | head("", "head.weight")}, VIT, vit),
        "timm_registers": Made("timm", registers, REGISTERS, registers),
        "timm_swin": Made("timm", {"model": swin}, SWIN, swin),
        "microsoft_swin": Made("timm", microsoft, SWIN, swin),
        "torchvision_resnet": Made("timm", resnet | head("", "fc.weight", "fc.bias"), RESNET, resnet),
    }


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
HUGGINGFACE_ATTENTION = "encoder.layer.{}.attention.attention."


def make_huggingface() -> dict[str, Made]:
    vit = weights_of(VIT)
    bare = substituted(split_qkv(vit, HUGGINGFACE_ATTENTION), *HUGGINGFACE_VIT)
    return {
        "huggingface_vit": Made("huggingface_vit", prefixed("vit.", bare) | head("", "classifier.weight"), VIT, vit),
        "huggingface_vit_bare": Made("huggingface_vit", bare | head("", "pooler.dense.weight"), VIT, vit),
    }


HUGGINGFACE_DINOV2 = (
    *HUGGINGFACE,
    (r"^reg_token", "embeddings.register_tokens"),
    (r"^blocks\.(\d+)\.norm(\d)\.", r"encoder.layer.\1.norm\2."),
    (r"^blocks\.(\d+)\.ls(\d)\.gamma", r"encoder.layer.\1.layer_scale\2.lambda1"),
)
MLP = (r"^blocks\.(\d+)\.mlp\.fc(\d)\.", r"encoder.layer.\1.mlp.fc\2.")
GATED_MLP = (
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.mlp.weights_in."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.mlp.weights_out."),
)


def make_dinov2() -> dict[str, Made]:
    dinov2, registers = weights_of(DINOV2), weights_of(REGISTERS)
    own = {**dinov2, "mask_token": torch.zeros(1, 64)}
    chunked = substituted(own, (r"^blocks\.(\d+)\.", r"blocks.0.\1."))
    training = {"teacher": prefixed("backbone.", chunked) | head("dino_head.", "x")}
    hf = substituted(split_qkv(dinov2, HUGGINGFACE_ATTENTION), *HUGGINGFACE_DINOV2, MLP)
    # Beside registers the positions begin with one for CLS, here 0.25 everywhere, which timm's CLS token contains.
    position = torch.full_like(registers["cls_token"], 0.25)
    with_position = {
        **registers,
        "cls_token": registers["cls_token"] - position,
        "pos_embed": torch.cat([position, registers["pos_embed"]], dim=1),
    }
    own_registers = substituted(with_position, (r"^reg_token", "register_tokens"), (r"\.fc1\.", ".w12."), (r"\.fc2\.", ".w3."))
    hf_registers = substituted(split_qkv(with_position, HUGGINGFACE_ATTENTION), *HUGGINGFACE_DINOV2, *GATED_MLP)
    return {
        "dinov2": Made("dinov2", own, DINOV2, dinov2),
        "dinov2_registers": Made("dinov2", own_registers | {"mask_token": torch.zeros(1, 64)}, REGISTERS, registers),
        "dinov2_training": Made("dinov2", training, DINOV2, dinov2),
        "huggingface_dinov2": Made("huggingface_dinov2", hf | head("embeddings.", "mask_token"), DINOV2, dinov2),
        "huggingface_registers": Made("huggingface_dinov2", hf_registers, REGISTERS, registers),
    }


DINOV3_OWN = (
    (r"^reg_token", "storage_tokens"),
    (r"^rope\.periods", "rope_embed.periods"),
    (r"\.gamma_(\d)$", r".ls\1.gamma"),
    (r"\.fc1_g\.", ".w1."),
    (r"\.fc1_x\.", ".w2."),
)
HUGGINGFACE_DINOV3 = (
    (r"^(cls_token)", r"embeddings.\1"),
    (r"^reg_token", "embeddings.register_tokens"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings."),
    (r"^blocks\.(\d+)\.norm", r"layer.\1.norm"),
    (r"^blocks\.(\d+)\.attn\.([qv])_bias", r"layer.\1.attention.\2_proj.bias"),
    (r"\.query\.", ".q_proj."),
    (r"\.key\.", ".k_proj."),
    (r"\.value\.", ".v_proj."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"layer.\1.attention.o_proj."),
    (r"^blocks\.(\d+)\.gamma_(\d)", r"layer.\1.layer_scale\2.lambda1"),
    (r"^blocks\.(\d+)\.mlp\.fc1_g\.", r"layer.\1.mlp.gate_proj."),
    (r"^blocks\.(\d+)\.mlp\.fc1(_x)?\.", r"layer.\1.mlp.up_proj."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"layer.\1.mlp.down_proj."),
)


def joint_bias(weights: Weights) -> Weights:
    """The authors' bias of queries, keys and values with its mask; the keys' part, which the mask hides, is not zero."""
    joined = {name: tensor for name, tensor in weights.items() if not name.endswith(("q_bias", "v_bias"))}
    for name in weights.keys() - joined.keys():
        block = name[: -len("q_bias")]
        query, value = weights[f"{block}q_bias"], weights[f"{block}v_bias"]
        joined[f"{block}qkv.bias"] = torch.cat([query, torch.full_like(query, 7.0), value])
        joined[f"{block}qkv.bias_mask"] = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(len(query))
    return joined


def without_periods(weights: Weights) -> Weights:
    return {name: tensor for name, tensor in weights.items() if name != "rope.periods"}


def make_dinov3() -> dict[str, Made]:
    plain, gated = weights_of(DINOV3), weights_of(GATED)
    # The released files hold periods that were rounded.
    rounded = {**plain, "rope.periods": plain["rope.periods"].bfloat16().float()}
    mask_token = {"mask_token": torch.zeros(1, 128)}
    own = substituted(joint_bias(rounded), *DINOV3_OWN) | mask_token
    own_gated = substituted(gated, *DINOV3_OWN, (r"\.fc2\.", ".w3.")) | mask_token | head("local_cls_norm.", "weight", "bias")
    training = {"teacher": prefixed("backbone.", own) | head("", "dino_head.x", "ibot_head.x")}
    hf, hf_gated = (
        substituted(split_qkv(without_periods(weights), "layer.{}.attention."), *HUGGINGFACE_DINOV3)
        for weights in (plain, gated)
    )
    in_memory = substituted(hf_gated, (r"^layer\.", "model.layer."))
    return {
        "dinov3": Made("dinov3", own, DINOV3, rounded),
        "dinov3_gated": Made("dinov3", own_gated, GATED, gated),
        "dinov3_training": Made("dinov3", training, DINOV3, rounded),
        "huggingface_dinov3": Made("huggingface_dinov3", hf | head("embeddings.", "mask_token"), DINOV3, plain),
        "huggingface_dinov3_gated": Made("huggingface_dinov3", in_memory, GATED, gated),
        "timm_dinov3": Made("timm_dinov3", without_periods(plain) | head("", "head.weight"), DINOV3, plain),
        "timm_dinov3_gated": Made("timm_dinov3", {"state_dict": without_periods(gated)}, GATED, gated),
    }
