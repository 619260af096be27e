"""The public API: evaluations of networks in memory, by the side of the command line."""

import random
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import eval.__main__
import patchbench
import tools.convert_checkpoint
from backbones.file import load_backbone
from eval.result import read_result
from tests.conftest import RunMain
from tests.patchbench.conftest import TASKS, Evaluate, figures


def test_a_network_in_memory_gives_the_figures_of_the_command_line_to_the_last_digit(
    network: nn.Module, data: Path, tmp_path: Path, evaluate: Evaluate, run_main: RunMain
) -> None:
    found = evaluate(network, name="mine")
    checkpoint, backbone = tmp_path / "net.pth", tmp_path / "net.safetensors"
    torch.save(network.state_dict(), checkpoint)
    run_main(tools.convert_checkpoint.main, [checkpoint, backbone, "--num-heads", 6]).output()
    places = {"davis": data / "DAVIS", "classification": data / "imagenet"}
    short = ["--neighbours", 2, 4, "--resize", 64, "--crop", 64, "--workers", 0, "--classifiers", "knn"]
    for task, more in (("davis", ["--jobs", 1]), ("classification", short)):
        given = ["--backbone", backbone, "--data", places[task], "--output", tmp_path / task, "--device", "cpu", *more]
        run_main(eval.__main__.main, [task, *given]).output()
    expected = {task: read_result(tmp_path / task / "result.json") for task in TASKS}
    assert figures(found) == figures(expected)
    assert found["davis"].backbone.name == "mine"
    source = found["davis"].backbone.source
    assert (source["format"], source["file_name"]) == ("timm", "VisionTransformer in memory")
    assert len(source["sha256"]) == 64
    assert read_result(tmp_path / "run/davis/result.json") == found["davis"]
    again = evaluate(checkpoint, output=tmp_path / "of_file", num_heads=6)
    assert figures(again) == figures(found)


def test_a_call_again_reads_what_is_finished_and_other_weights_need_another_folder(
    network: nn.Module, evaluate: Evaluate
) -> None:
    first = evaluate(network, ["davis"])
    assert evaluate(network, ["davis"])["davis"] == first["davis"]
    with torch.no_grad():
        network.get_parameter("blocks.0.mlp.fc1.weight").mul_(2)
    with pytest.raises(ValueError, match="holds other weights than this network; choose another output") as caught:
        evaluate(network, ["davis"])
    assert "\n" not in str(caught.value)


def test_an_evaluation_leaves_a_training_as_it_was(network: nn.Module, evaluate: Evaluate, tmp_path: Path) -> None:
    network.get_submodule("blocks.0").eval()  # a part that is frozen
    network.get_parameter("pos_embed").requires_grad_(False)
    network(torch.rand(1, 3, 64, 64)).sum().backward()
    calls: list[object] = []
    network.register_forward_hook(lambda *_: calls.append(1))

    def state() -> Any:
        modes = [module.training for module in network.modules()]
        weights = [(p.requires_grad, p.device, None if p.grad is None else p.grad.sum().item()) for p in network.parameters()]
        values = {name: value.sum().item() for name, value in network.state_dict().items()}
        numpy_state: Any = np.random.get_state()
        random_numbers = {
            "torch": torch.get_rng_state().tolist(),
            "python": random.getstate(),
            "numpy": numpy_state[1].tolist(),
        }
        precision = (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, torch.get_default_dtype())
        switches = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
        return {"modes": modes, "weights": weights, "values": values, **random_numbers, "precision": (precision, switches)}

    alone = evaluate(network)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
            before = state()
            while_training = evaluate(network, output=tmp_path / "while_training")
            assert [name for name, value in state().items() if value != before[name]] == []
            assert torch.empty(1).device.type == "meta"
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.benchmark = False
        torch.set_default_dtype(torch.float32)
    assert figures(while_training) == figures(alone)
    assert calls == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": ["davi"]}, "unknown davi; tasks: davis, "),
        ({"tasks": []}, "names no task"),
        ({"options": {"davis": {"yer": "2016"}}}, "unknown option --davis.yer, did you mean --davis.year"),
        ({"options": {"davis": {"year": "2015"}}}, "invalid choice '2015'"),
        ({"options": {"detection": {"iterations": 1}}}, "options are given for detection; the tasks are davis"),
        ({"options": {"davis": {"output": "x"}}}, "options davis.output: leave them out; these are arguments of the call"),
        (
            {"data": "nowhere"},
            "--davis: nowhere/DAVIS/ImageSets/2017/val.txt: no such file.*; --classification: nowhere/imagenet",
        ),
        (
            {"tasks": ["davis", "detection"]},
            "detection: trains the network itself; during a training take frozen tasks: davis, ",
        ),
        ({"every": 0}, "every=0 must be at least 1 epoch"),
        ({"output": "-"}, "name '-_epoch_0': give a name"),
        ({"network": nn.Linear(2, 2)}, "Linear in memory: "),
        ({"num_heads": 5}, "num_heads=5 does not divide embed_dim=96"),
    ],
)
def test_mistakes_are_found_before_the_training(
    network: nn.Module, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"neighbours": [2], "resize": 64, "crop": 64}
    arguments = {
        "network": network,
        "data": data,
        "output": "run",
        "options": {"classification": small},
        "tasks": TASKS,
    } | given
    if "options" not in given and "classification" not in arguments["tasks"]:
        del arguments["options"]
    with pytest.raises(ValueError, match=message) as caught:
        patchbench.EveryNEpochs(**arguments)
    assert "\n" not in str(caught.value)


