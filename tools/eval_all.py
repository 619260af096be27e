"""Converts a checkpoint, runs every task on it, and writes the tables. `tools/eval_all.sh` calls this."""

import logging
import os
import shlex
import subprocess
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backbones.file import TIMM_PREFIX, is_timm_name
from backbones.spec import is_function_name
from common.cli import SECTION, parse, run_command
from common.files import check_name, lock_folder, remove_leftovers
from common.launch import Command, LaunchOptions
from eval.result import RESULT_FILE, read_result
from eval.tasks import TASKS, named_tasks
from tools.convert_checkpoint import SelectionOptions, check_source
from tools.evaluation import BACKBONE_FILE, LOCK_FILE, arguments_of, check_tasks, device_of
from tools.make_sample_data import SAMPLE_FOLDER, SampleConfig, draw_samples

PROG = "bash tools/eval_all.sh"

logger = logging.getLogger("eval_all")


@dataclass(frozen=True, kw_only=True)
class EvalAllOptions(SelectionOptions, LaunchOptions):
    """Evaluate one checkpoint on every task and write the tables; --TASK.OPTION VALUE gives any option of `python -m eval TASK`."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint of any known layout, a backbone file, timm:NAME for a model of timm, or package.module:function for your own."""
    tasks: str = ""
    """Tasks, separated by commas, or `all`. `frozen` stands for k-NN, linear segmentation, dense retrieval and DAVIS, as far as their
    data is there. The default is the tasks of the papers' main table, or all with --sample. Classification uses k-NN;
    `--classification.classifiers knn linear` adds the linear probe."""
    data: Path = Path("data")
    """Folder with the data sets of the tasks; --TASK.data gives another folder for one task. The data of every task that is named
    itself must exist: none of these is skipped."""
    name: str = ""
    """Name of the run in tables and folders; the default is the name of the checkpoint file, or of its folder if the file is called
    `checkpoint`."""
    runs: Path = Path("runs")  # Results go to RUNS/NAME/TASK/result.json.
    results: Path = Path("results")  # Folder for the tables.
    sample: bool = False
    """Use generated sample data (drawn into sample/) and shortened fine-tuning: this tries out the pipeline and measures nothing."""
    gpus: int | None = None
    """Processes per task, one per GPU. The default is NPROC_PER_NODE, else the number of GPUs, else 1; a Slurm job gets 1."""

    def chosen_tasks(self) -> list[str]:
        """The tasks to run, in order; ValueError for a task that does not exist."""
        if not self.tasks:
            return [name for name, task in TASKS.items() if self.sample or task.in_main_table]
        return list(TASKS) if self.tasks.strip() == "all" else named_tasks(self.tasks)


