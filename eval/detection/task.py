"""COCO: fine-tune Mask R-CNN on a backbone, test it, and record box and mask AP."""

from collections.abc import Sequence

import torch

from backbones.spec import BackboneSpec
from common.command import parse_config
from eval.detection.config import DetectionConfig
from eval.detection.data import check_data
from eval.detection.experiment import MATCHES_FILE, base_config, has_batch_norm, resolve, training_precision
from eval.detection.figures import split_figures
from eval.detection.pictures import DetectionPictures
from eval.detection.protocol import describe_protocol
from eval.evaluation import Figures
from eval.openmmlab import finetune
from eval.openmmlab.batch import published_batch, world_size
from eval.openmmlab.finetune import FineTuningTask, Prepared
from eval.openmmlab.launch import Outcome, resolve_device
from eval.result import Metric, Result


def prepare(options: DetectionConfig, spec: BackboneSpec, device: torch.device) -> Prepared:
    """See `FineTuningTask.prepare`."""
    splits = check_data(options.data, *options.image_limits)
    base = base_config(spec)
    batch = options.plan_batch(published_batch(base), world_size(), has_batch_norm(base, spec))
    config = resolve(options, spec, splits, batch, training_precision(options, spec, device))
    return Prepared(
        config=config,
        protocol=describe_protocol(config, options, spec, batch, device),
        datasets={"train": splits["train2017"].describe(), "test": splits["val2017"].describe()},
        batch=batch,
        pictures={"type": DetectionPictures.__name__, "classes": [name for _, name in splits["val2017"].categories]},
    )


def figures(options: DetectionConfig, outcome: Outcome) -> Figures:
    """See `FineTuningTask.figures`."""
    del options
    overall, per_class = split_figures(outcome.metrics)
    return Figures(
        metrics={name: Metric(value=value) for name, value in overall.items()},
        breakdown=per_class,
        artefacts={"image_matches": MATCHES_FILE},
    )


TASK = FineTuningTask(name="detection", prepare=prepare, figures=figures)


def check(options: DetectionConfig, spec: BackboneSpec) -> None:
    """Find a user's mistakes before anything heavy starts.

    Raises:
        ValueError: If data, options and backbone do not fit each other.
    """
    prepare(options, spec, resolve_device(options.device))


def evaluate(options: DetectionConfig) -> Result:
    """Run the task, or what is left of it; see `eval.openmmlab.finetune.evaluate`."""
    return finetune.evaluate(TASK, options)


def parse(argv: Sequence[str]) -> DetectionConfig:
    """The options of `python -m eval detection`."""
    return parse_config(DetectionConfig, "python -m eval detection", argv)


def main(argv: Sequence[str]) -> int:
    """`python -m eval detection`."""
    options = parse(argv)
    finetune.print_figures(options, evaluate(options))
    return 0
