"""Evaluations while a network is trained: a plain loop, Lightning, Hugging Face's trainer, several processes."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import patchbench
from eval.result import read_result
from tests import architectures
from tests.patchbench.conftest import OPTIONS, TASKS, Evaluate, figures
from tests.processes import run_two


@pytest.mark.parametrize("own_architecture", [False, True])
def test_every_n_epochs_of_a_plain_loop(own_architecture: bool, network: nn.Module, data: Path, tmp_path: Path) -> None:
    if own_architecture:
        network = architectures.Patches()
    evaluations = patchbench.EveryNEpochs(
        network, "davis", data=data, output=tmp_path / "mine", every=2, options={"davis": OPTIONS["davis"]}
    )
    assert evaluations(1) == {}
    metrics = evaluations(2)
    result = read_result(tmp_path / "mine/epoch_2/davis/result.json")
    assert metrics == {f"davis/{name}": metric.value for name, metric in result.metrics.items()}
    assert (result.backbone.name, result.backbone.source["epoch"]) == ("mine_epoch_2", 2)
    assert evaluations(2) == metrics
    with torch.no_grad():  # the training is continued from an earlier epoch, and its numbers come out differently
        torch.nn.init.normal_(network.get_parameter("embed.weight" if own_architecture else "blocks.0.mlp.fc1.weight"))
    assert evaluations(2) != metrics
    assert read_result(tmp_path / "mine/epoch_2_2/davis/result.json").backbone.name == "mine_epoch_2_2"
    assert read_result(tmp_path / "mine/epoch_2/davis/result.json") == result


@pytest.fixture
def callback_options(data: Path, tmp_path: Path) -> dict[str, Any]:
    return {"tasks": "davis", "data": data, "output": tmp_path / "run", "every": 2, "options": {"davis": OPTIONS["davis"]}}


def test_lightnings_protocol_by_a_stand_in(
    network: nn.Module, callback_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Lightning, only what its documentation says of callbacks and of `log_dict`."""
    monkeypatch.setitem(sys.modules, "lightning.pytorch", SimpleNamespace(Callback=type("Callback", (), {})))
    callback = patchbench.lightning_callback(network, **callback_options)
    logged: list[dict[str, float]] = []
    module = SimpleNamespace(log_dict=logged.append)
    for epoch in range(3):
        callback.on_train_epoch_end(SimpleNamespace(current_epoch=epoch), module)
    assert [sorted(metrics)[-1] for metrics in logged] == ["davis/J-Recall"]


def test_the_trainers_protocol_by_a_stand_in(
    network: nn.Module, callback_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of transformers, only what its documentation says of callbacks and of `Trainer.log`."""
    stand_in: Any = ModuleType("transformers")
    stand_in.TrainerCallback = type("TrainerCallback", (), {})
    monkeypatch.setitem(sys.modules, "transformers", stand_in)
    logged: list[dict[str, float]] = []
    callback = patchbench.trainer_callback(SimpleNamespace(model=network, log=logged.append), **callback_options)
    for epoch in (1.0, 1.9999, 3.0):
        callback.on_epoch_end(None, SimpleNamespace(epoch=epoch), None, model=network)
    assert [sorted(metrics)[-1] for metrics in logged] == ["davis/J-Recall"]


TRAINING = """
import sys
import pytest, timm, torch, torch.distributed as dist
import patchbench
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from tests.architectures import Patches

data, output = sys.argv[1:]
dist.init_process_group("gloo")

def vit():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=96, num_heads=6, num_classes=5)

networks = {"ddp": torch.compile(DistributedDataParallel(vit()), backend="eager")}
networks["fsdp"] = torch.distributed.fsdp.fully_shard(vit(), mesh=init_device_mesh("cpu", (2,)))
torch.manual_seed(0)
networks["own"] = DistributedDataParallel(Patches())
small = {"neighbours": [2, 4], "resize": 64, "crop": 64, "workers": 0}
for name, network in networks.items():
    options = {"davis": {"jobs": 2 if name == "ddp" else 1}, "classification": small}
    evaluations = patchbench.EveryNEpochs(network, data=data, output=f"{output}/{name}", options=options)
    torch.manual_seed(dist.get_rank())
    before = torch.get_rng_state()
    metrics = evaluations(1)
    assert torch.equal(before, torch.get_rng_state())
    images = torch.rand(2, 3, 64, 64)
    network(images).sum().backward()  # and the group of the training still works
    gathered = [None, None]
    dist.all_gather_object(gathered, metrics)
    assert gathered[0] == gathered[1] == metrics, gathered
    with pytest.raises(ValueError, match="call evaluate from one process"):
        patchbench.evaluate(network, "detection", data=data, output=output)
    with pytest.raises(ValueError, match="no such file"):  # the first process finds it, and all raise it
        patchbench.evaluate(network, "davis", data=data + "/none", output=output)
dist.destroy_process_group()
"""


def test_two_processes_of_a_training_share_an_evaluation(
    network: nn.Module, evaluate: Evaluate, data: Path, tmp_path: Path
) -> None:
    """The script has no `if __name__ == "__main__"`, yet the processes that score do not run it again."""
    (tmp_path / "train.py").write_text(TRAINING)
    finished = run_two(str(tmp_path / "train.py"), str(data), str(tmp_path))
    assert finished.returncode == 0, finished.stderr
    torch.manual_seed(0)
    own = architectures.Patches()
    alone = {"vit": figures(evaluate(network)), "own": figures(evaluate(own, output=tmp_path / "alone"))}
    for name, wanted in (("ddp", "vit"), ("fsdp", "vit"), ("own", "own")):
        results = {task: read_result(tmp_path / f"{name}/epoch_1/{task}/result.json") for task in TASKS}
        assert [result.environment.world_size for result in results.values()] == [2, 2]
        assert figures(results) == alone[wanted]
