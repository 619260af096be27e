"""The ViT adapter against outputs of the authors' network, position interpolation included."""

from pathlib import Path

import pytest
import torch

from backbones.file import load_strictly
from backbones.layouts.architecture import vit_spec
from backbones.vit import ViT

TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def case(golden_dir: Path) -> dict:
    return torch.load(golden_dir / "selfpatch" / "vit.pt", weights_only=True)


@pytest.fixture(scope="module")
def network(case: dict) -> ViT:
    network = ViT(vit_spec(case["state_dict"], case["num_heads"]))
    load_strictly(network, case["state_dict"])
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


@torch.no_grad()
def test_exact_size_interpolation_would_fail(case: dict, network: ViT, monkeypatch: pytest.MonkeyPatch) -> None:
    """The +0.1 in DINO's scale matters far more than the tolerance."""
    monkeypatch.setattr(network, "position_rule", "size")
    worst = max(
        (network.forward_tokens(images).patches - output).abs().max().item()
        for images, output in zip(case["images"], case["outputs"], strict=True)
    )
    assert worst > 10 * TOLERANCE
