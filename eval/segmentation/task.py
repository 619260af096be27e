"""ADE20K: fine-tune Semantic FPN on a backbone, test it, and record mIoU, aAcc and mAcc."""

import dataclasses
import logging
from collections.abc import Sequence

import torch
from mmengine.dist import is_main_process

from backbones.file import BackboneFile, read_backbone_file
from common.command import parse_config
from eval.openmmlab.batch import world_size
from eval.openmmlab.launch import Outcome, resolve_device, resolve_precision, run
from eval.openmmlab.progress import LOG_FILE
from eval.openmmlab.runner import CONFIG_FILE
from eval.provenance import describe_backbone, describe_environment
from eval.result import RESULT_FILE, Dataset, Metric, Protocol, Result, finished_result, inputs_digest, write_result
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.data import check_data
from eval.segmentation.experiment import COUNTS_FILE, plan_batch, resolve
from eval.segmentation.figures import compute_figures
from eval.segmentation.metric import read_counts
from eval.segmentation.protocol import describe_protocol

logger = logging.getLogger(__name__)

TASK = "segmentation"
WORK_FOLDER = "training"


def evaluate(options: SegmentationConfig) -> Result:
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
    datasets = {"train": splits["training"].describe(), "test": splits["validation"].describe()}
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
    """`python -m eval segmentation`."""
    options = parse_config(SegmentationConfig, "python -m eval segmentation", argv)
    result = evaluate(options)
    if is_main_process():
        figures = "  ".join(f"{name} {metric.value:.2f}" for name, metric in result.metrics.items())
        print(f"{figures}  ({result.coverage} data)  {options.output / RESULT_FILE}")  # noqa: T201 - the command's own output
    return 0


def _result(
    options: SegmentationConfig,
    backbone: BackboneFile,
    protocol: Protocol,
    datasets: dict[str, Dataset],
    outcome: Outcome,
    inputs: str,
    device: torch.device,
) -> Result:
    classes, counts_3K = read_counts(options.output / COUNTS_FILE)
    figures = compute_figures(counts_3K)
    per_class = zip(classes, figures.iou_K.tolist(), figures.acc_K.tolist(), strict=True)
    return Result(
        task=TASK,
        protocol=protocol,
        metrics={"mIoU": Metric(value=figures.miou), "aAcc": Metric(value=figures.aacc), "mAcc": Metric(value=figures.macc)},
        breakdown={name: {"IoU": iou, "Acc": acc} for name, iou, acc in per_class},
        datasets=datasets,
        backbone=describe_backbone(options.name or options.backbone.stem, backbone),
        config=dataclasses.asdict(options),
        seed=options.seed,
        environment=describe_environment(device, world_size()),
        wall_time_s=outcome.wall_time_s,
        peak_memory_bytes=outcome.peak_memory_bytes,
        artefacts={
            "checkpoint": str(outcome.checkpoint.relative_to(options.output)),
            "class_pixels": COUNTS_FILE,
            "training_log": f"{WORK_FOLDER}/{LOG_FILE}",
            "mmseg_config": f"{WORK_FOLDER}/{CONFIG_FILE}",
        },
        inputs_sha256=inputs,
    )
