"""The evaluation tasks: the one place that knows which there are.

To add a task: its folder, its entry here, its reference CSV in `tables/reference/`, its page in the docs. Everything is named by
`module:attribute` and imported on demand, so that reading this registry loads neither torch nor OpenMMLab.
"""

import importlib
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Column:
    """A metric in the tables."""

    benchmark: str
    """Key of its benchmark."""
    key: str
    """Name in the CSV files."""
    heading: str
    """Name on the page, as the papers print it."""
    metric: str
    """Name in the result."""


@dataclass(frozen=True)
class Chart:
    """Values per item, such as a class or a sequence, that the report draws."""

    metric: str
    """Name in the result's breakdown."""
    overall: str
    """Name of the metric over all items."""
    title: str
    """Heading on the page."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Metrics with columns of their own: those of one task under one protocol, and for classification those of one classifier."""

    key: str
    """What the columns of the CSV files call it."""
    title: str
    """Name on the page, such as `COCO`."""
    task: str
    """Task of its results."""
    protocol: str
    """Name of their protocol."""
    items: str
    """What one item of the test split is, in the plural."""
    columns: tuple[Column, ...] = ()
    """Columns that do not depend on the results."""
    metric_pattern: str = ""
    """Regular expression of the metrics whose columns depend on the results; empty where `columns` has them all."""
    any_dataset: bool = False
    """Whether it is measured on any data set, with one row per data set."""
    unrelated_settings: str = ""
    """Regular expression of the protocol's settings that cannot change its metrics, where results hold several benchmarks."""
    charts: tuple[Chart, ...] = ()
    """What the report draws; where `metric_pattern` is set, it draws the breakdown of one metric of that pattern instead."""


class Download(NamedTuple):
    """An archive of a data set; the paths are below `--data`."""

    address: str
    into: str
    """Where to unpack it."""
    brings: str
    """What is there once it is unpacked."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the commands, the tables and the data doctor need to know of a task."""

    name: str
    """What `python -m eval NAME` calls it."""
    summary: str
    """First line of its `--help`."""
    config: str
    """Its options: a dataclass, in a module that does not load torch."""
    module: str
    """Its module, with `check(config, spec)` and `evaluate(config) -> Result`."""
    examine: str
    """Its data check: `examine(folder, deep, jobs) -> list[Finding]`, without torch; see `eval.findings`."""
    items: str
    """Its item reader for significance: `read_items(result, folder) -> (names, metrics_of) | None`.

    `metrics_of` maps weights [R, N] of the N items in R resampled sets to {metric: values [R]}.
    """
    folder: str
    """Where its data set is below `--data`."""
    dataset: str
    """The data set's name."""
    downloads: tuple[Download, ...]
    """Where the data set comes from."""
    signs: tuple[str, ...]
    """Paths in the data set by which a copy in another folder is recognised."""
    benchmarks: tuple[Benchmark, ...]
    """What the tables show of it."""
    default_options: tuple[str, ...] = ()
    """Options that `eval_all.sh` takes unless the user gives others."""
    sample_options: tuple[str, ...] = ()
    """Options that make it run in about a minute on sample data."""
    in_main_table: bool = True
    """Whether `eval_all.sh` runs it unless tasks are named."""


_COCO_SITE = "http://images.cocodataset.org"


def load(place: str) -> Any:
    """Import the module or the `module:attribute` of this name."""
    name, _, attribute = place.partition(":")
    module = importlib.import_module(name)
    return getattr(module, attribute) if attribute else module


def _coco() -> tuple[Column, ...]:
    return tuple(
        Column("coco", f"coco_{kind}_ap{suffix}", f"{kind} AP{suffix}", f"{prefix}_mAP{ending}")
        for kind, prefix in (("box", "bbox"), ("mask", "segm"))
        for suffix, ending in (("", ""), ("50", "_50"), ("75", "_75"))
    )


def _ade20k(benchmark: str) -> tuple[Column, ...]:
    return tuple(Column(benchmark, f"{benchmark}_{name.lower()}", name, name) for name in ("mIoU", "aAcc", "mAcc"))


def _davis(benchmark: str) -> tuple[Column, ...]:
    names = (("jf_mean", "(J&F)m", "J&F-Mean"), ("j_mean", "Jm", "J-Mean"), ("f_mean", "Fm", "F-Mean"))
    return tuple(Column(benchmark, f"{benchmark}_{key}", heading, metric) for key, heading, metric in names)


def _davis_benchmark(key: str, year: str) -> Benchmark:
    return Benchmark(
        key=key,
        title=f"DAVIS-{year}",
        task="davis",
        protocol=f"davis-{year}-label-propagation",
        items="sequences",
        columns=_davis(key),
        charts=(Chart("J&F-Mean", "J&F-Mean", "J&F per sequence (mean over its objects)"),),
    )


def _ade20k_benchmark(key: str, title: str, protocol: str) -> Benchmark:
    return Benchmark(
        key=key,
        title=title,
        task="segmentation",
        protocol=protocol,
        items="images",
        columns=_ade20k(key),
        charts=(Chart("IoU", "mIoU", "IoU per class"),),
    )


