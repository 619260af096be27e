"""The public API: evaluations of networks in memory, also while they are trained, by the side of the command line."""

import random
import subprocess
import sys
import textwrap
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from packaging.requirements import Requirement
from torch import nn

import eval.__main__
import patchbench
import tools.convert_checkpoint
import tools.evaluation
from backbones.file import load_backbone
from backbones.foreign import weights_sha256
from backbones.memory import convert_network, weights_of
from backbones.spec import FunctionSpec
from eval.result import read_result
from tests import architectures
from tests.conftest import REPOSITORY, RunMain
from tests.processes import ENVIRONMENT, run_two
from tools.make_sample_data import SampleConfig, draw_samples

TASKS = ["davis", "classification"]
OPTIONS: dict[str, dict[str, Any]] = {
    "davis": {"jobs": 1, "device": "cpu"},
    "classification": {"neighbours": [2, 4], "resize": 64, "crop": 64, "workers": 0, "device": "cpu"},
}
Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    draw_samples(SampleConfig(output=folder, train_images=1, val_images=1, frames=4, photos=1, class_images=2))
    return folder


@pytest.fixture
def network() -> nn.Module:
    """A ViT of timm with a classifier and with heads that its weights do not show, in training mode."""
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=96, num_heads=6, num_classes=5).train()


@pytest.fixture
def evaluate(data: Path, tmp_path: Path) -> Evaluate:
    given = {"data": data, "output": tmp_path / "run"}
    return lambda model, tasks=TASKS, **more: patchbench.evaluate(
        model, tasks, **{**given, "options": {task: OPTIONS.get(task, {}) for task in tasks}, **more}
    )


def figures(results: dict[str, Any]) -> Any:
    return {task: (result.metrics, result.breakdown) for task, result in results.items()}


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


OWN = """
from torch import nn

def build():
    network = nn.Conv2d(3, 16, 16, 16)
    network.image_size = 64
    return network
"""


