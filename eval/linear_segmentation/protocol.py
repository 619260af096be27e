"""The three protocols: their constants, their schedules, and how a run departs from them.

Sources: dinov3 of facebookresearch/dinov3 6876159, `dinov3/eval/segmentation`; dinov2 of Denoising-ViT 82704df,
`evaluation/configs/vitb_*_linear_config.py`, with the head of facebookresearch/dinov2 b8931f7; neco of vpariza/NeCo 3932160,
`experiments/linear_segmentation`.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from backbones.base import input_multiple
from backbones.spec import BackboneSpec
from eval.linear_segmentation.config import LinearSegmentationConfig, ProtocolName
from eval.probes.data import LabelledSet
from eval.probes.features import check_blocks, check_input
from eval.record import unpublished
from eval.result import Protocol

PROTOCOL_VERSION = 1  # grows whenever a change can change a metric
_DROP_SHARE = 20 / 25  # of the updates after which NeCo's rate drops, where their number is the user's


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The constants of a protocol; the defaults are those of `dinov2`."""

    layers: tuple[str, ...] = ("last",)
    final_norm: bool = True
    precision: str = "float32"
    dropout: float = 0.0  # of whole channels, before the normalisation
    batch_norm: bool = True
    weight_deviation: float | None = 0.01  # of fresh weights, with biases of 0; None: torch's own uniform distribution
    loss_per: Literal["pixel", "labelled pixel"] = "pixel"  # what the sum of the cross-entropy is divided by
    scored_side: int | None = None  # of the square to which logits and labels are resized; None: the labels' own size
    optimiser: Literal["AdamW", "SGD"] = "AdamW"
    learning_rates: tuple[float, ...] = (1e-3,)
    betas: tuple[float, float] | None = (0.9, 0.999)
    momentum: float | None = None
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "linear", "steps"] = "linear"
    warmup_iterations: int = 1500
    warmup_ratio: float = 1e-6
    iterations: int | None = 40_000
    epochs: int | None = None
    drop_epochs: int | None = None  # after each so many passes, the rate is multiplied by `drop_factor`
    drop_factor: float | None = None
    batch_size: int = 16
    size: int = 512  # short side of resized images, and side of crops
    stride: int | None = 341  # of sliding windows; None: the whole image, stretched to a square
    smaller_windows: bool = False  # an image smaller than a window is cut into squares of its short side
    resize: Literal["pillow", "opencv"] = "opencv"  # with or without antialiasing
    scales: tuple[float, float] = (0.5, 2.0)  # of training images; for `neco` of the cropped part's area
    largest_share: float | None = 0.75  # of one class in a crop, checked ten times
    flip: float = 0.5
    hue_degrees: float | None = 36.0  # largest change of hue; None: no distortion of colours
    patches: Literal["cut", "padded", "whole"] = "padded"  # what happens to sides that are no multiple of the patch
    evaluate_every: int | None = 10_000  # None: after every pass
    selection: Literal["best", "last"] = "last"  # evaluation that gives the metrics
    absent_classes: Literal["left out", "zero"] = "left out"  # in the mean over classes
    unlabelled_class: bool = False  # ADE20K has one class more, never labelled


RULES: dict[ProtocolName, Rules] = {
    "dinov3": Rules(
        dropout=0.1,
        weight_decay=1e-3,
        schedule="cosine",
        smaller_windows=True,
        resize="pillow",
        hue_degrees=180.0,
        patches="cut",
        evaluate_every=5000,
        selection="best",
    ),
    "dinov2": Rules(),
    "neco": Rules(
        batch_norm=False,
        weight_deviation=None,
        loss_per="labelled pixel",
        scored_side=100,
        optimiser="SGD",
        learning_rates=(1e-2,),
        betas=None,
        momentum=0.9,
        schedule="steps",
        warmup_iterations=0,
        iterations=None,
        epochs=25,
        drop_epochs=20,
        drop_factor=0.1,
        batch_size=128,
        size=448,
        stride=None,
        resize="pillow",
        scales=(0.8, 1.0),
        largest_share=None,
        hue_degrees=None,
        patches="whole",
        evaluate_every=None,
        selection="best",
        absent_classes="zero",
        unlabelled_class=True,
    ),
}


