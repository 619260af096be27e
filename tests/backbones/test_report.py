"""Conversions in words and numbers."""

import pytest

from backbones.build import build_backbone
from backbones.layouts import FORMATS, Conversion
from backbones.report import report_conversion
from backbones.spec import BackboneSpec, DINOv3Spec, ResNetSpec, SwinSpec, ViTSpec, spec_in_words

VIT = ViTSpec(embed_dim=64, depth=1, num_heads=1, patch_size=16, image_size=64, class_token=True, final_norm=True)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (VIT, "ViT: 1 blocks, 64 wide, 1 heads, patch 16, images of 64 px, CLS token, final norm"),
        (
            ViTSpec(
                embed_dim=64,
                depth=1,
                num_heads=2,
                patch_size=8,
                image_size=64,
                class_token=False,
                final_norm=False,
                mlp_ratio=2.0,
            ),
            "ViT: 1 blocks, 64 wide, 2 heads, patch 8, images of 64 px, no CLS token, no final norm, mlp ratio 2.0",
        ),
        (
            SwinSpec(embed_dim=16, depths=(2, 1), num_heads=(1, 2), window_size=7),
            "Swin: 2-1 blocks, 16 wide, 1-2 heads, window 7, patch 4, images of 224 px",
        ),
        (ResNetSpec(layers=(3, 4, 6, 3)), "ResNet: 3-4-6-3 bottleneck blocks"),
        (
            DINOv3Spec(
                embed_dim=64,
                depth=1,
                num_heads=1,
                patch_size=16,
                hidden_dim=96,
                register_tokens=4,
                mlp="swiglu",
                query_value_bias=False,
            ),
            "DINOv3 ViT with rotary positions: 1 blocks, 64 wide, 1 heads, patch 16, CLS token, final norm, hidden dim 96, "
            "register tokens 4, mlp swiglu, no query value bias",
        ),
    ],
)
def test_spec_in_words(spec: BackboneSpec, words: str) -> None:
    assert spec_in_words(spec) == words


def test_variants_are_named() -> None:
    words = spec_in_words(
        ViTSpec(
            embed_dim=64,
            depth=1,
            num_heads=1,
            patch_size=14,
            image_size=56,
            class_token=True,
            final_norm=True,
            layer_scale=True,
            register_tokens=4,
            class_position=False,
        )
    )
    assert words.endswith("final norm, layer scale, register tokens 4, no class position")


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
    assert report.parameters == 25_557_032 - 2_049_000
    assert (report.tensors_taken, report.tensors_left_over) == (318, 0)
    lines = dict(report.lines())
    assert lines["dropped on purpose"] == "3: 2 by fc.*, 1 by queue"
    assert lines["epoch"] == "not stated"


def test_every_layout_states_a_licence() -> None:
    assert all(isinstance(layout.licence, str) and layout.licence for layout in FORMATS.values())
    licences = {name: layout.licence for name, layout in FORMATS.items()}
    known = {"moco_v3": "CC-BY-NC-4.0", "moby": "MIT", "dino": "Apache-2.0", "selfpatch": "Apache-2.0", "timm": "not stated"}
    assert known.items() <= licences.items()
