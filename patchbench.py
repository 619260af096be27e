"""PatchBench from Python: convert and load backbones, and evaluate a network in memory, also while it is being trained.

    import patchbench

    results = patchbench.evaluate(network, tasks=["davis", "classification"], data="data", output="runs/mine")

`docs/python.md` says more. Mistakes are ValueErrors of one line. Importing this module loads no torch.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

if TYPE_CHECKING:
    from torch import nn

    from backbones.build import AnyBackbone
    from backbones.convert import Selection
    from eval.result import Result

__all__ = ["EveryNEpochs", "convert", "evaluate", "lightning_callback", "load_backbone", "trainer_callback"]

Options = Mapping[str, Mapping[str, Any]]
"""Options of tasks by their names on the command line: `{"davis": {"year": "2016"}, "classification": {"neighbours": [10, 20]}}`."""

_ROOT = Path(__file__).resolve().parent
_OWN_PACKAGES = ("common", "backbones", "eval", "tools")


def _refuse_other_packages() -> None:
    """Raise ImportError where a package of the caller's hides one of ours."""
    for name in _OWN_PACKAGES:
        spec = importlib.util.find_spec(name)
        found = [place for place in (spec.origin, *(spec.submodule_search_locations or ())) if place] if spec else []
        if not any(Path(place).resolve().is_relative_to(_ROOT / name) for place in found):
            where = found[0] if found else "nothing"
            raise ImportError(f"patchbench needs its own package `{name}`, but `import {name}` gives {where}; rename that one")


_refuse_other_packages()


class Chosen(TypedDict, total=False):
    """What is meant of a checkpoint that does not say it itself."""

    layout: str | None  # The checkpoint's layout; None finds it from the keys.
    branch: str | None  # Which of its networks to take; None is the one behind the published numbers.
    num_heads: (
        int | None
    )  # Attention heads per block, where neither the layout nor the published number for the width gives them.
    key: str  # As `--key` of `tools/convert_checkpoint.py`: the entry of the checkpoint to take.
    prefix: str  # As `--prefix`: take the tensors whose names begin so.
    renaming: Sequence[str]  # As `--map`, each as OLD=NEW: replace a part of the tensors' names.


def _selection(chosen: Chosen) -> Selection:
    from backbones.convert import Selection

    options: dict[str, Any] = {**chosen, "renaming": tuple(chosen.get("renaming", ()))}
    return Selection(**options)


def convert(checkpoint: str | Path, output: str | Path | None = None, **chosen: Unpack[Chosen]) -> dict[str, Any]:
    """Convert a checkpoint, or `timm:NAME`, to a backbone file `output`; without one, only look.

    Args:
        checkpoint: A file in any known layout.
        output: The file to write, NAME.safetensors.
        **chosen: See `Chosen`.

    Returns:
        The report of `tools/convert_checkpoint.py --json`: layout, architecture, what was taken and what was dropped by which rule.
    """
    from backbones.report import convert_file

    return convert_file(Path(checkpoint), None if output is None else Path(output), chosen=_selection(chosen))


def load_backbone(path: str | Path, **chosen: Unpack[Chosen]) -> AnyBackbone:
    """The network of a backbone file, a checkpoint, `timm:NAME` or a function, in evaluation mode, on the CPU; see `Chosen`.

    It has `forward_tokens(images) -> (cls [B, D] or None, patches [B, N, D], grid (h, w))` and
    `forward_maps(images, taps) -> list of [B, D, h, w]` for images [B, 3, H, W] normalised by ImageNet's mean and deviation.
    """
    from backbones.build import network_of
    from backbones.convert import open_backbone

    conversion = open_backbone(Path(path), _selection(chosen))
    return network_of(conversion.spec, conversion.state_dict)


def evaluate(
    model: nn.Module | str | Path,
    tasks: str | Sequence[str] = ("davis", "classification"),
    *,
    data: str | Path = "data",
    output: str | Path,
    name: str = "",
    options: Options | None = None,
    epoch: int = -1,
    **chosen: Unpack[Chosen],
) -> dict[str, Result]:
    """Evaluate a network on tasks; the figures are those of the command line on a checkpoint of it, to the last digit.

    A network in memory is only read: its mode, its gradients, its device and all random numbers stay as they are. Finished tasks
    are not repeated, and an interrupted call continues when it is made again. Everything is checked before the first task starts.

    Where there are several processes (torchrun, or a training's own group), all of them call this together and share the work; the
    outcome does not depend on their number. `detection` and `segmentation` train the network, in processes of their own, so that
    they need a call from one process.

    Args:
        model: A module (a family of PatchBench under the names of any known layout, also inside of DistributedDataParallel,
            torch.compile or FSDP's `fully_shard`; a model of timm; or an own architecture that gives maps), a backbone file, a
            checkpoint, `timm:NAME` or a function `package.module:build`. Tasks that train need the last for an own architecture.
        tasks: Names of tasks, as a list or separated by commas; `frozen` stands for several (docs/tasks.md).
        data: Folder with the data sets as `eval_all.sh` expects them; `options={TASK: {"data": ...}}` gives another for one task.
        output: Folder for `backbone.safetensors` and `TASK/result.json`.
        name: Name of the row in the tables; by default that of the folder.
        options: Options of the tasks; `python -m eval TASK --help` lists them.
        epoch: What the result states as the age of a module's weights.
        **chosen: See `Chosen`; a module states its own heads.

    Returns:
        The result of each task, as `result.json` holds it, which records the digest of the weights.
    """
    from common.distributed import choose_device, process_group, world_size
    from eval.result import RESULT_FILE, read_result
    from eval.tasks import TASKS
    from tools.evaluation import arguments_for, prepared, run_task, undisturbed

    folder = Path(output)
    with undisturbed(), process_group(choose_device("cpu"), "gloo"):
        arguments = arguments_for(model, tasks, Path(data), folder, name or folder.resolve().name, options or {})
        training = ", ".join(task for task in arguments if TASKS[task].fine_tunes)
        if training and world_size() > 1:
            raise ValueError(f"{training}: trains the network in processes of its own; call evaluate from one process")
        with prepared(model, folder, arguments, _selection(chosen), epoch) as for_tasks:
            for task, given in for_tasks.items():
                run_task(task, given)
    return {task: read_result(folder / task / RESULT_FILE) for task in arguments}


