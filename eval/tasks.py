"""The evaluation tasks: the one place that knows which there are.

To add a task: its folder, its entry here, its reference CSV in `tables/reference/`, its page in the docs. The folder `eval/NAME` has

    config.py   `NameConfig`, a dataclass of the options, for the task `name`; loads no torch
    task.py     `check(config, spec)` and `evaluate(config) -> Result`
    data.py     `examine(folder, deep, jobs) -> list[Finding]`, the data check (see `eval.findings`); loads no torch
    items.py    `read_items(result, folder) -> (names, means, metrics_of) | None`, for significance: the names of the N test items,
                ascending; {metric: values [N]} of the metrics that are means over them; and, for the others, None or a function
                from weights [R, N] of the items in R resampled sets to {metric: values [R]}

They are imported on demand, so that reading this registry loads neither torch nor OpenMMLab.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Column:
    """A metric in the tables: the key of its benchmark, its names in the CSV files, on the page as papers print it, in the result."""

    benchmark: str
    key: str
    heading: str
    metric: str
    unit: str = "percent"
    decimals: int = 1  # that the pages print
    higher_is_better: bool = True


class Chart(NamedTuple):
    """Values per item, such as a class or a sequence, that the report draws under the title."""

    metric: str  # name in the result's breakdown
    overall: str  # name of the metric over all items
    title: str


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Metrics with columns of their own: those of one task under one protocol, and for classification those of one classifier."""

    key: str  # what the columns of the CSV files call it
    title: str  # name on the page, such as `COCO`
    task: str
    protocol: str  # its name in the results
    items: str  # what one item of the test split is, in the plural
    columns: tuple[Column, ...] = ()  # those that do not depend on the results
    metric_pattern: str = ""  # regular expression of the metrics that have columns where the results have them
    any_dataset: bool = False  # measured on any data set, with one row per data set
    footnotes: Mapping[str, str] = field(default_factory=dict)
    """Deviations that leave a benchmark number comparable, each with the footnote that such a number gets: those of settings in which
    the network is evaluated as it was pretrained."""
    unrelated_settings: str = ""
    """Regular expression of the protocol's settings that cannot change its metrics, where results hold several benchmarks."""
    charts: tuple[Chart, ...] = ()
    """What the report draws; where `metric_pattern` is set, it draws the breakdown of one metric of that pattern instead."""


class Download(NamedTuple):
    """An archive of a data set: where to unpack it and what is there then, both below `--data`."""

    address: str
    into: str
    brings: str


