"""ADE20K: fine-tune Semantic FPN or UperNet on a backbone, test it, and record mIoU, aAcc and mAcc."""

import json

import numpy as np
import torch

from backbones.spec import BackboneSpec
from common.distributed import world_size
from eval.openmmlab import finetune
from eval.openmmlab.finetune import Measured, Prepared
from eval.openmmlab.plots import draw_predictions
from eval.result import Metric, Result
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.data import check_data
from eval.segmentation.items import ARTEFACT, class_scores
from eval.segmentation.protocol import COUNTS_FILE, IMAGES_FILE, protocol_of, resolve


def prepare(options: SegmentationConfig, spec: BackboneSpec, device: torch.device) -> Prepared:
    """Check data and options, and resolve the config."""
    splits = check_data(options.data, *options.image_limits)
    config = resolve(options, spec, splits, device, world_size())
    draw_predictions(config, options, "mmseg.SegLocalVisualizer")
    protocol = protocol_of(config, options, spec, device)
    return Prepared(config, protocol, {"train": splits["training"], "test": splits["validation"]})


def measured(options: SegmentationConfig, tested: dict[str, float]) -> Measured:
    """Put together what the result says, from what the test returned and the pixels that it counted."""
    counts = json.loads((options.output / COUNTS_FILE).read_text(encoding="utf-8"))
    scores = class_scores(np.array(list(counts.values())).T[None])
    per_class = zip(counts, scores.iou_RK[0].tolist(), scores.accuracy_RK[0].tolist(), strict=True)
    return (
        {name: Metric(value=value) for name, value in tested.items()},
        {name: {"IoU": iou, "Acc": accuracy} for name, iou, accuracy in per_class},
        {"class_pixels": COUNTS_FILE, ARTEFACT: IMAGES_FILE},
    )


def check(config: SegmentationConfig, spec: BackboneSpec) -> None:
    finetune.check(config, spec, prepare)


def evaluate(config: SegmentationConfig) -> Result:
    return finetune.evaluate("segmentation", config, prepare, measured)
