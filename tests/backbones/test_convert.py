"""From a checkpoint, or a model of timm by its name, to a backbone file.

Everything but the download of timm's models is tested, which needs a network.
"""

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from backbones.build import build_backbone, network_of
from backbones.convert import Selection, convert_content, convert_timm_model, open_backbone, write_conversion
from backbones.export import export_backbone
from backbones.file import is_backbone_file, load_backbone, read_backbone_file, read_header, write_backbone_file
from backbones.spec import BackboneSpec, DINOv3Spec, ResNetSpec, SwinSpec, ViTSpec, spec_to_dict
from tests.layouts import DINOV3, RESNET, VIT, make_all, weights_of
from tests.toy import SOURCE

MADE = make_all()
# 64 channels per head would make one head of it.
FOUR_HEADS = replace(VIT, depth=1, num_heads=4)


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_from_a_checkpoint_to_a_backbone_file(tmp_path: Path) -> None:
    path = save(tmp_path / "dino.pth", MADE["dino"].checkpoint)
    conversion = open_backbone(path)
    assert (conversion.source.format, conversion.source.branch, conversion.source.epoch) == ("dino", "teacher", 3)
    assert {rule: len(names) for rule, names in conversion.dropped.items()} == {"head.*": 1, "student/*": 31, "dino_loss/*": 1}
    assert conversion.dropped["head.*"] == ("head.last_layer.weight_g",)
    output = tmp_path / "deep" / "folder" / "dino.safetensors"
    source = write_conversion(conversion, path, output)
    content = read_backbone_file(output)
    assert (content.spec, content.source) == (VIT, source) == read_header(output)
    assert content.state_dict.keys() == conversion.state_dict.keys()
    assert all(torch.equal(content.state_dict[name], tensor) for name, tensor in conversion.state_dict.items())
    assert [file.name for file in output.parent.iterdir()] == [output.name]


@torch.no_grad()
def test_torchvisions_resnet_without_batch_counters(tmp_path: Path) -> None:
    """Files of torchvision before 0.4 have none."""
    reference = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 2, 1], num_classes=2).eval()
    reference.load_state_dict(weights_of(ResNetSpec(layers=(1, 1, 2, 1))), strict=False)
    state = {name: tensor for name, tensor in reference.state_dict().items() if not name.endswith("num_batches_tracked")}
    conversion = open_backbone(save(tmp_path / "resnet.pth", state))
    assert conversion.spec == ResNetSpec(layers=(1, 1, 2, 1))
    assert conversion.dropped == {"fc.*": ("fc.weight", "fc.bias")}
    network = network_of(conversion.spec, conversion.state_dict)
    images = torch.rand(1, 3, 64, 96)
    stem = reference.maxpool(reference.relu(reference.bn1(reference.conv1(images))))
    expected = reference.layer4(reference.layer3(reference.layer2(reference.layer1(stem))))
    torch.testing.assert_close(network.forward_maps(images, [3])[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("window", "image_size", "stored"),
    [
        (12, 384, ()),
        (12, 224, ()),
        (7, 224, ()),
        (8, 256, ()),
        (7, 192, (1, 2)),
        (7, 256, (2, 1)),
        (7, 224, (2,)),
        (6, 96, (0,)),
    ],
)
def test_swins_pretraining_size_without_or_with_padded_masks(window: int, image_size: int, stored: tuple[int, ...]) -> None:
    """The last stage's table shows the size of 384 pixels; masks in any order, of stages that were padded to whole windows."""
    numbers: dict[str, Any] = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4), "window_size": window}
    reference = SwinTransformer(img_size=image_size, num_classes=0, **numbers).eval()
    buffers = dict(reference.named_buffers())
    masks = {
        name: buffers[name] for stage in stored for name in buffers if name.startswith(f"layers.{stage}.") and "mask" in name
    }
    found = convert_content({**masks, **reference.state_dict()}).spec
    assert found == SwinSpec(**numbers, image_size=image_size)


def test_num_heads_must_be_stated_for_unusual_widths(tmp_path: Path) -> None:
    spec = replace(VIT, embed_dim=48, num_heads=3)
    path = save(tmp_path / "narrow.pth", build_backbone(spec).state_dict())
    with pytest.raises(ValueError, match="--num-heads"):
        open_backbone(path)
    assert open_backbone(path, Selection(num_heads=3)).spec == spec


def test_a_backbone_file_states_its_own_heads(tmp_path: Path) -> None:
    """It must not be read as a bare state dict."""
    backbone_file = tmp_path / "moco.safetensors"
    source = replace(SOURCE, format="moco_v3", branch="base_encoder", epoch=300)
    write_backbone_file(backbone_file, FOUR_HEADS, source, build_backbone(FOUR_HEADS).state_dict())
    opened = open_backbone(backbone_file)
    found = opened.source
    assert (opened.spec, found.format, found.branch, found.epoch) == (FOUR_HEADS, "moco_v3", "base_encoder", 300)
    with pytest.raises(ValueError, match=r"moco\.safetensors: is a backbone file already"):
        open_backbone(backbone_file, Selection(num_heads=1))
    with pytest.raises(ValueError, match="leave these options out"):
        open_backbone(backbone_file, Selection(layout="timm"))


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_anything_else_is_not_a_backbone_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert not is_backbone_file(path)
    with pytest.raises(ValueError, match=r"file\.safetensors.*convert_checkpoint"):
        read_backbone_file(path)


NAN = torch.full((64,), torch.nan)


