"""DINOv3's protocol: its constants, its schedule, and how a run departs from it.

Source: facebookresearch/dinov3 6876159, `dinov3/eval/depth` with `configs/config-nyu.yaml`.
"""

import dataclasses
import math
from dataclasses import dataclass

from backbones.spec import BackboneSpec
from eval.depth.config import DepthConfig
from eval.depth.data import EIGEN_BOX, TRAIN_BOX, Box
from eval.record import unpublished
from eval.result import Protocol
from eval.tasks import BENCHMARKS

PROTOCOL_VERSION = 1  # grows whenever a change can change a metric


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The constants of the protocol; depth is in metres."""

    features: str = "patches of the last block after the final norm, without CLS token"
    precision: str = "float32"
    batch_norm: bool = True
    weight_deviation: float = 0.01  # of fresh weights; biases are 0
    bins: int = 256  # spaced evenly over the range of depth
    least_bin_weight: float = 0.1  # added to the positive parts of the logits, before they are divided by their sum
    depth_range: tuple[float, float] = (0.001, 10.0)  # of the bins, of the truth that counts and of predictions that are scored
    loss_mean_weight: float = 0.15  # of the squared mean of the log error, beside its variance
    loss_offset: float = 0.001  # added to both depths before the logarithm
    loss_warmup_iterations: int = 100  # without the variance
    images_per_loss: int = 2  # whose pixels share a square root, of which the mean over the batch is taken
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4  # by AdamW, of all weights
    gradient_clip: float = 35.0  # largest norm
    iterations: int = 38_400
    warmup_iterations: int = 12_800
    warmup_beta1: float = 0.0
    beta1_range: tuple[float, float] = (0.85, 0.95)  # after the warm-up, rising
    beta2: float = 0.99
    first_rate_divisor: float = 1000.0
    last_rate_divisor: float = 25_000.0
    batch_size: int = 16
    train_box: Box = TRAIN_BOX
    rotation: float = 0.5  # probability
    rotation_degrees: float = 2.5  # largest
    flip: float = 0.5
    crop: tuple[int, int] = (416, 544)
    recolour: float = 0.5  # one draw decides for all three
    gamma: tuple[float, float] = (0.9, 1.1)  # of values from 0 to 255
    brightness: tuple[float, float] = (0.75, 1.25)
    colours: tuple[float, float] = (0.9, 1.1)
    test_box: Box = EIGEN_BOX
    test_flip: bool = True  # depth of the image and of its mirror image, averaged on the patch grid
    selection: str = "last"  # the weights that are tested


PUBLISHED = Rules()


def rules_of(config: DepthConfig) -> Rules:
    """The protocol's constants with the user's own."""
    share = min(1, config.iterations / PUBLISHED.iterations)
    return dataclasses.replace(
        PUBLISHED,
        iterations=config.iterations,
        warmup_iterations=round(PUBLISHED.warmup_iterations * share),
        loss_warmup_iterations=round(PUBLISHED.loss_warmup_iterations * share),
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        crop=(config.crop[0], config.crop[1]),
        precision=config.precision,
    )


def protocol_of(config: DepthConfig, spec: BackboneSpec) -> Protocol:
    published, used = (dataclasses.asdict(rules) for rules in (PUBLISHED, rules_of(config)))
    deviations = {name: [published[name], value] for name, value in used.items() if value != published[name]}
    name = BENCHMARKS["depth"].protocol
    return Protocol(name=name, version=PROTOCOL_VERSION, settings=used, deviations=deviations | unpublished(spec))


def learning_rate(rules: Rules, step: int) -> float:
    """The rate of a 0-based update: half a cosine over all of them, multiplied by a linear warm-up while that lasts."""
    if step < rules.warmup_iterations:
        cosine = rules.learning_rate * (1 + math.cos(math.pi * step / rules.iterations)) / 2
        return rules.learning_rate / rules.first_rate_divisor + cosine * step / rules.warmup_iterations
    last = rules.learning_rate / rules.last_rate_divisor
    return last + (rules.learning_rate - last) * (1 + math.cos(math.pi * (step + 1) / rules.iterations)) / 2


def beta1(rules: Rules, step: int) -> float:
    """AdamW's first decay rate at a 0-based update."""
    if step < rules.warmup_iterations:
        return rules.warmup_beta1
    lowest, highest = rules.beta1_range
    progress = (step - rules.warmup_iterations) / (rules.iterations - rules.warmup_iterations)
    return highest - (highest - lowest) * (1 + math.cos(math.pi * progress)) / 2
