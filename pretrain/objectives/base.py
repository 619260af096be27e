"""What an objective is: the networks that it trains, and the loss between their outputs.

Shapes: V views of one size, B images, N patches, K prototypes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

from backbones.spec import BackboneSpec

NUM_GLOBAL_CROPS = 2
"""The first two crops are global in every method here."""

Role = Literal["student", "teacher"]


@dataclass(frozen=True)
class ViewLogits:
    """A network's outputs for views of one size."""

    cls_VBK: Tensor
    """Image-level logits."""
    patches_VBNK: Tensor | None = None
    """Patch-level logits, where the objective has them."""


class Objective(nn.Module, ABC):
    """A pretraining loss with its running state (centres, queues) as buffers."""

    @abstractmethod
    def backbone_spec(self, architecture: Mapping[str, int], image_size: int) -> BackboneSpec:
        """The backbone that this objective trains: whether it has a CLS token and a final norm is part of the method.

        Args:
            architecture: embed_dim, depth, num_heads, patch_size.
            image_size: Side of the global crops, which the stored positions cover.
        """

    @abstractmethod
    def build_network(self, spec: BackboneSpec, drop_path_rate: float, role: Role) -> nn.Module:
        """A network `crops -> list[ViewLogits]`, one entry per crop size; submodules `backbone` and `heads`."""

    @abstractmethod
    def teacher_crops(self, crops: Sequence[Tensor]) -> Sequence[Tensor]:
        """The crops that the teacher sees."""

    @abstractmethod
    def forward(
        self, student: Sequence[ViewLogits], teacher: Sequence[ViewLogits], teacher_temperature: float
    ) -> dict[str, Tensor]:
        """The losses, `loss` being the one to minimise, the others its parts; updates the running state afterwards.

        Args:
            student: Logits of all crops.
            teacher: Logits of `teacher_crops`, without gradient.
            teacher_temperature: Sharpening of the targets.
        """


def group_by_size(crops: Sequence[Tensor]) -> list[list[Tensor]]:
    """Group consecutive crops [B, 3, H, W] of one size, so that each size is one forward pass."""
    return [list(group) for _, group in groupby(crops, key=lambda crop: crop.shape[-2:])]


def split_views(flat: Tensor, views: int) -> Tensor:
    """[V*B, ...] -> [V, B, ...]."""
    return flat.unflatten(0, (views, -1))


def sharpened_targets(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """Teacher probabilities in float32: centred, sharpened, without gradient."""
    return torch.softmax((logits.detach().float() - centre) / temperature, dim=-1)
