"""A fine-tuning task from its options to its result; what differs between tasks is given as functions."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from mmengine import Config
from mmengine.dist import is_main_process

from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec
from eval.evaluation import Evaluation, Figures, figures_line
from eval.openmmlab.batch import BatchPlan, world_size
from eval.openmmlab.curves import CURVES_FILE, write_curves
from eval.openmmlab.launch import Outcome, resolve_device, run
from eval.openmmlab.options import FineTuningConfig
from eval.openmmlab.pictures import PREDICTIONS_FOLDER, list_pictures
from eval.openmmlab.progress import LOG_FILE
from eval.openmmlab.runner import CONFIG_FILE
from eval.result import Dataset, Protocol, Result, write_result

logger = logging.getLogger(__name__)

WORK_FOLDER = "training"

OptionsT = TypeVar("OptionsT", bound=FineTuningConfig)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that is ready to start."""

    config: Config
    """What OpenMMLab's Runner executes."""
    protocol: Protocol
    """How the figures come about."""
    datasets: dict[str, Dataset]
    """`train` and `test`."""
    batch: BatchPlan
    """How the processes make up the batch."""
    pictures: dict[str, Any]
    """The task's `PicturesHook` as an mmengine config, without folder and count."""


@dataclass(frozen=True, kw_only=True)
class FineTuningTask(Generic[OptionsT]):
    """What one task adds to the common course."""

    name: str
    """As in `python -m eval NAME`."""
    prepare: Callable[[OptionsT, BackboneSpec, torch.device], Prepared]
    """Checks data and options and resolves the config; raises ValueError for a user's mistake."""
    figures: Callable[[OptionsT, Outcome], Figures]
    """Reads the figures off a finished run."""


def evaluate(task: FineTuningTask[OptionsT], options: OptionsT) -> Result:
    """Run the task, or what is left of it; a finished task with the same inputs is only read.

    Raises:
        ValueError: If an option, the backbone file or the data cannot be used, or the output folder holds something else.
    """
    device = resolve_device(options.device)
    backbone = read_backbone_file(options.backbone)
    prepared = task.prepare(options, backbone.spec, device)
    evaluation = Evaluation(
        task=task.name, options=options, backbone=backbone, protocol=prepared.protocol, datasets=prepared.datasets
    )
    if (finished := evaluation.finished()) is not None:
        return finished
    outcome = run(
        _with_pictures(prepared, options),
        options.output / WORK_FOLDER,
        inputs=evaluation.inputs,
        device=device,
        seed=options.seed,
        checkpoint_interval=options.checkpoint_interval,
    )
    figures = task.figures(options, outcome)
    artefacts = {
        "checkpoint": str(outcome.checkpoint.relative_to(options.output)),
        "training_log": f"{WORK_FOLDER}/{LOG_FILE}",
        "openmmlab_config": f"{WORK_FOLDER}/{CONFIG_FILE}",
        **figures.artefacts,
        **_draw_curves(options.output),
        **(list_pictures(options.output) if options.draw_images else {}),
    }
    result = evaluation.record(
        replace(figures, artefacts=artefacts),
        device,
        world_size(),
        outcome.wall_time_s,
        outcome.peak_memory_bytes,
        further_config={"batch": prepared.batch.describe()},
    )
    if is_main_process():
        write_result(options.output, result)
    return result


def _with_pictures(prepared: Prepared, options: FineTuningConfig) -> Config:
    """The config with the hook that draws predictions, where they are wanted."""
    if options.draw_images:
        hook = {**prepared.pictures, "folder": str(options.output / PREDICTIONS_FOLDER), "count": options.draw_images}
        prepared.config.custom_hooks = [*prepared.config.get("custom_hooks", []), hook]
    return prepared.config


def _draw_curves(output: Path) -> dict[str, str]:
    """Draw the training curves; the artefact. A picture that fails is an error in the log and no reason to lose the figures."""
    log, picture = output / WORK_FOLDER / LOG_FILE, output / WORK_FOLDER / CURVES_FILE
    try:
        if is_main_process():
            write_curves(log, picture)
    except (OSError, ValueError) as error:
        logger.error("%s is missing, the training curves were not drawn: %s", picture, error)
        return {}
    return {"training_curves": f"{WORK_FOLDER}/{CURVES_FILE}"}


def print_figures(options: FineTuningConfig, result: Result) -> None:
    """The command's own output: one line."""
    if is_main_process():
        print(figures_line(options, result))  # noqa: T201
