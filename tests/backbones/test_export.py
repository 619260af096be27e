"""Backbones in other tools' layouts: there and back is the identity, and what a layout cannot hold is refused."""

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timm.models.resnet import Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from backbones.build import build_backbone
from backbones.convert import Selection, open_backbone
from backbones.export import LAYOUTS, export_backbone
from backbones.report import convert_file
from backbones.spec import BackboneSpec, DINOv3Spec, ResNetSpec, SwinSpec, ViTSpec
from tests.layouts import DINOV3, GATED, VIT, make_all, weights_of

SMALL = replace(VIT, depth=1)
SWIN = SwinSpec(embed_dim=16, depths=(2, 1), num_heads=(1, 2), window_size=4)
FIXED = {"dino": (True, True), "selfpatch": (False, False)}

vit_specs = st.builds(
    lambda width, side, norm, **numbers: ViTSpec(
        embed_dim=numbers["num_heads"] * width,
        image_size=numbers["patch_size"] * side,
        final_norm=norm or numbers["class_token"],  # a plain state dict with a CLS token and no final norm counts as incomplete
        **numbers,
    ),
    num_heads=st.integers(1, 4),
    width=st.sampled_from([8, 16, 64]),
    depth=st.integers(1, 11),
    patch_size=st.sampled_from([8, 14, 16]),
    side=st.integers(1, 6),
    class_token=st.booleans(),
    norm=st.booleans(),
    mlp_ratio=st.sampled_from([2.0, 4.0]),
)
swin_specs = st.builds(
    lambda width, heads, window: SwinSpec(embed_dim=width, depths=heads[::-1], num_heads=heads, window_size=window),
    width=st.sampled_from([16, 24]),
    heads=st.sampled_from([(1,), (1, 2), (1, 2, 4), (2, 1, 2, 1)]),
    window=st.sampled_from([4, 7]),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spec=st.one_of(vit_specs, swin_specs, st.sampled_from([DINOV3, GATED])),
    layout=st.sampled_from(LAYOUTS),
    suffix=st.sampled_from([".pth", ".pt", ".safetensors"]),
)
def test_there_and_back_is_the_identity_or_refused(tmp_path: Path, spec: BackboneSpec, layout: str, suffix: str) -> None:
    path = tmp_path / f"exported{suffix}"
    path.unlink(missing_ok=True)
    weights = weights_of(spec)
    holds = layout == "timm" or (
        isinstance(spec, ViTSpec) and (spec.class_token, spec.final_norm) == FIXED[layout] and spec.mlp_ratio == 4
    )
    if not holds:
        with pytest.raises(ValueError, match="--to timm") as caught:
            export_backbone(path, layout, spec, weights, epoch=7)
        assert "\n" not in str(caught.value)
        assert not path.exists()
        return
    note = export_backbone(path, layout, spec, weights, epoch=7)
    heads = spec.num_heads if isinstance(spec, ViTSpec) else None
    usual = heads is None or heads * 64 == spec.embed_dim
    assert (note == "") == usual
    back = open_backbone(path, Selection(num_heads=None if usual else heads))
    assert back.spec == spec
    bare = "timm_dinov3" if isinstance(spec, DINOv3Spec) else "timm"
    assert (back.source.format, back.source.epoch) == (
        (bare, -1) if layout == "timm" or suffix == ".safetensors" else (layout, 7)
    )
    assert back.state_dict.keys() == weights.keys()
    assert all(torch.equal(back.state_dict[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("spec", "reference"),
    [
        (SMALL, lambda: VisionTransformer(img_size=64, embed_dim=64, depth=1, num_heads=1, num_classes=0, global_pool="")),
        (SWIN, lambda: SwinTransformer(embed_dim=16, depths=(2, 1), num_heads=(1, 2), window_size=4, num_classes=0)),
        (ResNetSpec(layers=(1, 1, 2, 1)), lambda: ResNet(Bottleneck, (1, 1, 2, 1), num_classes=0)),
    ],
    ids=["vit", "swin", "resnet"],
)
def test_timm_itself_reads_it(tmp_path: Path, spec: BackboneSpec, reference: Any) -> None:
    """By timm's own loader, strictly, with the same features; and so do we."""
    network = build_backbone(spec).eval()
    path = tmp_path / "model.safetensors"
    assert export_backbone(path, "timm", spec, network.state_dict(), epoch=-1) == ""
    theirs = reference().eval()
    timm.models.load_checkpoint(theirs, str(path), strict=True)
    side = getattr(spec, "image_size", 64)
    images = torch.rand(1, 3, side, side)
    with torch.no_grad():
        ours, found = network.forward_tokens(images).patches, theirs.forward_features(images)
    if found.ndim == 4:
        found = found.flatten(1, 2) if isinstance(spec, SwinSpec) else found.flatten(2).transpose(1, 2)
    torch.testing.assert_close(found[:, -ours.shape[1] :], ours, atol=1e-5, rtol=1e-4)
    assert open_backbone(path).spec == spec


@pytest.mark.parametrize(
    ("layout", "name", "spec", "message"),
    [
        ("timm", "out.onnx", SMALL, r"out\.onnx.*\.safetensors or \.pth"),
        ("mae", "out.pth", SMALL, "timm, dino, selfpatch"),
        ("dino", "out.pth", replace(SMALL, class_token=False), r"class_token=True \(not False\)"),
        ("dino", "out.pth", DINOV3, "ViTs only, this is a dinov3"),
        ("selfpatch", "out.pth", SMALL, "class_token=False"),
        # Without masks, nothing in a Swin's weights shows the size of its pretraining images.
        ("timm", "out.pth", replace(SWIN, depths=(1,), num_heads=(1,), image_size=256), r"image_size=224 \(not 256\)"),
        # A hidden width that is not a multiple: 64 * 2.7 is cut to 172.
        ("timm", "out.pth", replace(SMALL, mlp_ratio=2.7), "mlp_ratio=2.6875"),
    ],
)
def test_what_a_layout_cannot_hold_is_one_line(
    tmp_path: Path, layout: str, name: str, spec: BackboneSpec, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        export_backbone(tmp_path / name, layout, spec, weights_of(spec), epoch=-1)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_weights_that_another_network_would_have_are_not_written(tmp_path: Path) -> None:
    incomplete = {name: tensor for name, tensor in weights_of(SMALL).items() if name != "norm.bias"}
    with pytest.raises(ValueError, match=r"missing: norm\.bias"):
        export_backbone(tmp_path / "out.pth", "timm", SMALL, incomplete, epoch=-1)
    with pytest.raises(ValueError, match=r"differ from those by up to 0\.\d\d%"):  # timm computes the rotary periods
        export_backbone(tmp_path / "out.pth", "timm", DINOV3, make_all()["dinov3"].weights, epoch=-1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "name"), [("backbone", "out.safetensors"), ("timm", "out.safetensors"), ("dino", "out.pth")]
)
def test_a_full_disk_names_the_file_and_leaves_what_was_there(tmp_path: Path, target: Any, name: str) -> None:
    source, output = tmp_path / "source.pth", tmp_path / name
    torch.save(weights_of(SMALL), source)
    output.write_text("before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{output}'"):
            convert_file(source, output, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert output.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"source.pth", name}
