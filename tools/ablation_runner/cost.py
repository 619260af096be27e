"""What the jobs cost: the floating-point operations of each pretraining, and its time at a measured or given speed.

torch counts the operations of the matrix products and convolutions while it takes a training step on random crops of the recipe's
sizes (a multiply-add counts twice). Elementwise operations, the decoding of images and the evaluation on DAVIS are left out.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from common.distributed import choose_device
from eval.progress import duration
from pretrain.checkpoint import CHECKPOINT_FILE
from pretrain.config import PretrainConfig
from pretrain.data.views import view_kinds
from pretrain.networks import build_networks
from pretrain.schedules import step_settings
from pretrain.step import training_step
from tools.ablation_runner.job import Job
from tools.summary import text_table

# MoBY's heads normalise over the batch, which needs two images.
_COUNTED_IMAGES = 2
_TIMED_STEPS = 2
_TIMED_IMAGES = {"cpu": 2, "cuda": 64}
_LISTING = ("job", "rows", "state", "epochs", "steps", "images", "GFLOP/image", "PFLOP", "time")


class Work(NamedTuple):
    """The work of a whole pretraining."""

    steps: int
    images: int  # Images over all epochs; an image stands for all its crops.
    flops_per_image: float  # Floating-point operations of one training step, forward and backward.

    @property
    def flops(self) -> float:
        return self.images * self.flops_per_image


def job_listing(jobs: Sequence[Job], images_per_second: float | None) -> str:
    """A table of the jobs with their cost at the speed of the first; if that is None, a few steps are timed on this machine."""
    of_recipe = {job.options.recipe: job for job in jobs}  # seeds do not change the work
    work_of = {recipe: measure_work(job.config, job.images) for recipe, job in of_recipe.items()}
    first = jobs[0]
    flops_per_second, basis = speed_of(first.config, first.name, work_of[first.options.recipe], images_per_second)
    lines, left = [], []
    for job in jobs:
        work = work_of[job.options.recipe]
        begun = (job.options.folder / CHECKPOINT_FILE).is_file()
        state = "finished" if job.finished else "begun" if begun else "new"
        if state != "finished":
            left.append(work.flops)
        counts = (str(job.config.train.epochs), f"{work.steps:,}", f"{work.images:,}", f"{work.flops_per_image / 1e9:.1f}")
        estimate = duration(work.flops / flops_per_second)
        lines.append((job.name, ", ".join(job.rows), state, *counts, _peta(work.flops), estimate))
    total = duration(sum(left) / flops_per_second)
    lines.append(("left to do", "", f"{len(left)} jobs", "", "", "", "", _peta(sum(left)), total))
    remarks = [
        f"Time is the FLOPs of the pretraining divided by a speed: {basis}. A job that has begun counts in full; the evaluation "
        "on DAVIS is not included."
    ]
    for job in of_recipe.values():
        if job.departures:
            remarks.append(f"{job.name} departs from its recipe: {', '.join(job.departures)}")
    return "\n".join([text_table(_LISTING, lines, _LISTING[3:]), "", *remarks])


def _peta(flops: float) -> str:
    peta = flops / 1e15
    return f"{peta:,.0f}" if peta >= 100 else f"{peta:.3g}"


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
