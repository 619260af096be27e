"""Checkpoints as training loops write them: a network under wrappers is found, or the message holds the command that takes it."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from backbones.build import network_of
from backbones.convert import Selection, convert_content, open_backbone
from tests.layouts import RESNET, VIT, prefixed, weights_of
from tests.wrappers import TOOLS, WEIGHTS, Written, under, zeros


@pytest.mark.parametrize("written", TOOLS, ids=lambda written: written.tool)
def test_what_a_tool_writes_is_taken_without_an_option(written: Written, tmp_path: Path) -> None:
    """Equal weights in an equal network give equal features; `test_layouts` compares those for each naming."""
    torch.save(written.checkpoint, path := tmp_path / "checkpoint.pth")
    found = open_backbone(path)
    assert (found.spec, found.source.branch, found.source.epoch) == (written.spec, written.branch, written.epoch)
    weights = WEIGHTS[written.spec]
    assert found.state_dict.keys() == weights.keys()
    assert all(torch.equal(found.state_dict[name], tensor) for name, tensor in weights.items())
    listed = sum(map(len, found.dropped.values()))
    tensors = [node for node in walk(written.checkpoint) if isinstance(node, Tensor)]
    assert listed + len(weights) == len(tensors)  # nothing beside the network goes unmentioned


@pytest.mark.parametrize(
    ("name", "changes", "layout"),
    [
        ("vit_small_patch14_dinov2", {"img_size": 56}, None),
        ("resnet50", {}, None),
        ("convnext_atto", {}, "timm:convnext_atto"),
    ],
)
@torch.no_grad()
def test_models_of_timm_under_ddp_keep_their_features(
    name: str, changes: dict[str, Any], layout: str | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model(name, **changes).eval()
    wrapped = {"state_dict": prefixed("module.", model.state_dict()), "epoch": 3}
    torch.save(wrapped, path := tmp_path / "checkpoint.pth")
    conversion = open_backbone(path, Selection(layout=layout))
    network = network_of(conversion.spec, conversion.state_dict)
    images = torch.rand(1, 3, side := changes.get("img_size", 224), side)
    expected = model.forward_features(images)
    if expected.ndim == 4:
        expected = expected.flatten(2).transpose(1, 2)
    found = network.forward_tokens(images).patches
    torch.testing.assert_close(found, expected[:, -found.shape[1] :], rtol=1e-6, atol=1e-6)


def walk(node: Any) -> list[Any]:
    return [node, *(part for child in node.values() for part in walk(child))] if isinstance(node, dict) else [node]


def test_preferred_networks_are_reported_and_the_others_can_be_chosen() -> None:
    checkpoint = {"model": WEIGHTS[VIT], "model_ema": zeros(WEIGHTS[VIT])}
    found = convert_content(checkpoint)
    assert found.branch_reason == "preferred to model, which --branch takes"
    assert len(found.dropped["model/*"]) == len(WEIGHTS[VIT])
    other = convert_content(checkpoint, Selection(branch="model"))
    assert torch.equal(other.state_dict["norm.bias"], WEIGHTS[VIT]["norm.bias"])
    assert other.branch_reason == ""


@pytest.mark.parametrize(
    ("checkpoint", "options"),
    [
        ({"a": under(own="encoder_a.", other="encoder_b.")}, ["--key a --prefix encoder_a.", "--key a --prefix encoder_b."]),
        (under(own="encoder.0.", other="encoder.1."), ["--branch 0", "--branch 1"]),
        ({"encoder": under(own=""), "target_encoder": zeros(WEIGHTS[VIT])}, ["--branch encoder", "--branch target_encoder"]),
        (under(own="momentum_encoder."), ["--branch model"]),
        (under(own="criterion.perceptual."), ["--prefix criterion.perceptual."]),
        ({"my net": under(own="x.y.")}, ["--key 'my net' --prefix x.y."]),
        ({"student": under(own=""), "teacher": {}}, ["--branch model"]),
        ({"model": {"teacher": under(own="")}, "averaged_model": {"x": under(own="")}}, ["--branch model.teacher"]),
        (
            under(own="model.") | {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in WEIGHTS[VIT].items()},
            ["--prefix model."],
        ),
        ({**under(own="backbone."), **prefixed("other.", dict(list(WEIGHTS[VIT].items())[3:]))}, ["--prefix backbone."]),
    ],
    ids=[
        "two-unknown",
        "two",
        "target",
        "momentum",
        "of-a-loss",
        "unknown",
        "no-teacher",
        "odd-average",
        "no-dots",
        "incomplete",
    ],
)
def test_a_question_comes_with_the_commands_that_answer_it(checkpoint: Any, options: list[str], tmp_path: Path) -> None:
    """Neither order nor chance decides, and each command that the message prints works as it stands."""
    torch.save(checkpoint, path := tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match="checkpoint") as caught:
        open_backbone(path)
    message = str(caught.value)
    assert "\n" not in message
    for option in options:
        command = f"python tools/convert_checkpoint.py {path} {option}"
        assert command in message
        values = dict(zip(parts := shlex.split(option), parts[1:], strict=False))
        options = {"branch": values.get("--branch"), "key": values.get("--key", ""), "prefix": values.get("--prefix", "")}
        assert open_backbone(path, Selection(**options)).spec == VIT


def test_key_prefix_and_map_take_what_no_rule_knows(tmp_path: Path) -> None:
    """With the same strictness: what lies beside is listed, and nothing is left over."""
    odd = {name.replace("attn.", "attention."): tensor for name, tensor in under(own="deep.body.", heads="deep.cls").items()}
    torch.save({"run.1": {"nets": odd}}, path := tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="no known layout matches"):
        open_backbone(path)
    found = open_backbone(path, Selection(key="run.1.nets", prefix="deep.body.", renaming=("attention=attn",)))
    assert all(torch.equal(found.state_dict[name], tensor) for name, tensor in WEIGHTS[VIT].items())
    assert found.dropped == {"not under --prefix deep.body.": ("deep.cls.0.weight", "deep.cls.0.bias")}
    for chosen, match in (
        ({"key": "run.2"}, r"--key run\.2: no such entry; the top-level keys are run\.1"),
        ({"prefix": "body."}, "--prefix body.: no name begins so; there are deep.body.blocks"),
        ({"renaming": ("attention",)}, "as OLD=NEW"),
        ({"renaming": ("attend=attn",)}, "no name contains 'attend'"),
        ({"renaming": ("attention=attn", "norm1=norm2")}, "two tensors would both be called"),
        ({"renaming": ("attention=attn", "mlp.fc2=mlp.fc3")}, "names that no rule of the layout covers"),
    ):
        place = {"key": "run.1", "prefix": "deep.body."} if "renaming" in chosen else {}
        with pytest.raises(ValueError, match=match):
            open_backbone(path, Selection(**place, **chosen))


def test_one_network_under_two_names_is_no_question() -> None:
    """A module that a training loop holds twice; with other numbers in one of them it is a question again."""
    twice = under(own="backbone.") | under(own="model.encoder.")
    assert convert_content(twice).spec == VIT
    with pytest.raises(ValueError, match=r"several networks: backbone, model\.encoder; say which with --branch"):
        convert_content({**twice, "backbone.norm.bias": torch.ones(64)})


def test_tokens_beside_a_network_that_lacks_them_are_not_dropped() -> None:
    spec = replace(VIT, class_token=False)
    weights = prefixed("backbone.", weights_of(spec))
    assert convert_content(weights).spec == spec
    with pytest.raises(ValueError, match=r"xbackbone\.cls_token lies beside the network under 'backbone\.', which has none"):
        convert_content({**weights, "xbackbone.cls_token": torch.ones(1, 1, 64)})


@pytest.mark.parametrize(
    ("arch", "refused"),
    [
        ("resnetblur50", "maxpool is a Sequential"),
        ("resnetaa50", "maxpool is a AvgPool2d"),
        ("resnet50", ""),
        ("my_resnet", ""),
    ],
)
def test_an_arch_that_names_another_network_is_believed(arch: str, refused: str) -> None:
    checkpoint = {"arch": arch, "state_dict": WEIGHTS[RESNET]}
    if not refused:
        assert convert_content(checkpoint).spec == RESNET
        return
    with pytest.raises(ValueError, match=f"timm's {arch}, whose {refused}"):
        convert_content(checkpoint)
