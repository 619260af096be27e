"""Models of timm by name: everything but the download, which needs a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from backbones.convert import convert_checkpoint, convert_timm_model, convert_timm_module, write_conversion
from backbones.file import is_timm_name, read_backbone_file
from backbones.spec import DINOv3Spec, ResNetSpec, SwinSpec, ViTSpec

# Deep enough to have every kind of weight, shallow enough for a test.
SHALLOW = {"depth": 1}


def untrained(**changes: Any) -> Callable[..., nn.Module]:
    """timm's factory without the download."""

    def create(name: str, pretrained: bool) -> nn.Module:
        assert pretrained
        torch.manual_seed(0)
        return timm.create_model(name, pretrained=False, **changes)

    return create


@pytest.mark.parametrize(
    ("name", "changes", "family", "numbers"),
    [
        ("vit_small_patch16_224.dino", SHALLOW, ViTSpec, {"num_heads": 6, "patch_size": 16, "class_token": True}),
        ("vit_small_patch14_dinov2.lvd142m", {**SHALLOW, "img_size": 56}, ViTSpec, {"layer_scale": True, "image_size": 56}),
        ("vit_small_patch14_reg4_dinov2.lvd142m", {**SHALLOW, "img_size": 56}, ViTSpec, {"register_tokens": 4}),
        ("deit3_small_patch16_224.fb_in1k", SHALLOW, ViTSpec, {"class_position": False, "layer_scale": True}),
        ("vit_base_patch16_224.mae", SHALLOW, ViTSpec, {"embed_dim": 768, "num_heads": 12}),
        ("vit_small_patch16_dinov3.lvd1689m", SHALLOW, DINOv3Spec, {"num_heads": 6, "query_value_bias": False}),
        ("vit_small_plus_patch16_dinov3_qkvb.lvd1689m", SHALLOW, DINOv3Spec, {"mlp": "swiglu", "hidden_dim": 1536}),
        ("swin_tiny_patch4_window7_224.ms_in1k", {"depths": (2, 2, 1, 1)}, SwinSpec, {"window_size": 7, "image_size": 224}),
        ("resnet50.tv_in1k", {"layers": (1, 1, 1, 1)}, ResNetSpec, {"layers": (1, 1, 1, 1)}),
    ],
)
def test_supported_models(name: str, changes: dict[str, Any], family: type, numbers: dict[str, Any]) -> None:
    conversion = convert_timm_model(Path(f"timm:{name}"), create=untrained(**changes))
    assert isinstance(conversion.spec, family)
    assert {key: getattr(conversion.spec, key) for key in numbers} == numbers


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("convnext_tiny", {"depths": (1, 1, 1, 1)}, "none of the supported families"),
        ("vit_base_patch16_clip_224", SHALLOW, r"no rule of the layout covers: norm_pre"),
        ("resnet50d", {"layers": (1, 1, 1, 1)}, "none of the supported families"),
        ("vit_base_patch16_clip_quickgelu_224", {**SHALLOW, "pre_norm": False}, "other features"),
        ("resnet18", {}, "none of the supported families"),
        ("vit_small_patch16_rope_224", SHALLOW, "none of the supported families"),
    ],
)
def test_models_with_another_network(name: str, changes: dict[str, Any], match: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=match):
        convert_timm_module(timm.create_model(name, pretrained=False, **changes))


def test_heads_are_the_models_own() -> None:
    create = untrained(depth=1)
    assert convert_timm_model(Path("timm:vit_small_patch16_224.dino"), 6, create).spec.num_heads == 6  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="--num-heads 12 contradicts the model, which has 6"):
        convert_timm_model(Path("timm:vit_small_patch16_224.dino"), 12, create)


def test_unknown_names() -> None:
    with pytest.raises(
        ValueError, match=r"timm:vit_smal: timm has no pretrained model 'vit_smal'; of a similar name: vit_small_patch"
    ):
        convert_checkpoint(Path("timm:vit_smal"))
    with pytest.raises(ValueError, match=r"no pretrained model 'vit_small_patch16_224\.nobody'"):
        convert_checkpoint(Path("timm:vit_small_patch16_224.nobody"))
    with pytest.raises(ValueError, match="leave out --format and --branch"):
        convert_checkpoint(Path("timm:vit_small_patch16_224.dino"), branch="teacher")


def test_without_a_network() -> None:
    def unreachable(name: str, pretrained: bool) -> nn.Module:
        raise FileNotFoundError(f"cannot find {name}\nsecond line")

    with pytest.raises(
        ValueError, match=r"cannot fetch the weights of resnet50\.tv_in1k \(cannot find [^\n]*\); check the network$"
    ):
        convert_timm_model(Path("timm:resnet50.tv_in1k"), create=unreachable)


def test_a_named_model_becomes_a_backbone_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, digests = Path("timm:vit_small_patch16_224.dino"), []
    for folder in ("once", "twice"):
        conversion = convert_timm_model(source, create=untrained(depth=1))
        write_conversion(conversion, source, tmp_path / folder / "named.safetensors")
        content = read_backbone_file(tmp_path / folder / "named.safetensors")
        assert (content.source.file_name, content.source.format) == ("timm:vit_small_patch16_224.dino", "timm")
        digests.append(content.source.sha256)
    assert digests[0] == digests[1]
    assert len(digests[0]) == 64
    assert is_timm_name(source)
    assert not is_timm_name(tmp_path / "timm:a")
