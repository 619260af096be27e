"""PW-Self: DINO's loss between CLS tokens and between patches that show the same part of the photograph.

arXiv 2310.18651; alijavidani/Local_Global_Representation_Learning 7eeff8c. The teacher sees the two global crops, the student all
crops; one head serves the CLS token and all patches. For each pair (teacher view, other student view) the crops' boxes say which
patches match (see `correspondence`). Centres are kept per position of the teacher's grid, as published.

The published code shares crop boxes and all other draws over a batch (`views.shared_by`), so that every image of it has the same
matches. With crops of its own, which we allow as well, each image has its own number of matches; our choice: a mean per image, then
over images, which is the published loss where the numbers are equal.

Shapes: V views, B images, N patches, K prototypes, D channels, R matches of all images together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from backbones.build import build_backbone
from backbones.spec import BackboneSpec
from pretrain.data.views import CropBox
from pretrain.objectives.base import (
    NUM_GLOBAL_CROPS,
    Objective,
    Role,
    ViewOutputs,
    backbone_spec,
    group_by_size,
    sharpened_targets,
    split_views,
    token_width,
)
from pretrain.objectives.centre import Centre
from pretrain.objectives.correspondence import matching_patches
from pretrain.objectives.diagnostics import distribution_signs, prefixed
from pretrain.objectives.dino import DINOConfig


@dataclass(kw_only=True)
class MatchingConfig:
    """How CLS and matched patches are weighed."""

    loss: Literal["joint", "weighted"] = "joint"
    """`joint`: the mean over the CLS token and all matched patches (main branch); `weighted`: `cls_weight` times the CLS term plus
    `1 - cls_weight` times the mean over matched patches (other branches)."""
    cls_weight: float = 0.9
    """Weight of the CLS term with `loss: weighted`: 0.9 in the authors' CIFAR branch, 0.8 or 0.7 in others."""

    def __post_init__(self) -> None:
        """Reject a weight out of range or without effect."""
        if not 0 <= self.cls_weight <= 1:
            raise ValueError(f"matching.cls_weight={self.cls_weight} must be in [0, 1]")
        if self.loss == "joint" and self.cls_weight != type(self).cls_weight:
            raise ValueError(f"matching.cls_weight={self.cls_weight} has no effect with matching.loss: joint")


class MatchingNetwork(nn.Module):
    """A ViT with CLS token and final norm, and one projection head on all its tokens."""

    def __init__(self, spec: BackboneSpec, dino: DINOConfig, drop_path_rate: float) -> None:
        """Build with fresh weights."""
        super().__init__()
        self.backbone = build_backbone(spec, drop_path_rate)
        self.heads = nn.ModuleDict({"cls": dino.head(token_width(self.backbone), dino.out_dim)})

    def forward(self, crops: Sequence[Tensor]) -> list[ViewOutputs]:
        """See `Objective.build_network`."""
        outputs = []
        for group in group_by_size(crops):
            cls_BD, patches_BND, grid = self.backbone.forward_tokens(torch.cat(group))
            assert cls_BD is not None
            cls_VBK, patches_VBNK = (self.heads["cls"](split_views(tokens, len(group))) for tokens in (cls_BD, patches_BND))
            outputs.append(ViewOutputs(cls_VBK, patches_VBNK, grid))
        return outputs


@dataclass(frozen=True)
class _View:
    """One view of a batch."""

    cls_BK: Tensor
    patches_BNK: Tensor
    grid: tuple[int, int]
    boxes: list[CropBox]


