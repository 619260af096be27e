"""The cost of a pretraining: its floating-point operations, and its time at a measured or given speed.

torch counts the operations of the matrix products and convolutions while it takes a training step on random crops of the recipe's
sizes (a multiply-add counts twice). Elementwise operations, the decoding of images and the evaluation on DAVIS are left out.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from common.distributed import choose_device
from pretrain.config import PretrainConfig
from pretrain.data.views import view_kinds
from pretrain.networks import build_networks
from pretrain.schedules import step_settings
from pretrain.step import training_step

# MoBY's heads normalise over the batch, which needs two images.
_COUNTED_IMAGES = 2
_TIMED_STEPS = 2
_TIMED_IMAGES = {"cpu": 2, "cuda": 64}


class Work(NamedTuple):
    """The work of a whole pretraining."""

    steps: int
    images: int  # Images over all epochs; an image stands for all its crops.
    flops_per_image: float  # Floating-point operations of one training step, forward and backward.

    @property
    def flops(self) -> float:
        return self.images * self.flops_per_image


def measure_work(config: PretrainConfig, images: int) -> Work:
    """The work of a pretraining on this number of images. Counting takes seconds on a CPU for a recipe of full size."""
    steps = config.train.epochs * (images // config.train.batch_size)
    step = _prepare_step(config, _COUNTED_IMAGES)
    with FlopCounterMode(display=False) as counter:
        step()
    return Work(steps, steps * config.train.batch_size, counter.get_total_flops() / _COUNTED_IMAGES)


def speed_of(config: PretrainConfig, name: str, work: Work, images_per_second: float | None) -> tuple[float, str]:
    """Floating-point operations per second of the run with this name and work, and a text that says where the number comes from.

    `images_per_second` is the speed of the run over all devices; if it is None, a few steps on random images are timed on one device.
    """
    if images_per_second is not None:
        basis = f"{images_per_second:g} images/s of {name} as given by --images-per-second, the others by their FLOPs"
        return images_per_second * work.flops_per_image, basis
    device = choose_device(config.train.device)
    images = min(_TIMED_IMAGES[device.type], config.train.batch_size)
    step = _prepare_step(config, images)
    step()  # the first one also allocates
    start = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        step()
    images_per_second = images * _TIMED_STEPS / (time.perf_counter() - start)
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else f"the CPU ({torch.get_num_threads()} threads)"
    basis = (
        f"{images_per_second:.3g} images/s of {name}, timed just now over {_TIMED_STEPS} steps of {images} random images on {place}, "
        "one device; the others by their FLOPs"
    )
    return images_per_second * work.flops_per_image, basis


def _prepare_step(config: PretrainConfig, images: int) -> Callable[[], None]:
    """Returns a function that takes a training step on random images, and waits until the device has done it."""
    device = choose_device(config.train.device)
    networks = build_networks(config, device)
    crops = [torch.randn(images, 3, kind.size, kind.size, device=device) for kind in view_kinds(config.views)]
    settings = step_settings(config, 1, config.optim.warmup_epochs)

    def step() -> None:
        training_step(networks.student, networks, crops, settings)["loss"].item()

    return step
