"""Networks and converted checkpoints in published layouts give the features of the networks that they came from."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.build import network_of
from backbones.convert import Selection, open_backbone, write_conversion
from backbones.export import export_backbone
from backbones.file import load_backbone
from backbones.layouts import LAYOUTS
from backbones.layouts.architecture import vit_spec
from backbones.spec import ViTSpec
from backbones.vit import ViT

TOLERANCE = 2e-5
# Widths and heads of ViT-Ti, -S and -B; MoCo-v3's ViT-S has 12.
PUBLISHED_HEADS = {(192, 3), (384, 6), (384, 12), (768, 12)}


def cases(golden_dir: Path) -> Iterator[tuple[Path, dict[str, Any], list[Tensor]]]:
    folder = golden_dir / "formats"
    images = torch.load(folder / "images.pt", weights_only=True)
    paths = sorted(folder.glob("*.pth"))
    assert paths
    for path in paths:
        expected = torch.load(path.with_name(f"{path.stem}.expected.pt"), weights_only=True)
        yield path, expected, images[: len(expected["tokens"])]


def convert(path: Path, expected: dict[str, Any], **options: Any) -> Any:
    """Convert with the recorded heads stated where only the author knows them: in any but a published architecture."""
    try:
        conversion = open_backbone(path, Selection(**options))
    except ValueError as error:
        if "--num-heads" not in str(error):
            raise
    else:
        spec = conversion.spec
        if not isinstance(spec, ViTSpec) or (spec.embed_dim, expected["num_heads"]) in PUBLISHED_HEADS:
            return conversion
    return open_backbone(path, Selection(num_heads=expected["num_heads"], **options))


def deviation(network: torch.nn.Module, images: list[Tensor], tokens: list[Tensor]) -> float:
    with torch.no_grad():
        outputs = [network.eval().forward_tokens(image).patches for image in images]  # type: ignore[operator]
    return max((output - expected).abs().max().item() for output, expected in zip(outputs, tokens, strict=True))


def test_features(golden_dir: Path, tmp_path: Path) -> None:
    for path, expected, images in cases(golden_dir):
        conversion = convert(path, expected)
        heads = expected["num_heads"]
        assert conversion.spec.num_heads == (tuple(heads) if isinstance(heads, list) else heads)
        output = tmp_path / f"{path.stem}.safetensors"
        write_conversion(conversion, path, output)
        assert deviation(load_backbone(output), images, expected["tokens"]) < TOLERANCE, path.name


def test_known_mistakes_are_caught(golden_dir: Path) -> None:
    """Other heads, another branch, another position rule: each moves the features by more than the tolerance."""
    compared = 0
    for path, expected, images in cases(golden_dir):
        conversion = convert(path, expected)
        if not isinstance(conversion.spec, ViTSpec):
            continue
        wrong_heads = replace(conversion.spec, num_heads=1 if conversion.spec.num_heads > 1 else 2)
        network = network_of(wrong_heads, conversion.state_dict)
        assert deviation(network, images, expected["tokens"]) > TOLERANCE, path.name
        if len(images) > 1:
            for mistaken in ("size", "antialias"):  # the latter is timm's own
                network = ViT(conversion.spec)
                network.load_state_dict(conversion.state_dict)
                network.position_rule = mistaken
                assert deviation(network, images, expected["tokens"]) > TOLERANCE, path.name
        compared += 1
    assert compared


def test_other_branches_are_not_taken_unasked(golden_dir: Path) -> None:
    """The golden files fill the branches that must not be taken with zeros."""
    compared = 0
    for path, expected, images in cases(golden_dir):
        conversion = convert(path, expected)
        assert any(tensor.any() for tensor in conversion.state_dict.values())
        for branch in LAYOUTS[conversion.source.format].branches[1:]:
            other = convert(path, expected, branch=branch)
            assert other.source.branch == branch
            network = network_of(other.spec, other.state_dict)
            assert deviation(network, images, expected["tokens"]) > TOLERANCE, (path.name, branch)
            compared += 1
    assert compared


def test_features_survive_another_layout(golden_dir: Path, tmp_path: Path) -> None:
    """From a published layout to another and back: bit-identical weights."""
    compared = 0
    for path, expected, _ in cases(golden_dir):
        heads = expected["num_heads"] if isinstance(expected["num_heads"], int) else None
        source = open_backbone(path, Selection(num_heads=heads))
        if not (isinstance(source.spec, ViTSpec) and source.spec.mlp_ratio == 4):
            continue
        layout = "dino" if source.spec.class_token else "selfpatch"
        output = tmp_path / path.name
        export_backbone(output, layout, source.spec, source.state_dict, source.source.epoch)
        back = open_backbone(output, Selection(num_heads=heads))
        assert (back.source.format, back.spec, back.source.epoch) == (layout, source.spec, source.source.epoch)
        assert back.state_dict.keys() == source.state_dict.keys()
        assert all(torch.equal(back.state_dict[name], tensor.float()) for name, tensor in source.state_dict.items())
        compared += 1
    assert compared


@pytest.fixture(scope="module")
def case(golden_dir: Path) -> dict:
    return torch.load(golden_dir / "selfpatch" / "vit.pt", weights_only=True)


@pytest.fixture(scope="module")
def network(case: dict) -> ViT:
    network = ViT(vit_spec(case["state_dict"], case["num_heads"]))
    network.load_state_dict(case["state_dict"])
    return network.eval()


@torch.no_grad()
def test_tokens_and_maps(case: dict, network: ViT) -> None:
    assert len(case["images"]) > 0
    for images, output, intermediate in zip(case["images"], case["outputs"], case["intermediate"], strict=True):
        tokens = network.forward_tokens(images)
        torch.testing.assert_close(tokens.patches, output, atol=TOLERANCE, rtol=0)
        assert tokens.cls is None
        assert tokens.grid == tuple(side // case["patch_size"] for side in images.shape[-2:])
        last = range(case["depth"] - len(intermediate), case["depth"])
        for found, expected in zip(network.forward_maps(images, list(last)), intermediate, strict=True):
            torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, atol=TOLERANCE, rtol=0)
