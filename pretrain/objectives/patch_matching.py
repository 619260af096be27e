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
from typing import Any

import torch
from torch import Tensor, nn

from backbones.build import build_backbone
from backbones.spec import BackboneSpec
from pretrain.config import DINOConfig, MatchingConfig
from pretrain.heads import projection_head
from pretrain.objectives.base import (
    NUM_GLOBAL_CROPS,
    Objective,
    Role,
    ViewOutputs,
    backbone_spec,
    group_by_size,
    split_views,
    token_width,
)
from pretrain.objectives.centre import Centre
from pretrain.objectives.cross_entropy import SharpenedTargets, weighted_cross_entropy
from pretrain.objectives.diagnostics import distribution_signs, prefixed
from pretrain.objectives.matched_rows import match_rows
from pretrain.prototype_logits import Logits, concatenate, flat_rows


class MatchingNetwork(nn.Module):
    """A ViT with CLS token and final norm, and one projection head on all its tokens."""

    def __init__(self, spec: BackboneSpec, dino: DINOConfig, drop_path_rate: float) -> None:
        """Build with fresh weights."""
        super().__init__()
        self.backbone = build_backbone(spec, drop_path_rate)
        self.heads = nn.ModuleDict({"cls": projection_head(token_width(self.backbone), dino.out_dim, dino)})

    def forward(self, crops: Sequence[Tensor]) -> list[ViewOutputs]:
        """See `Objective.build_network`."""
        cls, patches, grids = [], [], []
        for group in group_by_size(crops):
            cls_BD, patches_BND, grid = self.backbone.forward_tokens(torch.cat(group))
            assert cls_BD is not None
            cls.append(split_views(cls_BD, len(group)))
            patches.append(split_views(patches_BND, len(group)))
            grids.append(grid)
        logits = self.heads["cls"]([*cls, *patches])
        return list(map(ViewOutputs, logits[: len(cls)], logits[len(cls) :], grids))


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
        rows = match_rows(_grids(teacher), _grids(student), boxes)
        cls_weights_PB, patch_weights_PB = self._weights(rows.counts_PB)
        student_cls, teacher_cls = (concatenate([flat_rows(group.cls_VBK) for group in role]) for role in (student, teacher))
        student_patches, teacher_patches = (
            concatenate([flat_rows(group_VBNK) for group_VBNK in _patches(role)]) for role in (student, teacher)
        )
        device = self.cls_centre.mean_K.device
        temperature = self.dino.student_temperature
        cls_total, cls_losses_R = weighted_cross_entropy(
            student_cls[rows.student_cls_R.to(device)],
            SharpenedTargets(teacher_cls[rows.teacher_cls_R.to(device)], self.cls_centre.mean_K, teacher_temperature),
            cls_weights_PB.flatten().to(device),
            temperature,
        )
        patch_total, patch_losses_R = weighted_cross_entropy(
            student_patches[rows.student_patch_R.to(device)],
            SharpenedTargets(
                teacher_patches[rows.teacher_patch_R.to(device)],
                self.patch_centre.mean_K,
                teacher_temperature,
                rows.position_R.to(device),
            ),
            patch_weights_PB.flatten().repeat_interleave(rows.counts_PB.flatten()).to(device),
            temperature,
        )
        self.cls_centre.observe([group.cls_VBK for group in teacher])
        self.patch_centre.observe(_patches(teacher))
        counts_P = rows.counts_PB.sum(1).clamp(min=1).to(device)
        sums_P = patch_losses_R.new_zeros(len(counts_P)).index_add(0, rows.pair_R.to(device), patch_losses_R)
        return {
            "loss": cls_total + patch_total,
            "cls_loss": cls_losses_R.mean(),
            "patch_loss": (sums_P / counts_P).mean(),
        }

    def move(self) -> None:
        """See `Objective.move`."""
        self.cls_centre.move()
        self.patch_centre.move()

    def diagnostics(self, teacher: Sequence[ViewOutputs], teacher_temperature: float) -> dict[str, Tensor]:
        """See `Objective.diagnostics`; the patches are all of the teacher's, matched or not."""
        cls = [group.cls_VBK for group in teacher]
        patches = [group.patches_VBNK for group in teacher if group.patches_VBNK is not None]
        return prefixed("cls", distribution_signs(cls, self.cls_centre.mean_K, teacher_temperature)) | prefixed(
            "patch", distribution_signs(patches, self.patch_centre.mean_K, teacher_temperature)
        )

    def _weights(self, counts_PB: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the CLS term of each pair and image, and of each of its matches, for the mean over pairs and images."""
        if self.matching.loss == "joint":
            cls_PB = patch_PB = 1 / (1 + counts_PB)
        else:
            # Where nothing matches, the CLS term is all there is.
            weight = self.matching.cls_weight
            cls_PB = torch.where(counts_PB > 0, weight, 1.0)
            patch_PB = (1 - weight) / counts_PB.clamp(min=1)
        return cls_PB / counts_PB.numel(), patch_PB / counts_PB.numel()


def _patches(outputs: Sequence[ViewOutputs]) -> list[Logits]:
    """[V, B, N, K] for each size of crop."""
    patches = [group.patches_VBNK for group in outputs if group.patches_VBNK is not None]
    assert len(patches) == len(outputs)
    return patches


def _grids(outputs: Sequence[ViewOutputs]) -> list[tuple[int, int]]:
    """(h, w) of every view."""
    grids = [group.grid for group in outputs for _ in range(len(group.cls_VBK)) if group.grid is not None]
    assert len(grids) == sum(len(group.cls_VBK) for group in outputs)
    return grids
