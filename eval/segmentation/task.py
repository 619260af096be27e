"""ADE20K: fine-tune Semantic FPN or UperNet on a backbone, test it, and record mIoU, aAcc and mAcc."""

from collections.abc import Sequence

import torch

from backbones.spec import BackboneSpec
from common.command import parse_config
from eval.evaluation import Figures
from eval.openmmlab import finetune
from eval.openmmlab.batch import published_batch, world_size
from eval.openmmlab.finetune import FineTuningTask, Prepared
from eval.openmmlab.launch import Outcome, resolve_device, resolve_precision
from eval.result import Metric, Result
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.data import check_data
from eval.segmentation.experiment import COUNTS_FILE, IMAGES_FILE, base_config, resolve
from eval.segmentation.figures import compute_figures
from eval.segmentation.metric import read_counts
from eval.segmentation.protocol import describe_protocol


def prepare(options: SegmentationConfig, spec: BackboneSpec, device: torch.device) -> Prepared:
    """See `FineTuningTask.prepare`."""
    splits = check_data(options.data, *options.image_limits)
    batch = options.plan_batch(published_batch(base_config(spec, options.head)), world_size())
    config = resolve(options, spec, splits, batch, resolve_precision(options.precision, device))
    return Prepared(
        config=config,
        protocol=describe_protocol(config, options, spec, batch, device),
        datasets={"train": splits["training"].describe(), "test": splits["validation"].describe()},
        batch=batch,
        pictures={"type": "SegmentationPictures"},
    )


def figures(options: SegmentationConfig, outcome: Outcome) -> Figures:
    """See `FineTuningTask.figures`; from the pixels that the test counted."""
    del outcome
    classes, counts_3K = read_counts(options.output / COUNTS_FILE)
    computed = compute_figures(counts_3K)
    per_class = zip(classes, computed.iou_K.tolist(), computed.acc_K.tolist(), strict=True)
    return Figures(
        metrics={
            "mIoU": Metric(value=computed.miou),
            "aAcc": Metric(value=computed.aacc),
            "mAcc": Metric(value=computed.macc),
        },
        breakdown={name: {"IoU": iou, "Acc": acc} for name, iou, acc in per_class},
        artefacts={"class_pixels": COUNTS_FILE, "image_pixels": IMAGES_FILE},
    )


TASK = FineTuningTask(name="segmentation", prepare=prepare, figures=figures)


def check(options: SegmentationConfig, spec: BackboneSpec) -> None:
    """Find a user's mistakes before anything heavy starts.

    Raises:
        ValueError: If data, options and backbone do not fit each other.
    """
    prepare(options, spec, resolve_device(options.device))


def evaluate(options: SegmentationConfig) -> Result:
    """Run the task, or what is left of it; see `eval.openmmlab.finetune.evaluate`."""
    return finetune.evaluate(TASK, options)


def parse(argv: Sequence[str]) -> SegmentationConfig:
    """The options of `python -m eval segmentation`."""
    return parse_config(SegmentationConfig, "python -m eval segmentation", argv)


def main(argv: Sequence[str]) -> int:
    """`python -m eval segmentation`."""
    options = parse(argv)
    finetune.print_figures(options, evaluate(options))
    return 0
