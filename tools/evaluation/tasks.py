"""The tasks, as far as running them one after another needs to know them."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Task:
    """What must be known of a task here; its options belong to its own config class."""

    folder: str
    """Where its dataset lies below `--data`."""
    config: str
    """Name of its config class in `eval.TASK.config`; `eval.TASK.task` has its `check`."""
    sample_options: tuple[str, ...]
    """Options that make it run in about a minute on sample data."""
    default_options: tuple[str, ...] = ()
    """Options that are taken unless the user gives others."""


TASKS = {
    "davis": Task(
        folder="DAVIS",
        config="DavisConfig",
        sample_options=("--overlays", "true"),
    ),
    "detection": Task(
        folder="coco",
        config="DetectionConfig",
        sample_options=(
            *("--iterations", "60", "--batch-size", "2", "--short-side", "160", "--workers", "0"),
            "--override",
            # A rate for so few updates; fewer regions and boxes, for speed.
            '["optim_wrapper.optimizer.lr=1e-3","model.train_cfg.rcnn.sampler.num=32",'
            '"model.test_cfg.rpn.max_per_img=100","model.test_cfg.rcnn.max_per_img=20"]',
        ),
    ),
    "segmentation": Task(
        folder="ade/ADEChallengeData2016",
        config="SegmentationConfig",
        sample_options=(
            *("--iterations", "40", "--batch-size", "4", "--crop", "128", "--workers", "0"),
            *("--train-short-side", "144", "--test-short-side", "144"),
        ),
    ),
    "classification": Task(
        folder="imagenet",
        config="ClassificationConfig",
        # The probe takes about a hundred passes over ImageNet, k-NN one.
        default_options=("--classifiers", "knn"),
        # The sample has 64 training images.
        sample_options=("--neighbours", "10", "20", "--workers", "0"),
    ),
}

MAIN_TABLE = ("davis", "detection", "segmentation")
"""The tasks of the papers' main table: what runs on real data unless tasks are named."""
