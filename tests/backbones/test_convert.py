"""Finding a layout, refusing what does not fit, and the bad files that people really have."""

import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timm.models.swin_transformer import SwinTransformer

from backbones.build import build_backbone
from backbones.checkpoint import load_checkpoint
from backbones.convert import convert_checkpoint, write_conversion
from backbones.file import load_backbone, read_backbone_file
from backbones.layouts import identify
from backbones.spec import ResNetSpec, SwinSpec, ViTSpec

SPEC = ViTSpec(embed_dim=64, depth=2, num_heads=1, patch_size=16, image_size=64, class_token=True, final_norm=True)


def dino_checkpoint() -> dict[str, Any]:
    state = build_backbone(SPEC).state_dict()
    student = {f"module.backbone.{name}": tensor for name, tensor in state.items()} | {"module.head.last": torch.ones(2)}
    teacher = {f"backbone.{name}": tensor for name, tensor in state.items()} | {"head.last": torch.ones(2)}
    return {"student": student, "teacher": teacher, "epoch": 3, "args": argparse.Namespace(arch="toy")}


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_dino_training_checkpoint(tmp_path: Path) -> None:
    conversion = convert_checkpoint(save(tmp_path / "dino.pth", dino_checkpoint()))
    assert (conversion.format, conversion.branch, conversion.epoch) == ("dino", "teacher", 3)
    assert conversion.spec == SPEC
    assert conversion.dropped == {"head.*": ("head.last",)}


def test_torchvision_resnet_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = torchvision.models.resnet50(weights=None).eval()
    for old_style in (False, True):  # files of torchvision before 0.4 have no batch counters
        state = {
            name: tensor
            for name, tensor in reference.state_dict().items()
            if not (old_style and name.endswith("num_batches_tracked"))
        }
        path = save(tmp_path / f"resnet50_{old_style}.pth", state)
        conversion = convert_checkpoint(path)
        assert conversion.spec == ResNetSpec(layers=(3, 4, 6, 3))
        assert conversion.dropped == {"fc.*": ("fc.weight", "fc.bias")}
        write_conversion(conversion, path, tmp_path / "resnet.safetensors")
        network = load_backbone(tmp_path / "resnet.safetensors")
        images = torch.rand(1, 3, 64, 96)
        with torch.no_grad():
            stem = reference.maxpool(reference.relu(reference.bn1(reference.conv1(images))))
            expected = reference.layer4(reference.layer3(reference.layer2(reference.layer1(stem))))
            torch.testing.assert_close(network.forward_maps(images, [3])[0], expected, atol=1e-5, rtol=1e-5)


def test_timm_swin_by_shapes() -> None:
    spec = SwinSpec(embed_dim=24, depths=(2, 2), num_heads=(3, 6), window_size=7)
    checkpoint = {"model": build_backbone(spec).state_dict()}
    assert identify(checkpoint).name == "timm"


@pytest.mark.parametrize("image_size", [128, 224])
def test_swin_masks_show_the_pretraining_size(tmp_path: Path, image_size: int) -> None:
    # At 128 pixels the last stage fits one window of 8, so its second block is not shifted; at 224 it is.
    numbers: dict[str, Any] = {"embed_dim": 16, "depths": (2, 1, 2), "num_heads": (2, 4, 4), "window_size": 8}
    reference = SwinTransformer(img_size=image_size, num_classes=0, **numbers).eval()
    state = {**reference.state_dict(), **{name: buffer for name, buffer in reference.named_buffers() if buffer is not None}}
    path = save(tmp_path / "swin.pth", {"model": state})
    conversion = convert_checkpoint(path)
    assert conversion.spec == SwinSpec(**numbers, image_size=image_size)
    write_conversion(conversion, path, tmp_path / "swin.safetensors")
    images = torch.rand(1, 3, image_size, image_size)
    with torch.no_grad():
        found = load_backbone(tmp_path / "swin.safetensors").eval().forward_tokens(images).patches
        torch.testing.assert_close(found, reference.forward_features(images).flatten(1, 2), atol=1e-5, rtol=0)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("bomb-went-off", "w"))