def test_a_network_that_computes_something_else_with_known_weights_is_refused(network: nn.Module, evaluate: Evaluate) -> None:
    network.get_submodule("blocks.0.mlp").act = nn.ReLU()
    with pytest.raises(ValueError, match="VisionTransformer in memory: has the weights of the timm layout, but computes other"):
        evaluate(network)


def test_any_model_of_timm_in_memory(evaluate: Evaluate) -> None:
    result = evaluate(timm.create_model("convnext_atto", num_classes=5), ["classification"])["classification"]
    assert (result.backbone.spec["family"], result.backbone.spec["name"]) == ("timm", "convnext_atto")
    assert "backbone" in result.protocol.deviations


def test_fine_tuning_runs_in_processes_of_its_own(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    deeper = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4, embed_dim=96)
    started: list[list[str]] = []

    def run(command: list[str], env: dict[str, str], **_: Any) -> Any:
        assert "WORLD_SIZE" not in env
        started.append(command)
        return SimpleNamespace(returncode=2)

    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ValueError, match="segmentation: failed with status 2; its own message is above"):
        evaluate(deeper, ["segmentation"], options={"segmentation": {"iterations": 3}})
    assert started[0][1:4] == ["-m", "eval", "segmentation"]
    assert "--iterations 3" in " ".join(started[0])


def test_convert_and_load_backbone(network: nn.Module, tmp_path: Path) -> None:
    checkpoint, backbone = tmp_path / "net.pth", tmp_path / "net.safetensors"
    torch.save(network.state_dict(), checkpoint)
    report = patchbench.convert(checkpoint, num_heads=6)
    assert (report["format"], report["output"]) == ("timm", None)
    assert patchbench.convert(str(checkpoint), backbone, num_heads=6)["output"] == str(backbone)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network.eval().forward_features(images)[:, 1:]  # type: ignore[operator]
        for loaded in (patchbench.load_backbone(backbone), patchbench.load_backbone(checkpoint, num_heads=6)):
            assert torch.equal(loaded.forward_tokens(images).patches, load_backbone(backbone).forward_tokens(images).patches)
            torch.testing.assert_close(loaded.forward_tokens(images).patches, expected, rtol=0, atol=1e-6)


def test_key_prefix_and_renaming_are_those_of_convert(network: nn.Module, evaluate: Evaluate, tmp_path: Path) -> None:
    """Under names that no rule knows; both the call without them and that with other ones are refused."""
    odd = {f"deep.body.{name.replace('attn.', 'attention.')}": value for name, value in network.state_dict().items()}
    torch.save({"run": {"nets": odd}}, path := tmp_path / "odd.pth")
    given: dict[str, Any] = {"key": "run.nets", "prefix": "deep.body.", "renaming": ["attention=attn"], "num_heads": 6}
    loaded, images = patchbench.load_backbone(path, **given), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network.eval().forward_features(images)[:, 1:]  # type: ignore[operator]
        torch.testing.assert_close(loaded.forward_tokens(images).patches, expected, rtol=0, atol=1e-6)
    assert figures(evaluate(path, ["davis"], **given)) == figures(evaluate(network, ["davis"], output=tmp_path / "memory"))
    with pytest.raises(ValueError, match="no known layout matches"):
        evaluate(path, ["davis"], num_heads=6)
    with pytest.raises(ValueError, match="--key other: no such entry"):
        patchbench.load_backbone(path, **{**given, "key": "other"})