class EveryNEpochs:
    """Evaluates a network on frozen tasks every N epochs of a training, into `OUTPUT/epoch_N`.

    Make it before the training: all mistakes in data and options are found then. Call it after each epoch, in every process of the
    training, with the number of completed epochs. It leaves the training as it was (see `evaluate`); an error during an evaluation,
    such as a full disk, ends it, so that no epoch goes without its figures unnoticed. Where a continued training comes to an epoch
    again with other weights, the results go to `OUTPUT/epoch_N_2`.

        evaluations = patchbench.EveryNEpochs(network, ["davis"], output="runs/mine", every=10)
        for epoch in range(epochs):
            train_one_epoch(network)
            metrics = evaluations(epoch + 1)  # {"davis/J&F-Mean": 61.2, ...}, or {} between the evaluations
    """

    def __init__(
        self,
        network: nn.Module,
        tasks: str | Sequence[str] = ("davis", "classification"),
        *,
        data: str | Path = "data",
        output: str | Path,
        every: int = 1,
        options: Options | None = None,
        **chosen: Unpack[Chosen],
    ) -> None:
        """Check everything; the arguments are those of `evaluate`, and `every` is N."""
        from backbones.memory import weights_of
        from eval.tasks import TASKS
        from tools.evaluation import arguments_for, check_tasks, opened, undisturbed

        if every < 1:
            raise ValueError(f"every={every} must be at least 1 epoch")
        self.network, self.every, self.output = network, every, Path(output)
        self._arguments: dict[str, Any] = {"tasks": tasks, "data": data, "options": options, **chosen}
        name = f"{self.output.resolve().name}_epoch_0"
        with undisturbed():
            arguments = arguments_for(network, tasks, Path(data), self.output, name, options or {})
            if training := ", ".join(task for task in arguments if TASKS[task].fine_tunes):
                frozen = ", ".join(name for name, task in TASKS.items() if not task.fine_tunes)
                raise ValueError(f"{training}: trains the network itself; during a training take frozen tasks: {frozen}")
            if weights := weights_of(network):
                check_tasks(arguments, opened(network, weights, _selection(chosen)).spec)
        self.output.mkdir(parents=True, exist_ok=True)

    def __call__(self, epoch: int) -> dict[str, float]:
        """The metrics after so many completed epochs by `TASK/METRIC`; empty where none are due."""
        from backbones.memory import OtherWeightsError

        if epoch % self.every:
            return {}
        for attempt in itertools.count(1):
            folder = self.output / (f"epoch_{epoch}" if attempt == 1 else f"epoch_{epoch}_{attempt}")
            name = f"{self.output.resolve().name}_{folder.name}"
            try:
                results = evaluate(self.network, output=folder, name=name, epoch=epoch, **self._arguments)
            except OtherWeightsError:
                continue
            break
        return {f"{task}/{name}": metric.value for task, result in results.items() for name, metric in result.metrics.items()}


def lightning_callback(network: nn.Module, *arguments: Any, **options: Any) -> Any:
    """`EveryNEpochs` with its arguments as a callback for Lightning's Trainer; `network` is the part of the module to evaluate.

    Lightning's own loggers get the metrics, also as `monitor="davis/J&F-Mean"` of its callbacks.
    """
    names = ("lightning.pytorch", "pytorch_lightning")  # two distributions of one framework, whose classes are not related
    pytorch: Any = importlib.import_module(next((name for name in names if name in sys.modules), names[0]))
    evaluations = EveryNEpochs(network, *arguments, **options)

    class EvaluationCallback(pytorch.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if metrics := evaluations(trainer.current_epoch + 1):
                pl_module.log_dict(metrics)

    return EvaluationCallback()


def trainer_callback(trainer: Any, network: nn.Module | None = None, *arguments: Any, **options: Any) -> Any:
    """`EveryNEpochs` with its arguments as a callback for Hugging Face's Trainer, to whose log the metrics go.

    `network` is the part of the trainer's model to evaluate, by default all of it:
    `trainer.add_callback(patchbench.trainer_callback(trainer, tasks=["davis"], output="runs/mine"))`.
    """
    transformers: Any = importlib.import_module("transformers")
    evaluations = EveryNEpochs(trainer.model if network is None else network, *arguments, **options)

    class EvaluationCallback(transformers.TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if metrics := evaluations(round(state.epoch)):
                trainer.log(metrics)

    return EvaluationCallback()
