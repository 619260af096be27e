"""What a pretraining costs: floating-point operations, counted, and from them hours, by a measured or given speed.

The operations are those of the matrix products and convolutions of a training step, as torch counts them while it takes one on random
crops of the recipe's sizes (a multiply-add is two). What is elementwise, the decoding of images and the evaluation on DAVIS are left
out.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from backbones.onednn import has_onednn
from pretrain.config import PretrainConfig
from pretrain.data.views import view_kinds
from pretrain.distributed import choose_device
from pretrain.networks import Networks, build_networks, choose_autocast
from pretrain.run_schedules import step_settings
from pretrain.trainer import training_step

# MoBY's heads normalise over the batch, which takes two images.
_COUNTED_IMAGES = 2
_TIMED_STEPS = 2
_TIMED_IMAGES = {"cpu": 2, "cuda": 64}


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much a pretraining has to do."""

    steps: int
    """Updates."""
    images: int
    """Images over all epochs, each with all its crops."""
    flops_per_image: float
    """Of one training step, forward and backward."""

    @property
    def flops(self) -> float:
        """In total."""
        return self.images * self.flops_per_image


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast this, or the user's, machine trains."""

    flops_per_second: float
    """Sustained."""
    basis: str
    """Where the figure comes from, a sentence."""


def measure_work(config: PretrainConfig, images: int) -> Work:
    """Count a pretraining's work.

    Args:
        config: The pretraining.
        images: How many there are.
    """
    steps_per_epoch = images // config.train.batch_size
    steps = config.train.epochs * steps_per_epoch
    return Work(steps=steps, images=steps * config.train.batch_size, flops_per_image=count_flops(config))


def count_flops(config: PretrainConfig) -> float:
    """Operations of one training step per image, counted during a step of two images: seconds on a CPU at full size."""
    device = choose_device(config.train.device)
    networks = build_networks(config, device)
    crops = _crops(config, _COUNTED_IMAGES, device)
    # Of the products, torch does not know those of oneDNN's linear layers.
    others = {torch.ops.mkldnn._linear_pointwise: _linear_flops} if has_onednn() else {}
    with FlopCounterMode(display=False, custom_mapping=others) as counter:
        _step(config, networks, crops)
    return counter.get_total_flops() / _COUNTED_IMAGES


def _linear_flops(
    inputs: Sequence[int], weight: Sequence[int], *others: object, out_shape: Sequence[int], **more: object
) -> int:
    """From shapes, as `FlopCounterMode` hands them over."""
    del weight, others, more
    return 2 * math.prod(inputs) * out_shape[-1]


def given_speed(images_per_second: float, name: str, work: Work) -> Speed:
    """The user's.

    Args:
        images_per_second: Over all devices.
        name: The run to which it refers.
        work: Of this run.
    """
    return Speed(
        flops_per_second=images_per_second * work.flops_per_image,
        basis=f"{images_per_second:g} images/s of {name} as given by --images-per-second, the others by their FLOPs",
    )


def timed_speed(config: PretrainConfig, name: str, work: Work) -> Speed:
    """Train a few steps on random images on this machine, on one device.

    Args:
        config: The pretraining.
        name: Of its run.
        work: Its work.
    """
    device = choose_device(config.train.device)
    images = min(_TIMED_IMAGES[device.type], config.train.batch_size)
    networks = build_networks(config, device)
    crops = _crops(config, images, device)
    _step(config, networks, crops)  # the first one also allocates
    start = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        _step(config, networks, crops)
    seconds = (time.perf_counter() - start) / _TIMED_STEPS
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else f"the CPU ({torch.get_num_threads()} threads)"
    return Speed(
        flops_per_second=images * work.flops_per_image / seconds,
        basis=(
            f"{images / seconds:.3g} images/s of {name}, timed just now over {_TIMED_STEPS} steps of {images} random images on "
            f"{place}, one device; the others by their FLOPs"
        ),
    )


def _crops(config: PretrainConfig, images: int, device: torch.device) -> list[Tensor]:
    return [torch.randn(images, 3, kind.size, kind.size, device=device) for kind in view_kinds(config.views)]


def _step(config: PretrainConfig, networks: Networks, crops: Sequence[Tensor]) -> None:
    device = crops[0].device
    settings = step_settings(config, steps_per_epoch=1)(config.optim.warmup_epochs)
    autocast = choose_autocast(config.train.precision, device)
    losses = training_step(
        networks.student, networks.teacher, networks.objective, networks.optimizer, crops, settings, autocast
    )
    losses["loss"].item()  # waits for a GPU