def test_a_function_that_returns_an_own_architecture(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_architecture.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    results = evaluate("own_architecture:build")
    assert {result.backbone.spec["function"] for result in results.values()} == {"own_architecture:build"}
    assert results["davis"].backbone.name == "run"


@pytest.mark.parametrize("name", ["one_map", "stages", "blocks"])
def test_an_own_architecture_in_memory_gives_the_figures_of_its_function(name: str, evaluate: Evaluate, tmp_path: Path) -> None:
    options = OPTIONS
    if name == "blocks":  # with patches of 14 pixels
        options = {
            "davis": {**OPTIONS["davis"], "round_up": True},
            "classification": {**OPTIONS["classification"], "resize": 70, "crop": 70},
        }
    torch.manual_seed(0)  # as for what a function leaves random
    network = getattr(architectures, name)()
    found = evaluate(torch.compile(network.train()), options=options, epoch=7)
    assert figures(found) == figures(evaluate(f"tests.architectures:{name}", output=tmp_path / "of_function", options=options))
    assert network.training
    backbone = found["davis"].backbone
    kind = type(network).__name__
    assert (backbone.spec["function"], backbone.source["file_name"]) == (f"tests.architectures:{kind}", f"{kind} in memory")
    assert backbone.source["sha256"] == weights_sha256({f"network.{key}": value for key, value in network.state_dict().items()})
    assert (backbone.source["epoch"], len(backbone.spec["source_sha256"])) == (7, 64)
    assert evaluate(network, options=options) == found  # is only read again
    with torch.no_grad():
        next(network.parameters()).mul_(2)
    with pytest.raises(ValueError, match="is of other weights than this network; choose another output"):
        evaluate(network, options=options)


def test_settings_of_an_own_architecture_are_part_of_its_digest() -> None:
    def digest(network: nn.Module) -> str:
        spec = convert_network(network, weights_of(network)).spec
        assert isinstance(spec, FunctionSpec)
        return spec.source_sha256

    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.pool, self.factor = nn.AvgPool2d(16), factor

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.pool(images) * self.factor

    class Negated(Scaled):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return -super().forward(images)

    networks = [Scaled(2), Scaled(3), Negated(2), nn.AvgPool2d(16), nn.AvgPool2d(32)]
    assert len({digest(network) for network in networks}) == len(networks)
    assert digest(Scaled(2)) == digest(Scaled(2))


class WithNeck(nn.Module):
    """A network of a known layout, and a layer after it."""

    def __init__(self, vit: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.vit, self.neck = vit, neck

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.neck(self.vit.forward_features(images)[:, 1:].transpose(1, 2).unflatten(2, (4, 4)))  # type: ignore[operator]


def test_layers_after_a_known_network_are_not_left_out(network: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    same = WithNeck(network, nn.Identity())
    assert convert_network(same, weights_of(same)).layout == "timm"
    other = WithNeck(network, nn.Conv2d(96, 8, 1))
    other.image_size = 64
    assert convert_network(other, weights_of(other)).layout == "function"
    assert "computes other features with them; so it is taken by the maps of its forward" in caplog.text


@pytest.mark.parametrize(
    ("change", "tasks", "message"),
    [
        (
            lambda network: network,
            "davis,detection",
            "detection: trains the network in other processes, .* package.module:build",
        ),
        (
            lambda network: network.embed.weight.data.fill_(torch.nan),
            "davis",
            "weights that are not finite numbers: network.embed",
        ),
        (
            lambda network: setattr(network, "lock", threading.Lock()),
            "davis",
            "Patches: it cannot be copied .*; give a function",
        ),
        (lambda network: setattr(network, "image_size", 64.5), "davis", "its image_size is 64.5; it must be a side in pixels"),
    ],
)
def test_mistakes_with_an_own_architecture(
    change: Callable[[Any], Any], tasks: str, message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(network := architectures.Patches())
    monkeypatch.setattr(tools.evaluation, "check_tasks", lambda *_: None)  # data of COCO are not there
    with pytest.raises(ValueError, match=message) as caught:
        patchbench.evaluate(network, tasks, data=data, output=tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_an_own_architecture_while_it_trains(data: Path, tmp_path: Path) -> None:
    network = architectures.Patches()
    options = {"davis": OPTIONS["davis"]}
    evaluations = patchbench.EveryNEpochs(network, "davis", data=data, output=tmp_path / "mine", options=options)
    metrics = evaluations(1)
    assert evaluations(1) == metrics
    assert read_result(tmp_path / "mine/epoch_1/davis/result.json").backbone.source["epoch"] == 1
    torch.nn.init.normal_(network.embed.weight)  # a continued training, whose numbers come out differently
    assert evaluations(1) != metrics
    assert (tmp_path / "mine/epoch_1_2/davis/result.json").is_file()
    with pytest.raises(
        ValueError, match=r"no known layout matches.*; and it is no network of an own architecture: .*wanted four sides"
    ):
        patchbench.EveryNEpochs(architectures.Flat(), "davis", data=data, output=tmp_path / "flat", options=options)


def test_every_n_epochs_of_a_plain_loop(network: nn.Module, data: Path, tmp_path: Path) -> None:
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
        network.get_parameter("blocks.0.mlp.fc1.weight").mul_(2)
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


def test_a_training_by_lightning(network: nn.Module, callback_options: dict[str, Any], tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.backbone = network

        def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
            return self.backbone(batch).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 1e-3)

    module = Module()
    monitor = lightning.callbacks.ModelCheckpoint(tmp_path, monitor="davis/J&F-Mean", mode="max", every_n_epochs=2)
    callbacks = [patchbench.lightning_callback(module.backbone, **callback_options), monitor]
    trainer = lightning.Trainer(
        max_epochs=2, callbacks=callbacks, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.fit(module, torch.utils.data.DataLoader(torch.rand(2, 3, 64, 64)))
    result = read_result(tmp_path / "run/epoch_2/davis/result.json")
    value = result.metrics["J&F-Mean"].value
    assert float(trainer.callback_metrics["davis/J&F-Mean"]) == pytest.approx(value)
    assert float(monitor.best_model_score) == pytest.approx(value)
    assert network.training


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


def test_a_training_by_hugging_faces_trainer(callback_options: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    sizes = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 384, "image_size": 64}
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, num_labels=2))
    items = [{"pixel_values": torch.rand(3, 64, 64), "labels": index % 2} for index in range(4)]
    options = transformers.TrainingArguments(
        str(tmp_path / "hf"), num_train_epochs=2, per_device_train_batch_size=2, use_cpu=True, report_to=[], save_strategy="no"
    )
    trainer = transformers.Trainer(model, options, train_dataset=items)
    trainer.add_callback(patchbench.trainer_callback(trainer, model.vit, **callback_options))
    trainer.train()
    value = read_result(tmp_path / "run/epoch_2/davis/result.json").metrics["J&F-Mean"].value
    assert [entry["davis/J&F-Mean"] for entry in trainer.state.log_history if "davis/J&F-Mean" in entry] == [value]


TRAINING = """
import sys
import timm, torch, torch.distributed as dist
import patchbench
from tests.architectures import Patches

data, output, wrapper = sys.argv[1:]
dist.init_process_group("gloo")
torch.manual_seed(0)
network = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=96, num_heads=6, num_classes=5)
if wrapper == "ddp":
    network = torch.compile(torch.nn.parallel.DistributedDataParallel(network), backend="eager")
elif wrapper == "own":
    torch.manual_seed(0)
    network = torch.nn.parallel.DistributedDataParallel(Patches())
else:
    from torch.distributed.device_mesh import init_device_mesh
    torch.distributed.fsdp.fully_shard(network, mesh=init_device_mesh("cpu", (2,)))
options = {"davis": {"jobs": 2}, "classification": {"neighbours": [2, 4], "resize": 64, "crop": 64, "workers": 0}}
evaluations = patchbench.EveryNEpochs(network, data=data, output=output, options=options)
torch.manual_seed(dist.get_rank())
before = torch.get_rng_state()
metrics = evaluations(1)
assert torch.equal(before, torch.get_rng_state())
images = torch.rand(2, 3, 64, 64)
network(images).sum().backward()  # and the group of the training still works
gathered = [None, None]
dist.all_gather_object(gathered, metrics)
assert gathered[0] == gathered[1] == metrics, gathered
try:
    patchbench.evaluate(network, "detection", data=data, output=output)
except ValueError as error:
    assert "call evaluate from one process" in str(error), error
try:  # the first process finds it, and all raise it
    patchbench.evaluate(network, "davis", data=data + "/none", output=output)
except ValueError as error:
    assert "no such file" in str(error), error
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp", "own"])
def test_two_processes_of_a_training_share_an_evaluation(
    network: nn.Module, evaluate: Evaluate, data: Path, tmp_path: Path, wrapper: str
) -> None:
    """The script has no `if __name__ == "__main__"`, yet the processes that score do not run it again."""
    (tmp_path / "train.py").write_text(TRAINING)
    finished = run_two(str(tmp_path / "train.py"), str(data), str(tmp_path / "training"), wrapper)
    assert finished.returncode == 0, finished.stderr
    results = {task: read_result(tmp_path / f"training/epoch_1/{task}/result.json") for task in TASKS}
    assert [result.environment.world_size for result in results.values()] == [2, 2]
    if wrapper == "own":
        torch.manual_seed(0)
        network = architectures.Patches()
    assert figures(results) == figures(evaluate(network))


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


def _python(code: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    given = {**ENVIRONMENT, **environment}
    program = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(program, cwd=folder, env=given, capture_output=True, text=True, check=False, timeout=100)


def test_the_import_is_quick_and_loads_no_torch(tmp_path: Path) -> None:
    code = """
        import sys, time
        start = time.perf_counter()
        import patchbench
        print(time.perf_counter() - start, sorted({"torch", "numpy", "tyro", "lightning", "transformers"} & set(sys.modules)))
    """
    seconds, loaded = _python(code, tmp_path).stdout.split(maxsplit=1)
    assert float(seconds) < 0.3
    assert loaded == "[]\n"


def test_a_package_of_the_callers_that_hides_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common/__init__.py").touch()
    finished = _python("import patchbench", tmp_path)
    message = f"ImportError: patchbench needs its own package `common`, but `import common` gives {tmp_path}/common/__init__.py"
    assert message in finished.stderr.splitlines()[-1]


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(REPOSITORY / "docs/python.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # which would grow old in the file
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "J&F-Mean" in printed
    assert (tmp_path / "results/main.csv").is_file()


def test_an_installation_asks_for_what_the_pinned_environment_has() -> None:
    """Every direct dependency is in both lists, and the pins are within the bounds."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    bounds = {requirement.name.lower(): requirement for requirement in map(Requirement, listed)}
    lines = (REPOSITORY / "requirements.in").read_text().splitlines()
    direct = {Requirement(line).name.lower() for line in lines if line and not line.startswith("#")}
    assert bounds.keys() == direct
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line[:1].isalpha()]
    assert direct <= {pin.name.lower() for pin in pins}
    for pin in pins:
        version = str(pin.specifier).removeprefix("==")
        assert pin.name.lower() not in bounds or bounds[pin.name.lower()].specifier.contains(version), pin
