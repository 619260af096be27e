"""The tables: their names, captions and columns. Benchmarks and metrics are those of `eval.tasks`."""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eval.result import Result
from eval.tasks import BENCHMARKS, Benchmark, Column

REFERENCE_FOLDER = Path(__file__).parent / "reference"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A table's columns: descriptors, which say what was evaluated, then metrics."""

    name: str  # The name of its files and of its reference table.
    title: str
    caption: str  # What the published rows have in common, and what a measured row cannot tell.
    descriptors: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def published(self) -> bool:
        """Whether there are published rows, in a CSV file of the same name in `tables/reference/`."""
        return (REFERENCE_FOLDER / f"{self.name}.csv").is_file()

    @property
    def benchmarks(self) -> tuple[Benchmark, ...]:
        return tuple(BENCHMARKS[key] for key in dict.fromkeys(column.benchmark for column in self.columns))

    @property
    def row_per_dataset(self) -> bool:
        """Whether a backbone has a row for each data set."""
        return any(benchmark.any_dataset for benchmark in self.benchmarks)


_ABLATION = (
    "Published rows: every model pretrained on COCO. Measured rows: every backbone with a DAVIS result, whatever it was pretrained "
    "on, which is stated where that was done here."
)
_RUN = ("method", "backbone", "pretraining_data", "epochs")

MAIN = Layout(
    name="main",
    title="Main results",
    caption=(
        "COCO val2017 with Mask R-CNN, ADE20K validation with Semantic FPN, DAVIS-2017 val by label propagation; all in percent. "
        "Published rows: pretrained on ImageNet-1k. For measured rows, the data is stated where they were pretrained here."
    ),
    descriptors=_RUN,
    columns=(*BENCHMARKS["coco"].columns, *BENCHMARKS["ade20k"].columns, *BENCHMARKS["davis"].columns),
)
COMPONENTS = Layout(
    name="components",
    title="Components of SelfPatch",
    caption=f"DAVIS-2017 val, mean of J and F in percent. {_ABLATION}",
    descriptors=("part", *_RUN, "neighbours", "k", "aggregation"),
    columns=BENCHMARKS["davis"].columns[:1],
)
COMPATIBILITY = Layout(
    name="compatibility",
    title="Compatibility with other methods and backbones",
    caption=(
        "DAVIS-2017 val, mean of J and F in percent; `patch_negatives`: whether the patch-level loss uses negatives. "
        f"{_ABLATION}"
    ),
    descriptors=(*_RUN, "patch_negatives"),
    columns=BENCHMARKS["davis"].columns[:1],
)
UPERNET = Layout(
    name="upernet",
    title="UperNet on ADE20K",
    caption=(
        "ADE20K validation with UperNet, 160k iterations; all in percent. Published rows: mIoU alone, pretrained on ImageNet-1k."
    ),
    descriptors=_RUN,
    columns=BENCHMARKS["upernet"].columns,
)
DAVIS_2016 = Layout(
    name="davis_2016",
    title="DAVIS-2016",
    caption="DAVIS-2016 val (one object per sequence) by label propagation; all in percent. There are no published rows.",
    descriptors=_RUN,
    columns=BENCHMARKS["davis_2016"].columns,
)

TRACKING = Layout(
    name="tracking",
    title="Label propagation: DAVIS, VIP and JHMDB",
    caption=(
        "Mean of J and F on DAVIS-2017 val, mIoU on VIP val, PCK at .1 on JHMDB (split 1), all in percent, each by the protocols "
        "that papers use; figures of different protocols are not comparable. At what resolution DINOv3's card measured is not stated."
    ),
    descriptors=_RUN,
    columns=tuple(
        dataclasses.replace(BENCHMARKS[key].columns[0], heading=heading)
        for key, heading in (
            ("davis", "DAVIS, DINO"),
            ("davis_dinov3", "DAVIS, DINOv3"),
            ("davis_cropmae", "DAVIS, CropMAE"),
            ("davis_crw", "DAVIS, videowalk"),
            ("vip_cropmae", "VIP, CropMAE"),
            ("vip_crw", "VIP, videowalk"),
            ("jhmdb_cropmae", "JHMDB, CropMAE"),
            ("jhmdb_crw", "JHMDB, videowalk"),
        )
    ),
)

LAYOUTS = (MAIN, COMPONENTS, COMPATIBILITY, UPERNET, DAVIS_2016)
"""The tables whose columns do not depend on the results."""


def layouts_for(results: Iterable[Result]) -> tuple[Layout, ...]:
    """All tables: `LAYOUTS`, classification, tracking where there are results of it, and one for whatever none of these shows."""
    measured = list(results)
    present = {benchmark.key for result in measured for benchmark in benchmarks_of(result)}
    tracked = {benchmark.key for benchmark in TRACKING.benchmarks} - {benchmark.key for benchmark in MAIN.benchmarks}
    layouts = (*LAYOUTS, classification_layout(measured), *((TRACKING,) if present & tracked else ()))
    shown = {column.key for layout in layouts for column in layout.columns}
    own_tables = (
        Layout(
            name=benchmark.key,
            title=benchmark.title,
            caption=f"{benchmark.title}, {benchmark.protocol}; {_units(benchmark)}.",
            descriptors=("dataset", *_RUN) if benchmark.any_dataset else _RUN,
            columns=benchmark.columns,
        )
        for benchmark in BENCHMARKS.values()
        if benchmark.key in present and not shown.issuperset(column.key for column in benchmark.columns)
    )
    return (*layouts, *own_tables)


def _units(benchmark: Benchmark) -> str:
    """In what its figures are, and of which less is better."""
    if {column.unit for column in benchmark.columns} == {"percent"}:
        return "all in percent"
    lower = ", ".join(column.heading for column in benchmark.columns if not column.higher_is_better)
    return f"to {max(column.decimals for column in benchmark.columns)} decimals; lower is better for {lower}"


def classification_layout(results: Iterable[Result]) -> Layout:
    """Top-1 and top-5 of k-NN, for every k that some result has, and of the linear probe."""
    matches = (re.fullmatch(BENCHMARKS["knn"].metric_pattern, name) for result in results for name in result.metrics)
    neighbours = sorted({int(match[1]) for match in matches if match})
    classifiers = [("knn", f"knn{k}", f"{k}-NN") for k in neighbours] + [("linear", "linear", "linear")]
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
            Column(benchmark, f"{key}_top{top}", f"{name} top-{top}", f"{name} top-{top}")
            for benchmark, key, name in classifiers
            for top in (1, 5)
        ),
    )


def benchmarks_of(result: Result) -> tuple[Benchmark, ...]:
    """The benchmarks of which a result has metrics; none if no table shows it."""
    return tuple(
        benchmark
        for benchmark in BENCHMARKS.values()
        if (benchmark.task, benchmark.protocol) == (result.task, result.protocol.name)
        and (benchmark.columns or _matching(benchmark, result))
    )


def metrics_of(result: Result, benchmark: Benchmark) -> list[str]:
    """The names of a benchmark's metrics; names that depend on the result are in its order."""
    return [column.metric for column in benchmark.columns] or _matching(benchmark, result)


def _matching(benchmark: Benchmark, result: Result) -> list[str]:
    return [name for name in result.metrics if re.fullmatch(benchmark.metric_pattern, name)]
