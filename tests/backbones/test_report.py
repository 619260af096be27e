"""Conversions in words and numbers."""

from dataclasses import replace
from typing import Any

import pytest

from backbones.build import build_backbone
from backbones.layouts import FORMATS, Conversion
from backbones.report import report_conversion, report_lines
from backbones.spec import BackboneSpec, DINOv3Spec, ResNetSpec, SwinSpec, ViTSpec, architecture_name, spec_in_words

VIT = ViTSpec(embed_dim=384, depth=12, num_heads=6, patch_size=16, image_size=224, class_token=True, final_norm=True)
DINOV3 = DINOv3Spec(embed_dim=384, depth=12, num_heads=6, patch_size=16, hidden_dim=1536, register_tokens=4, mlp="swiglu")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            VIT,
            "ViT-S/16: embed dim 384, depth 12, num heads 6, patch size 16, image size 224, class token yes, final norm yes",
        ),
        (
            replace(VIT, num_heads=12, class_token=False, final_norm=False, mlp_ratio=2.0, layer_scale=True),
            "ViT-S/16, 12 heads: embed dim 384, depth 12, num heads 12, patch size 16, image size 224, class token no, "
            "final norm no, mlp ratio 2.0, layer scale yes",
        ),
        (
            SwinSpec(embed_dim=16, depths=(2, 1), num_heads=(1, 2), window_size=7),
            "Swin 2-1, 16 wide: embed dim 16, depths 2-1, num heads 1-2, window size 7",
        ),
        (ResNetSpec(layers=(3, 4, 6, 3)), "R50: layers 3-4-6-3"),
        (
            replace(VIT, depth=1),
            "ViT/16, 384 wide, 1 deep: embed dim 384, depth 1, num heads 6, patch size 16, image size 224, "
            "class token yes, final norm yes",
        ),
        (
            DINOV3,
            "ViT-S+/16: embed dim 384, depth 12, num heads 6, patch size 16, hidden dim 1536, register tokens 4, mlp swiglu",
        ),
    ],
)
def test_spec_in_words(spec: BackboneSpec, words: str) -> None:
    """Every number is named that is not at its default, so that no variant goes unmentioned."""
    assert spec_in_words(spec) == words


@pytest.mark.parametrize(
    ("family", "numbers", "name"),
    [
        ("vit", {"embed_dim": 768, "depth": 12, "num_heads": 12, "patch_size": 14}, "ViT-B/14"),
        ("vit", {"embed_dim": 64, "depth": 2, "num_heads": 2, "patch_size": 8}, "ViT/8, 64 wide, 2 deep, 2 heads"),
        ("dinov3", {"embed_dim": 4096, "depth": 40, "patch_size": 16, "mlp": "swiglu"}, "ViT-7B/16"),
        ("dinov3", {"embed_dim": 64, "depth": 2, "patch_size": 16, "mlp": "gelu"}, "DINOv3 ViT/16, 64 wide, 2 deep"),
        ("swin", {"embed_dim": 96, "depths": [2, 2, 6, 2]}, "Swin-T"),
        ("resnet", {"layers": [1, 1, 1, 1]}, "ResNet 1-1-1-1"),
    ],
)
def test_architecture_name(family: str, numbers: dict[str, Any], name: str) -> None:
    assert architecture_name({"family": family, **numbers}) == name


def test_an_unknown_family_has_no_name() -> None:
    with pytest.raises(ValueError, match="unknown backbone family 'mamba'"):
        architecture_name({"family": "mamba"})


def test_parameters_are_those_that_training_changes() -> None:
    spec = ResNetSpec(layers=(3, 4, 6, 3))
    conversion = Conversion(
        format="timm",
        branch="model",
        spec=spec,
        state_dict=build_backbone(spec).state_dict(),
        dropped={"fc.*": ("fc.weight", "fc.bias"), "queue": ("queue",)},
        epoch=-1,
    )
    report = report_conversion(conversion, "0" * 64)
    # torchvision's ResNet-50 has 25,557,032 parameters, its classifier 2,049,000 of them.
    assert report["parameters"] == 25_557_032 - 2_049_000
    assert (report["tensors_taken"], report["tensors_left_over"]) == (318, 0)
    lines = dict(report_lines(report))
    assert lines["dropped on purpose"] == "3: 2 by fc.*, 1 by queue"
    assert lines["epoch"] == "not stated"


def test_every_layout_states_a_licence() -> None:
    assert all(isinstance(layout.licence, str) and layout.licence for layout in FORMATS.values())
    licences = {name: layout.licence for name, layout in FORMATS.items()}
    known = {"moco_v3": "CC-BY-NC-4.0", "moby": "MIT", "dino": "Apache-2.0", "selfpatch": "Apache-2.0", "timm": "not stated"}
    assert known.items() <= licences.items()
