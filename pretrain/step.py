"""One step of self-distillation, and what all processes must know after it."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.distributed import gather_from_processes, rank, world_size
from common.files import write_text_atomically
from pretrain.data.loader import GlobalBatchSampler
from pretrain.data.sources import ImageFiles
from pretrain.networks import Networks, clip_each_gradient, update_teacher
from pretrain.objectives.base import NUM_GLOBAL_CROPS
from pretrain.schedules import StepSettings


def training_step(
    student: nn.Module,
    networks: Networks,
    crops: Sequence[Tensor],
    settings: StepSettings,
    boxes: Sequence[Tensor] = (),
    *,
    diagnose: bool = False,
    accumulate: int = 1,
) -> dict[str, Tensor]:
    """One update of student and teacher; returns the losses before it, detached, and the diagnostics, which `diagnose` asks for.

    The student is that of the networks or its DistributedDataParallel. Crops are float32 [B, 3, H, W] of each view, global ones
    first; boxes are int64 [B, 5], where each view was cut out.

    With `accumulate` the batch goes through the networks in parts, whose losses are averaged; centres and queues move once, by all
    parts. This is the step of the whole batch up to rounding and the draws of stochastic depth, but for MoBY, whose batch
    normalisation takes the statistics of each part. Diagnostics are of the last part.
    """
    teacher, objective, optimizer = networks.teacher, networks.objective, networks.optimizer
    for group in optimizer.param_groups:
        group["lr"] = settings.lr
        if group["name"] == "decay":
            group["weight_decay"] = settings.weight_decay
    # Before the forward pass, so that activations can take the place of the last step's gradients.
    optimizer.zero_grad(set_to_none=True)
    found: dict[str, Tensor] = {}
    for part in range(accumulate):
        is_last = part + 1 == accumulate
        part_crops, part_boxes = ([view.chunk(accumulate)[part] for view in views] for views in (crops, boxes))
        # Processes exchange gradients once per step, with those of the last part.
        keeps_gradients = isinstance(student, DistributedDataParallel) and not is_last
        with student.no_sync() if keeps_gradients else contextlib.nullcontext():  # type: ignore[operator]
            with networks.autocast:
                with torch.no_grad():
                    targets = teacher(part_crops if objective.teacher_sees_local_crops else part_crops[:NUM_GLOBAL_CROPS])
                outputs = student(part_crops)
            losses = objective(outputs, targets, settings.teacher_temperature, part_boxes)
            for name, value in losses.items():
                found[name] = found.get(name, 0) + value.detach() / accumulate
            if diagnose and is_last:
                found |= objective.diagnostics(targets, settings.teacher_temperature)
            # What the backward pass does not need is free before it.
            del outputs, targets
            (losses["loss"] / accumulate).backward()
    objective.move()
    if settings.clip_grad:
        clip = clip_each_gradient if settings.clip_each else nn.utils.clip_grad_norm_
        clip(networks.student.parameters(), settings.clip_grad)
    if settings.freeze_last_layer:
        # Without a gradient, weight decay does not reach them either.
        for name, parameter in networks.student.named_parameters():
            if ".last_layer." in name:
                parameter.grad = None
    optimizer.step()
    update_teacher(teacher, networks.student, settings.teacher_momentum)
    return found


def wrap_student(networks: Networks, device: torch.device, compiled: bool) -> nn.Module:
    """The student as `training_step` takes it, exchanging gradients where there are several processes; compiled with the teacher."""
    if compiled:
        for network in (networks.student, networks.teacher):
            network.compile(dynamic=False)
    if world_size() == 1:
        return networks.student
    return DistributedDataParallel(networks.student, device_ids=[device.index] if device.type == "cuda" else None)


def seed_step(seed: int, step: int) -> None:
    """Make stochastic depth a function of (seed, step, process), so that a continued run repeats it without stored states."""
    torch.manual_seed((seed * 1_000_003 + step) * 1_009 + rank())


def agree(networks: Networks, losses: Mapping[str, Tensor], signum: int) -> tuple[int, bool]:
    """What all processes know after a step: the signal after which they stop, 0 for none, and whether a number is not finite.

    Each calls it after every step with the signal that it got, or 0. Losses, the student's weights and all running state are looked
    at: a gradient that is not finite leaves weights that are not. This waits for the device, as DINO's loop does in every step.
    """
    values = torch.stack([losses["loss"].new_full((), float(signum)), (~all_finite(networks, losses)).to(losses["loss"])])
    if world_size() > 1:
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    agreed, broken = values.tolist()
    return int(agreed), bool(broken)


@torch.no_grad()
def all_finite(networks: Networks, losses: Mapping[str, Tensor]) -> Tensor:
    """Whether losses, weights and running state are finite; a boolean scalar on their device."""
    modules = (networks.student, networks.teacher, networks.objective)
    buffers = [buffer for module in modules for buffer in module.buffers() if buffer.is_floating_point()]
    values = [*networks.student.parameters(), *buffers, *(loss.float() for loss in losses.values())]
    return torch.isfinite(nn.utils.get_total_norm(values))


def nonfinite_error(step: int, loss: Tensor, sampler: GlobalBatchSampler, source: ImageFiles, checkpoint: Path) -> ValueError:
    """Write down the batch after which a number was no longer finite, and make the error that ends the run, all processes together.

    An unreadable image of the batch was replaced by the next readable one.
    """
    losses = gather_from_processes(loss.reshape(1)).tolist()
    images = [source.describe(index) for index in sampler.global_batch(step - 1)]
    epoch, path = (step - 1) // sampler.steps_per_epoch, checkpoint.with_name("nonfinite_batch.json")
    if rank() == 0:
        shares = [images[process :: world_size()] for process in range(world_size())]
        # Losses are text: JSON has no word for what is not finite.
        content = {"step": step, "epoch": epoch, "losses": [str(loss) for loss in losses], "images": shares}
        write_text_atomically(path, json.dumps(content, indent=1) + "\n")
    bad = [loss for loss in losses if not math.isfinite(loss)]
    what = f"the loss became {bad[0]}" if bad else "the update left weights that are not finite"
    kept = f"{checkpoint} is from before" if checkpoint.exists() else "no checkpoint was written yet"
    return ValueError(
        f"{what} at step {step} (epoch {epoch}); its {len(images)} images, from {images[0]} on, are listed in {path}; {kept}. "
        "Lower optim.lr, or use train.precision float32"
    )
