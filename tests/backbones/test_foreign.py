"""Networks that are none of ours: models of timm and what users' functions return."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from backbones.build import build_backbone, network_of
from backbones.convert import Selection, convert_content, convert_timm_model, open_backbone, write_conversion
from backbones.export import export_backbone
from backbones.file import load_backbone, read_backbone_file, write_backbone_file
from backbones.foreign import timm_spec
from backbones.spec import FunctionSpec, TimmSpec, is_function_name
from tests.toy import SOURCE

HIERARCHICAL = ("convnext_atto", "pvt_v2_b0", "regnetx_002", "mobilenetv3_small_050", "resnet18")
PLAIN = ("eva02_tiny_patch14_224", "xcit_nano_12_p16_224", "vit_tiny_r_s16_p8_224")
REBUILT = ("hiera_tiny_224", "coat_lite_tiny")
FUNCTIONS = "tests.architectures"


def create(name: str, pretrained: bool) -> Any:
    """timm's factory without the download."""
    assert pretrained
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False)


def images(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """The backbone file of a model of timm with random weights, made once."""
    folder = tmp_path_factory.mktemp("named")

    def make(name: str) -> Path:
        source, output = Path(f"timm:{name}"), folder / f"{name}.safetensors"
        if not output.exists():
            write_conversion(convert_timm_model(source, create=create), source, output)
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "is_model_pretrained", lambda name: True)
        yield make


@pytest.mark.parametrize("name", [*HIERARCHICAL, *PLAIN, *REBUILT])
@torch.no_grad()
def test_a_model_of_timm_keeps_its_features(name: str, named: Callable[[str], Path]) -> None:
    network, model = load_backbone(named(name)), create(name, pretrained=True).eval()
    spec = network.spec
    assert isinstance(spec, TimmSpec)
    assert spec.rebuilt == (name in REBUILT)
    own = images(spec.image_size, spec.image_size)
    tokens, final = network.forward_tokens(own), model.forward_features(own)
    torch.testing.assert_close(tokens.pooled, model.forward_head(final, pre_logits=True), rtol=1e-6, atol=1e-6)
    taps = list(range(spec.num_blocks))
    for found, expected in zip(
        network.forward_maps(own, taps), model.forward_intermediates(own, intermediates_only=True), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    height, width = 2 * spec.size_step, 3 * spec.size_step
    for found, stride, channels in zip(
        network.forward_maps(images(height, width), taps), spec.strides, spec.channels, strict=True
    ):
        assert found.shape == (1, channels, height // stride, width // stride)


@torch.no_grad()
def test_as_many_positions_of_a_longer_image_are_resampled() -> None:
    """56 x 56 were taken for 8 x 392 as they are."""
    network: Any = build_backbone(timm_spec("hiera_tiny_224")).eval()
    torch.nn.init.normal_(network.pos_embed)
    wanted = timm.create_model("hiera_tiny_224", num_classes=0, img_size=(32, 1568)).eval()
    square_1Dhw = network.pos_embed.unflatten(1, (56, 56)).permute(0, 3, 1, 2)
    longer_1Dhw = torch.nn.functional.interpolate(square_1Dhw, size=(8, 392), mode="bicubic")
    wanted.load_state_dict({**network.state_dict(), "pos_embed": longer_1Dhw.flatten(2).transpose(1, 2)})
    (expected,) = wanted.forward_intermediates(images(32, 1568), indices=[0], intermediates_only=True)
    torch.testing.assert_close(network.forward_maps(images(32, 1568), [0])[0], expected, rtol=1e-5, atol=1e-5)


def test_positions_of_a_rebuilt_network_learn(named: Callable[[str], Path]) -> None:
    network = load_backbone(named("hiera_tiny_224"))
    with torch.inference_mode():
        network.forward_maps(images(64, 96), [3])  # as an evaluation of frozen features before, in the same process
    network.forward_maps(images(64, 96), [3])[0].sum().backward()  # type: ignore[no-untyped-call]
    gradient = dict(network.named_parameters())["pos_embed"].grad
    assert gradient is not None
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("inception_v3", r"inception_v3 gives no usable maps: map 0 has 147 x 147 positions for 299 x 299 pixels"),
        ("hf-hub:someone/something", "has no model 'hf-hub:someone/something'"),
        ("convnext_att", "has no model 'convnext_att'"),
    ],
)
def test_models_without_maps(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        timm_spec(name)
    assert "\n" not in str(caught.value)


def test_a_network_of_one_size_says_so() -> None:
    spec = timm_spec("mixer_s32_224")
    assert (spec.size_step, set(spec.strides)) == (0, {32})
    with torch.device("meta"):
        network = build_backbone(spec)
        with pytest.raises(
            ValueError, match="image size 256 x 256: mixer_s32_224 takes 224 x 224, the only size that it takes"
        ):
            network.forward_tokens(torch.empty(1, 3, 256, 256))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "convnext_nowhere"}, "has no model 'convnext_nowhere'"),
        ({"name": "local-dir:/somewhere"}, "must be a name"),
        ({"name": ["convnext_atto"]}, "must be a name"),
        ({"channels": [40, 80, 160, 321]}, "not those of convnext_atto"),
        ({"image_size": 448}, "not those of convnext_atto"),
        ({"rebuilt": True}, "not those of convnext_atto"),
        ({"strides": [4] * 1000}, "must be a list of 1 to 200 integers"),
        ({"checkpoint_path": "/etc/passwd"}, "not a timm spec"),
        ({"family": "function", "function": "os:abort", "source_sha256": "0"}, "unknown backbone family 'function'"),
    ],
)
def test_a_file_that_names_another_network_is_refused(
    changes: dict[str, Any], message: str, named: Callable[[str], Path], tmp_path: Path
) -> None:
    whole, path = named("convnext_atto"), tmp_path / "changed.safetensors"
    with safe_open(whole, framework="pt") as archive:
        content = json.loads(archive.metadata()["patchbench"])
    content["spec"] |= changes
    save_file(load_file(whole), path, metadata={"patchbench": json.dumps(content)})
    with pytest.raises(ValueError, match=message):
        read_backbone_file(path)


