"""Convert a checkpoint, run every task on it, write the tables. `tools/eval_all.sh` calls this."""

import importlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backbones.convert import convert_checkpoint, write_conversion
from backbones.file import BackboneFile, BackboneFileError, read_backbone_file
from backbones.formats.base import Conversion, abbreviate
from backbones.spec import BackboneSpec
from common.command import config_parser, parse_config, run_command
from common.files import file_sha256, write_atomically
from eval.result import RESULT_FILE, Result, read_result
from tables.make import TablesConfig, make_tables
from tools.sample_data.draw import SampleConfig, draw_samples

logger = logging.getLogger("eval_all")

PROG = "bash tools/eval_all.sh"
SAMPLE_FOLDER = Path("sample")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What this script must know of a task; its options belong to its own config class."""

    folder: str
    """Where its dataset lies below `--data`."""
    config: str
    """Name of its config class in `eval.TASK.config`; `eval.TASK.task` has its `check`."""
    sample_options: tuple[str, ...]
    """Options that make it run in about a minute on sample data."""


TASKS = {
    "davis": Task(
        folder="DAVIS",
        config="DavisConfig",
        sample_options=("--overlays", "true"),
    ),
    "detection": Task(
        folder="coco",
        config="DetectionConfig",
        sample_options=(
            *("--iterations", "60", "--batch-size", "2", "--short-side", "160", "--workers", "0"),
            "--override",
            # A rate for so few updates; fewer regions and boxes, for speed.
            '["optim_wrapper.optimizer.lr=1e-3","model.train_cfg.rcnn.sampler.num=32",'
            '"model.test_cfg.rpn.max_per_img=100","model.test_cfg.rcnn.max_per_img=20"]',
        ),
    ),
    "segmentation": Task(
        folder="ade/ADEChallengeData2016",
        config="SegmentationConfig",
        sample_options=(
            *("--iterations", "40", "--batch-size", "4", "--crop", "128", "--workers", "0"),
            *("--train-short-side", "144", "--test-short-side", "144"),
        ),
    ),
}


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


def run_name(checkpoint: Path) -> str:
    """The name of a run that the user did not name."""
    return checkpoint.resolve().parent.name if checkpoint.stem == "checkpoint" else checkpoint.stem


def read_checkpoint(checkpoint: Path, options: EvalAllOptions) -> Conversion | BackboneFile:
    """The backbone of a checkpoint, or of what is a backbone file already.

    Raises:
        ValueError: If there is none in it.
    """
    try:
        return read_backbone_file(checkpoint)
    except BackboneFileError:
        return convert_checkpoint(
            checkpoint,
            format_name=None if options.format == "auto" else options.format,
            branch=None if options.branch == "default" else options.branch,
            num_heads=options.num_heads,
        )


def write_backbone(content: Conversion | BackboneFile, checkpoint: Path, output: Path) -> None:
    """Make the run's backbone file, unless it is there already from the same checkpoint.

    Raises:
        ValueError: If the file there comes from another one.
    """
    if output.exists():
        existing = read_backbone_file(output)
        if file_sha256(checkpoint) in (existing.source.sha256, existing.sha256):
            return
        raise ValueError(f"{output} was made from another checkpoint; choose another --name, or remove {output.parent}")
    if isinstance(content, Conversion):
        write_conversion(content, checkpoint, output)
        logger.info("%s: %s, branch %s -> %s: %s", checkpoint, content.format, content.branch, output, content.spec)
    else:
        write_atomically(output, lambda temporary: shutil.copyfile(checkpoint, temporary))
        logger.info("%s is a backbone file already: %s", checkpoint, content.spec)


def check_tasks(arguments: Mapping[str, Sequence[str]], spec: BackboneSpec) -> None:
    """Find mistakes in all tasks' options and data now rather than after hours of other tasks.

    Args:
        arguments: Task -> its command-line arguments.
        spec: Of the backbone.

    Raises:
        ValueError: Says for every task which option or file.
    """
    problems = []
    for task, given in arguments.items():
        config_class = getattr(importlib.import_module(f"eval.{task}.config"), TASKS[task].config)
        try:
            config: Any = parse_config(config_class, f"python -m eval {task}", given)
            importlib.import_module(f"eval.{task}.task").check(config, spec)
        except ValueError as error:
            problems.append(f"--{task}: {error}")
    if problems:
        raise ValueError("; ".join(problems))


def run_task(task: str, arguments: Sequence[str], gpus: int | None) -> bool:
    """Run one task in processes of its own. Returns whether it succeeded."""
    processes = gpus or int(os.environ.get("NPROC_PER_NODE", "0")) or torch.cuda.device_count() or 1
    launching = ["--gpus", str(processes)] if processes > 1 else []
    logger.info("%s: starting", task)
    status = subprocess.run([sys.executable, "-m", "eval", task, *arguments, *launching], check=False).returncode
    if status:
        logger.error("%s: failed with status %d, see above", task, status)
    return status == 0


def evaluate_all(checkpoint: Path, options: EvalAllOptions, task_options: dict[str, list[str]]) -> int:
    """Check everything, convert, run the tasks, write the tables. Returns the number of failed tasks.

    Raises:
        ValueError: If the checkpoint, a dataset or an option cannot be used; no task has been started then.
    """
    tasks = options.chosen_tasks()
    if unused := [task for task, given in task_options.items() if given and task not in tasks]:
        raise ValueError(f"options are given for {', '.join(unused)}, which --tasks leaves out")
    if options.sample:
        draw_samples(SampleConfig(output=SAMPLE_FOLDER))
    data = SAMPLE_FOLDER if options.sample else options.data
    name = options.name or run_name(checkpoint)
    folder = options.runs / name
    backbone = folder / "backbone.safetensors"
    arguments = {
        task: [
            *("--backbone", str(backbone), "--data", str(data / TASKS[task].folder)),
            *("--output", str(folder / task), "--name", name),
            *(TASKS[task].sample_options if options.sample else ()),
            *task_options[task],
        ]
        for task in tasks
    }
    content = read_checkpoint(checkpoint, options)
    check_tasks(arguments, content.spec)
    write_backbone(content, checkpoint, backbone)
    failed = [task for task in tasks if not run_task(task, arguments[task], options.gpus)]
    tables = make_tables(TablesConfig(runs=options.runs, output=options.results))
    _print_summary(folder, tasks, failed, tables)
    return len(failed)


def _print_summary(folder: Path, tasks: Sequence[str], failed: Sequence[str], tables: Sequence[Path]) -> None:
    for task in tasks:
        path = folder / task / RESULT_FILE
        if task in failed:
            # A result that lies there is of other inputs.
            print(f"{task:>13}: failed, see above; another --name keeps runs apart")  # noqa: T201 - the command's own output
            continue
        result = read_result(path)
        figures = "  ".join(f"{name} {metric.value:.1f}" for name, metric in result.metrics.items())
        remark = "" if result.is_benchmark else f"  [{_why_not_a_benchmark(result)}]"
        print(f"{task:>13}: {figures}{remark}")  # noqa: T201
        print(f"{'':>15}{result.wall_time_s:.0f} s, {result.peak_memory_bytes / 2**30:.1f} GiB, {path}")  # noqa: T201
    for table in tables:
        print(f"{'table':>13}: {table}")  # noqa: T201


def _why_not_a_benchmark(result: Result) -> str:
    differing = result.protocol.deviations
    settings = f"; differs from the published protocol in {abbreviate(differing, 3)}" if differing else ""
    return f"{result.coverage} data, not a benchmark number{settings}"


def main(argv: Sequence[str]) -> int:
    """Parse, evaluate."""
    own, task_options = split_task_options(argv)
    parser = config_parser(PROG, EvalAllOptions.__doc__ or "")
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of any known layout, or a backbone file")
    parser.add_argument(
        "--sample", action="store_true", help="sample data (drawn into sample/), short fine-tuning: a trial, no measurement"
    )
    parser.add_class_arguments(EvalAllOptions, skip={"sample"})
    values = parser.parse_args(own).as_dict()
    checkpoint = values.pop("checkpoint")
    return 1 if evaluate_all(checkpoint, EvalAllOptions(**values), task_options) else 0


if __name__ == "__main__":
    run_command(main)
