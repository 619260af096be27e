"""The options of `tools/eval_all.py`, and those that it hands to the tasks."""

import importlib
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.evaluation.tasks import MAIN_TABLE, TASKS

ALL = "all"


@dataclass(kw_only=True)
class EvalAllOptions:
    """Evaluate one checkpoint on every task and write the tables; --TASK.OPTION VALUE gives any option of `python -m eval TASK`."""

    tasks: str = ""
    """Which tasks, separated by commas: davis, detection, segmentation, classification, or `all`. By default the first three, those
    of the papers' main table; with --sample all. Classification is by k-NN; `--classification.classifiers knn linear` adds the
    linear probe."""
    data: Path = Path("data")
    """Folder that holds `DAVIS`, `coco`, `ade/ADEChallengeData2016` and, for classification, `imagenet`; --TASK.data gives another
    place for one task. What a chosen task needs must be there: nothing is left out in silence."""
    name: str = ""
    """The run's name in tables and folders; by default the checkpoint's file name, or its folder's where that is `checkpoint`."""
    runs: Path = Path("runs")
    """Results go to RUNS/NAME/TASK/result.json."""
    results: Path = Path("results")
    """Folder for the tables."""
    sample: bool = False
    """Use generated sample data (drawn into sample/) and shortened fine-tuning: a trial of the way, not a measurement."""
    gpus: int | None = None
    """Processes per task, one per GPU; by default NPROC_PER_NODE, else the number of GPUs, or 1. Of a Slurm job by default 1."""
    format: str = "auto"
    """The checkpoint's layout; `auto` finds it from the keys."""
    branch: str = "default"
    """Which of the checkpoint's networks to take; `default` is the one behind the published numbers."""
    num_heads: int | None = None
    """Attention heads of the checkpoint's ViT, where neither its layout nor 64 channels per head tell."""

    def chosen_tasks(self) -> list[str]:
        """The tasks to run, in order.

        Raises:
            ValueError: For a task that does not exist.
        """
        if not self.tasks:
            return list(TASKS if self.sample else MAIN_TABLE)
        chosen = [task.strip() for task in self.tasks.split(",") if task.strip()]
        if chosen == [ALL]:
            return list(TASKS)
        if unknown := [task for task in chosen if task not in TASKS]:
            raise ValueError(f"--tasks: unknown {', '.join(unknown)}; tasks: {', '.join(TASKS)}, or {ALL}")
        if not chosen:
            raise ValueError(f"--tasks names no task; tasks: {', '.join(TASKS)}, or {ALL}")
        return list(dict.fromkeys(chosen))


def split_task_options(argv: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Separate `--TASK.OPTION VALUE` from this script's own arguments.

    A value may also be written `=VALUE`; a switch stands alone; an option that is a list takes all values up to the next option.
    """
    own: list[str] = []
    of_tasks: dict[str, list[str]] = {task: [] for task in TASKS}
    waiting, several = own, False
    for argument in argv:
        if not argument.startswith("--"):
            waiting.append(argument)
            if not several or argument.startswith("["):
                waiting, several = own, False
            continue
        task, dot, option = argument.removeprefix("--").partition(".")
        waiting, several = own, False
        if dot and task in TASKS:
            of_tasks[task].append(f"--{option}")
            if "=" not in option:
                waiting, several = of_tasks[task], _is_list(task, option)
        else:
            own.append(argument)
    return own, of_tasks


def _is_list(task: str, option: str) -> bool:
    """Whether an option of a task is a list; what the task does not know at all, it will say itself."""
    config_class = getattr(importlib.import_module(f"eval.{task}.config"), TASKS[task].config)
    kind = typing.get_type_hints(config_class).get(option.replace("-", "_"))
    return any(typing.get_origin(part) is list for part in (kind, *typing.get_args(kind)))
