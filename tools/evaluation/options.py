"""The options of `tools/eval_all.py`, and those that it hands to the tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.evaluation.tasks import TASKS


@dataclass(kw_only=True)
class EvalAllOptions:
    """Evaluate one checkpoint on every task and write the tables; --TASK.OPTION VALUE gives any option of `python -m eval TASK`."""

    tasks: str = ",".join(TASKS)
    """Which tasks, separated by commas."""
    data: Path = Path("data")
    """Folder that holds `coco`, `ade/ADEChallengeData2016` and `DAVIS`."""
    name: str = ""
    """The run's name in tables and folders; by default the checkpoint's file name, or its folder's where that is `checkpoint`."""
    runs: Path = Path("runs")
    """Results go to RUNS/NAME/TASK/result.json."""
    results: Path = Path("results")
    """Folder for the tables."""
    sample: bool = False
    """Use generated sample data (drawn into sample/) and shortened fine-tuning: a trial of the way, not a measurement."""
    gpus: int | None = None
    """Processes per task, one per GPU; by default NPROC_PER_NODE, else the number of GPUs, or 1."""
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
        chosen = [task.strip() for task in self.tasks.split(",") if task.strip()]
        if unknown := [task for task in chosen if task not in TASKS]:
            raise ValueError(f"--tasks: unknown {', '.join(unknown)}; tasks: {', '.join(TASKS)}")
        if not chosen:
            raise ValueError(f"--tasks names no task; tasks: {', '.join(TASKS)}")
        return chosen


def split_task_options(argv: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Separate `--TASK.OPTION VALUE` (or `=VALUE`, or a switch alone) from this script's own arguments."""
    own: list[str] = []
    of_tasks: dict[str, list[str]] = {task: [] for task in TASKS}
    waiting_for_value = own
    for argument in argv:
        if not argument.startswith("--"):
            waiting_for_value.append(argument)
            waiting_for_value = own
            continue
        task, dot, option = argument.removeprefix("--").partition(".")
        if dot and task in TASKS:
            of_tasks[task].append(f"--{option}")
            waiting_for_value = own if "=" in option else of_tasks[task]
        else:
            own.append(argument)
            waiting_for_value = own
    return own, of_tasks
