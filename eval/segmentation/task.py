"""ADE20K: fine-tune Semantic FPN or UperNet on a backbone, test it, and record mIoU, aAcc and mAcc."""

import torch

from backbones.spec import BackboneSpec
from common.distributed import world_size
from eval.openmmlab import finetune
from eval.openmmlab.finetune import Prepared
from eval.openmmlab.plots import draw_predictions
from eval.probes.items import ARTEFACT
from eval.result import Result
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.data import check_data
from eval.segmentation.protocol import COUNTS_FILE, IMAGES_FILE, resolve

ARTEFACTS = {"class_pixels": COUNTS_FILE, ARTEFACT: IMAGES_FILE}


def prepare(options: SegmentationConfig, spec: BackboneSpec, device: torch.device) -> Prepared:
    """Check data and options, and resolve the config."""
    splits = check_data(options.data, *options.image_limits)
    config, protocol = resolve(options, spec, splits, device, world_size())
    draw_predictions(config, options, "mmseg.SegLocalVisualizer")
    return Prepared(config, protocol, {"train": splits["training"], "test": splits["validation"]})


def check(config: SegmentationConfig, spec: BackboneSpec) -> None:
    finetune.check(config, spec, prepare)


def evaluate(config: SegmentationConfig) -> Result:
    return finetune.evaluate("segmentation", config, prepare, ARTEFACTS)
