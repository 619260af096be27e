"""What is said of a conversion, and how an untrained network is told from a trained one."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from backbones.build import AnyBackbone, build_backbone
from backbones.convert import Selection, convert_content
from backbones.layouts import LAYOUTS, Conversion
from backbones.layouts.base import Source
from backbones.report import inspect_backbone, report_conversion, report_lines
from backbones.spec import DINOv3Spec, ResNetSpec, SwinSpec, ViTSpec, architecture_name, spec_in_words, spec_to_dict

VIT_S = ViTSpec(embed_dim=384, depth=12, num_heads=6, patch_size=16, image_size=224, class_token=True, final_norm=True)
VIT = replace(VIT_S, embed_dim=64, depth=2, num_heads=2, image_size=64)
SWIN = SwinSpec(embed_dim=16, depths=(2, 2), num_heads=(1, 2), window_size=4, image_size=64)
DINOV3 = DINOv3Spec(embed_dim=384, depth=12, num_heads=6, patch_size=16, hidden_dim=1536, register_tokens=4, mlp="swiglu")


WIDTHS = "embed dim 384, depth 12, num heads 6, patch size 16"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (VIT_S, f"ViT-S/16: {WIDTHS}, image size 224, class token yes, final norm yes"),
        (SWIN, "Swin 2-2, 16 wide: embed dim 16, depths 2-2, num heads 1-2, window size 4, image size 64"),
        (ResNetSpec(layers=(3, 4, 6, 3)), "R50: layers 3-4-6-3"),
        (DINOV3, f"ViT-S+/16: {WIDTHS}, hidden dim 1536, register tokens 4, mlp swiglu"),
    ],
)
def test_spec_in_words(spec: Any, words: str) -> None:
    """Every number is named that is not at its default, so that no variant goes unmentioned."""
    assert spec_in_words(spec) == words


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (replace(VIT_S, embed_dim=768, num_heads=12, patch_size=14), "ViT-B/14"),
        (VIT, "ViT/16, 64 wide, 2 deep, 2 heads"),
        (replace(DINOV3, embed_dim=4096, depth=40, num_heads=32), "ViT-7B/16"),
        (replace(DINOV3, embed_dim=64, depth=2, num_heads=1), "DINOv3 ViT/16, 64 wide, 2 deep"),
        (replace(SWIN, embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)), "Swin-T"),
    ],
)
def test_architecture_name(spec: Any, name: str) -> None:
    assert architecture_name(spec_to_dict(spec)) == name
    with pytest.raises(ValueError, match="unknown backbone family 'mamba'"):
        architecture_name({"family": "mamba"})


def test_parameters_are_those_that_training_changes() -> None:
    spec = ResNetSpec(layers=(3, 4, 6, 3))
    weights = build_backbone(spec).state_dict()
    dropped = {"fc.*": ("fc.weight", "fc.bias"), "queue": ("queue",)}
    conversion = Conversion(source=Source(format="timm", branch="model"), spec=spec, state_dict=weights, dropped=dropped)
    report = report_conversion(conversion, "0" * 64)
    # torchvision's ResNet-50 has 25,557,032 parameters, its classifier 2,049,000 of them.
    assert report["parameters"] == 25_557_032 - 2_049_000
    assert (report["tensors_taken"], report["tensors_left_over"]) == (318, 0)
    lines = dict(report_lines(report))
    assert (lines["dropped on purpose"], lines["epoch"]) == ("3: 2 by fc.*, 1 by queue", "not stated")
    assert all(layout.licence for layout in LAYOUTS.values())
    assert (LAYOUTS["moco_v3"].licence, LAYOUTS["timm"].licence) == ("CC-BY-NC-4.0", "not stated")


def test_the_report_says_which_branch_was_preferred_and_which_heads_were_assumed() -> None:
    weights = build_backbone(VIT).state_dict()
    conversion = convert_content({"model": weights, "model_ema": weights, "epoch": 2}, Selection(num_heads=2))
    report = report_conversion(conversion, "0" * 64)
    assert dict(report_lines(report))["branch"] == "model_ema (preferred to model, which --branch takes)"
    assert not report["heads_assumed"]
    lines = dict(report_lines(report_conversion(convert_content(weights), "0" * 64)))
    assert lines["attention heads"].startswith("1 assumed, one per 64 channels")


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (1152, 16), (1280, 16), (1408, 16), (1536, 24), (1664, 16)])
def test_published_widths_have_their_published_heads(width: int, heads: int) -> None:
    """ViT-H, ViT-g, SO400M and others have no heads of 64 channels."""
    with torch.device("meta"):
        weights = build_backbone(replace(VIT, embed_dim=width, num_heads=heads, depth=1)).state_dict()
    weights = {name: torch.ones(1).expand(tensor.shape) for name, tensor in weights.items()}
    conversion = convert_content(weights)
    assert (conversion.spec.num_heads, conversion.heads_assumed) == (heads, False)  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return path


def fresh(spec: Any) -> AnyBackbone:
    torch.manual_seed(0)
    return build_backbone(spec)


def trained(spec: Any) -> AnyBackbone:
    """One step of AdamW moves every weight; the queries and keys are then sharpened as long training does."""
    network = fresh(spec).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    network.forward_tokens(torch.rand(2, 3, 64, 64)).patches.square().mean().backward()
    optimizer.step()
    if isinstance(spec, ViTSpec):
        with torch.no_grad():
            network.blocks[-1].attn.qkv.weight[: 2 * spec.embed_dim] *= 30
    return network


@pytest.mark.parametrize(
    "spec", [VIT, SWIN, replace(DINOV3, depth=1), ResNetSpec(layers=(1, 1, 1, 1))], ids=lambda spec: spec.family
)
def test_fresh_networks_are_told_from_trained_ones(spec: Any, noise: Path) -> None:
    found = inspect_backbone(fresh(spec), noise)
    assert 0 < found["norm_layers"] == found["norm_layers_as_initialised"]
    assert any("initial values" in warning for warning in found["warnings"])
    found = inspect_backbone(trained(spec), noise)
    assert found["norm_layers_as_initialised"] == 0
    assert found["warnings"] == []


def test_a_single_layer_that_was_not_loaded_and_uniform_attention_show(noise: Path) -> None:
    network = trained(VIT)
    nn.init.ones_(network.blocks[1].norm1.weight)
    assert inspect_backbone(network, noise)["warnings"] == []  # its trained bias remains
    nn.init.zeros_(network.blocks[1].norm1.bias)
    with torch.no_grad():
        network.blocks[-1].attn.qkv.weight[: 2 * VIT.embed_dim] /= 1000
        network.blocks[-1].attn.qkv.bias[: 2 * VIT.embed_dim] = 0
    found = inspect_backbone(network, noise)
    assert found["attention_entropy"] == pytest.approx(1, abs=1e-3)
    untouched, uniform = found["warnings"]
    assert untouched.startswith("1 of 5 normalisation layers")
    assert "attends uniformly" in uniform


def test_attention_entropy_is_that_of_the_attention_in_use(noise: Path) -> None:
    """Against PyTorch's attention: with the identity as values, its outputs are its weights."""
    network = trained(VIT).eval()
    attention = network.blocks[-1].attn
    seen = {}
    attention.register_forward_pre_hook(lambda module, arguments: seen.__setitem__("tokens", arguments[0]))
    found = inspect_backbone(network, noise)["attention_entropy"]
    tokens = seen["tokens"]
    queries, keys, _ = attention.qkv(tokens).unflatten(2, (3, 2, 32)).permute(2, 0, 3, 1, 4)
    count = tokens.shape[1]
    identity = torch.eye(count).expand(1, 2, count, count)
    weights = torch.nn.functional.scaled_dot_product_attention(queries, keys, identity)
    assert found == pytest.approx(torch.special.entr(weights).sum(-1).mean().item() / math.log(count), abs=1e-5)


