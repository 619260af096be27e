"""What an objective is: the networks that it trains, and the loss between their outputs.

An objective is put together from an image-level loss and, on top of it, a patch-level one. Each brings its own projection heads
and its running state (centres, queues).

Shapes: V views of one size, B images, N patches, D channels of a token, K prototypes or channels of an embedding.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from torch import Tensor, nn

from backbones.build import AnyBackbone
from backbones.spec import BackboneSpec, SwinSpec, ViTSpec, spec_from_dict
from pretrain.prototype_logits import Logits

NUM_GLOBAL_CROPS = 2
"""The first two crops are global in every method here."""

Role = Literal["student", "teacher"]


@dataclass(frozen=True)
class ViewOutputs:
    """A network's outputs for views of one size."""

    cls_VBK: Logits
    """Image-level logits, or embeddings."""
    patches_VBNK: Logits | None = None
    """Patch-level logits, or embeddings, where the objective has them."""
    grid: tuple[int, int] | None = None
    """(h, w) of the patches, where the objective needs it."""


class ImageLoss(nn.Module, ABC):
    """A loss between image-level outputs."""

    @abstractmethod
    def head(self, in_dim: int, role: Role) -> nn.Module:
        """A projection head with fresh weights: a list of `[V, ..., D]`, one for each size of crop, to a list of `[V, ..., K]`.

        The teacher's parameters are among the student's, by name.
        """

    @abstractmethod
    def forward(self, student_VBK: Logits, teacher_VBK: Logits, temperature: float) -> Tensor:
        """The loss, a scalar in float32.

        Args:
            student_VBK: Outputs of every view, global ones first.
            teacher_VBK: Outputs of the global views at least.
            temperature: Sharpening of the teacher's outputs, for losses that sharpen them.
        """

    @abstractmethod
    def observe(self, teacher_VBK: Logits) -> None:
        """Take note of the teacher's outputs for `move`."""

    @abstractmethod
    def move(self) -> None:
        """See `Objective.move`."""

    @abstractmethod
    def diagnostics(self, teacher_VBK: Logits, temperature: float) -> dict[str, Tensor]:
        """Signs of collapse, see `Objective.diagnostics`."""


class PatchLoss(nn.Module, ABC):
    """A loss between each student patch and the teacher's target of the same patch in the same view."""

    @abstractmethod
    def head(self, in_dim: int, role: Role) -> nn.Module:
        """As `ImageLoss.head`."""

    @abstractmethod
    def forward(self, student: Sequence[Logits], teacher: Sequence[Logits], temperature: float) -> Tensor:
        """The loss, a scalar in float32: the mean over patches and images, then over views.

        A local view weighs as much as a global one, whatever its number of patches.

        Args:
            student: [V, B, N, K] for each size of crop.
            teacher: Likewise, without gradient.
            temperature: Sharpening of the teacher's outputs, for losses that sharpen them.
        """

    @abstractmethod
    def observe(self, teacher: Sequence[Logits]) -> None:
        """Take note of the teacher's outputs for `move`."""

    @abstractmethod
    def move(self) -> None:
        """See `Objective.move`."""

    @abstractmethod
    def diagnostics(self, teacher: Sequence[Logits], temperature: float) -> dict[str, Tensor]:
        """Signs of collapse, see `Objective.diagnostics`."""


class Objective(nn.Module, ABC):
    """A pretraining loss with its running state (centres, queues) as buffers."""

    @abstractmethod
    def backbone_spec(self, architecture: Mapping[str, Any], image_size: int) -> BackboneSpec:
        """The backbone that this objective trains: whether a ViT has a CLS token and a final norm is part of the method.

        Args:
            architecture: See `backbone_spec`.
            image_size: Side of the global crops, which the stored positions cover.
        """

    @abstractmethod
    def build_network(self, spec: BackboneSpec, drop_path_rate: float, role: Role) -> nn.Module:
        """A network `crops -> list[ViewOutputs]`, one entry per crop size; submodules `backbone` and `heads`.

        The teacher's parameters are among the student's, by name.
        """

    @abstractmethod
    def teacher_crops(self, crops: Sequence[Tensor]) -> Sequence[Tensor]:
        """The crops that the teacher sees."""

    @abstractmethod
    def forward(
        self,
        student: Sequence[ViewOutputs],
        teacher: Sequence[ViewOutputs],
        teacher_temperature: float,
        boxes: Sequence[Tensor] = (),
    ) -> dict[str, Tensor]:
        """The losses, `loss` being the one to minimise, the others its parts; takes note of the teacher's outputs for `move`.

        Args:
            student: Outputs for all crops.
            teacher: Outputs for `teacher_crops`, without gradient.
            teacher_temperature: Sharpening of the targets.
            boxes: int64 [B, 5] of each crop, see `pretrain.data.views.CropBox`; for objectives that compare places.
        """

    @abstractmethod
    def move(self) -> None:
        """Move the running state by the teacher's outputs of all calls of `forward` since the last time, all processes together.

        Once per step, whatever the number of micro-batches: all of them have targets of the same centres and the same negatives, as
        they had in one batch.
        """

    @abstractmethod
    def diagnostics(self, teacher: Sequence[ViewOutputs], teacher_temperature: float) -> dict[str, Tensor]:
        """Signs of what the targets say, and of collapse, by the running state as it is; changes nothing.

        All processes must call it together.

        Args:
            teacher: Outputs for `teacher_crops`.
            teacher_temperature: Sharpening of the targets.

        Returns:
            Scalars, the same on all processes: those of `pretrain.objectives.diagnostics` after `cls_` and `patch_`.
        """


def backbone_spec(architecture: Mapping[str, Any], image_size: int, class_token: bool) -> BackboneSpec:
    """The spec of a backbone to train.

    Args:
        architecture: Fields of `ViTSpec`, or `family: swin` and fields of `SwinSpec`.
        image_size: Side of the global crops.
        class_token: Whether a ViT has a CLS token and a final norm; a Swin never has the one and always the other.
    """
    values = {"family": ViTSpec.family, **architecture, "image_size": image_size}
    if values["family"] == ViTSpec.family:
        values |= {"class_token": class_token, "final_norm": class_token}
    return spec_from_dict(values)


def token_width(backbone: AnyBackbone) -> int:
    """D of the tokens after the last block or stage."""
    return backbone.map_channels([backbone.spec.num_blocks - 1])[0]


def attention_heads(spec: BackboneSpec) -> int:
    """Attention heads of the last block.

    Raises:
        ValueError: For a family without attention.
    """
    match spec:
        case ViTSpec():
            return spec.num_heads
        case SwinSpec():
            return spec.num_heads[-1]
    raise ValueError(f"a {spec.family} has no attention heads; use a vit or a swin")


def group_by_size(crops: Sequence[Tensor]) -> list[list[Tensor]]:
    """Group consecutive crops [B, 3, H, W] of one size, so that each size is one forward pass."""
    return [list(group) for _, group in groupby(crops, key=lambda crop: crop.shape[-2:])]


def split_views(flat: Tensor, views: int) -> Tensor:
    """[V*B, ...] -> [V, B, ...]."""
    return flat.unflatten(0, (views, -1))
