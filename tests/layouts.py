"""Small networks in every layout that `backbones.layouts` reads, written down independently of its key tables."""

import argparse
import re
from collections.abc import Callable, Mapping
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
UNREGISTERED = replace(DINOV3, register_tokens=0)
SWIN = SwinSpec(embed_dim=16, depths=(2, 1), num_heads=(2, 4), window_size=4, image_size=224)
RESNET = ResNetSpec(layers=(1, 1, 1, 1))


def weights_of(spec: BackboneSpec) -> Weights:
    """Weights all of which matter: PyTorch starts norms, biases and LayerScale at values that hide mistakes."""
    generator = torch.Generator().manual_seed(0)
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


# What some layouts hold in another form than timm's.


def renamed(weights: Weights, names: Mapping[str, str]) -> Weights:
    """Every pattern is replaced in turn."""
    result = {}
    for name, tensor in weights.items():
        for pattern, target in names.items():
            name = re.sub(pattern, target, name)
        result[name] = tensor
    assert len(result) == len(weights)
    return result


def arrays(weights: Weights) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in weights.items()}


def split_qkv(weights: Weights) -> Weights:
    split: Weights = {}
    for name, tensor in weights.items():
        parts = ("query", "key", "value") if ".qkv." in name else ("",)
        split |= {name.replace("qkv", part): value.clone() for part, value in zip(parts, tensor.chunk(len(parts)), strict=True)}
    return split


def with_class_position(weights: Weights) -> Weights:
    """Beside registers the positions begin with one for CLS, which timm's CLS token contains."""
    token = weights["cls_token"]
    position = torch.linspace(-1, 1, token.shape[-1]).expand_as(token)  # LayerNorm would hide the same value in all channels
    return {**weights, "cls_token": token - position, "pos_embed": torch.cat([position, weights["pos_embed"]], dim=1)}


def without_periods(weights: Weights) -> Weights:
    return {name: tensor for name, tensor in weights.items() if name != "rope.periods"}


def joint_bias(weights: Weights) -> Weights:
    """The authors' bias of queries, keys and values with its mask; the keys' part, which the mask hides, is not zero."""
    joined = {name: tensor for name, tensor in weights.items() if not name.endswith(("q_bias", "v_bias"))}
    for block in ("blocks.0.attn.", "blocks.1.attn."):
        query, value = weights[f"{block}q_bias"], weights[f"{block}v_bias"]
        joined[f"{block}qkv.bias"] = torch.cat([query, torch.full_like(query, 7.0), value])
        joined[f"{block}qkv.bias_mask"] = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(len(query))
    return joined


# What the layouts call the parts of a network: timm's names and theirs, as patterns that are replaced one after the other.