@pytest.mark.parametrize(("bias", "similarity"), [(1, pytest.approx(1)), (0, None)])
def test_features_without_positions_show(noise: Path, bias: float, similarity: float | None) -> None:
    network = trained(VIT)
    nn.init.zeros_(network.norm.weight)
    nn.init.constant_(network.norm.bias, bias)
    found = inspect_backbone(network, noise)
    assert found["cosine_similarity"] == similarity
    assert found["effective_rank"] == pytest.approx(1)
    assert any("same at every position" in warning for warning in found["warnings"])
    json.dumps(found, allow_nan=False)


def test_statistics_by_hand(noise: Path) -> None:
    network = trained(VIT)
    whole = network.forward_tokens

    def features(images: torch.Tensor) -> object:
        corners = torch.zeros(1, 4, 64)
        corners[0, 0, 0] = corners[0, 1, 1] = 2  # two orthogonal vectors of length 2 ...
        corners[0, 2, 0] = corners[0, 3, 1] = -2  # ... and their opposites
        return whole(images)._replace(patches=corners)

    network.forward_tokens = features  # type: ignore[assignment, method-assign]
    found = inspect_backbone(network, noise)
    assert (found["mean"], found["norm"]) == (0, 2)
    assert found["effective_rank"] == pytest.approx(2)
    # Of six pairs two are opposite, four are orthogonal.
    assert found["cosine_similarity"] == pytest.approx(-2 / 6)


def test_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    path.write_text("<html>")
    with pytest.raises(ValueError, match=r"page\.jpg: not a readable image"):
        inspect_backbone(fresh(VIT), path)
    with pytest.raises(ValueError, match="absent"):
        inspect_backbone(fresh(VIT), tmp_path / "absent.png")
