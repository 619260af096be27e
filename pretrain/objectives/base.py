"""What the objectives share: a network with heads, the interfaces of losses and objectives, diagnostics of the teacher's outputs.

An objective has an image-level loss and possibly a patch-level one, each with its own heads and running state (centres, queues).

Shapes: B images, N patches, D channels of a token, R rows (an image or a patch of a view each), K prototypes or channels of an
embedding, Q queued embeddings.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Tokens
from backbones.build import AnyBackbone, build_backbone
from backbones.spec import BackboneSpec
from common.distributed import sum_over_processes
from pretrain.heads import Projections, Role

NUM_GLOBAL_CROPS = 2  # The first two crops are global in every method here.

MOST_VALUES = 2**24  # Probabilities of one process that diagnostics look at, 64 MiB; of more rows they take an even sample.

Scalars = dict[str, Tensor]


class Outputs(NamedTuple):
    """A network's outputs for all crops that it sees, global ones first."""

    cls: Projections  # [B, K] of each view
    patches: Projections | None = None  # [B, N, K] of each view, where the objective has them
    grids: Sequence[tuple[int, int]] = ()  # (h, w) of each view's patches


class Network(nn.Module):
    """A backbone and projection heads; crops [B, 3, H, W] to `Outputs`."""

    def __init__(self, spec: BackboneSpec, drop_path_rate: float) -> None:
        super().__init__()
        self.backbone = build_backbone(spec, drop_path_rate)
        self.heads = nn.ModuleDict()

    def features(self, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        """What the heads get: [B, D] of each image and, where the objective has them, [B, N, D] of each patch."""
        # Swin has no CLS token; its image-level feature is the mean of the last stage.
        return tokens.patches.mean(1) if tokens.cls is None else tokens.cls, None

    def project(self, cls: Sequence[Tensor], patches: Sequence[Tensor]) -> tuple[Projections, Projections | None]:
        return self.heads["cls"](cls), self.heads["patch"](patches) if patches else None

    def forward(self, crops: Sequence[Tensor]) -> Outputs:
        cls: list[Tensor] = []
        patches: list[Tensor] = []
        grids: list[tuple[int, int]] = []
        # All crops of one size pass the backbone together.
        for _, group in groupby(crops, key=lambda crop: crop.shape[-2:]):
            views = list(group)
            tokens = self.backbone.forward_tokens(torch.cat(views))
            cls_BD, patches_BND = self.features(tokens)
            cls += cls_BD.chunk(len(views))
            patches += () if patches_BND is None else patches_BND.chunk(len(views))
            grids += [tokens.grid] * len(views)
        return Outputs(*self.project(cls, patches), grids)


class RunningState(nn.Module, ABC):
    """What a loss keeps in buffers between steps: a centre, a queue. It takes note of the teacher's outputs in its `observe`."""

    @abstractmethod
    def move(self) -> None:
        """Move by what was observed since the last time, all processes together."""


class Loss(nn.Module, ABC):
    """A loss between outputs of student and teacher, of images or patches; DINO's sharpen the teacher's by the temperature."""

    @abstractmethod
    def head(self, in_dim: int, role: Role) -> nn.Module:
        """A fresh projection head, views [B, ..., in_dim] to `Projections`; the teacher's weights are among the student's by name."""

    @abstractmethod
    def forward(self, student: Projections, teacher: Projections, temperature: float) -> Tensor:
        """A scalar in float32; the running state observes the teacher's outputs."""

    @abstractmethod
    def diagnostics(self, teacher: Projections, temperature: float) -> Scalars: ...


class Objective(nn.Module):
    """What is minimised, made from a `PretrainConfig`; its buffers are running state.

    By itself it is an image-level loss alone, as published by its authors: the teacher sees the two global crops.
    """

    teacher_sees_local_crops = False
    image_loss: Loss

    def build_network(self, spec: BackboneSpec, drop_path_rate: float, role: Role) -> Network:
        """A network with fresh weights; the teacher's parameters are among the student's, by name."""
        network = Network(spec, drop_path_rate)
        network.heads["cls"] = self.image_loss.head(token_width(network.backbone), role)
        return network

    def forward(self, student: Outputs, teacher: Outputs, temperature: float, boxes: Sequence[Tensor] = ()) -> Scalars:
        """The losses, `loss` being the one to minimise, the others its parts.

        `boxes` are int64 [B, 5] of each crop, where it was cut out (`CropBox`), for objectives that compare places.
        """
        return {"loss": self.image_loss(student.cls, teacher.cls, temperature)}

    def move(self) -> None:
        """Move all running state, once per step: all parts of a batch have targets of the same centres and the same negatives."""
        for module in self.modules():
            if isinstance(module, RunningState):
                module.move()

    def diagnostics(self, teacher: Outputs, temperature: float) -> Scalars:
        """Whether targets say anything: scalars `cls_...` and `patch_...`, the same on all processes, which call it together."""
        return prefixed("cls", self.image_loss.diagnostics(teacher.cls, temperature))


def token_width(backbone: AnyBackbone) -> int:
    """D of the tokens after the last block or stage."""
    return backbone.map_channels([backbone.spec.num_blocks - 1])[0]


def spread_evenly(numbers_R: Tensor, places: int) -> Tensor:
    """A place in range(places) for each number; those of consecutive numbers lie evenly.

    They are multiples of the golden ratio, modulo 1: steps of equal length would meet the same positions of a grid again and again.
    """
    return (numbers_R.double() * ((5**0.5 - 1) / 2) % 1 * places).long().clamp(max=places - 1)


@torch.no_grad()
def distribution_diagnostics(teacher: Projections, centre: Tensor, temperature: float) -> Scalars:
    """How the sharpened targets of all processes are spread over the prototypes.

    Their mean entropy is high where each says little, the entropy of their mean is low where all use the same few prototypes; the
    difference of both is what a target says about its row, the mutual information of row and prototype, and collapse leaves none.
    The centre, [K] or one for each position of views [B, N, K], is subtracted from the logits. Entropies are in nats, and as parts of
    log K in [0, 1]: `entropy` is the mean over rows, `batch_entropy` that of the mean over rows. `centre_norm` is the length of the
    centre (mean over positions).
    """
    rows_RD = torch.cat([view.flatten(0, -2) for view in teacher.views])
    chosen_R = torch.arange(len(rows_RD), device=rows_RD.device)
    if len(rows_RD) > (most := max(1, MOST_VALUES // centre.shape[-1])):
        chosen_R = spread_evenly(chosen_R[:most], len(rows_RD))
    subtracted = centre if centre.ndim == 1 else centre[chosen_R % len(centre)]
    log_probabilities_RK = torch.log_softmax((teacher.logits(rows_RD[chosen_R]) - subtracted) / temperature, dim=-1)
    probabilities_RK = log_probabilities_RK.exp()
    sum_K, entropies, rows = sum_over_processes(
        probabilities_RK.sum(0), -(probabilities_RK * log_probabilities_RK).sum(), centre.new_full((), float(len(chosen_R)))
    )
    entropy, batch_entropy = entropies / rows, torch.special.entr(sum_K / rows).sum()
    largest = torch.log(sum_K.new_full((), float(len(sum_K)))).clamp(min=torch.finfo(sum_K.dtype).tiny)
    return {
        "entropy": entropy,
        "entropy_part": entropy / largest,
        "batch_entropy": batch_entropy,
        "batch_entropy_part": batch_entropy / largest,
        "centre_norm": torch.linalg.vector_norm(centre, dim=-1).mean(),
    }


@torch.no_grad()
def embedding_diagnostics(views: Sequence[Tensor], queue_QK: Tensor | None) -> Scalars:
    """How the teacher's embeddings [B, ..., K] of all views and processes are spread over the directions.

    `deviation` is the standard deviation of the unit-length embeddings, mean over dimensions, times sqrt(K): 1 where directions are
    spread evenly, 0 where all are the same (without the factor in SimSiam, Chen and He, CVPR 2021). `similarity` is the mean cosine
    between embeddings of different images, 0 if there is one image; `queue_similarity` that with the queue of past unit vectors.
    """
    units_BRK = torch.cat([F.normalize(view.float(), dim=-1)[:, None].flatten(1, -2) for view in views], dim=1)
    images, rows, width = units_BRK.shape
    image_sums_BK = units_BRK.sum(1)
    squares_K, own = units_BRK.square().sum((0, 1)), image_sums_BK.square().sum()
    sums = sum_over_processes(image_sums_BK.sum(0), squares_K, own, units_BRK.new_full((), float(images)))
    sum_K, squares_K, own, count = sums
    mean_K = sum_K / (count * rows)
    deviation_K = (squares_K / (count * rows) - mean_K.square()).clamp(min=0).sqrt()
    found = {
        "deviation": deviation_K.mean() * width**0.5,
        # All pairs of rows without those of one image.
        "similarity": (sum_K.square().sum() - own) / (rows**2 * count * (count - 1).clamp(min=1)),
    }
    if queue_QK is not None:
        found["queue_similarity"] = mean_K @ queue_QK.mean(0)
    return found


def prefixed(prefix: str, values: Scalars) -> Scalars:
    """`entropy` -> `cls_entropy`."""
    return {f"{prefix}_{name}": value for name, value in values.items()}
