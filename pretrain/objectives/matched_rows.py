"""Which rows of the student's and the teacher's outputs PW-Self compares: CLS tokens of all pairs of views, and matching patches.

Rows are counted over views, images and patches in this order, as the outputs of all views lie one after another.

Shapes: P pairs of views, B images, R rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.data.views import CropBox
from pretrain.objectives.correspondence import matching_patches


@dataclass(frozen=True)
class MatchedRows:
    """Pair after pair, image after image."""

    teacher_cls_R: Tensor
    """int64 [P*B]: the teacher's row of each pair and image."""
    student_cls_R: Tensor
    """int64 [P*B]: the student's."""
    teacher_patch_R: Tensor
    """int64: the teacher's row of each match; none where nothing matches."""
    student_patch_R: Tensor
    """int64: the student's."""
    position_R: Tensor
    """int64: place of each match in the teacher's grid."""
    pair_R: Tensor
    """int64: the pair of each match."""
    counts_PB: Tensor
    """int64: matches of each pair and image."""


def match_rows(
    teacher_grids: Sequence[tuple[int, int]], student_grids: Sequence[tuple[int, int]], boxes: Sequence[Tensor]
) -> MatchedRows:
    """Match every teacher view with every other student view.

    Args:
        teacher_grids: (h, w) of each of the teacher's views, which are the first of the student's.
        student_grids: Of each of the student's.
        boxes: int64 [B, 5] of each of the student's views, see `pretrain.data.views.CropBox`.
    """
    images = len(boxes[0])
    crops = [
        [CropBox(top, left, height, width, bool(flip)) for top, left, height, width, flip in view.tolist()] for view in boxes
    ]
    teacher_starts, student_starts = (_first_rows(grids, images) for grids in (teacher_grids, student_grids))
    pairs = [(target, view) for target in range(len(teacher_grids)) for view in range(len(student_grids)) if view != target]
    counts: list[list[int]] = []
    # The first ones are empty, so that there is something to join.
    teacher_rows, student_rows, positions = ([torch.empty(0, dtype=torch.int64)] for _ in range(3))
    for target, view in pairs:
        counts.append([])
        for image in range(images):
            grids = teacher_grids[target], student_grids[view]
            of_teacher, of_student = matching_patches(crops[target][image], crops[view][image], *grids).unbind(1)
            counts[-1].append(len(of_teacher))
            teacher_rows.append(teacher_starts[target] + image * _area(grids[0]) + of_teacher)
            student_rows.append(student_starts[view] + image * _area(grids[1]) + of_student)
            positions.append(of_teacher)
    counts_PB = torch.tensor(counts)
    target_P, view_P = torch.tensor(pairs).unbind(1)
    image_B = torch.arange(images)
    return MatchedRows(
        teacher_cls_R=(target_P[:, None] * images + image_B).flatten(),
        student_cls_R=(view_P[:, None] * images + image_B).flatten(),
        teacher_patch_R=torch.cat(teacher_rows),
        student_patch_R=torch.cat(student_rows),
        position_R=torch.cat(positions),
        pair_R=torch.arange(len(pairs)).repeat_interleave(counts_PB.sum(1)),
        counts_PB=counts_PB,
    )


def _area(grid: tuple[int, int]) -> int:
    return grid[0] * grid[1]


def _first_rows(grids: Sequence[tuple[int, int]], images: int) -> list[int]:
    """The first patch row of each view."""
    starts = [0]
    for grid in grids[:-1]:
        starts.append(starts[-1] + images * _area(grid))
    return starts