def _classifier(key: str, title: str, metric_pattern: str, unrelated_settings: str) -> Benchmark:
    return Benchmark(
        key=key,
        title=title,
        task="classification",
        protocol="dino-classification",
        items="images",
        metric_pattern=metric_pattern,
        any_dataset=True,
        unrelated_settings=unrelated_settings,
    )


_ALL = (
    Task(
        name="davis",
        summary="Propagate the first frame's labels through each DAVIS video by a backbone's features, and score the masks.",
        config="eval.davis.config:DavisConfig",
        module="eval.davis.task",
        examine="eval.davis.data:examine",
        items="eval.davis.items:read_items",
        folder="DAVIS",
        dataset="DAVIS-2017",
        # Linked from https://davischallenge.org/davis2017/code.html.
        downloads=(
            Download("https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip", ".", "DAVIS/JPEGImages"),
        ),
        signs=("JPEGImages", "Annotations"),
        benchmarks=(_davis_benchmark("davis", "2017"), _davis_benchmark("davis_2016", "2016")),
        sample_options=("--overlays", "true"),
    ),
    Task(
        name="detection",
        summary="Fine-tune Mask R-CNN on COCO and measure box and mask AP; every default is the published protocol's.",
        config="eval.detection.config:DetectionConfig",
        module="eval.detection.task",
        examine="eval.detection.data:examine",
        items="eval.detection.items:read_items",
        folder="coco",
        dataset="COCO 2017",
        downloads=(
            Download(f"{_COCO_SITE}/annotations/annotations_trainval2017.zip", "coco", "coco/annotations"),
            *(Download(f"{_COCO_SITE}/zips/{split}.zip", "coco", f"coco/{split}") for split in ("train2017", "val2017")),
        ),
        signs=("annotations/instances_val2017.json", "annotations/instances_train2017.json", "train2017", "val2017"),
        benchmarks=(
            Benchmark(
                key="coco",
                title="COCO",
                task="detection",
                protocol="coco-mask-rcnn-1x",
                items="images",
                columns=_coco(),
                charts=(
                    Chart("bbox_mAP", "bbox_mAP", "Box AP per class"),
                    Chart("segm_mAP", "segm_mAP", "Mask AP per class"),
                ),
            ),
        ),
        sample_options=(
            *("--iterations", "60", "--batch-size", "2", "--short-side", "160", "--workers", "0"),
            # A learning rate for so few updates; fewer regions and boxes, for speed.
            "--override",
            "optim_wrapper.optimizer.lr=1e-3",
            "model.train_cfg.rcnn.sampler.num=32",
            "model.test_cfg.rpn.max_per_img=100",
            "model.test_cfg.rcnn.max_per_img=20",
        ),
    ),
    Task(
        name="segmentation",
        summary="Fine-tune Semantic FPN or UperNet on ADE20K and measure mIoU; every default is the published protocol's.",
        config="eval.segmentation.config:SegmentationConfig",
        module="eval.segmentation.task",
        examine="eval.segmentation.data:examine",
        items="eval.segmentation.items:read_items",
        folder="ade/ADEChallengeData2016",
        dataset="ADE20K",
        downloads=(
            Download(
                "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
                "ade",
                "ade/ADEChallengeData2016/images",
            ),
        ),
        signs=("images/training", "images/validation", "annotations/training", "annotations/validation"),
        benchmarks=(
            _ade20k_benchmark("ade20k", "ADE20K", "ade20k-semantic-fpn-40k"),
            _ade20k_benchmark("upernet", "ADE20K, UperNet", "ade20k-upernet-160k"),
        ),
        sample_options=(
            *("--iterations", "40", "--batch-size", "4", "--crop", "128", "--workers", "0"),
            *("--train-short-side", "144", "--test-short-side", "144"),
        ),
    ),
    Task(
        name="classification",
        summary="Measure a backbone's frozen features by weighted k-NN and a linear probe.",
        config="eval.classification.config:ClassificationConfig",
        module="eval.classification.task",
        examine="eval.classification.data:examine",
        items="eval.classification.items:read_items",
        folder="imagenet",
        dataset="ImageNet-1k",
        # The page demands an account.
        downloads=(Download("https://image-net.org/download-images.php", "imagenet", "imagenet/train"),),
        # A class of every copy of ImageNet; `train` alone would be found in too many places.
        signs=("train/n01440764", "val/n01440764"),
        benchmarks=(
            _classifier(
                "knn",
                "k-NN",
                r"(\d+)-NN top-([15])",
                unrelated_settings=r"classifiers|epochs|batch_size|learning_rates?|training_images|linear_.*",
            ),
            _classifier(
                "linear",
                "Linear",
                r"linear top-([15])",
                unrelated_settings=r"classifiers|temperature|neighbours|knn_features",
            ),
        ),
        # The probe takes about a hundred passes over ImageNet, k-NN one.
        default_options=("--classifiers", "knn"),
        # The sample has 64 training images.
        sample_options=("--neighbours", "10", "20", "--workers", "0"),
        in_main_table=False,
    ),
)

TASKS = {task.name: task for task in _ALL}
BENCHMARKS = {benchmark.key: benchmark for task in _ALL for benchmark in task.benchmarks}