def rules_of(config: LinearSegmentationConfig) -> Rules:
    """The protocol's constants with the user's own; warm-up, drop and stride follow the number of updates and the size."""
    published = RULES[config.protocol]
    named = {name: getattr(config, name) for name in ("iterations", "batch_size", "size", "evaluate_every")}
    changes: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if config.learning_rates:
        changes["learning_rates"] = tuple(config.learning_rates)
    if config.size is not None and published.stride is not None:
        changes["stride"] = max(1, config.size * published.stride // published.size)
    if config.iterations is not None and published.iterations is not None:
        changes["warmup_iterations"] = round(published.warmup_iterations * min(1, config.iterations / published.iterations))
    if config.iterations is not None and published.epochs is not None:
        changes |= {"epochs": None, "drop_epochs": None}
    return dataclasses.replace(published, layers=tuple(config.layers), precision=config.precision, **changes)


def check_rules(rules: Rules, spec: BackboneSpec) -> None:
    """ValueError where a backbone does not have the layers, or its patches do not fit the size."""
    for layer in rules.layers:
        check_blocks(blocks_of(layer, spec), rules.final_norm, spec)
    check_input(spec, rules.size if rules.patches == "whole" else None)
    multiple = input_multiple(spec)
    if rules.size < multiple or (rules.patches == "whole" and rules.size % multiple):
        raise ValueError(f"size={rules.size} is not a multiple of {multiple}, which the {spec.family} needs")


def blocks_of(layer: str, spec: BackboneSpec) -> list[int]:
    """The 0-based blocks that a layer's name lists; ValueError for other texts."""
    parts = layer.split("+")
    if layer != "last" and not all(part.isdecimal() for part in parts):
        raise ValueError(f"layers: {layer!r} is neither `last` nor a block or blocks joined by +, such as 8+9+10+11")
    return [spec.num_blocks - 1] if layer == "last" else [int(part) for part in parts]


def has_unlabelled_class(rules: Rules, found: LabelledSet) -> bool:
    """Whether class 0 is what the set does not label: it can be predicted, and is nowhere right."""
    return rules.unlabelled_class and found.void == 0


def updates(rules: Rules, num_images: int) -> tuple[int, int]:
    """Number of updates, and of those in one pass over the training images; a pass leaves out what fills no batch."""
    per_pass = max(1, num_images // rules.batch_size)
    return rules.iterations or (rules.epochs or 0) * per_pass, per_pass


def learning_rate(rules: Rules, base: float, step: int, total: int, per_pass: int) -> float:
    """The rate of a 0-based update."""
    if rules.schedule == "steps":
        assert rules.drop_factor is not None
        drop = rules.drop_epochs * per_pass if rules.drop_epochs else round(_DROP_SHARE * total)
        return base * rules.drop_factor ** (step // max(1, drop))
    # DINOv3's first update skips its scheduler, so that position 0 counts twice.
    position = max(0, step - 1) if rules.schedule == "cosine" else step
    if position < rules.warmup_iterations:
        warm = 1 - (1 - position / rules.warmup_iterations) * (1 - rules.warmup_ratio)
        return base * warm * (1 - position / total)
    if rules.schedule == "linear":
        return base * (1 - position / total)
    return base / 2 * (1 + math.cos(math.pi * (position + 1) / total))


def protocol_of(config: LinearSegmentationConfig, found: LabelledSet, train_split: str, spec: BackboneSpec) -> Protocol:
    """Settings as used, and deviations; more learning rates or layers than the published add metrics and change none."""
    published, used = (dataclasses.asdict(rules) for rules in (RULES[config.protocol], rules_of(config)))
    published["train_split"], used["train_split"] = published_split(config, found), train_split
    deviations = {name: [published[name], value] for name, value in used.items() if value != published[name]}
    for name in ("layers", "learning_rates"):
        if name in deviations and used[name][0] == published[name][0]:
            del deviations[name]
    used["classes"] = found.num_classes + has_unlabelled_class(rules_of(config), found)
    name = f"linear-segmentation-{config.protocol}"
    return Protocol(name=name, version=PROTOCOL_VERSION, settings=used, deviations=deviations | unpublished(spec))


def published_split(config: LinearSegmentationConfig, found: LabelledSet) -> str:
    """The training split of a protocol: NeCo's of VOC is `trainaug`, DINOv2's 1,464 images; of DINOv3's nothing is published."""
    return "trainaug" if config.protocol == "neco" and "trainaug" in found.sizes else found.train
