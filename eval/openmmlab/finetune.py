"""A fine-tuning task from its options to its result; what differs between tasks is given as functions."""

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from mmengine import Config
from mmengine.dist import is_main_process

from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec
from eval.inputs import describe_inputs, finished_result, inputs_digest
from eval.openmmlab.batch import BatchPlan, world_size
from eval.openmmlab.curves import CURVES_FILE, write_curves
from eval.openmmlab.launch import Outcome, resolve_device, run
from eval.openmmlab.options import FineTuningConfig
from eval.openmmlab.pictures import PREDICTIONS_FOLDER, list_pictures
from eval.openmmlab.progress import LOG_FILE
from eval.openmmlab.runner import CONFIG_FILE
from eval.provenance import describe_backbone, describe_environment
from eval.result import RESULT_FILE, Dataset, Metric, Protocol, Result, write_result

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
class Figures:
    """What a test gave."""

    metrics: dict[str, Metric]
    """In the order of the tables."""
    breakdown: dict[str, dict[str, float]]
    """Per class."""
    artefacts: dict[str, str]
    """The task's own files: name -> path in the output folder."""


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
    inputs = describe_inputs(task.name, prepared.protocol, prepared.datasets, backbone.sha256, options.seed)
    finished = finished_result(options.output, inputs)
    if finished is not None:
        logger.info("%s is finished with the same inputs; not run again", options.output)
        return finished
    outcome = run(
        _with_pictures(prepared, options),
        options.output / WORK_FOLDER,
        inputs=inputs,
        device=device,
        seed=options.seed,
        checkpoint_interval=options.checkpoint_interval,
    )
    figures = task.figures(options, outcome)
    result = Result(
        task=task.name,
        protocol=prepared.protocol,
        metrics=figures.metrics,
        breakdown=figures.breakdown,
        datasets=prepared.datasets,
        backbone=describe_backbone(options.name or options.backbone.stem, backbone),
        config=dataclasses.asdict(options) | {"batch": prepared.batch.describe()},
        seed=options.seed,
        environment=describe_environment(device, world_size()),
        wall_time_s=outcome.wall_time_s,
        peak_memory_bytes=outcome.peak_memory_bytes,
        artefacts={
            "checkpoint": str(outcome.checkpoint.relative_to(options.output)),
            "training_log": f"{WORK_FOLDER}/{LOG_FILE}",
            "openmmlab_config": f"{WORK_FOLDER}/{CONFIG_FILE}",
            **figures.artefacts,
            **_draw_curves(options.output),
            **(list_pictures(options.output) if options.draw_images else {}),
        },
        inputs_sha256=inputs_digest(inputs),
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
        figures = "  ".join(f"{name} {metric.value:.2f}" for name, metric in result.metrics.items())
        print(f"{figures}  ({result.coverage} data)  {options.output / RESULT_FILE}")  # noqa: T201