def test_code_in_a_pickle_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "bomb.pth", {"state_dict": {"a": torch.ones(1)}, "payload": _Bomb()})
    with pytest.raises(ValueError, match="allow-list") as caught:
        load_checkpoint(path)
    assert "bomb.pth" in str(caught.value)
    assert "open" in str(caught.value)
    plain = tmp_path / "plain.pkl"
    plain.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(ValueError, match=r"plain\.pkl"):
        load_checkpoint(plain)
    assert not (tmp_path / "bomb-went-off").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html></html>", "HTML page"),
        (b"hello, this is a note\n", "text file"),
        (b"\x80\x02garbage", "damaged"),
        (b"PK\x03\x04garbage", "damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_not_a_checkpoint(tmp_path: Path, content: bytes, message: str, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    if suffix == ".safetensors" and message == "text file":
        message = "damaged"
    with pytest.raises(ValueError, match=message) as caught:
        convert_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_checkpoint(tmp_path: Path, kept: float, zipped: bool) -> None:
    whole = tmp_path / "whole.pth"
    torch.save(dino_checkpoint(), whole, _use_new_zipfile_serialization=zipped)
    data = whole.read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ValueError, match=r"cut\.pth") as caught:
        load_checkpoint(cut)
    assert "\n" not in str(caught.value)


def test_unknown_layout_shows_what_is_there(tmp_path: Path) -> None:
    path = save(tmp_path / "odd.pth", {"generator": {"conv.weight": torch.ones(1)}})
    with pytest.raises(ValueError, match="generator") as caught:
        convert_checkpoint(path)
    assert "conv.weight" in str(caught.value)


def test_not_finite_weights(tmp_path: Path) -> None:
    state = build_backbone(SPEC).state_dict()
    state["norm.weight"][0] = float("nan")
    with pytest.raises(ValueError, match=r"not finite numbers: norm\.weight"):
        convert_checkpoint(save(tmp_path / "nan.pth", state))


def test_num_heads_must_be_stated_for_unusual_widths(tmp_path: Path) -> None:
    spec = ViTSpec(embed_dim=48, depth=1, num_heads=3, patch_size=16, image_size=64, class_token=False, final_norm=False)
    path = save(tmp_path / "narrow.pth", build_backbone(spec).state_dict())
    with pytest.raises(ValueError, match="--num-heads"):
        convert_checkpoint(path)
    assert convert_checkpoint(path, num_heads=3).spec == spec


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_incomplete_checkpoint_never_becomes_a_backbone_file(tmp_path: Path, data: st.DataObject) -> None:
    """Dropped, renamed or reshaped weights are refused with one line, and nothing is written."""
    checkpoint = dino_checkpoint()
    teacher = checkpoint["teacher"]
    name = data.draw(st.sampled_from([name for name in teacher if name.startswith("backbone.")]))
    match data.draw(st.sampled_from(["drop", "rename", "reshape", "nest"])):
        case "drop":
            del teacher[name]
        case "rename":
            teacher[f"encoder.{name}"] = teacher.pop(name)
        case "reshape":
            teacher[name] = torch.cat([teacher[name], teacher[name]])
        case "nest":
            checkpoint["teacher"] = {"inner": teacher}
    path = save(tmp_path / "broken.pth", checkpoint)
    output = tmp_path / "broken.safetensors"
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - any of our subclasses; the message is checked below
        write_conversion(convert_checkpoint(path), path, output)
    assert "\n" not in str(caught.value)
    assert not output.exists()


def test_backbone_file_round_trip(tmp_path: Path) -> None:
    path = save(tmp_path / "dino.pth", dino_checkpoint())
    output = tmp_path / "deep" / "folder" / "dino.safetensors"
    conversion = convert_checkpoint(path)
    source = write_conversion(conversion, path, output)
    content = read_backbone_file(output)
    assert (content.spec, content.source) == (SPEC, source)
    for name, tensor in conversion.state_dict.items():
        assert torch.equal(content.state_dict[name], tensor)
    assert [file.name for file in output.parent.iterdir()] == [output.name]


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_not_a_backbone_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.safetensors.*convert_checkpoint"):
        read_backbone_file(path)