def split_task_options(argv: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Separate `--TASK.OPTION VALUE` from this script's own arguments.

    A value may also follow `=`. A switch has no value; an option that is a list takes all values up to the next option.
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
    """Whether an option of a task is a list. The task itself refuses unknown options."""
    kind = typing.get_type_hints(TASKS[task].config).get(option.replace("-", "_"))
    return any(typing.get_origin(part) is list for part in (kind, *typing.get_args(kind)))


def run_name(checkpoint: Path) -> str:
    """The name of a run that the user did not name."""
    if is_function_name(checkpoint):
        return str(checkpoint).replace(":", ".")
    if is_timm_name(checkpoint):
        return str(checkpoint).removeprefix(TIMM_PREFIX).rpartition("/")[2]
    return checkpoint.resolve().parent.name if checkpoint.stem == "checkpoint" else checkpoint.stem


def evaluate_all(options: EvalAllOptions, task_options: Mapping[str, Sequence[str]]) -> bool:
    """Check everything, convert, run or submit the tasks, write the tables. Return whether nothing failed.

    If the checkpoint, a data set or an option cannot be used, ValueError says so before any task starts.
    """
    tasks = options.chosen_tasks()
    if unused := [task for task, given in task_options.items() if given and task not in tasks]:
        raise ValueError(f"options are given for {', '.join(unused)}, which --tasks leaves out")
    placeholders = ("--backbone", "none", "--data", "none", "--output", "none")
    check_tasks({task: [*placeholders, *task_options[task]] for task in tasks})
    check_source(options.checkpoint, options.format)
    folder = options.runs / check_name(options.name or run_name(options.checkpoint), "--name")
    # These load torch; --help and mistakes in the options need not wait for it.
    from backbones.convert import open_backbone, selection_of
    from tables.make import PATIENCE, TablesConfig, make_tables
    from tools.runs import local_processes, write_backbone
    from tools.summary import summary

    if options.sample:
        draw_samples(SampleConfig(output=SAMPLE_FOLDER))
    is_function = is_function_name(options.checkpoint)  # which the tasks call themselves
    backbone = options.checkpoint if is_function else folder / BACKBONE_FILE
    given = {task: [*(TASKS[task].sample_options if options.sample else ()), *task_options[task]] for task in tasks}
    arguments = arguments_of(options.tasks, given, SAMPLE_FOLDER if options.sample else options.data, backbone, folder)
    conversion = open_backbone(options.checkpoint, selection_of(options))
    check_tasks(arguments, conversion.spec)
    logger.info("checkpoint, data and options fit: %s", ", ".join(arguments))
    if options.dry_run and not is_function:
        print(f"# before: {_conversion_command(options, backbone)}")  # noqa: T201 - the command's own output
    elif options.slurm and not is_function:
        with lock_folder(folder, LOCK_FILE):
            write_backbone(conversion, options.checkpoint, backbone)
    if options.dry_run or options.slurm:
        _launch_all(options, arguments, folder)
        return True
    with lock_folder(folder, LOCK_FILE):
        remove_leftovers(folder, f".{Path(BACKBONE_FILE).stem}.*.tmp.*")
        if not is_function:
            write_backbone(conversion, options.checkpoint, backbone)
        del conversion  # frees its weights while the tasks run
        statuses = {}
        for task, words in arguments.items():
            statuses[task] = _run(task, [*words, *local_processes(options, device_of(task, words))])
        try:
            succeeded = [task for task, status in statuses.items() if not status]
            # An option of a task may have changed what its result calls the run.
            first = read_result(folder / succeeded[0] / RESULT_FILE).backbone.name if succeeded else ""
            files = make_tables(TablesConfig(runs=options.runs, output=options.results, first=first), PATIENCE)
        except ValueError as error:
            files = []
            logger.error("no tables: %s", error)
    print(summary(folder, statuses, files, [task for task in tasks if task not in arguments]))  # noqa: T201
    return bool(files) and not any(statuses.values())


def _launch_all(options: EvalAllOptions, arguments: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Submit a job for each task, or print what would be; and say which command then makes the tables."""
    from tools.runs import launch  # loads torch

    for task, given in arguments.items():
        launch("eval", [task, *given], options, device_of(task, given))
    places = ("--runs", str(options.runs), "--output", str(options.results), "--first", folder.name)
    makes_tables = Command(module="tables", arguments=places)
    print(f"{'# ' if options.dry_run else ''}when they have ended: {makes_tables}")  # noqa: T201 - the command's own output


def _conversion_command(options: EvalAllOptions, output: Path) -> str:
    """The command that makes the run's backbone file."""
    given = [("--format", options.format), ("--branch", options.branch), ("--num-heads", options.num_heads)]
    given += [("--key", options.key), ("--prefix", options.prefix), *(("--map", pair) for pair in options.map)]
    choices = [part for option, value in given if value not in ("auto", "default", "", None) for part in (option, str(value))]
    return shlex.join(["python", "tools/convert_checkpoint.py", str(options.checkpoint), str(output), *choices])


def _run(task: str, arguments: Sequence[str]) -> int:
    """Run a task in other processes. Return the exit status."""
    logger.info("%s: starting", task)
    # A task prints its metrics to standard output, and the summary repeats them; progress and errors go to standard error.
    command = [sys.executable, "-m", "eval", task, *arguments]
    environment = {**os.environ, SECTION: task}
    status = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=environment).returncode
    if status:
        logger.error("%s: failed with status %d, see above", task, status)
    return status


def main(argv: Sequence[str]) -> int:
    own, task_options = split_task_options(argv)
    folders = ", ".join(f"{task.name} (data in {task.folder})" for task in TASKS.values())
    options = parse(EvalAllOptions, own, PROG, f"{EvalAllOptions.__doc__} Tasks: {folders}.")
    return 0 if evaluate_all(options, task_options) else 1


if __name__ == "__main__":
    run_command(main)
