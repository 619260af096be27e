"""COCO: fine-tune Mask R-CNN on a backbone, test it, and record box and mask AP."""

import dataclasses
import logging
from collections.abc import Sequence

import torch
from mmengine.dist import is_main_process

from backbones.file import BackboneFile, read_backbone_file
from common.command import parse_config
from eval.detection.config import DetectionConfig
from eval.detection.data import check_data
from eval.detection.experiment import plan_batch, resolve
from eval.detection.figures import split_figures
from eval.detection.protocol import describe_protocol
from eval.openmmlab.batch import world_size
from eval.openmmlab.launch import Outcome, resolve_device, resolve_precision, run
from eval.openmmlab.progress import LOG_FILE
from eval.openmmlab.runner import CONFIG_FILE
from eval.provenance import describe_backbone, describe_environment
from eval.result import RESULT_FILE, Dataset, Metric, Protocol, Result, finished_result, inputs_digest, write_result

logger = logging.getLogger(__name__)

TASK = "detection"
WORK_FOLDER = "training"


def evaluate(options: DetectionConfig) -> Result:
    """Run the task, or what is left of it; a finished task with the same inputs is only read.

    Raises:
        ValueError: If an option, the backbone file or the data cannot be used, or the output folder holds something else.
    """
    device = resolve_device(options.device)
    backbone = read_backbone_file(options.backbone)
    splits = check_data(options.data, options.max_train_images, options.max_val_images)
    batch = plan_batch(options, world_size())
    config = resolve(options, backbone.spec, splits, batch, resolve_precision(options.precision, device))
    protocol = describe_protocol(config, options, backbone.spec, batch, device)
    datasets = {"train": splits["train2017"].describe(), "test": splits["val2017"].describe()}
    inputs = inputs_digest(TASK, protocol, datasets, backbone.sha256, options.seed)
    finished = finished_result(options.output, inputs)
    if finished is not None:
        logger.info("%s is finished with the same inputs; not run again", options.output)
        return finished
    outcome = run(
        config,
        options.output / WORK_FOLDER,
        inputs=inputs,
        device=device,
        seed=options.seed,
        checkpoint_interval=options.checkpoint_interval,
    )
    result = _result(options, backbone, protocol, datasets, outcome, inputs, device)
    if is_main_process():
        write_result(options.output, result)
    return result


def main(argv: Sequence[str]) -> int:
    """`python -m eval detection`."""
    options = parse_config(DetectionConfig, "python -m eval detection", argv)
    result = evaluate(options)
    if is_main_process():
        figures = "  ".join(f"{name} {metric.value:.2f}" for name, metric in result.metrics.items())
        print(f"{figures}  ({result.coverage} data)  {options.output / RESULT_FILE}")  # noqa: T201 - the command's own output
    return 0


def _result(
    options: DetectionConfig,
    backbone: BackboneFile,
    protocol: Protocol,
    datasets: dict[str, Dataset],
    outcome: Outcome,
    inputs: str,
    device: torch.device,
) -> Result:
    overall, per_class = split_figures(outcome.metrics)
    return Result(
        task=TASK,
        protocol=protocol,
        metrics={name: Metric(value=value) for name, value in overall.items()},
        breakdown=per_class,
        datasets=datasets,
        backbone=describe_backbone(options.name or options.backbone.stem, backbone),
        config=dataclasses.asdict(options),
        seed=options.seed,
        environment=describe_environment(device, world_size()),
        wall_time_s=outcome.wall_time_s,
        peak_memory_bytes=outcome.peak_memory_bytes,
        artefacts={
            "checkpoint": str(outcome.checkpoint.relative_to(options.output)),
            "training_log": f"{WORK_FOLDER}/{LOG_FILE}",
            "mmdet_config": f"{WORK_FOLDER}/{CONFIG_FILE}",
        },
        inputs_sha256=inputs,
    )
