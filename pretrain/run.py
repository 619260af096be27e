"""A pretraining run from its configuration to its checkpoint."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from backbones.spec import BackboneSpec
from common.files import remove_leftovers, write_text_atomically
from common.memory import peak_memory_bytes
from pretrain.config import PretrainConfig
from pretrain.data.images import UnreadableImages, find_images
from pretrain.data.loader import Batch, GlobalBatchSampler, MultiCropImages, build_loader
from pretrain.data.views import view_kinds
from pretrain.distributed import choose_device, mean_over_processes, process_group, rank, world_size
from pretrain.log import RunLog
from pretrain.objectives.base import Objective
from pretrain.objectives.build import build_objective
from pretrain.optim import REFERENCE_BATCH, build_optimizer, copy_to_teacher
from pretrain.schedules import CosineSchedule, TemperatureSchedule
from pretrain.state import (
    CHECKPOINT_FILE,
    count_parameters,
    keep_copy,
    plain_config,
    restore_checkpoint,
    run_settings,
    save_checkpoint,
)
from pretrain.trainer import StepSettings, training_step

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"


def pretrain(config: PretrainConfig) -> Path:
    """Train until the last epoch, continuing where an earlier start of the same run left off.

    On one device a continued run computes bit for bit what an uninterrupted one does.

    Returns:
        The checkpoint.

    Raises:
        ValueError: If the data, the output or the settings do not work; nothing has been trained then.
    """
    device = choose_device(config.train.device)
    with process_group(device):
        return _Run(config, device).train()


@dataclass
class Networks:
    """What is trained, and what trains it."""

    spec: BackboneSpec
    student: nn.Module
    teacher: nn.Module
    objective: Objective
    optimizer: AdamW


def build_networks(config: PretrainConfig, device: torch.device) -> Networks:
    """Student and teacher with the same fresh weights, determined by the seed."""
    torch.manual_seed(config.train.seed)
    objective = build_objective(config).to(device)
    spec = objective.backbone_spec(config.backbone.architecture(), config.views.global_size)
    student = objective.build_network(spec, config.backbone.drop_path_rate, "student").to(device)
    teacher = objective.build_network(spec, 0.0, "teacher").to(device)
    copy_to_teacher(teacher, student)
    teacher.requires_grad_(False)
    return Networks(spec, student, teacher, objective, build_optimizer(student, config.optim.decay_positions))


def step_settings(config: PretrainConfig, steps_per_epoch: int) -> Callable[[int], StepSettings]:
    """All schedules of a run as one function of the step."""
    optim, dino = config.optim, config.dino
    steps = config.train.epochs * steps_per_epoch
    lr = CosineSchedule(
        start=optim.lr * config.train.batch_size / REFERENCE_BATCH,
        end=optim.min_lr,
        steps=steps,
        warmup_steps=optim.warmup_epochs * steps_per_epoch,
    )
    weight_decay = CosineSchedule(start=optim.weight_decay, end=optim.weight_decay_end, steps=steps)
    momentum = CosineSchedule(start=optim.teacher_momentum, end=1.0, steps=steps)
    temperature = TemperatureSchedule(
        start=dino.warmup_teacher_temperature,
        end=dino.teacher_temperature,
        warmup_epochs=dino.warmup_teacher_temperature_epochs,
    )

    def settings(step: int) -> StepSettings:
        epoch = step // steps_per_epoch
        return StepSettings(
            lr=lr(step),
            weight_decay=weight_decay(step),
            teacher_momentum=momentum(step),
            teacher_temperature=temperature(epoch),
            clip_grad=optim.clip_grad,
            clip_each=optim.clip_each,
            freeze_last_layer=epoch < optim.freeze_last_layer_epochs,
        )

    return settings


def choose_autocast(precision: str, device: torch.device) -> torch.autocast:
    """The arithmetic of the networks.

    Args:
        precision: `auto`, `float32` or `bfloat16`.
        device: Where they run.
    """
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    enabled = precision == "bfloat16" or (precision == "auto" and has_bfloat16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


class _Run:
    """The parts of a run and its loop."""

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.checkpoint = config.train.output / CHECKPOINT_FILE
        paths = find_images(config.data.path)
        self.settings = run_settings(config, paths)
        train = config.train
        self.sampler = GlobalBatchSampler(
            len(paths), train.batch_size, train.seed, rank(), world_size(), config.views.shared_by
        )
        self.dataset = MultiCropImages(paths, view_kinds(config.views), config.train.seed)
        self.unreadable = UnreadableImages(config.data.max_unreadable)
        self.last_step = config.train.epochs * self.sampler.steps_per_epoch
        self.checkpoint_every = config.train.checkpoint_every or self.sampler.steps_per_epoch

    def train(self) -> Path:
        config = self.config
        self._prepare_output()
        networks = build_networks(config, self.device)
        first_step = 0
        if self.checkpoint.exists():
            first_step = restore_checkpoint(
                self.checkpoint, self.settings, networks.student, networks.teacher, networks.objective, networks.optimizer
            )
        self._announce(networks, first_step)
        if first_step >= self.last_step:
            return self.checkpoint
        start = time.monotonic()
        self.sampler.plan(first_step, self.last_step)
        loader = build_loader(self.dataset, self.sampler, config.data.workers, self.device.type == "cuda")
        student = networks.student
        if world_size() > 1:
            student = DistributedDataParallel(student, device_ids=[self.device.index] if self.device.type == "cuda" else None)
        settings = step_settings(config, self.sampler.steps_per_epoch)
        autocast = choose_autocast(config.train.precision, self.device)
        log = RunLog(config.train.output, first_step, self.last_step) if rank() == 0 else None
        try:
            for step, batch in enumerate(loader, start=first_step):
                self.unreadable.report(batch.failures)
                _seed_step(config.train.seed, step)
                now = settings(step)
                losses = training_step(
                    student,
                    networks.teacher,
                    networks.objective,
                    networks.optimizer,
                    self._crops(batch),
                    now,
                    autocast,
                    batch.boxes,
                )
                self._record(log, step, losses, now)
                self._save(networks, step + 1)
        finally:
            if log is not None:
                log.close()
        logger.info(
            "%d steps in %.0f s, peak memory %.1f GiB (process %d)",
            self.last_step - first_step,
            time.monotonic() - start,
            peak_memory_bytes(self.device) / 2**30,
            rank(),
        )
        return self.checkpoint

    def _prepare_output(self) -> None:
        if rank() == 0:
            output = self.config.train.output
            output.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.checkpoint)
            resolved = yaml.safe_dump(plain_config(self.config), sort_keys=False)
            write_text_atomically(output / CONFIG_FILE, resolved)

    def _announce(self, networks: Networks, first_step: int) -> None:
        if rank() == 0:
            logger.info(
                "%s: %s, %.2f M parameters in the backbone, %.2f M with heads; %d images, %d steps of %d images; %s, %d processes%s",
                self.config.method,
                networks.spec,
                count_parameters(networks.student.get_submodule("backbone")) / 1e6,
                count_parameters(networks.student) / 1e6,
                self.sampler.images,
                self.last_step,
                self.config.train.batch_size,
                self.device,
                world_size(),
                f"; continuing after step {first_step}" if first_step else "",
            )

    def _crops(self, batch: Batch) -> list[torch.Tensor]:
        return [crop.to(self.device, non_blocking=True) for crop in batch.crops]

    def _record(self, log: RunLog | None, step: int, losses: dict[str, torch.Tensor], now: StepSettings) -> None:
        """Log on the first process; all take part in averaging the losses.

        Raises:
            ValueError: If the loss is no longer a number: going on could only waste time.
        """
        if (step + 1) % self.config.train.log_every == 0 or step + 1 == self.last_step:
            values = mean_over_processes({name: value.item() for name, value in losses.items()}, self.device)
            if not math.isfinite(values["loss"]):
                raise ValueError(
                    f"the loss became {values['loss']} at step {step + 1}; the last checkpoint is from before. "
                    "Lower optim.lr, or use train.precision float32"
                )
            schedules = {"lr": now.lr, "weight_decay": now.weight_decay, "teacher_momentum": now.teacher_momentum}
            if log is not None:
                log.write(step + 1, step // self.sampler.steps_per_epoch, {**values, **schedules})
        if log is not None:
            log.advance()

    def _save(self, networks: Networks, steps_done: int) -> None:
        if rank() != 0 or (steps_done % self.checkpoint_every and steps_done != self.last_step):
            return
        epoch, rest = divmod(steps_done, self.sampler.steps_per_epoch)
        save_checkpoint(
            self.checkpoint,
            self.settings,
            networks.spec,
            networks.student,
            networks.teacher,
            networks.objective,
            networks.optimizer,
            steps_done,
            epoch,
        )
        if self.config.train.keep_every and rest == 0 and epoch % self.config.train.keep_every == 0:
            keep_copy(self.checkpoint, epoch)


def _seed_step(seed: int, step: int) -> None:
    """Make stochastic depth a function of (seed, step, process), so that a continued run repeats it without stored states."""
    torch.manual_seed((seed * 1_000_003 + step) * 1_009 + rank())
