"""What DINOv2 adds to the ViT: registers, LayerScale, a gated MLP, patches of 14 pixels, antialiased positions."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from backbones.build import build_backbone
from backbones.convert import convert_content
from backbones.file import load_strictly
from backbones.spec import ViTSpec, spec_from_dict, spec_to_dict
from tests.layouts import DINOV2, REGISTERS, VIT, make_all
from tests.references.vit import patch_features

TOLERANCE = 2e-5


@torch.no_grad()
@pytest.mark.parametrize("name", ["dinov2", "dinov2_registers"])
@pytest.mark.parametrize("size", [(56, 56), (84, 140), (42, 56)])
def test_dinov2(name: str, size: tuple[int, int]) -> None:
    """The published order of steps, at the stored grid, enlarged and reduced."""
    made = make_all()[name]
    conversion = convert_content(made.checkpoint)
    network = build_backbone(conversion.spec).eval()
    load_strictly(network, conversion.state_dict)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = patch_features(made.checkpoint, images, num_heads=1)
    found = network.forward_tokens(images)
    torch.testing.assert_close(found.patches, expected, atol=TOLERANCE, rtol=0)
    assert found.grid == (size[0] // 14, size[1] // 14)
    other_rule = "antialias" if name == "dinov2" else "dino"
    mistaken = build_backbone(dataclasses.replace(conversion.spec, position_rule=other_rule)).eval()
    load_strictly(mistaken, conversion.state_dict)
    deviation = (mistaken.forward_tokens(images).patches - expected).abs().max().item()
    assert (deviation > 10 * TOLERANCE) == (size != (56, 56))


@torch.no_grad()
@pytest.mark.parametrize("spec", [REGISTERS, dataclasses.replace(REGISTERS, class_token=False)], ids=["with CLS", "without"])
def test_maps_hold_patches_only(spec: ViTSpec) -> None:
    network = build_backbone(spec).eval()
    images = torch.rand(1, 3, 28, 56)
    last = network.forward_maps(images, [0, 1])[1]
    assert last.shape == (1, 64, 2, 4)
    tokens = network.forward_tokens(images)
    assert (tokens.cls is None) == (not spec.class_token)
    normed = F.layer_norm(last.flatten(2).transpose(1, 2), (64,), eps=1e-6)
    torch.testing.assert_close(tokens.patches, normed, atol=TOLERANCE, rtol=0)


def test_older_files_lack_the_new_fields() -> None:
    new = ("mlp", "layer_scale", "register_tokens", "class_position", "position_rule")
    stored = {key: value for key, value in spec_to_dict(VIT).items() if key not in new}
    assert spec_from_dict(stored) == VIT
    assert spec_from_dict(spec_to_dict(REGISTERS)) == REGISTERS


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mlp": "relu"}, "mlp='relu'; known: gelu, swiglu"),
        ({"position_rule": "nearest"}, "position_rule='nearest'; known: dino, antialias"),
        ({"register_tokens": -1}, "must not be negative"),
        ({"register_tokens": 4}, "class_position=False"),
    ],
)
def test_specs_that_make_no_network(change: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        spec_from_dict(spec_to_dict(DINOV2) | change)
