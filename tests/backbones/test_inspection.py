"""Fresh networks are told from trained ones by what training never leaves exactly as it was."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from backbones.build import AnyBackbone, build_backbone
from backbones.report import inspect_backbone
from backbones.spec import BackboneSpec, ResNetSpec, SwinSpec, ViTSpec

VIT = ViTSpec(embed_dim=64, depth=2, num_heads=2, patch_size=16, image_size=64, class_token=True, final_norm=True)
SPECS = [
    VIT,
    SwinSpec(embed_dim=16, depths=(2, 2), num_heads=(1, 2), window_size=4, image_size=64),
    ResNetSpec(layers=(1, 1, 1, 1)),
]


@pytest.fixture(scope="module")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return path


def fresh(spec: BackboneSpec) -> AnyBackbone:
    torch.manual_seed(0)
    return build_backbone(spec)


def trained(spec: BackboneSpec) -> AnyBackbone:
    """One step of AdamW moves every weight; the queries and keys are then sharpened as long training does."""
    network = fresh(spec).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    network.forward_tokens(torch.rand(2, 3, 64, 64)).patches.square().mean().backward()
    optimizer.step()
    if isinstance(spec, ViTSpec):
        with torch.no_grad():
            network.blocks[-1].attn.qkv.weight[: 2 * spec.embed_dim] *= 30
    return network


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.family)
def test_fresh_networks_are_told_from_trained_ones(spec: BackboneSpec, image_file: Path) -> None:
    found = inspect_backbone(fresh(spec), image_file)
    assert 0 < found["norm_layers"] == found["norm_layers_as_initialised"]
    assert any("initial values" in warning for warning in found["warnings"])
    found = inspect_backbone(trained(spec), image_file)
    assert found["norm_layers_as_initialised"] == 0
    assert found["warnings"] == []


def test_a_single_layer_that_was_not_loaded_shows(image_file: Path) -> None:
    network = trained(VIT)
    nn.init.ones_(network.blocks[1].norm1.weight)
    assert inspect_backbone(network, image_file)["warnings"] == []  # its trained bias remains
    nn.init.zeros_(network.blocks[1].norm1.bias)
    (warning,) = inspect_backbone(network, image_file)["warnings"]
    assert warning.startswith("1 of 5 normalisation layers")


def test_uniform_attention_shows(image_file: Path) -> None:
    network = trained(VIT)
    with torch.no_grad():
        network.blocks[-1].attn.qkv.weight[: 2 * VIT.embed_dim] /= 1000
        network.blocks[-1].attn.qkv.bias[: 2 * VIT.embed_dim] = 0
    found = inspect_backbone(network, image_file)
    assert found["attention_entropy"] == pytest.approx(1, abs=1e-3)
    (warning,) = found["warnings"]
    assert "attends uniformly" in warning


def test_attention_entropy_is_that_of_the_attention_in_use(image_file: Path) -> None:
    """Against PyTorch's attention: with the identity as values, its outputs are its weights."""
    network = trained(VIT).eval()
    attention = network.blocks[-1].attn
    seen = {}
    attention.register_forward_pre_hook(lambda module, arguments: seen.__setitem__("tokens", arguments[0]))
    found = inspect_backbone(network, image_file)["attention_entropy"]
    tokens = seen["tokens"]
    queries, keys, _ = attention.qkv(tokens).unflatten(2, (3, 2, 32)).permute(2, 0, 3, 1, 4)
    count = tokens.shape[1]
    identity = torch.eye(count).expand(1, 2, count, count)
    weights = torch.nn.functional.scaled_dot_product_attention(queries, keys, identity)
    assert found == pytest.approx(torch.special.entr(weights).sum(-1).mean().item() / math.log(count), abs=1e-5)


def test_features_without_positions_show(image_file: Path) -> None:
    network = trained(VIT)
    with torch.no_grad():
        network.norm.weight.zero_()
        network.norm.bias.fill_(1)
    found = inspect_backbone(network, image_file)
    assert found["cosine_similarity"] == pytest.approx(1)
    assert found["effective_rank"] == pytest.approx(1)
    assert any("same at every position" in warning for warning in found["warnings"])
    with torch.no_grad():
        network.norm.bias.zero_()
    found = inspect_backbone(network, image_file)
    assert found["cosine_similarity"] is None
    json.dumps(found, allow_nan=False)
    assert any("same at every position" in warning for warning in found["warnings"])


def test_statistics_by_hand(image_file: Path) -> None:
    network = trained(VIT)
    whole = network.forward_tokens

    def features(images: torch.Tensor) -> object:
        corners = torch.zeros(1, 4, 64)
        corners[0, 0, 0] = corners[0, 1, 1] = 2  # two orthogonal vectors of length 2 ...
        corners[0, 2, 0] = corners[0, 3, 1] = -2  # ... and their opposites
        return whole(images)._replace(patches=corners)

    network.forward_tokens = features  # type: ignore[assignment, method-assign]
    found = inspect_backbone(network, image_file)
    assert (found["mean"], found["norm"]) == (0, 2)
    assert found["effective_rank"] == pytest.approx(2)
    # Of six pairs two are opposite, four are orthogonal.
    assert found["cosine_similarity"] == pytest.approx(-2 / 6)


def test_effective_rank_is_that_of_the_centred_features(image_file: Path) -> None:
    network = trained(VIT)
    before = inspect_backbone(network, image_file)["effective_rank"]
    with torch.no_grad():
        network.norm.bias += 10
    assert inspect_backbone(network, image_file)["effective_rank"] == pytest.approx(before, rel=1e-4)


def test_no_image(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    path.write_text("<html>")
    with pytest.raises(ValueError, match=r"page\.jpg: no readable image"):
        inspect_backbone(fresh(VIT), path)
    with pytest.raises(ValueError, match="absent"):
        inspect_backbone(fresh(VIT), tmp_path / "absent.png")
