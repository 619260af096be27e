"""What an evaluation of one network on several tasks takes, for `tools/eval_all.py` and for `patchbench.evaluate`."""

import logging
import os
import random
import subprocess
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.spec import FunctionSpec, is_function_name, spec_to_dict
from common.cli import as_arguments, as_typed, parse
from common.files import check_name, lock_folder
from eval.result import RESULT_FILE, read_result
from eval.tasks import TASKS, named_tasks, optional_tasks

if TYPE_CHECKING:
    import torch
    from torch import nn

    from backbones.convert import Selection
    from backbones.layouts import Conversion
    from backbones.spec import BackboneSpec

    Model = nn.Module | str | Path

BACKBONE_FILE = "backbone.safetensors"
LOCK_FILE = ".evaluation.lock"  # of a run's folder, into which a pretraining may write meanwhile

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parent.parent
GROUP_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun and Slurm (through submitit) tell a process about the others of its program."""


def data_folders(tasks: Sequence[str], optional: Container[str], data: Path) -> dict[str, Path]:
    """Task -> folder of the data set that it runs on.

    Optional tasks run on the first of their data sets that is there, or are left out, as the log says. ValueError if none is left.
    """
    from common.images import is_hidden

    def holds_something(folder: Path) -> bool:
        return folder.is_dir() and any(not is_hidden(path.name) for path in folder.iterdir())

    known = {task: [data / on_set.folder for on_set in TASKS[task].on_each_set()] for task in tasks}
    there = {
        task: [folder for folder in folders if task not in optional or holds_something(folder)]
        for task, folders in known.items()
    }
    if not any(there.values()):
        advice = f"`python tools/check_data.py --data {data}` says where to get it"
        raise ValueError(f"{data} has no data for any of {', '.join(tasks)}; {advice}")
    for task in tasks:
        if not there[task]:
            logger.warning("%s is left out: there is no data in %s", task, " or ".join(map(str, known[task])))
        elif task in optional:
            logger.info("%s runs on the data in %s", task, there[task][0])
    return {task: folders[0] for task, folders in there.items() if folders}


def arguments_of(
    names: str, given: Mapping[str, Sequence[str]], data: Path, backbone: Path, folder: Path
) -> dict[str, list[str]]:
    """The arguments of `python -m eval TASK` in a run's folder, for the tasks that `names` stands for, but for those left out.

    Those given for a task come last, because the later of two values counts.
    """
    own_data = [task for task, words in given.items() if any(word.partition("=")[0] == "--data" for word in words)]
    arguments = {}
    for task, place in data_folders(list(given), optional_tasks(names).difference(own_data), data).items():
        places = ["--backbone", str(backbone), "--data", str(place), "--output", str(folder / task)]
        arguments[task] = [*places, "--name", folder.name, *TASKS[task].default_options, *given[task]]
    return arguments


def check_tasks(arguments: Mapping[str, Sequence[str]], spec: "BackboneSpec | None" = None) -> None:
    """Find the mistakes in the options of all tasks, and with a spec those in their data, too.

    One ValueError names them all, and the tasks that are possible with the data that is there.
    """
    problems, possible = [], []
    for task, words in arguments.items():
        try:
            config: Any = parse(TASKS[task].config, words, f"python -m eval {task}")
            if spec is not None:
                TASKS[task].load("task", "check")(config, spec)
            possible.append(task)
        except ValueError as error:
            problems.append(f"--{task}: {as_typed(str(error), task)}")
    if problems and possible:
        problems.append(f"what is possible now: --tasks {','.join(possible)}")
    if problems:
        raise ValueError("; ".join(problems))


def arguments_for(
    model: "Model",
    tasks: str | Sequence[str],
    data: Path,
    folder: Path,
    name: str,
    options: Mapping[str, Mapping[str, Any]],
) -> dict[str, list[str]]:
    """`arguments_of` for a call from Python; ValueError for a task or an option that does not exist."""
    names = tasks if isinstance(tasks, str) else ",".join(tasks)
    chosen = named_tasks(names)
    if unused := [task for task in options if task not in chosen]:
        raise ValueError(f"options are given for {', '.join(unused)}; the tasks are {', '.join(chosen)}")
    stated = [f"{task}.{key}" for task in options for key in options[task] if key in ("backbone", "output", "name")]
    if stated:
        raise ValueError(f"options {', '.join(stated)}: leave them out; these are arguments of the call itself")
    check_name(name, "name")
    backbone = folder / BACKBONE_FILE
    on_gpu: list[str] = []
    if not isinstance(model, str | Path):
        weight = next(model.parameters(), None)
        on_gpu = ["--device", str(weight.device)] if weight is not None and weight.device.type == "cuda" else []
    elif is_function_name(Path(model)):
        backbone = Path(model)  # which the tasks call themselves
    given = {}
    for task in chosen:
        # Tasks that train the network run in processes of their own, one for each GPU.
        device = [] if TASKS[task].fine_tunes else on_gpu
        given[task] = ["--name", name, *device, *as_arguments(options.get(task, {}))]
    arguments = arguments_of(names, given, data, backbone, folder)
    check_tasks(arguments)
    return arguments


def opened(model: "Model", weights: "Mapping[str, torch.Tensor]", chosen: "Selection") -> "Conversion":
    from backbones.convert import open_backbone
    from backbones.memory import convert_network

    if isinstance(model, str | Path):
        return open_backbone(Path(model), chosen)
    return convert_network(model, weights, chosen)


def _write_backbone(model: "Model", conversion: "Conversion", folder: Path, epoch: int, tasks: Iterable[str]) -> None:
    """Write the run's backbone file; for a function and a network of an own architecture, which no file can hold, only check."""
    from backbones.memory import write_network
    from tools.runs import write_backbone

    with lock_folder(folder, LOCK_FILE):
        if isinstance(model, str | Path):
            if not is_function_name(Path(model)):
                write_backbone(conversion, Path(model), folder / BACKBONE_FILE)
        elif isinstance(conversion.spec, FunctionSpec):
            _check_own(conversion, folder, tasks)
        else:
            write_network(conversion, type(model).__name__, epoch, folder / BACKBONE_FILE)


