"""Which tables there are and what their columns mean: the one place where names of results meet names of the paper."""

from dataclasses import dataclass
from typing import Literal

Task = Literal["detection", "segmentation", "davis"]

BENCHMARKS: dict[Task, str] = {"detection": "coco", "segmentation": "ade20k", "davis": "davis"}
"""Task of a result -> what the columns of the CSV files call it."""

WITHOUT_TABLE = ("classification",)
"""Tasks whose figures no table shows: they are not among the papers' benchmarks."""

UNIT = "percent"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A figure of a table."""

    key: str
    """Name in the CSV files."""
    heading: str
    """Name on the page, after the paper's."""
    task: Task
    """Whose result holds it."""
    metric: str
    """Name in the result."""


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

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks behind the columns, in their order."""
        return tuple(dict.fromkeys(column.task for column in self.columns))


_COCO = tuple(
    Column(key=f"coco_{kind}_ap{suffix}", heading=f"{kind} AP{suffix}", task="detection", metric=f"{prefix}_mAP{ending}")
    for kind, prefix in (("box", "bbox"), ("mask", "segm"))
    for suffix, ending in (("", ""), ("50", "_50"), ("75", "_75"))
)
_ADE20K = tuple(
    Column(key=f"ade20k_{name.lower()}", heading=name, task="segmentation", metric=name) for name in ("mIoU", "aAcc", "mAcc")
)
_DAVIS_JF = Column(key="davis_jf_mean", heading="(J&F)m", task="davis", metric="J&F-Mean")
_DAVIS = (
    _DAVIS_JF,
    Column(key="davis_j_mean", heading="Jm", task="davis", metric="J-Mean"),
    Column(key="davis_f_mean", heading="Fm", task="davis", metric="F-Mean"),
)

_ABLATION = (
    "Published rows: every model pretrained on COCO. Measured rows: every backbone with a DAVIS result, whatever it was pretrained "
    "on, which a result does not state."
)

LAYOUTS = (
    Layout(
        name="main",
        title="Main results",
        caption=(
            "COCO val2017 with Mask R-CNN, ADE20K validation with Semantic FPN, DAVIS-2017 val by label propagation; all in percent. "
            "Published rows: pretrained on ImageNet-1k. What measured rows were pretrained on, a result does not state."
        ),
        descriptors=("method", "backbone", "pretraining_data", "epochs"),
        columns=(*_COCO, *_ADE20K, *_DAVIS),
    ),
    Layout(
        name="components",
        title="Components of SelfPatch",
        caption=f"DAVIS-2017 val, mean of J and F in percent. {_ABLATION}",
        descriptors=("part", "method", "backbone", "pretraining_data", "epochs", "neighbours", "k", "aggregation"),
        columns=(_DAVIS_JF,),
    ),
    Layout(
        name="compatibility",
        title="Compatibility with other methods and backbones",
        caption=(
            "DAVIS-2017 val, mean of J and F in percent; `patch_negatives`: whether the patch-level loss uses negatives. "
            f"{_ABLATION}"
        ),
        descriptors=("method", "backbone", "pretraining_data", "epochs", "patch_negatives"),
        columns=(_DAVIS_JF,),
    ),
)
