"""PW-Self: DINO's loss between CLS tokens and between patches that show the same part of the image.

arXiv 2310.18651; alijavidani/Local_Global_Representation_Learning 7eeff8c, augment.py. The teacher sees the two global crops, the
student all crops; one head serves the CLS token and all patches. For each pair (teacher view, other student view) the boxes that the
crops were cut from, and whether they were mirrored, say which patches match. Centres are kept per position of the teacher's grid, as
published.

The published code shares crop boxes and all other draws over a batch (`views.shared_by`), so that every image of it has the same
matches. With crops of its own, which we allow as well, each image has its own number of matches; our choice: a mean per image, then
over images, which is the published loss where the numbers are equal.

Shapes: P pairs of views, B images, N patches, K prototypes, D channels, R matches of all pairs and images together.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from backbones.build import build_backbone
from backbones.spec import BackboneSpec
from pretrain.config import DINOConfig, PretrainConfig
from pretrain.data.views import CropBox
from pretrain.heads import ProjectionHead, Projections, Role
from pretrain.objectives.base import Objective, Outputs, distribution_diagnostics, prefixed, token_width, tokens_by_size
from pretrain.objectives.dino import Centre, pair_losses

Grid = tuple[int, int]

_CHUNK_VALUES = 2**26
"""Logits of patches that exist at a time, 256 MiB."""


class MatchingNetwork(nn.Module):
    """A ViT with CLS token and final norm, and one projection head on all its tokens."""

    def __init__(self, spec: BackboneSpec, dino: DINOConfig, drop_path_rate: float) -> None:
        super().__init__()
        self.backbone = build_backbone(spec, drop_path_rate)
        self.heads = nn.ModuleDict({"cls": ProjectionHead(token_width(self.backbone), dino.out_dim, dino)})

    def forward(self, crops: Sequence[Tensor]) -> Outputs:
        cls: list[Tensor] = []
        patches: list[Tensor] = []
        grids: list[Grid] = []
        for views, tokens in tokens_by_size(self.backbone, crops):
            assert tokens.cls is not None
            cls += tokens.cls.chunk(views)
            patches += tokens.patches.chunk(views)
            grids += [tokens.grid] * views
        both = self.heads["cls"]([*cls, *patches])
        return Outputs(both._replace(views=both.views[: len(cls)]), both._replace(views=both.views[len(cls) :]), grids)


class PatchMatching(Objective):
    """The loss over pairs of views, CLS tokens and matched patches together."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.dino = dino = config.dino
        self.matching = config.matching
        patches = (config.views.global_size // config.backbone.stride) ** 2
        self.cls_centre = Centre(dino.out_dim, dino.centre_momentum)
        self.patch_centre = Centre(dino.out_dim, dino.centre_momentum, positions=patches)

    def build_network(self, spec: BackboneSpec, drop_path_rate: float, role: Role) -> nn.Module:
        del role
        return MatchingNetwork(spec, self.dino, drop_path_rate)

    def forward(
        self, student: Outputs, teacher: Outputs, temperature: float, boxes: Sequence[Tensor] = ()
    ) -> dict[str, Tensor]:
        assert student.patches is not None
        assert teacher.patches is not None
        temperatures = temperature, self.dino.student_temperature
        losses = pair_losses(student.cls, teacher.cls, self.cls_centre.mean_K, *temperatures)
        cls_losses_PB = torch.stack(list(losses.values()))
        device = cls_losses_PB.device
        found = match_rows(list(losses), teacher.grids, student.grids, boxes)
        teacher_R, student_R, position_R, counts_PB = (numbers.to(device) for numbers in found)
        patch_losses_R = self._patch_losses(
            _chosen(student.patches, student_R), _chosen(teacher.patches, teacher_R), position_R, temperature
        )
        cell_R = torch.arange(counts_PB.numel(), device=device).repeat_interleave(
            counts_PB.flatten(), output_size=len(teacher_R)
        )
        sums_PB = patch_losses_R.new_zeros(counts_PB.numel()).index_add(0, cell_R, patch_losses_R).view_as(counts_PB)
        cls_weights_PB, patch_weights_PB = self._weights(counts_PB)
        self.cls_centre.observe(teacher.cls)
        self.patch_centre.observe(teacher.patches)
        return {
            "loss": (cls_weights_PB * cls_losses_PB + patch_weights_PB * sums_PB).mean(),
            "cls_loss": cls_losses_PB.mean(),
            "patch_loss": (sums_PB.sum(1) / counts_PB.sum(1).clamp(min=1)).mean(),
        }

    def _patch_losses(self, student: Projections, teacher: Projections, position_R: Tensor, temperature: float) -> Tensor:
        """The cross-entropy [R] in float32 of each student row with the teacher's row of its number.

        Logits exist for some rows at a time and are computed again for the gradient: those of all matches with the CLS token's
        number of prototypes would be most of a step's memory.
        """

        def losses(student_rD: Tensor, teacher_rD: Tensor, position_r: Tensor) -> Tensor:
            centred_rK = teacher.logits(teacher_rD) - self.patch_centre.mean_K[position_r]
            log_probabilities_rK = F.log_softmax(student.logits(student_rD) / self.dino.student_temperature, dim=-1)
            return -(F.softmax(centred_rK / temperature, dim=-1) * log_probabilities_rK).sum(-1)

        rows = max(1, _CHUNK_VALUES // self.dino.out_dim)
        chunks = zip(student.views[0].split(rows), teacher.views[0].split(rows), position_R.split(rows), strict=True)
        return torch.cat([checkpoint(losses, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks])

    def _weights(self, counts_PB: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the CLS term of each pair and image, and of each of its matches."""
        if self.matching.loss == "joint":
            return 1 / (1 + counts_PB), 1 / (1 + counts_PB)
        # Where nothing matches, the CLS term is all there is.
        weight = self.matching.cls_weight
        return torch.where(counts_PB > 0, weight, 1.0), (1 - weight) / counts_PB.clamp(min=1)

    def move(self) -> None:
        self.cls_centre.move()
        self.patch_centre.move()

    def diagnostics(self, teacher: Outputs, temperature: float) -> dict[str, Tensor]:
        """The patches are all of the teacher's, matched or not."""
        assert teacher.patches is not None
        return prefixed("cls", distribution_diagnostics(teacher.cls, self.cls_centre.mean_K, temperature)) | prefixed(
            "patch", distribution_diagnostics(teacher.patches, self.patch_centre.mean_K, temperature)
        )


def _chosen(patches: Projections, rows_R: Tensor) -> Projections:
    """Some of the rows of all views, counted over views, images and patches in this order."""
    return patches._replace(views=[torch.cat([view_BND.flatten(0, 1) for view_BND in patches.views])[rows_R]])


class MatchedRows(NamedTuple):
    """Which patches are compared, pair after pair, image after image; rows are counted over views, images and patches."""

    teacher_R: Tensor
    """int64: the teacher's row of each match."""
    student_R: Tensor
    """int64: the student's."""
    position_R: Tensor
    """int64: the place of each match in the teacher's grid."""
    counts_PB: Tensor
    """int64: matches of each pair and image."""


def match_rows(
    pairs: Sequence[tuple[int, int]], teacher_grids: Sequence[Grid], student_grids: Sequence[Grid], boxes: Sequence[Tensor]
) -> MatchedRows:
    """Match the patches of pairs of views.

    Args:
        pairs: The teacher's view and the student's, of each pair.
        teacher_grids: (h, w) of each of the teacher's views, which are the first of the student's.
        student_grids: (h, w) of each of the student's.
        boxes: int64 [B, 5] of each of the student's views, see `CropBox`.
    """
    images = len(boxes[0])
    crops = [
        [CropBox(top, left, height, width, bool(flip)) for top, left, height, width, flip in view.tolist()] for view in boxes
    ]
    teacher_starts, student_starts = (
        np.cumsum([0, *(images * h * w for h, w in grids)]) for grids in (teacher_grids, student_grids)
    )
    # The first ones are empty, so that there is something to join.
    teacher_rows, student_rows, positions = ([torch.empty(0, dtype=torch.int64)] for _ in range(3))
    counts: list[int] = []
    for target, view in pairs:
        grids = teacher_grids[target], student_grids[view]
        teacher_patches, student_patches = (h * w for h, w in grids)
        for image in range(images):
            of_teacher, of_student = matching_patches(crops[target][image], crops[view][image], *grids).unbind(1)
            teacher_rows.append(int(teacher_starts[target]) + image * teacher_patches + of_teacher)
            student_rows.append(int(student_starts[view]) + image * student_patches + of_student)
            positions.append(of_teacher)
            counts.append(len(of_teacher))
    return MatchedRows(
        torch.cat(teacher_rows), torch.cat(student_rows), torch.cat(positions), torch.tensor(counts).view(len(pairs), images)
    )


def matching_patches(first: CropBox, second: CropBox, first_grid: Grid, second_grid: Grid) -> Tensor:
    """One-to-one matches between the patches of two crops of one image, by geometry alone.

    The intersection of the boxes is a block of patches in each crop, rounded to whole patches; where the blocks differ in size, rows
    and columns of the larger one are left out evenly. A block that rounding would move past the grid is cut off there, before the
    sizes are compared.

    Args:
        first: Where a crop was cut out, in pixels of the image.
        second: The other crop.
        first_grid: Patches (h, w) of the first crop.
        second_grid: Patches (h, w) of the second.

    Returns:
        int64 [M, 2] of M matches: 0-based patch of the first crop, of the second; row-major. Empty where the boxes do not meet in a
        whole patch.
    """
    rows = _match_axis((first.top, first.height), (second.top, second.height), (first_grid[0], second_grid[0]))
    columns = _match_axis((first.left, first.width), (second.left, second.width), (first_grid[1], second_grid[1]))
    blocks = []
    for box, (_, w), row_r, column_c in zip((first, second), (first_grid, second_grid), rows, columns, strict=True):
        column_c = w - 1 - column_c if box.flip else column_c
        blocks.append((row_r[:, None] * w + column_c[None]).reshape(-1))
    return torch.from_numpy(np.stack(blocks, axis=1))


def _match_axis(first: tuple[int, int], second: tuple[int, int], counts: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Matching patch indices of two intervals (offset, length) along an axis, before mirroring; equally many of both."""
    start = max(first[0], second[0])
    length = min(first[0] + first[1], second[0] + second[1]) - start
    if length <= 0:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    ranges: list[np.ndarray] = []
    for (offset, size), count in zip((first, second), counts, strict=True):
        begin = round(count * (start - offset) / size)
        ranges.append(np.arange(begin, min(begin + round(count * length / size), count)))
    fewer = min(map(len, ranges))
    # Of the smaller one this picks every index.
    of_first, of_second = (indices[_evenly(len(indices), fewer)] for indices in ranges)
    return of_first, of_second


def _evenly(count: int, chosen: int) -> np.ndarray:
    """`chosen` of `count` indices: the floor of equal steps from the first to the last."""
    if not chosen:
        return np.empty(0, dtype=np.int64)
    return np.floor(np.linspace(0, count - 1, chosen)).astype(np.int64)