class MatchingObjective(Objective):
    """The loss over pairs of views, CLS tokens and matched patches together."""

    def __init__(self, dino: DINOConfig, matching: MatchingConfig, patches: int) -> None:
        """Centres start at zero.

        Args:
            dino: Head, temperatures and momentum of the centres.
            matching: How terms are weighed.
            patches: N of a global crop.
        """
        super().__init__()
        self.dino = dino
        self.matching = matching
        self.cls_centre = Centre(dino.out_dim, dino.centre_momentum)
        self.patch_centre = Centre(dino.out_dim, dino.centre_momentum, positions=patches)

    def backbone_spec(self, architecture: Mapping[str, Any], image_size: int) -> BackboneSpec:
        """See `Objective.backbone_spec`."""
        return backbone_spec(architecture, image_size, class_token=True)

    def build_network(self, spec: BackboneSpec, drop_path_rate: float, role: Role) -> nn.Module:
        """See `Objective.build_network`; student and teacher are alike."""
        del role
        return MatchingNetwork(spec, self.dino, drop_path_rate)

    def teacher_crops(self, crops: Sequence[Tensor]) -> Sequence[Tensor]:
        """The global crops."""
        return crops[:NUM_GLOBAL_CROPS]

    def forward(
        self,
        student: Sequence[ViewOutputs],
        teacher: Sequence[ViewOutputs],
        teacher_temperature: float,
        boxes: Sequence[Tensor] = (),
    ) -> dict[str, Tensor]:
        """See `Objective.forward`; the boxes of all views are needed here."""
        student_views, teacher_views = _views(student, boxes), _views(teacher, boxes)
        pairs = [
            self._pair(student_view, teacher_view, teacher_temperature)
            for index, teacher_view in enumerate(teacher_views)
            for other, student_view in enumerate(student_views)
            if other != index
        ]
        loss, cls_loss, patch_loss = (torch.stack(terms).mean() for terms in zip(*pairs, strict=True))
        self.cls_centre.update([group.cls_VBK for group in teacher])
        self.patch_centre.update([group.patches_VBNK for group in teacher if group.patches_VBNK is not None])
        return {"loss": loss, "cls_loss": cls_loss, "patch_loss": patch_loss}

    def diagnostics(self, teacher: Sequence[ViewOutputs], teacher_temperature: float) -> dict[str, Tensor]:
        """See `Objective.diagnostics`; the patches are all of the teacher's, matched or not."""
        cls = [group.cls_VBK for group in teacher]
        patches = [group.patches_VBNK for group in teacher if group.patches_VBNK is not None]
        return prefixed("cls", distribution_signs(cls, self.cls_centre.mean_K, teacher_temperature)) | prefixed(
            "patch", distribution_signs(patches, self.patch_centre.mean_K, teacher_temperature)
        )

    def _pair(self, student: _View, teacher: _View, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, mean CLS term and mean patch term (0 without a match) of one pair of views."""
        images = len(teacher.boxes)
        matches = [
            matching_patches(teacher.boxes[image], student.boxes[image], teacher.grid, student.grid) for image in range(images)
        ]
        counts = [len(match) for match in matches]
        device = teacher.cls_BK.device
        image_R = torch.arange(images).repeat_interleave(torch.tensor(counts)).to(device)
        teacher_R, student_R = torch.cat(matches).to(device).unbind(1)
        cls_B = self._cross_entropy(student.cls_BK, teacher.cls_BK, self.cls_centre.mean_K, temperature)
        patch_R = self._cross_entropy(
            student.patches_BNK[image_R, student_R],
            teacher.patches_BNK[image_R, teacher_R],
            self.patch_centre.mean_K[teacher_R],
            temperature,
        )
        counts_B = torch.tensor(counts, device=device)
        patch_sums_B = torch.zeros_like(cls_B).index_add(0, image_R, patch_R)
        patch_mean = patch_sums_B.sum() / counts_B.sum().clamp(min=1)
        return self._weigh(cls_B, patch_sums_B, counts_B).mean(), cls_B.mean().detach(), patch_mean.detach()

    def _weigh(self, cls_B: Tensor, patch_sums_B: Tensor, counts_B: Tensor) -> Tensor:
        """Each image's loss; that of its CLS token where nothing matches."""
        if self.matching.loss == "joint":
            return (cls_B + patch_sums_B) / (1 + counts_B)
        weight = self.matching.cls_weight
        return torch.where(counts_B > 0, weight * cls_B + (1 - weight) * patch_sums_B / counts_B.clamp(min=1), cls_B)

    def _cross_entropy(self, student: Tensor, teacher: Tensor, centre: Tensor, temperature: float) -> Tensor:
        """[..., K] logits -> [...]."""
        targets = sharpened_targets(teacher, centre, temperature)
        return -(targets * torch.log_softmax(student.float() / self.dino.student_temperature, dim=-1)).sum(-1)


def _views(outputs: Sequence[ViewOutputs], boxes: Sequence[Tensor]) -> list[_View]:
    """The views of all sizes in order, each with its boxes."""
    views: list[_View] = []
    for group in outputs:
        assert group.patches_VBNK is not None
        assert group.grid is not None
        for cls_BK, patches_BNK in zip(group.cls_VBK, group.patches_VBNK, strict=True):
            rows = boxes[len(views)].tolist()
            views.append(
                _View(
                    cls_BK,
                    patches_BNK,
                    group.grid,
                    [CropBox(top, left, height, width, bool(flip)) for top, left, height, width, flip in rows],
                )
            )
    return views