@pytest.mark.parametrize(
    ("text", "replacement", "weights", "match"),
    [
        ("", "", {}, ""),
        ('"depth": 2', '"depth": 2.0', {}, r"depth=2\.0 must be an integer"),
        ('"depth": 2', '"depth": 2, "depth": 2', {}, "a name is there twice"),
        ('"num_heads"', '"num_heats"', {}, "num_heats"),
        ('"mlp_ratio": 4.0', '"mlp_ratio": Infinity', {}, "mlp_ratio=inf must be a number"),
        ('"epoch": -1', '"epoch": 3e2', {}, "epoch of the source is not a count"),
        ('"branch": "', '"branch": "\\n', {}, "branch of the source is not a usual text"),
        ('"sha256": "0', '"sha256": "x', {}, "sha256 of the source is not a digest"),
        ('"version": 1', '"version": true', {}, "backbone file version True, this PatchBench reads 1"),
        ('"version": 1', '"version": ' + "[" * 9000, {}, "recursion depth"),
        ("", "", {"norm.bias": NAN}, r"not finite numbers: norm\.bias"),
        ("", "", {"norm.bias": torch.full((64,), 1e300, dtype=torch.float64)}, r"not finite numbers: norm\.bias"),
        ("", "", {"norm.bias": torch.ones(64, dtype=torch.int32)}, r"not stored as floating-point numbers: norm\.bias"),
        ('"version": 1', '"a": "' + "x" * 100_000 + '"', {}, "100,[0-9]{3} characters of it"),
        ("", "", {"norm.bias": torch.full((64,), 3e38)}, r"absurdly large, or not finite numbers: norm\.bias"),
        ("", "", {"norm.bias": torch.ones(65)}, r"norm\.bias has \(65,\), wanted \(64,\)"),
    ],
)
def test_a_backbone_file_is_trusted_no_more_than_a_checkpoint(
    tmp_path: Path, text: str, replacement: str, weights: dict[str, torch.Tensor], match: str
) -> None:
    path, facts = tmp_path / "vit.safetensors", {"version": 1, "spec": spec_to_dict(VIT), "source": asdict(SOURCE)}
    metadata = json.dumps(facts).replace(text, replacement) if text else json.dumps(facts)
    save_file({**weights_of(VIT), **weights}, path, metadata={"patchbench": metadata})
    for read in (read_backbone_file, load_backbone, open_backbone):
        with pytest.raises(ValueError, match=f"^{path}: .*{match}") if match else nullcontext():
            read(path)


def test_a_pipe_or_folder_is_no_backbone_file(tmp_path: Path) -> None:
    """They were once called absent, with the advice to convert a checkpoint to the same path."""
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path, tmp_path / "pipe.safetensors"):
        with pytest.raises(ValueError, match=f"^{path}: a folder, pipe or device, not a backbone file; give the file$"):
            read_header(path)


@pytest.mark.parametrize(
    ("spec", "name", "value", "match"),
    [
        (RESNET, "bn1.running_var", -1.0, r"negative variances: bn1\.running_var"),
        (DINOV3, "rope.periods", 0.0, r"rotary periods must be positive and ascending: rope\.periods"),
    ],
)
def test_finite_weights_whose_features_are_not_are_refused(
    tmp_path: Path, spec: BackboneSpec, name: str, value: float, match: str
) -> None:
    weights = weights_of(spec)
    facts = json.dumps({"version": 1, "spec": spec_to_dict(spec), "source": asdict(SOURCE)})
    save_file({**weights, name: torch.full_like(weights[name], value)}, tmp_path / "a", metadata={"patchbench": facts})
    with pytest.raises(ValueError, match=f"^{tmp_path / 'a'}: {match}; convert the checkpoint again"):
        read_backbone_file(tmp_path / "a")


def test_others_may_read_what_is_written_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_backbone_file(tmp_path / "vit.safetensors", VIT, SOURCE, weights_of(VIT))
    export_backbone(tmp_path / "timm.safetensors", "timm", VIT, weights_of(VIT), epoch=1)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


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


@pytest.mark.parametrize("changes", [SHALLOW, {**SHALLOW, "pre_norm": False}])
def test_models_whose_weights_are_not_those_of_their_name_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the weights do not fit the backbone; missing"):
        convert_timm_model(Path("timm:vit_base_patch16_clip_quickgelu_224"), create=untrained(**changes))


def test_names_and_weights_that_cannot_be_had() -> None:
    def unreachable(name: str, pretrained: bool) -> nn.Module:
        raise FileNotFoundError(f"cannot find {name}\nsecond line")

    with pytest.raises(ValueError, match=r"no pretrained model 'vit_smal'; of a similar name: vit_small_patch"):
        open_backbone(Path("timm:vit_smal"))
    with pytest.raises(ValueError, match="leave the options for these out"):
        open_backbone(Path("timm:vit_small_patch16_224.dino"), Selection(branch="teacher"))
    with pytest.raises(ValueError, match=r"cannot fetch the weights of resnet50\.tv_in1k \(cannot find [^\n]*\)"):
        convert_timm_model(Path("timm:resnet50.tv_in1k"), create=unreachable)


def test_a_named_model_becomes_a_backbone_file(tmp_path: Path) -> None:
    source, create = Path("timm:vit_small_patch16_224.dino"), untrained(depth=1)
    written = [
        write_conversion(convert_timm_model(source, num_heads, create), source, tmp_path / f"{num_heads}.safetensors")
        for num_heads in (None, 6)
    ]
    assert written[0] == written[1] == read_header(tmp_path / "6.safetensors")[1]
    assert (written[0].file_name, written[0].format, len(written[0].sha256)) == (str(source), "timm", 64)
    with pytest.raises(ValueError, match="--num-heads 12 contradicts the model, which has 6"):
        convert_timm_model(source, 12, create)
