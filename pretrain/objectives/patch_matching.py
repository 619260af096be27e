"""PW-Self: DINO's loss between CLS tokens and between patches that show the same part of the image.

arXiv 2310.18651; alijavidani/Local_Global_Representation_Learning 7eeff8c, augment.py. The teacher sees the two global crops, the
student all crops; one head serves the CLS token and all patches. For each pair (teacher view, other student view) the boxes that the
crops were cut from, and whether they were mirrored, say which patches match. Centres are kept per position of the teacher's grid, as
published.

The main branch and QCRI_ImageNet_same_batch_augmentation (f35bf24) share crop boxes and all other draws over the images of a GPU
(`views.shared_by`), so that all of these have the same matches. In the other branches each image has crops of its own, and its own
number of matches: there is a mean per image, then over images.

Shapes: P pairs of views, B images, N patches, K prototypes, D channels, R matches of all pairs and images together.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from backbones.base import Tokens
from backbones.spec import BackboneSpec
from common.distributed import queued
from pretrain.config import PretrainConfig
from pretrain.data.views import CropBox
from pretrain.heads import ProjectionHead, Projections, Role
from pretrain.objectives.base import Network, Objective, Outputs, Scalars, distribution_diagnostics, prefixed, token_width
from pretrain.objectives.dino import Centre, pair_losses

Grid = tuple[int, int]

_CHUNK_VALUES = 2**26  # Logits of patches that exist at a time, 256 MiB.


class MatchingNetwork(Network):
    """A ViT with CLS token and final norm, and one projection head on all its tokens."""

    def features(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        assert tokens.cls is not None
        return tokens.cls, tokens.patches

    def project(self, cls: Sequence[Tensor], patches: Sequence[Tensor]) -> tuple[Projections, Projections]:
        both = self.heads["cls"]([*cls, *patches])
        return both._replace(views=both.views[: len(cls)]), both._replace(views=both.views[len(cls) :])


class PatchMatching(Objective):
    """The loss over pairs of views, CLS tokens and matched patches together."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.dino, self.matching, self.images_per_sum = config.dino, config.matching, config.views.shared_by
        patches = (config.views.global_size // config.backbone.stride) ** 2
        self.cls_centre = Centre(self.dino.out_dim, self.dino.centre_momentum)
        self.patch_centre = Centre(self.dino.out_dim, self.dino.centre_momentum, positions=patches)

    def build_network(self, spec: BackboneSpec, drop_path_rate: float, role: Role) -> Network:
        network = MatchingNetwork(spec, drop_path_rate)
        network.heads["cls"] = ProjectionHead(token_width(network.backbone), self.dino.out_dim, self.dino)
        return network

    def forward(self, student: Outputs, teacher: Outputs, temperature: float, boxes: Sequence[Tensor] = ()) -> Scalars:
        assert student.patches is not None
        assert teacher.patches is not None
        losses = pair_losses(student.cls, teacher.cls, self.cls_centre.mean_K, temperature, self.dino.student_temperature)
        cls_losses_PB = torch.stack(list(losses.values()))
        matched, counts = [], []
        # Nothing here waits for a GPU, which computes the crops' features while the host looks for matches.
        for pair, (target, view) in enumerate(losses):
            matches_R3 = match_views((boxes[target], boxes[view]), (teacher.grids[target], student.grids[view]))
            counts.append(matches_R3[:, 0].bincount(minlength=cls_losses_PB.shape[1]))
            image_R, teacher_R, student_R = queued(matches_R3, cls_losses_PB.device).unbind(1)
            rows = student.patches.views[view][image_R, student_R], teacher.patches.views[target][image_R, teacher_R]
            matched.append((*rows, teacher_R, pair * cls_losses_PB.shape[1] + image_R))
        *rows_of_both, position_R, cell_R = map(torch.cat, zip(*matched, strict=True))
        patch_losses_R = self._patch_losses(student.patches, teacher.patches, temperature, *rows_of_both, position_R)
        counts_PB = queued(torch.stack(counts), cls_losses_PB.device)
        sums_PB = patch_losses_R.new_zeros(counts_PB.numel()).index_add(0, cell_R, patch_losses_R).view_as(counts_PB)
        cls_weights_PB, patch_weights_PB = self._weights(counts_PB)
        self.cls_centre.observe(teacher.cls)
        self.patch_centre.observe(teacher.patches)
        return {
            "loss": (cls_weights_PB * cls_losses_PB + patch_weights_PB * sums_PB).mean(),
            "cls_loss": cls_losses_PB.mean(),
            "patch_loss": (sums_PB.sum(1) / counts_PB.sum(1).clamp(min=1)).mean(),
        }

    def _patch_losses(self, student: Projections, teacher: Projections, temperature: float, *rows: Tensor) -> Tensor:
        """The cross-entropy [R] in float32 of student rows [R, D] with teacher rows [R, D] of these positions [R].

        Logits exist for some rows at a time and are computed again for the gradient: those of all matches would be most of a step's
        memory.
        """

        def losses(student_rD: Tensor, teacher_rD: Tensor, position_r: Tensor) -> Tensor:
            centred_rK = teacher.logits(teacher_rD) - self.patch_centre.mean_K[position_r]
            log_probabilities_rK = F.log_softmax(student.logits(student_rD) / self.dino.student_temperature, dim=-1)
            return -(F.softmax(centred_rK / temperature, dim=-1) * log_probabilities_rK).sum(-1)

        at_a_time = max(1, _CHUNK_VALUES // self.dino.out_dim)
        chunks = zip(*(values.split(at_a_time) for values in rows), strict=True)
        return torch.cat([checkpoint(losses, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks])

    def _weights(self, counts_PB: Tensor) -> tuple[Tensor, Tensor]:
        """Of the CLS term of each pair and image, and of each of its matches."""
        weight = self.matching.cls_weight
        match self.matching.loss:
            case "joint":
                return 1 / (1 + counts_PB), 1 / (1 + counts_PB)
            case "weighted":
                # Where nothing matches, the CLS term keeps its weight: 0.9 in branch QCRI_Cifar10 (1cb4878, main_dino.py:481-486).
                return torch.full_like(counts_PB, weight, dtype=torch.float32), (1 - weight) / counts_PB.clamp(min=1)
            case "sum":
                # The authors' sum over the images of a GPU, for any number of processes: the mean over all images, times theirs.
                ones_PB = torch.full_like(counts_PB, self.images_per_sum, dtype=torch.float32)
                return weight * ones_PB, (1 - weight) * ones_PB

    def diagnostics(self, teacher: Outputs, temperature: float) -> Scalars:
        """The patches are all of the teacher's, matched or not."""
        assert teacher.patches is not None
        cls = distribution_diagnostics(teacher.cls, self.cls_centre.mean_K, temperature)
        patches = distribution_diagnostics(teacher.patches, self.patch_centre.mean_K, temperature)
        return prefixed("cls", cls) | prefixed("patch", patches)


def match_views(boxes: tuple[Tensor, Tensor], grids: tuple[Grid, Grid]) -> Tensor:
    """Match the patches of two views by their boxes, int64 [B, 5] (`CropBox`): int64 [R, 3] of image and its patch of either view."""
    matches = []
    for image, (first, second) in enumerate(zip(*(view.tolist() for view in boxes), strict=True)):
        patches_M2 = matching_patches(CropBox(*first), CropBox(*second), *grids)
        matches.append(F.pad(patches_M2, (1, 0), value=image))
    return torch.cat(matches)


def matching_patches(first: CropBox, second: CropBox, first_grid: Grid, second_grid: Grid) -> Tensor:
    """One-to-one matches of the patches of two crops of one image: int64 [M, 2], row-major.

    The intersection of the boxes is a block of patches in each crop, rounded to whole patches; where the blocks differ in size, rows
    and columns of the larger one are left out evenly. A block that rounding would move past the grid is cut off there before.
    """
    rows = _match_axis((first.top, first.height), (second.top, second.height), (first_grid[0], second_grid[0]))
    columns = _match_axis((first.left, first.width), (second.left, second.width), (first_grid[1], second_grid[1]))
    blocks = []
    for box, (_, w), row_r, column_c in zip((first, second), (first_grid, second_grid), rows, columns, strict=True):
        column_c = w - 1 - column_c if box.flip else column_c
        blocks.append((row_r[:, None] * w + column_c[None]).reshape(-1))
    return torch.from_numpy(np.stack(blocks, axis=1))


def _match_axis(first: tuple[int, int], second: tuple[int, int], counts: tuple[int, int]) -> list[np.ndarray]:
    """Matching patch indices of two intervals (offset, length) along an axis, before mirroring; equally many of both."""
    start = max(first[0], second[0])
    length = max(0, min(first[0] + first[1], second[0] + second[1]) - start)
    ranges: list[np.ndarray] = []
    for (offset, size), count in zip((first, second), counts, strict=True):
        begin = round(count * (start - offset) / size)
        ranges.append(np.arange(begin, min(begin + round(count * length / size), count)))
    fewer = min(map(len, ranges))
    # The floor of equal steps from the first to the last; of the smaller one this picks every index.
    return [indices[np.linspace(0, len(indices) - 1, fewer).astype(np.int64)] for indices in ranges]
