"""COCO: fine-tune Mask R-CNN on a backbone, test it, and record box and mask AP."""

import torch

from backbones.spec import BackboneSpec
from common.distributed import world_size
from eval.detection.config import DetectionConfig
from eval.detection.data import check_data
from eval.detection.items import ARTEFACT
from eval.detection.protocol import MATCHES_FILE, resolve
from eval.openmmlab import finetune
from eval.openmmlab.finetune import Prepared
from eval.openmmlab.plots import draw_predictions
from eval.result import Result

ARTEFACTS = {ARTEFACT: MATCHES_FILE}


def prepare(options: DetectionConfig, spec: BackboneSpec, device: torch.device) -> Prepared:
    """Check data and options, and resolve the config."""
    splits = check_data(options.data, *options.image_limits)
    config, protocol = resolve(options, spec, splits, device, world_size())
    draw_predictions(config, options, "mmdet.DetLocalVisualizer", [name for _, name in splits["val2017"].categories])
    return Prepared(config, protocol, {"train": splits["train2017"], "test": splits["val2017"]})


def check(config: DetectionConfig, spec: BackboneSpec) -> None:
    finetune.check(config, spec, prepare)


def evaluate(config: DetectionConfig) -> Result:
    return finetune.evaluate("detection", config, prepare, ARTEFACTS)
