"""Which tables there are and what their columns mean: the one place where names of results meet names of the paper."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from eval.result import Result

UNIT = "percent"

_KNN_TOP1 = re.compile(r"(\d+)-NN top-1")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Figures that stand in columns of their own: those of one task under one protocol, and for classification of one classifier."""

    key: str
    """What the columns of the CSV files call it."""
    title: str
    """On the page, such as `COCO`."""
    task: str
    """The task of its results."""
    protocol: str
    """The name of their protocol."""
    items: str
    """What one item of the test split is, in the plural."""


COCO = Benchmark(key="coco", title="COCO", task="detection", protocol="coco-mask-rcnn-1x", items="images")
ADE20K = Benchmark(key="ade20k", title="ADE20K", task="segmentation", protocol="ade20k-semantic-fpn-40k", items="images")
UPERNET = Benchmark(key="upernet", title="ADE20K, UperNet", task="segmentation", protocol="ade20k-upernet-160k", items="images")
DAVIS = Benchmark(key="davis", title="DAVIS-2017", task="davis", protocol="davis-2017-label-propagation", items="sequences")
DAVIS_2016 = Benchmark(
    key="davis_2016", title="DAVIS-2016", task="davis", protocol="davis-2016-label-propagation", items="sequences"
)
KNN = Benchmark(key="knn", title="k-NN", task="classification", protocol="dino-classification", items="images")
LINEAR = Benchmark(key="linear", title="Linear", task="classification", protocol="dino-classification", items="images")

BENCHMARKS = (COCO, ADE20K, UPERNET, DAVIS, DAVIS_2016, KNN, LINEAR)
BY_DATASET = (KNN, LINEAR)
"""Benchmarks on any data set: their figures stand in a row per data set."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A figure of a table."""

    key: str
    """Name in the CSV files."""
    heading: str
    """Name on the page, after the paper's."""
    benchmark: Benchmark
    """Whose results hold it."""
    metric: str
    """Name in the result."""

    @property
    def task(self) -> str:
        """The task of its results."""
        return self.benchmark.task


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A table's columns."""

    name: str
    """Of the CSV files, reference and output."""
    title: str
    """On the page."""
    caption: str
    """What the published rows have in common, and what measured rows do not say."""
    descriptors: tuple[str, ...]
    """Columns before the figures: what was evaluated."""
    columns: tuple[Column, ...]
    """The figures."""
    published: bool = True
    """Whether there are published rows, in a reference table of the same name."""

    @property
    def benchmarks(self) -> tuple[Benchmark, ...]:
        """The benchmarks behind the columns, in their order."""
        return tuple(dict.fromkeys(column.benchmark for column in self.columns))


def benchmarks_of(result: Result) -> tuple[Benchmark, ...]:
    """Which benchmarks a result has figures of; none where no table shows it."""
    found = [one for one in BENCHMARKS if (one.task, one.protocol) == (result.task, result.protocol.name)]
    present = {KNN: bool(neighbours_of([result])), LINEAR: "linear top-1" in result.metrics}
    return tuple(one for one in found if present.get(one, True))


def neighbours_of(results: Iterable[Result]) -> list[int]:
    """Every number of neighbours that classification results have figures for, ascending."""
    names = (name for result in results for name in result.metrics)
    return sorted({int(match[1]) for match in map(_KNN_TOP1.fullmatch, names) if match})


_COCO = tuple(
    Column(key=f"coco_{kind}_ap{suffix}", heading=f"{kind} AP{suffix}", benchmark=COCO, metric=f"{prefix}_mAP{ending}")
    for kind, prefix in (("box", "bbox"), ("mask", "segm"))
    for suffix, ending in (("", ""), ("50", "_50"), ("75", "_75"))
)


def _ade20k(benchmark: Benchmark) -> tuple[Column, ...]:
    return tuple(
        Column(key=f"{benchmark.key}_{name.lower()}", heading=name, benchmark=benchmark, metric=name)
        for name in ("mIoU", "aAcc", "mAcc")
    )


def _davis(benchmark: Benchmark) -> tuple[Column, ...]:
    names = (("jf_mean", "(J&F)m", "J&F-Mean"), ("j_mean", "Jm", "J-Mean"), ("f_mean", "Fm", "F-Mean"))
    return tuple(
        Column(key=f"{benchmark.key}_{key}", heading=heading, benchmark=benchmark, metric=metric)
        for key, heading, metric in names
    )


_ABLATION = (
    "Published rows: every model pretrained on COCO. Measured rows: every backbone with a DAVIS result, whatever it was pretrained "
    "on, which a result does not state."
)
_RUN = ("method", "backbone", "pretraining_data", "epochs")

MAIN = Layout(
    name="main",
    title="Main results",
    caption=(
        "COCO val2017 with Mask R-CNN, ADE20K validation with Semantic FPN, DAVIS-2017 val by label propagation; all in percent. "
        "Published rows: pretrained on ImageNet-1k. What measured rows were pretrained on, a result does not state."
    ),
    descriptors=_RUN,
    columns=(*_COCO, *_ade20k(ADE20K), *_davis(DAVIS)),
)
COMPONENTS = Layout(
    name="components",
    title="Components of SelfPatch",
    caption=f"DAVIS-2017 val, mean of J and F in percent. {_ABLATION}",
    descriptors=("part", *_RUN, "neighbours", "k", "aggregation"),
    columns=_davis(DAVIS)[:1],
)
COMPATIBILITY = Layout(
    name="compatibility",
    title="Compatibility with other methods and backbones",
    caption=(
        "DAVIS-2017 val, mean of J and F in percent; `patch_negatives`: whether the patch-level loss uses negatives. "
        f"{_ABLATION}"
    ),
    descriptors=(*_RUN, "patch_negatives"),
    columns=_davis(DAVIS)[:1],
)
UPERNET_TABLE = Layout(
    name="upernet",
    title="UperNet on ADE20K",
    caption=(
        "ADE20K validation with UperNet, 160k iterations; all in percent. Published rows: mIoU alone, pretrained on ImageNet-1k."
    ),
    descriptors=_RUN,
    columns=_ade20k(UPERNET),
)
DAVIS_2016_TABLE = Layout(
    name="davis_2016",
    title="DAVIS-2016",
    caption="DAVIS-2016 val (one object per sequence) by label propagation; all in percent. There are no published rows.",
    descriptors=_RUN,
    columns=_davis(DAVIS_2016),
    published=False,
)

LAYOUTS = (MAIN, COMPONENTS, COMPATIBILITY, UPERNET_TABLE, DAVIS_2016_TABLE)
"""The tables whose columns do not depend on the results; `classification_layout` gives the other one."""


def classification_layout(results: Iterable[Result]) -> Layout:
    """The table of classification: top-1 and top-5 of k-NN for every k that some result has, and of the linear probe."""
    classifiers = [(KNN, f"knn{k}", f"{k}-NN") for k in neighbours_of(results)] + [(LINEAR, "linear", "linear")]
    return Layout(
        name="classification",
        title="Classification",
        caption=(
            "Weighted k-NN and a linear probe on frozen features; all in percent, one row per data set. Figures of further learning "
            "rates and of the probe's best epoch, which are chosen on the test images, are in the result files only. There are no "
            "published rows."
        ),
        descriptors=("dataset", *_RUN, "knn_features", "linear_features"),
        columns=tuple(
            Column(key=f"{key}_top{top}", heading=f"{name} top-{top}", benchmark=benchmark, metric=f"{name} top-{top}")
            for benchmark, key, name in classifiers
            for top in (1, 5)
        ),
        published=False,
    )
