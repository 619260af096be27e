"""Check everything, convert, run the tasks in processes of their own, write the tables."""

import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from backbones.spec import BackboneSpec
from common.command import parse_config
from tables.make import TablesConfig, make_tables
from tools.evaluation.backbone import BACKBONE_FILE, read_checkpoint, run_name, write_backbone
from tools.evaluation.options import EvalAllOptions
from tools.evaluation.summary import print_summary
from tools.evaluation.tasks import TASKS
from tools.sample_data.draw import SampleConfig, draw_samples

logger = logging.getLogger("eval_all")

SAMPLE_FOLDER = Path("sample")


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
    backbone = folder / BACKBONE_FILE
    arguments = {
        task: [
            *("--backbone", str(backbone), "--data", str(data / TASKS[task].folder)),
            *("--output", str(folder / task), "--name", name),
            *(TASKS[task].sample_options if options.sample else ()),
            *task_options[task],
        ]
        for task in tasks
    }
    content = read_checkpoint(
        checkpoint,
        format_name=None if options.format == "auto" else options.format,
        branch=None if options.branch == "default" else options.branch,
        num_heads=options.num_heads,
    )
    check_tasks(arguments, content.spec)
    write_backbone(content, checkpoint, backbone)
    failed = [task for task in tasks if not run_task(task, arguments[task], options.gpus)]
    tables = make_tables(TablesConfig(runs=options.runs, output=options.results))
    print_summary(folder, tasks, failed, tables)
    return len(failed)
