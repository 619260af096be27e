"""The training step of SelfPatch on DINO as the authors' code computes it, to be slow and obvious.

Written from the description of alinlab/SelfPatch 81aef149 and facebookresearch/dino 7c446df: a pair of views at a time with its own
log-softmax, and parameters one by one in clipping, AdamW and the moving average.

Shapes: V views, B images, N patches, K prototypes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.references.selfpatch_networks import Dimensions, Network

GLOBAL_VIEWS = 2
STUDENT_TEMPERATURE = 0.1
CENTRE_MOMENTUM = 0.9
PATCH_WEIGHT = 0.1


class Loss:
    """Cross-entropies and centres."""

    def __init__(self, sizes: Dimensions, device: torch.device) -> None:
        self.centre = torch.zeros(1, 1, sizes.out_dim, device=device)
        self.patch_centre = torch.zeros(1, sizes.out_dim_patch, device=device)

    def __call__(
        self, student: Sequence[tuple[Tensor, Tensor]], teacher: Sequence[tuple[Tensor, Tensor]], views: int, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Total, CLS and patch loss; then the centres move."""
        student_cls, student_patches, teacher_cls, teacher_patches = (
            [
                view
                for group, count in zip(role, (GLOBAL_VIEWS, views - GLOBAL_VIEWS), strict=True)
                for view in group[kind].chunk(count)
            ]
            for role in (student, teacher)
            for kind in (0, 1)
        )
        cls_terms, patch_terms = [], []
        for index in range(views):
            target = F.softmax((teacher_cls[index] - self.centre) / temperature, dim=-1).detach()
            for other in range(views):
                if other == index:
                    patch_target = F.softmax((teacher_patches[index] - self.patch_centre) / temperature, dim=-1).detach()
                    log_probabilities = F.log_softmax(student_patches[other] / STUDENT_TEMPERATURE, dim=-1)
                    patch_terms.append(torch.sum(-patch_target * log_probabilities, dim=-1).mean())
                elif index < GLOBAL_VIEWS:
                    log_probabilities = F.log_softmax(student_cls[other] / STUDENT_TEMPERATURE, dim=-1)
                    cls_terms.append(torch.sum(-target * log_probabilities, dim=-1).mean())
        cls_loss = torch.stack(cls_terms).mean()
        patch_loss = torch.stack(patch_terms).mean()
        with torch.no_grad():
            self.centre = self._moved(self.centre, torch.cat(teacher_cls).mean(0, keepdim=True))
            rows = sum(patches.shape[:2].numel() for patches in teacher_patches)
            total = torch.stack([patches.sum(1).sum(0, keepdim=True) for patches in teacher_patches]).sum(0)
            self.patch_centre = self._moved(self.patch_centre, total / rows)
        return cls_loss + PATCH_WEIGHT * patch_loss, cls_loss, patch_loss

    @staticmethod
    def _moved(centre: Tensor, mean: Tensor) -> Tensor:
        return centre * CENTRE_MOMENTUM + mean * (1 - CENTRE_MOMENTUM)


def parameter_groups(network: nn.Module) -> list[dict]:
    """Biases and vectors do not decay."""
    trained = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    exempt = {name for name, parameter in trained if name.endswith(".bias") or parameter.ndim == 1}
    return [
        {"params": [parameter for name, parameter in trained if name not in exempt]},
        {"params": [parameter for name, parameter in trained if name in exempt], "weight_decay": 0.0},
    ]


def clip_gradients(network: nn.Module, limit: float) -> None:
    for parameter in network.parameters():
        if parameter.grad is not None:
            factor = limit / (parameter.grad.norm(2) + 1e-6)
            if factor < 1:
                parameter.grad.mul_(factor)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Values in one step."""

    lr: float
    weight_decay: float
    momentum: float
    temperature: float
    clip_grad: float
    freeze_last_layer: bool


def training_steps(
    student: Network,
    teacher: Network,
    steps: Iterable[tuple[Sequence[Tensor], Schedule]],
    half_precision: bool = False,
) -> Iterator[dict[str, float]]:
    """The loop over batches: a list of crops [B, 3, S, S] each, two global ones, then local ones of one other size.

    Args:
        student: Possibly with stochastic depth.
        teacher: Starts at the student's weights.
        steps: Crops and schedules.
        half_precision: float16 with loss scaling; GPUs only.

    Yields:
        The losses of each step.
    """
    device = next(student.parameters()).device
    teacher.requires_grad_(False)
    criterion = Loss(student.sizes, device)
    optimizer = torch.optim.AdamW(parameter_groups(student), foreach=False, fused=False)
    scaler = torch.amp.GradScaler(device.type, enabled=half_precision)
    for crops, now in steps:
        for group in optimizer.param_groups:
            group["lr"] = now.lr
        optimizer.param_groups[0]["weight_decay"] = now.weight_decay
        with torch.autocast(device.type, dtype=torch.float16, enabled=half_precision):
            sizes = torch.cat(list(crops[:GLOBAL_VIEWS])), torch.cat(list(crops[GLOBAL_VIEWS:]))
            with torch.no_grad():
                targets = [teacher(images, as_teacher=True) for images in sizes]
            outputs = [student(images, as_teacher=False) for images in sizes]
            loss, cls_loss, patch_loss = criterion(outputs, targets, len(crops), now.temperature)
        losses = {"loss": loss.item(), "cls_loss": cls_loss.item(), "patch_loss": patch_loss.item()}
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        clip_gradients(student, now.clip_grad)
        if now.freeze_last_layer:
            for name, parameter in student.named_parameters():
                if ".last_layer." in name:
                    parameter.grad = None
        scaler.step(optimizer)
        scaler.update()
        with torch.no_grad():
            for moved, towards in zip(teacher.parameters(), student.parameters(), strict=True):
                moved.data.mul_(now.momentum).add_((1 - now.momentum) * towards.detach().data)
        yield losses