class DataSet(NamedTuple):
    """A further set that a task can run on: the fields of a task that describe its data."""

    folder: str
    dataset: str
    downloads: tuple[Download, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the commands, the tables and the data doctor need to know of a task."""

    name: str  # what `python -m eval NAME` calls it
    summary: str  # first line of its `--help`
    folder: str  # of its data set below `--data`
    dataset: str
    downloads: tuple[Download, ...]
    signs: tuple[str, ...]  # paths in the data set by which a copy in another folder is recognised
    benchmarks: tuple[Benchmark, ...]
    default_options: tuple[str, ...] = ()  # those that `eval_all.sh` takes unless the user gives others
    sample_options: tuple[str, ...] = ()  # make it run in about a minute on sample data
    fine_tunes: bool = False  # it trains the whole network; other tasks leave it frozen
    in_main_table: bool = True  # `eval_all.sh` runs it unless tasks are named
    further_sets: tuple[DataSet, ...] = ()

    def on_each_set(self) -> "list[Task]":
        """The task with each of its data sets, its own first."""
        return [self, *(replace(self, **found._asdict(), further_sets=()) for found in self.further_sets)]

    def load(self, file: str, name: str) -> Any:
        """What the file of this name in the task's folder calls `name`."""
        return getattr(importlib.import_module(f"eval.{self.name}.{file}"), name)

    @property
    def config(self) -> type[Any]:
        """The dataclass of its options."""
        name = "".join(part.capitalize() for part in self.name.split("_"))
        config: type[Any] = self.load("config", f"{name}Config")
        return config


# Columns: end of the key, heading, metric.
_AP = (
    *(("box_ap", "box AP", "bbox_mAP"), ("box_ap50", "box AP50", "bbox_mAP_50"), ("box_ap75", "box AP75", "bbox_mAP_75")),
    *(("mask_ap", "mask AP", "segm_mAP"), ("mask_ap50", "mask AP50", "segm_mAP_50"), ("mask_ap75", "mask AP75", "segm_mAP_75")),
)
_IOU = (("miou", "mIoU", "mIoU"), ("aacc", "aAcc", "aAcc"), ("macc", "mAcc", "mAcc"))
_PCK = tuple((f"pck{tenth}", f"PCK@.{tenth}", f"PCK@0.{tenth}") for tenth in range(1, 6))
_VIDEOWALK = (("cropmae", "CropMAE's protocol"), ("crw", "videowalk's protocol"))
_J_AND_F = (("jf_mean", "(J&F)m", "J&F-Mean"), ("j_mean", "Jm", "J-Mean"), ("f_mean", "Fm", "F-Mean"))


def _columns(benchmark: str, metrics: tuple[tuple[str, str, str], ...]) -> tuple[Column, ...]:
    return tuple(Column(benchmark, f"{benchmark}_{key}", heading, metric) for key, heading, metric in metrics)


# Protocols of label propagation: the end of their benchmarks' keys, and what titles say of them.
_PROPAGATION = {
    "": "",
    "_dinov3": ", DINOv3's protocol",
    "_cropmae": ", CropMAE's protocol",
    "_crw": ", videowalk's protocol",
}
_COCO_SITE = "http://images.cocodataset.org"
VOC2012_SET = DataSet(
    "VOCdevkit/VOC2012",
    "PASCAL VOC 2012",
    (
        Download(
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar", ".", "VOCdevkit/VOC2012/JPEGImages"
        ),
    ),
    ("SegmentationClass", "ImageSets/Segmentation"),
)
CITYSCAPES_SET = DataSet(
    "cityscapes",
    "Cityscapes",
    # The page demands an account.
    (Download("https://www.cityscapes-dataset.com/downloads", "cityscapes", "cityscapes/leftImg8bit"),),
    ("leftImg8bit/val", "gtFine/val"),
)
_ADE_SITE = "http://data.csail.mit.edu/places/ADEchallenge"
_ALL = (
    Task(
        name="davis",
        summary="Propagate the first frame's labels through each DAVIS video by a backbone's features, and score the masks.",
        folder="DAVIS",
        dataset="DAVIS-2017",
        # Linked from https://davischallenge.org/davis2017/code.html.
        downloads=(
            Download("https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip", ".", "DAVIS/JPEGImages"),
        ),
        signs=("JPEGImages/480p", "Annotations/480p"),  # PASCAL VOC has folders of the upper names, too
        benchmarks=tuple(
            Benchmark(
                key=f"{key}{suffix}",
                title=f"{title}{words}",
                task="davis",
                protocol=f"{protocol}-label-propagation{suffix.replace('_', '-')}",
                items="sequences",
                columns=_columns(f"{key}{suffix}", _J_AND_F),
                any_dataset=key == "vos",
                charts=(Chart("J&F-Mean", "J&F-Mean", "J&F per sequence (mean over its objects)"),),
            )
            for suffix, words in _PROPAGATION.items()
            for key, title, protocol in (
                ("davis", "DAVIS-2017", "davis-2017"),
                ("davis_2016", "DAVIS-2016", "davis-2016"),
                ("vos", "Objects that may begin later", "vos"),  # YouTube-VOS and MOSE
            )
        ),
        sample_options=("--overlays", "true"),
    ),
    Task(
        name="detection",
        fine_tunes=True,
        summary="Fine-tune Mask R-CNN on COCO and measure box and mask AP; every default is the published protocol's.",
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
                columns=_columns("coco", _AP),
                footnotes={
                    "num_heads": "the released configuration fine-tunes with 8 attention heads, this run with the checkpoint's"
                },
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
        fine_tunes=True,
        summary="Fine-tune Semantic FPN or UperNet on ADE20K and measure mIoU; every default is the published protocol's.",
        folder="ade/ADEChallengeData2016",
        dataset="ADE20K",
        downloads=(Download(f"{_ADE_SITE}/ADEChallengeData2016.zip", "ade", "ade/ADEChallengeData2016/images"),),
        signs=("images/training", "images/validation", "annotations/training", "annotations/validation"),
        benchmarks=tuple(
            Benchmark(
                key=key,
                title=title,
                task="segmentation",
                protocol=protocol,
                items="images",
                columns=_columns(key, _IOU),
                charts=(Chart("IoU", "mIoU", "IoU per class"),),
            )
            for key, title, protocol in (
                ("ade20k", "ADE20K", "ade20k-semantic-fpn-40k"),
                ("upernet", "ADE20K, UperNet", "ade20k-upernet-160k"),
            )
        ),
        sample_options=(
            *("--iterations", "40", "--batch-size", "4", "--crop", "128", "--workers", "0"),
            *("--train-short-side", "144", "--test-short-side", "144"),
        ),
    ),
    Task(
        name="classification",
        summary="Measure a backbone's frozen features by weighted k-NN and a linear probe.",
        folder="imagenet",
        dataset="ImageNet-1k",
        # The page demands an account.
        downloads=(Download("https://image-net.org/download-images.php", "imagenet", "imagenet/train"),),
        # A class of every copy of ImageNet; `train` alone would be found in too many places.
        signs=("train/n01440764", "val/n01440764"),
        benchmarks=tuple(
            Benchmark(
                key=key,
                title=title,
                task="classification",
                protocol="dino-classification",
                items="images",
                metric_pattern=pattern,
                any_dataset=True,
                unrelated_settings=unrelated,
            )
            for key, title, pattern, unrelated in (
                (
                    *("knn", "k-NN", r"(\d+)-NN top-([15])"),
                    r"classifiers|epochs|batch_size|learning_rates?|training_images|linear_.*",
                ),
                ("linear", "Linear", r"linear top-([15])", r"classifiers|temperature|neighbours|knn_features"),
            )
        ),
        # The probe takes about a hundred passes over ImageNet, k-NN one.
        default_options=("--classifiers", "knn"),
        # The sample has 64 training images.
        sample_options=("--neighbours", "10", "20", "--workers", "0"),
        in_main_table=False,
    ),
    Task(
        name="linear_segmentation",
        summary="Train a linear layer on a frozen backbone's patches to segment ADE20K, PASCAL VOC or Cityscapes, and measure mIoU.",
        folder="ade/ADEChallengeData2016",
        dataset="ADE20K",
        downloads=(Download(f"{_ADE_SITE}/ADEChallengeData2016.zip", "ade", "ade/ADEChallengeData2016/images"),),
        signs=("images/training", "images/validation", "annotations/training", "annotations/validation"),
        benchmarks=tuple(
            Benchmark(
                key=f"linseg_{protocol}",
                title=f"Linear segmentation, {title}",
                task="linear_segmentation",
                protocol=f"linear-segmentation-{protocol}",
                items="images",
                columns=_columns(f"linseg_{protocol}", _IOU),
                any_dataset=True,
                charts=(Chart("IoU", "mIoU", "IoU per class"),),
            )
            for protocol, title in (
                ("dinov3", "DINOv3's protocol"),
                ("dinov2", "DINOv2's protocol"),
                ("neco", "NeCo's protocol"),
            )
        ),
        sample_options=(
            *("--iterations", "40", "--evaluate-every", "20", "--batch-size", "4", "--size", "128", "--workers", "0"),
            *("--learning-rates", "0.01"),
        ),
        in_main_table=False,
        further_sets=(VOC2012_SET, CITYSCAPES_SET),
    ),
    Task(
        name="depth",
        summary="Train a linear layer on a frozen backbone's patches to predict depth on NYU, and measure its error.",
        folder="nyu",
        dataset="NYU depth v2",
        # Its README links the 24k training pairs and the 654 test pairs.
        downloads=(Download("https://github.com/cleinc/bts", "nyu", "nyu/nyu_train.txt"),),
        signs=("nyu_train.txt", "nyu_test.txt"),
        benchmarks=(
            Benchmark(
                key="depth",
                title="NYU depth, linear",
                task="depth",
                protocol="depth-dinov3",
                items="images",
                columns=(
                    Column("depth", "depth_rmse", "RMSE (m)", "rmse", "m", 3, higher_is_better=False),
                    Column("depth", "depth_abs_rel", "AbsRel", "abs_rel", "fraction", 3, higher_is_better=False),
                    Column("depth", "depth_a1", "a1", "a1", "fraction", 3),
                ),
            ),
        ),
        # A learning rate and a crop for so few updates of small images.
        sample_options=(
            *("--iterations", "60", "--batch-size", "4", "--crop", "96", "128", "--workers", "0"),
            *("--learning-rate", "0.02"),
        ),
        in_main_table=False,
    ),
    Task(
        name="vip",
        summary="Propagate parts of persons through each video of VIP by a backbone's features, and measure mIoU.",
        folder="VIP_Fine",
        dataset="VIP",
        downloads=(Download("https://sysu-hcp.net/lip/overview.php", ".", "VIP_Fine/Images"),),
        signs=("Images", "Annotations/Category_ids"),
        benchmarks=tuple(
            Benchmark(
                key=f"vip_{protocol}",
                title=f"VIP, {words}",
                task="vip",
                protocol=f"vip-{protocol}",
                items="videos",
                columns=_columns(f"vip_{protocol}", _IOU),
                charts=(Chart("IoU", "mIoU", "IoU per class"),),
            )
            for protocol, words in _VIDEOWALK
        ),
        sample_options=("--overlays", "true"),
        in_main_table=False,
    ),
    Task(
        name="jhmdb",
        summary="Propagate the joints of persons through each video of JHMDB by a backbone's features, and measure PCK.",
        folder="JHMDB",
        dataset="JHMDB",
        # Its page links joint positions, frames (Rename_Images) and splits.
        downloads=(Download("http://jhmdb.is.tue.mpg.de/challenge/JHMDB/datasets", "JHMDB", "JHMDB/joint_positions"),),
        signs=("joint_positions", "Rename_Images"),
        benchmarks=tuple(
            Benchmark(
                key=f"jhmdb_{protocol}",
                title=f"JHMDB, {words}",
                task="jhmdb",
                protocol=f"jhmdb-{protocol}",
                items="videos",
                columns=_columns(f"jhmdb_{protocol}", _PCK),
                charts=(Chart("PCK@0.1", "PCK@0.1", "PCK@.1 per joint"),),
            )
            for protocol, words in _VIDEOWALK
        ),
        sample_options=("--overlays", "true"),
        in_main_table=False,
    ),
    Task(
        name="retrieval_segmentation",
        summary="Segment images by the labels of the most similar patches of training images, with a backbone's frozen features.",
        folder=VOC2012_SET.folder,
        dataset=VOC2012_SET.dataset,
        downloads=VOC2012_SET.downloads,
        signs=VOC2012_SET.signs,
        benchmarks=tuple(
            Benchmark(
                key=key,
                title=title,
                task="retrieval_segmentation",
                protocol=protocol,
                items="images",
                columns=_columns(key, _IOU[:2]),
                any_dataset=True,
                charts=(Chart("IoU", "mIoU", "IoU per class"),),
            )
            for key, title, protocol in (
                ("hummingbird_102k", "Retrieval, memory 102k", "hummingbird-102k"),
                ("hummingbird_1m", "Retrieval, memory 1.02M", "hummingbird-1.02m"),
                ("hummingbird_10m", "Retrieval, memory 10.24M", "hummingbird-10.24m"),
                ("hummingbird_fixed_102k", "Retrieval without quirks, memory 102k", "hummingbird-fixed-102k"),
                ("hummingbird_fixed_1m", "Retrieval without quirks, memory 1.02M", "hummingbird-fixed-1.02m"),
                ("hummingbird_fixed_10m", "Retrieval without quirks, memory 10.24M", "hummingbird-fixed-10.24m"),
                ("capi_knn", "Patch k-NN", "capi-knn"),
            )
        ),
        # The smallest memory with published values has more patches than the sample.
        sample_options=("--input-size", "128", "--memory-size", "1000", "--workers", "0"),
        in_main_table=False,
    ),
)

TASKS = {task.name: task for task in _ALL}
BENCHMARKS = {benchmark.key: benchmark for task in _ALL for benchmark in task.benchmarks}


def named_tasks(names: str) -> list[str]:
    """The names in a text, separated by commas; ValueError if one of them is not that of a task, or if there is none."""
    named = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    unknown = [name for name in named if name not in TASKS]
    if unknown or not named:
        problem = f"unknown {', '.join(unknown)}" if unknown else f"{names!r} names no task"
        raise ValueError(f"--tasks: {problem}; tasks: {', '.join(TASKS)}")
    return named