def _check_own(conversion: "Conversion", folder: Path, tasks: Iterable[str]) -> None:
    """Raise ValueError unless the tasks and the folder are ones for this network of an own architecture."""
    from backbones.foreign import weights_sha256
    from backbones.memory import OtherWeightsError

    if training := ", ".join(task for task in tasks if TASKS[task].fine_tunes):
        what = f"{training}: trains the network in other processes, which cannot take one of an own architecture from memory"
        raise ValueError(f"{what}; give a function that returns it, package.module:build (docs/your_backbone.md)")
    own = spec_to_dict(conversion.spec), weights_sha256(conversion.state_dict)
    for task in TASKS:
        path = folder / task / RESULT_FILE
        found = read_result(path).backbone if path.exists() else None
        if found is not None and (found.spec, found.source["sha256"]) != own:
            raise OtherWeightsError(f"{path} is of other weights than this network; choose another output, or remove {folder}")


@contextmanager
def prepared(
    model: "Model", folder: Path, arguments: Mapping[str, list[str]], chosen: "Selection", epoch: int
) -> Iterator[Mapping[str, list[str]]]:
    """Check everything for all processes, write the backbone file, and give the arguments with which the tasks take the backbone.

    No file can hold a network of an own architecture: in this block, the tasks take it by a name. All processes raise the first one's
    OSError or ValueError; OtherWeightsError if the folder holds the evaluation of other weights.
    """
    from backbones.memory import held_network, weights_of
    from common.distributed import gather_objects, rank, world_size

    weights = {} if isinstance(model, str | Path) else weights_of(model)
    failure: OSError | ValueError | None = None
    is_function = False
    if rank() == 0:
        try:
            conversion = opened(model, weights, chosen)
            check_tasks(arguments, conversion.spec)
            _write_backbone(model, conversion, folder, epoch, arguments)
            is_function = isinstance(conversion.spec, FunctionSpec)
        except (OSError, ValueError) as error:
            failure = error
    failure, is_function = gather_objects((failure, is_function))[0]
    if failure:
        raise failure
    if isinstance(model, str | Path) or not is_function:
        yield arguments
        return
    shared = gather_objects(dict(weights) if rank() == 0 else {})[0] if world_size() > 1 else None
    with held_network(model, epoch, shared) as name:
        yield {task: [*words, "--backbone", name] for task, words in arguments.items()}


def device_of(task: str, arguments: Sequence[str]) -> str:
    """What the arguments of a task say of the device, such as `auto`."""
    return str(parse(TASKS[task].config, arguments, f"python -m eval {task}").device)


def run_task(task: str, arguments: Sequence[str]) -> None:
    """Run a task in this process, or in others if it trains the network, on all GPUs; ValueError if these fail."""
    if not TASKS[task].fine_tunes:
        TASKS[task].load("task", "evaluate")(parse(TASKS[task].config, arguments, f"python -m eval {task}"))
        return
    from common.launch import LaunchOptions
    from tools.runs import local_processes

    environment = {name: value for name, value in os.environ.items() if name not in GROUP_VARIABLES}
    environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])])
    processes = local_processes(LaunchOptions(), device_of(task, arguments))
    command = [sys.executable, "-m", "eval", task, *arguments, *processes]
    if status := subprocess.run(command, check=False, env=environment).returncode:
        raise ValueError(f"{task}: failed with status {status}; its own message is above")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Evaluate as a process of its own would, and leave everything that a training depends on as it was.

    That is: random numbers, gradients, autocast, precision, default dtype and device, cuDNN's choices, and the current GPU.
    """
    import numpy as np
    import torch

    from common.distributed import full_float32

    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=gpus))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        for gpu in gpus:
            stack.callback(torch.cuda.set_device, gpu)
        for name in ("benchmark", "deterministic"):
            stack.callback(setattr, torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
            setattr(torch.backends.cudnn, name, False)
        torch.set_default_dtype(torch.float32)
        contexts: list[Any] = [torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"), full_float32()]
        for context in (*contexts, *(torch.autocast(kind, enabled=False) for kind in ("cuda", "cpu"))):
            stack.enter_context(context)
        yield