SWINS_OWN = {"layers.1.downsample": "layers.0.downsample"}  # at the end of the stage before
SEQUENTIAL = {"^conv1": "0", "^bn1": "1", "^layer4": "7", "^layer3": "6", "^layer2": "5", "^layer1": "4"}
DETECTRON2 = (
    {"^conv1": "stem.conv1", "^bn1": "stem.conv1.norm", r"bn(\d)": r"conv\1.norm"}
    | {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"}
    | {"layer4": "res5", "layer3": "res4", "layer2": "res3", "layer1": "res2"}
)
MMPRETRAIN = (
    {"patch_embed.proj": "patch_embed.projection", "^blocks": "layers", r"\.norm": ".ln", "^norm": "ln1"}
    | {"ls1.gamma": "attn.gamma1.weight", "ls2.gamma": "ffn.gamma2.weight"}
    | {"mlp.fc1": "ffn.layers.0.0", "mlp.fc2": "ffn.layers.1"}
)
HUGGINGFACE = (
    {"cls_token": "embeddings.cls_token", "reg_token": "embeddings.register_tokens"}
    | {"pos_embed": "embeddings.position_embeddings", "patch_embed.proj": "embeddings.patch_embeddings.projection"}
    | {"attn.proj": "attention.output.dense", "attn.": "attention.attention.", "^blocks": "encoder.layer", "^norm": "layernorm"}
)
HUGGINGFACE_VIT = (
    split_qkv,
    HUGGINGFACE,
    {"norm1": "layernorm_before", "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"},
)
HUGGINGFACE_DINOV2 = (split_qkv, HUGGINGFACE, {r"ls(\d).gamma": r"layer_scale\1.lambda1"})
HUGGINGFACE_REGISTERS = (*HUGGINGFACE_DINOV2, {"fc1": "weights_in", "fc2": "weights_out"})
TRANSFORMERS5 = {r"attention.attention.(.)\w+": r"attention.\1_proj", "attention.output.dense": "attention.o_proj"}
TRANSFORMERS5_VIT = (
    *HUGGINGFACE_VIT[:2],
    TRANSFORMERS5,
    {"encoder.layer": "layers", "norm1": "layernorm_before"},
    {"norm2": "layernorm_after"},
)
TRANSFORMERS5_DINOV2 = (*HUGGINGFACE_DINOV2, TRANSFORMERS5)
TRANSFORMERS5_REGISTERS = (*HUGGINGFACE_REGISTERS, TRANSFORMERS5)
HUGGINGFACE_DINOV3 = (
    without_periods,
    split_qkv,
    {"cls_token": "embeddings.cls_token", "reg_token": "embeddings.register_tokens", "^blocks": "layer"},
    {"patch_embed.proj": "embeddings.patch_embeddings", r"gamma_(\d)": r"layer_scale\1.lambda1"},
    {r"attn.(q|v)_bias": r"attention.\1_proj.bias", "attn.proj": "attention.o_proj"},
    {"attn.query": "attention.q_proj", "attn.key": "attention.k_proj", "attn.value": "attention.v_proj"},
    {"fc1_g": "gate_proj", "fc1_x": "up_proj", "fc1": "up_proj", "fc2": "down_proj"},
)
DINOV2_REGISTERS = {"reg_token": "register_tokens", "fc1": "w12", "fc2": "w3"}
DINOV3_OWN = {"reg_token": "storage_tokens", "^rope": "rope_embed", r"gamma_(\d)": r"ls\1.gamma"}
DINOV3_GATED = {**DINOV3_OWN, "fc1_g": "w1", "fc1_x": "w2", "fc2": "w3"}


class Made(NamedTuple):
    """A checkpoint and what must come out of it."""

    layout: str
    checkpoint: Any
    spec: BackboneSpec
    weights: Weights
    num_heads: int | None = None


_kept_weights_of = cache(weights_of)


def made(
    layout: str,
    spec: BackboneSpec,
    place: str,
    others: str = "",
    *forms: Mapping[str, str] | Callable[[Weights], Any],
    weights: Weights | None = None,
    zeroed: Mapping[str, str] | None = None,
    **rest: Any,
) -> Made:
    """A checkpoint that is written down by paths: the keys of nested dictionaries, joined by `/`.

    `place` comes before the backbone's names, `forms` turn timm's weights into the layout's, `others` are tensors beside them, which
    conversion leaves out, and `rest` is the rest. Other branches are all zeros: `zeroed` says what their paths have instead.
    """
    weights = weights or _kept_weights_of(spec)
    laid_out: Weights = weights
    for form in forms:
        laid_out = form(laid_out) if callable(form) else renamed(laid_out, form)
    group = place[: place.rfind("/") + 1]
    entries = prefixed(place, laid_out) | prefixed(group, {name: torch.ones(2) for name in others.split()})
    for branch, other in (zeroed or {}).items():
        entries |= {path.replace(branch, other): torch.zeros_like(entries[path]) for path in entries if branch in path}
    checkpoint: dict[str, Any] = {}
    for path, value in {**entries, **rest}.items():
        *keys, name = path.split("/")
        node = checkpoint
        for key in keys:
            node = node.setdefault(key, {})
        node[name] = value
    return Made(layout, checkpoint, spec, weights)


def student_teacher(
    layout: str,
    spec: BackboneSpec,
    others: str,
    *forms: Any,
    place: str = "teacher/backbone.",
    centre: tuple[int, ...] = (1, 8),
) -> Made:
    rest = {"epoch": 3, "args": argparse.Namespace(arch="toy"), "dino_loss/center": torch.zeros(centre)}
    return made(layout, spec, place, others, *forms, zeroed={"teacher/": "student/module."}, **rest)


def moco(layout: str, *others: str) -> Made:
    heads = " ".join(f"module.encoder_q.{name}" for name in ("fc.0.weight", "fc.2.weight", *others))
    queue = {f"state_dict/module.{name}": torch.ones(2) for name in ("queue", "queue_ptr")}
    branches = {"encoder_q": "encoder_k"}
    return made(layout, RESNET, "state_dict/module.encoder_q.", heads, zeroed=branches, epoch=200, arch="resnet50", **queue)


def _of_training_codes() -> dict[str, Made]:
    own = prefixed("backbone.", _kept_weights_of(VIT)) | {"heads.x": torch.ones(2)}
    patchbench = {"format": "patchbench-pretraining", "version": 1, "settings": {"method": "dino"}, "epoch": 3}
    patchbench |= {"backbone_spec": spec_to_dict(VIT), "student": own, "teacher": own}
    vissl = "classy_state_dict/base_model/model"
    densecl = "encoder_q.1.mlp.0.weight encoder_q.1.mlp2.0.weight queue queue_ptr queue2 queue2_ptr"
    branches = {"encoder_q": "encoder_k", "encoder_q.0.": "backbone."}
    buffers = {
        "model/encoder.layers.0.blocks.1.attn_mask": torch.zeros(14**2, 16, 16),
        "model/encoder.layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.int64),
    }
    moco_v3 = made("moco_v3", VIT, "state_dict/module.base_encoder.", "module.base_encoder.head.x", epoch=300, arch="vit_small")
    decoder = "mask_token decoder_pos_embed decoder_embed.weight decoder_blocks.0.norm1.weight"
    return {
        "patchbench": Made("patchbench", patchbench, VIT, _kept_weights_of(VIT)),
        "selfpatch": student_teacher("selfpatch", BARE_VIT, "ca_head.cls_token c_head.x p_head.x"),
        "dino": student_teacher("dino", VIT, "head.last_layer.weight_g"),
        "dino_resnet": student_teacher("dino", RESNET, "head.x"),
        "pw_self": student_teacher("pw_self", VIT, "head.x", centre=(1, 17, 8)),
        "ibot": student_teacher("ibot", VIT, "head.mlp.0.weight head.last_layer2.weight_g"),
        "ibot_swin": student_teacher("ibot", SWIN, "head.last_layer2.weight_g", SWINS_OWN),
        "esvit": student_teacher("esvit", SWIN, "head.x head_dense.x", SWINS_OWN, place="teacher/"),
        "dino_vissl": made("dino_vissl", VIT, f"{vissl}/trunk/", phase_idx=299, **{f"{vissl}/heads/x": torch.ones(2)}),
        "moco": moco("moco"),
        "resim": moco("resim", "fpn_lateral3.weight", "fpn_output4.bias"),
        "densecl": made("densecl", RESNET, "state_dict/encoder_q.0.", densecl, zeroed=branches, **{"meta/epoch": 200}),
        "swav": made("swav", RESNET, "module.", "module.projection_head.0.weight module.prototypes.weight"),
        "moby": made("moby", VIT, "model/encoder.", "queue1 projector.x", epoch=299),
        "moby_swin": made("moby", SWIN, "model/encoder.", "", SWINS_OWN, epoch=299, **buffers),
        "moco_v3": moco_v3._replace(num_heads=1),
        "mae": made("mae", VIT, "model/", decoder, epoch=799),
    }


def _of_dinov2_and_dinov3() -> dict[str, Made]:
    # The files that the authors of DINOv3 released hold periods that were rounded.
    plain = _kept_weights_of(DINOV3)
    rounded = {**plain, "rope.periods": plain["rope.periods"].bfloat16().float()}
    training = "backbone.mask_token dino_head.x ibot_head.x"
    return {
        "dinov2": made("dinov2", DINOV2, "", "mask_token"),
        "dinov2_registers": made("dinov2", REGISTERS, "", "mask_token", with_class_position, DINOV2_REGISTERS),
        "dinov2_training": made("dinov2", DINOV2, "teacher/backbone.", training, {"^blocks": "blocks.0"}),
        "dinov3": made("dinov3", DINOV3, "", "mask_token", joint_bias, DINOV3_OWN, weights=rounded),
        "dinov3_gated": made("dinov3", GATED, "", "mask_token local_cls_norm.weight", DINOV3_GATED),
        "dinov3_training": made("dinov3", DINOV3, "teacher/backbone.", training, joint_bias, DINOV3_OWN, weights=rounded),
        "timm_dinov3": made("timm_dinov3", DINOV3, "", "head.weight", without_periods),
        "timm_dinov3_gated": made("timm_dinov3", GATED, "state_dict/", "", without_periods),
    }


def _of_hugging_face() -> dict[str, Made]:
    empty = {"embeddings.register_tokens": torch.ones(1, 0, 128)}
    return {
        "huggingface_dinov3": made("huggingface_dinov3", DINOV3, "", "embeddings.mask_token", *HUGGINGFACE_DINOV3),
        "huggingface_dinov3_plain": made("huggingface_dinov3", UNREGISTERED, "", "", *HUGGINGFACE_DINOV3, **empty),
        "transformers5_vit": made("huggingface_vit", VIT, "vit.", "classifier.weight", *TRANSFORMERS5_VIT),
        "transformers5_mae": made(
            "huggingface_vit", VIT, "vit.", "decoder.x", *TRANSFORMERS5_VIT, {"layers": "encoder.layers"}
        ),
        "transformers5_dinov2": made("huggingface_dinov2", DINOV2, "", "embeddings.mask_token", *TRANSFORMERS5_DINOV2),
        "transformers5_registers": made("huggingface_dinov2", REGISTERS, "", "", with_class_position, *TRANSFORMERS5_REGISTERS),
        "huggingface_dinov3_gated": made("huggingface_dinov3", GATED, "", "", *HUGGINGFACE_DINOV3, {"^layer": "model.layer"}),
        "huggingface_dinov2": made("huggingface_dinov2", DINOV2, "", "embeddings.mask_token", *HUGGINGFACE_DINOV2),
        "huggingface_registers": made("huggingface_dinov2", REGISTERS, "", "", with_class_position, *HUGGINGFACE_REGISTERS),
        "huggingface_vit": made("huggingface_vit", VIT, "vit.", "classifier.weight", *HUGGINGFACE_VIT),
        "huggingface_vit_bare": made("huggingface_vit", VIT, "", "pooler.dense.weight", *HUGGINGFACE_VIT),
    }


def _of_libraries() -> dict[str, Made]:
    detectron2 = {"__author__": "MOCO", "matching_heuristics": True}
    return {
        "detectron2": made("detectron2", RESNET, "model/", "", DETECTRON2, arrays, **detectron2),
        "mmpretrain_vit": made("mmpretrain", DINOV2, "state_dict/backbone.", "head.x", MMPRETRAIN, **{"meta/epoch": 100}),
        "mmpretrain_resnet": made("mmpretrain", RESNET, "state_dict/backbone.", "neck.x queue", **{"meta/epoch": 100}),
        "timm_vit": made("timm", VIT, "state_dict/", "head.weight"),
        "timm_registers": made("timm", REGISTERS, ""),
        "timm_swin": made("timm", SWIN, "model/"),
        "microsoft_swin": made("timm", SWIN, "model/", "head.weight", SWINS_OWN),
        "sequential_resnet": made("sequential_resnet", RESNET, "state_dict/backbone.", "projection_head.x", SEQUENTIAL),
        "torchvision_resnet": made("timm", RESNET, "", "fc.weight fc.bias"),
    }


@cache
def make_all() -> dict[str, Made]:
    """Every layout by a name of its own; some layouts have several variants."""
    return _of_training_codes() | _of_dinov2_and_dinov3() | _of_hugging_face() | _of_libraries()
