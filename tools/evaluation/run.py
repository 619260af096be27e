"""Check everything, convert, run the tasks in processes of their own or as Slurm jobs, write the tables."""

import importlib
import logging
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.spec import BackboneSpec
from common.command import parse_config
from common.launch import Command, LaunchOptions, run_or_launch
from tables.make import TablesConfig, make_tables
from tools.evaluation.backbone import BACKBONE_FILE, read_checkpoint, run_name, write_backbone
from tools.evaluation.launching import launch_arguments, local_processes
from tools.evaluation.options import EvalAllOptions
from tools.evaluation.summary import Ended, summary
from tools.evaluation.tasks import TASKS
from tools.make_sample_data import SampleConfig, draw_samples

logger = logging.getLogger("eval_all")

SAMPLE_FOLDER = Path("sample")


def evaluate_all(
    checkpoint: Path, options: EvalAllOptions, task_options: Mapping[str, Sequence[str]], launching: LaunchOptions
) -> bool:
    """Check everything, convert, run or submit the tasks, write the tables. Returns whether nothing failed.

    Args:
        checkpoint: Of any layout, a backbone file, or `timm:NAME`.
        options: Those of the script.
        task_options: Task -> arguments for it.
        launching: Where the tasks run.

    Raises:
        ValueError: If the checkpoint, a dataset or an option cannot be used; no task has been started then.
    """
    tasks = options.chosen_tasks()
    if unused := [task for task, given in task_options.items() if given and task not in tasks]:
        raise ValueError(f"options are given for {', '.join(unused)}, which --tasks leaves out")
    if options.sample:
        draw_samples(SampleConfig(output=SAMPLE_FOLDER))
    folder = options.runs / (options.name or run_name(checkpoint))
    arguments = {task: task_arguments(task, folder, options, task_options[task]) for task in tasks}
    content = read_checkpoint(
        checkpoint,
        format_name=None if options.format == "auto" else options.format,
        branch=None if options.branch == "default" else options.branch,
        num_heads=options.num_heads,
    )
    check_tasks(arguments, content.spec)
    if not launching.dry_run:
        write_backbone(content, checkpoint, folder / BACKBONE_FILE)
    if launching.dry_run:
        print(f"# before: {conversion_command(checkpoint, options, folder / BACKBONE_FILE)}")  # noqa: T201
    if launching.slurm or launching.dry_run:
        _launch(arguments, launching, TablesConfig(runs=options.runs, output=options.results))
        return True
    ended = [Ended(task=task, folder=folder / task, status=_run(task, arguments[task], launching)) for task in tasks]
    tables = make_tables(TablesConfig(runs=options.runs, output=options.results))
    print(summary(ended, tables))  # noqa: T201 - the command's own output
    return not any(one.status for one in ended)


def task_arguments(task: str, folder: Path, options: EvalAllOptions, given: Sequence[str]) -> list[str]:
    """What follows `python -m eval TASK`; of an option that stands there twice the later one, the user's, counts.

    Args:
        task: Its name.
        folder: The run's.
        options: Those of the script.
        given: The user's for this task.
    """
    known = TASKS[task]
    data = SAMPLE_FOLDER if options.sample else options.data
    return [
        *("--backbone", str(folder / BACKBONE_FILE), "--data", str(data / known.folder)),
        *("--output", str(folder / task), "--name", folder.name),
        *known.default_options,
        *(known.sample_options if options.sample else ()),
        *given,
    ]


def conversion_command(checkpoint: Path, options: EvalAllOptions, output: Path) -> str:
    """What makes the run's backbone file, as a shell would take it."""
    given = {"--format": options.format, "--branch": options.branch, "--num-heads": options.num_heads}
    defaults = ("auto", "default", None)
    choices = [str(part) for option, value in given.items() if value not in defaults for part in (option, value)]
    return shlex.join(["python", "tools/convert_checkpoint.py", str(checkpoint), str(output), *choices])


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


def _run(task: str, arguments: Sequence[str], launching: LaunchOptions) -> int:
    """Run one task in processes of its own. Returns their status."""
    logger.info("%s: starting", task)
    command = [sys.executable, "-m", "eval", task, *arguments, *local_processes(launching)]
    # On its standard output a task prints its figures, which the summary has; its progress and errors go to standard error.
    status = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
    if status:
        logger.error("%s: failed with status %d, see above", task, status)
    return status


def _launch(arguments: Mapping[str, Sequence[str]], launching: LaunchOptions, tables: TablesConfig) -> None:
    """Submit each task as a job, or print what would be started."""
    for task, given in arguments.items():
        if launching.slurm:
            # Never here, since the options say so.
            run_or_launch("eval", [task, *given, *launch_arguments(launching)], lambda _: 1)
        else:
            print(Command(module="eval", arguments=(task, *given, *local_processes(launching))))  # noqa: T201
    makes_tables = Command(module="tables", arguments=("--runs", str(tables.runs), "--output", str(tables.output)))
    print(f"{'# ' if launching.dry_run else ''}when they have ended: {makes_tables}")  # noqa: T201