@pytest.mark.parametrize(
    ("name", "strides", "step", "cls"),
    [
        ("one_map", (16,), 16, False),
        ("patches_of_14", (14,), 14, False),
        ("stages", (4, 8, 16, 32), 32, False),
        ("blocks", (14,) * 6, 14, True),
    ],
)
@torch.no_grad()
def test_what_a_function_returns(name: str, strides: tuple[int, ...], step: int, cls: bool) -> None:
    path = Path(f"{FUNCTIONS}:{name}")
    assert is_function_name(path)
    content, again = read_backbone_file(path), read_backbone_file(path)
    assert isinstance(content.spec, FunctionSpec)
    assert (content.spec.strides, content.spec.size_step, content.spec.function) == (strides, step, str(path))
    assert (content.source.format, content.source.file_name, len(content.source.sha256)) == ("function", str(path), 64)
    assert content.sha256 == again.sha256  # random weights too
    network = load_backbone(path)
    tokens = network.forward_tokens(images(2 * step, 3 * step))
    last = strides[-1]
    assert tokens.grid == (2 * step // last, 3 * step // last)
    assert (tokens.cls is not None) == cls
    (found,) = network.forward_maps(images(2 * step, 3 * step), [len(strides) - 1])
    torch.testing.assert_close(tokens.patches, found.flatten(2).transpose(1, 2))
    conversion = open_backbone(path)
    assert conversion.source.format == "function"
    with pytest.raises(ValueError, match="a backbone file cannot hold what tests"):
        write_backbone_file(Path("never.safetensors"), content.spec, SOURCE, content.state_dict)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere.at_all:build", "there is no module 'nowhere'; its folder must be in PYTHONPATH"),
        (f"{FUNCTIONS}:bulid", "has no function bulid; it has one_map, patches_of_14, means_of_14"),
        (f"{FUNCTIONS}:NOT_A_FUNCTION", "has no function NOT_A_FUNCTION"),
        (f"{FUNCTIONS}:weights_alone", "it returns a OrderedDict; it must return a torch.nn.Module"),
        (f"{FUNCTIONS}:failing", "calling it fails: RuntimeError: no checkpoint"),
        (f"{FUNCTIONS}:flat", r"map 0 of its network has the shape \(1, 24, 196\); wanted four sides, \[B, D, h, w\]"),
        (f"{FUNCTIONS}:named", r"its network gives a dict; wanted maps \[B, D, h, w\]"),
    ],
)
def test_functions_that_give_no_backbone(reference: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_backbone_file(Path(reference))
    assert str(caught.value).startswith(reference)
    assert "\n" not in str(caught.value)


def test_what_is_no_name_of_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a:b").write_bytes(b"")
    names = ("timm:resnet50", "a:b", "/data/x:y", "C:/x", "model.pth", "a.b:c.d")
    assert [name for name in names if is_function_name(Path(name))] == []


@pytest.mark.parametrize(
    ("wrap", "layout"),
    [
        (lambda weights: weights, "timm:eva02_tiny_patch14_224"),
        (
            lambda weights: {"state_dict": {f"module.{name}": value for name, value in weights.items()}, "epoch": 3},
            "timm:eva02_tiny_patch14_224",
        ),
        (lambda weights: {"arch": "eva02_tiny_patch14_224", "state_dict": weights, "optimizer": {}}, None),
        (
            lambda weights: {
                "arch": "eva02_tiny_patch14_224",
                "state_dict": {name: value + 1 for name, value in weights.items()},
                "state_dict_ema": weights,
            },
            None,
        ),
    ],
)
@torch.no_grad()
def test_a_checkpoint_of_a_model_of_timm(wrap: Callable[[dict[str, Tensor]], Any], layout: str | None) -> None:
    model = create("eva02_tiny_patch14_224", pretrained=True).eval()
    conversion = convert_content(wrap(model.state_dict()), Selection(layout=layout))
    network = network_of(conversion.spec, conversion.state_dict)
    expected = model.forward_head(model.forward_features(images(224, 224)), pre_logits=True)
    torch.testing.assert_close(network.forward_tokens(images(224, 224)).pooled, expected, rtol=1e-6, atol=1e-6)


def test_a_checkpoint_that_is_not_of_the_named_model() -> None:
    weights = create("eva02_tiny_patch14_224", pretrained=True).state_dict()
    with pytest.raises(ValueError, match="the checkpoint does not hold all weights of timm's convnext_atto"):
        convert_content(weights, Selection(layout="timm:convnext_atto"))
    with pytest.raises(
        ValueError, match=r"several networks have the weights .*: a \(prefix none\), b \(prefix none\); choose one with"
    ):
        convert_content({"a": weights, "b": weights}, Selection(layout="timm:eva02_tiny_patch14_224"))
    with pytest.raises(ValueError, match="unexpected: stray"):
        convert_content({**weights, "stray": torch.ones(2)}, Selection(layout="timm:eva02_tiny_patch14_224"))


def test_what_lies_outside_of_the_prefix_is_listed_for_a_model_of_timm() -> None:
    weights = {f"net.{name}": value for name, value in create("convnext_atto", pretrained=True).state_dict().items()}
    checkpoint = {"arch": "convnext_atto", "state_dict": {**weights, "loss.weight": torch.ones(2)}}
    found = convert_content(checkpoint, Selection(prefix="net."))
    assert found.dropped["not under --prefix net."] == ("loss.weight",)


def test_the_command_that_makes_a_backbone_file_of_a_model_of_timm_is_named() -> None:
    message = (
        r"^timm:resnet50: a model of timm, not a .*`python tools/convert_checkpoint.py timm:resnet50 NET.safetensors`, and give"
    )
    with pytest.raises(ValueError, match=message):
        read_backbone_file(Path("timm:resnet50"))


def test_timms_names_again(named: Callable[[str], Path], tmp_path: Path) -> None:
    content = read_backbone_file(named("convnext_atto"))
    note = export_backbone(tmp_path / "out.pth", "timm", content.spec, content.state_dict, epoch=-1)
    assert note.endswith("--format timm:convnext_atto")
    again = open_backbone(tmp_path / "out.pth", Selection(layout="timm:convnext_atto"))
    assert (again.spec, again.dropped) == (content.spec, {})
    assert all(torch.equal(value, content.state_dict[name]) for name, value in again.state_dict.items())
