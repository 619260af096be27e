"""The tables: their names, captions and columns. Benchmarks and metrics are those of `eval.tasks`."""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass

from eval.registry import Benchmark, Column
from eval.result import Result
from eval.tasks import BENCHMARKS


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A table's columns: descriptors, which say what was evaluated, then metrics."""

    name: str  # The name of its files and of the CSV file in `tables/reference/`, if there are published rows.
    title: str
    caption: str  # What the published rows have in common, and what a measured row cannot tell.
    descriptors: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def row_per_dataset(self) -> bool:
        """Whether a backbone has a row for each data set."""
        return any(BENCHMARKS[column.benchmark].any_dataset and not column.dataset for column in self.columns)


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


def _miou(benchmark: str, name: str, heading: str, decimals: int = 1) -> Column:
    """The mIoU on a data set, whose short name is part of the key."""
    dataset = {"ade20k": "ADE20K validation", "voc": "PASCAL VOC 2012 val"}[name]
    return Column(benchmark, f"{benchmark}_{name}_miou", heading, "mIoU", decimals=decimals, dataset=dataset)


_NYU = "NYU depth v2 test"
FROZEN = Layout(
    name="frozen",
    title="Frozen features",
    caption=(
        "Probes of frozen features on ADE20K validation, PASCAL VOC 2012 val and NYU depth v2 test. Linear segmentation, dense "
        "retrieval by the size of the memory, and patch k-NN: mIoU in percent. Depth by a linear layer: RMSE in metres, where "
        "lower is better. Each column holds figures of one protocol, and figures of two columns cannot be compared. Denoising-ViT "
        "and open-hummingbird-eval measured the networks of others. That the figures of DINOv3's model card were made with the "
        "configurations of its repository is inferred: the card does not say so. RMSE (Denoising-ViT) is by that repository's "
        "variant of DINOv2's protocol (final norm, learning rate 0.005), which no task here has. Left out, since they are by "
        "protocols of their own: DIP's retrieval (temperature 0.07 instead of 0.02) and the linear segmentation of RADIO and "
        "PE-Spatial (mmseg's); and since something is not stated: the depth of TIPSv2 (the protocol) and the retrieval of NeCo (the "
        "size of the memory)."
    ),
    descriptors=_RUN,
    columns=(
        _miou("linseg_dinov3", "ade20k", "ADE20K lin. (DINOv3)"),
        _miou("linseg_dinov2", "voc", "VOC lin. (DINOv2)", 2),
        _miou("linseg_dinov2", "ade20k", "ADE20K lin. (DINOv2)", 2),
        _miou("linseg_neco", "voc", "VOC lin. (NeCo)"),
        _miou("linseg_neco", "ade20k", "ADE20K lin. (NeCo)"),
        _miou("hummingbird_102k", "voc", "VOC retrieval 102k"),
        _miou("hummingbird_1m", "voc", "VOC retrieval 1.02M"),
        _miou("hummingbird_10m", "voc", "VOC retrieval 10.24M"),
        _miou("hummingbird_10m", "ade20k", "ADE20K retrieval 10.24M"),
        _miou("capi_knn", "ade20k", "ADE20K patch k-NN (CAPI)"),
        Column("depth", "depth_rmse", "NYU RMSE in m (DINOv3)", "rmse", "m", 3, higher_is_better=False, dataset=_NYU),
        Column("depth", "depth_dvt_rmse", "NYU RMSE in m (Denoising-ViT)", "", "m", 4, higher_is_better=False, dataset=_NYU),
    ),
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


RETRIEVAL = Layout(
    name="retrieval_dino",
    title=BENCHMARKS["retrieval_dino"].title,
    caption=(
        "Revisited Oxford5k at 224 pixels and revisited Paris6k at 512 in three scales; all in percent. The sources of the published "
        "rows state neither image size nor scales: their figures have columns of their own, which no result here fills."
    ),
    descriptors=("dataset", *_RUN),
    columns=(
        *BENCHMARKS["retrieval_dino"].columns,
        *(
            Column("retrieval_dino", f"retrieval_unstated_{level.lower()}_map", f"{level[0]} mAP (size not stated)", "")
            for level in ("Medium", "Hard")
        ),
    ),
)


LAYOUTS = (MAIN, FROZEN, COMPONENTS, COMPATIBILITY, UPERNET, DAVIS_2016)
"""The tables whose columns do not depend on the results."""


def layouts_for(results: Iterable[Result]) -> tuple[Layout, ...]:
    """`LAYOUTS`, classification, and, where there are results, tracking, retrieval and a table of each benchmark not yet shown."""
    measured = list(results)
    present = {benchmark.key for result in measured for benchmark in benchmarks_of(result)}
    present_elsewhere = present - {column.benchmark for column in MAIN.columns}
    further = (
        layout for layout in (TRACKING, RETRIEVAL) if present_elsewhere & {column.benchmark for column in layout.columns}
    )
    layouts = (*LAYOUTS, classification_layout(measured), *further)
    shown = {column.key for layout in layouts for column in layout.columns if not column.dataset}
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
    decimals = f"to {max(column.decimals for column in benchmark.columns)} decimals"
    return f"{decimals}; lower is better for {lower}" if lower else decimals


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
