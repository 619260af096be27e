"""PW-Self's loss against the authors' double loop, and crops of each image's own."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.config import PretrainConfig, ViewsConfig
from pretrain.data.views import CropBox
from pretrain.heads import Projections
from pretrain.methods import DINOConfig, MatchingConfig
from pretrain.objectives.base import Outputs
from pretrain.objectives.patch_matching import PatchMatching, matching_patches
from tests.pretrain.conftest import stack_boxes

DINO = DINOConfig(out_dim=5)
GLOBAL, LOCAL = (3, 3), (2, 2)
WHOLE = CropBox(0, 0, 96, 96, False)
MIRRORED = CropBox(0, 32, 64, 64, True)
CORNER = CropBox(64, 64, 32, 32, False)
ELSEWHERE = CropBox(200, 200, 30, 30, False)


def outputs(images: int) -> tuple[Outputs, Outputs]:
    """Two global views of 3 x 3 and one local view of 2 x 2 patches; logits."""

    def drawn(grids: list[tuple[int, int]]) -> Outputs:
        patches = [torch.randn(images, h * w, 5) for h, w in grids]
        return Outputs(Projections([torch.randn(images, 5) for _ in grids]), Projections(patches), grids)

    return drawn([GLOBAL, GLOBAL, LOCAL]), drawn([GLOBAL, GLOBAL])


def objective(matching: MatchingConfig, shared_by: int = 0) -> PatchMatching:
    views = ViewsConfig(global_size=48, local_size=32, shared_by=shared_by)
    made = PatchMatching(PretrainConfig(method="patch_matching", dino=DINO, matching=matching, views=views))
    made.cls_centre.mean_K.normal_()
    made.patch_centre.mean_K.normal_()
    return made


def authors_loss(made: PatchMatching, student: Outputs, teacher: Outputs, matches: dict[tuple[int, int], list]) -> float:
    """All images share their boxes: for each pair the mean over [CLS + matched patches]; tokens are [B, 1+N, K]."""
    centre = torch.cat([made.cls_centre.mean_K[None], made.patch_centre.mean_K])
    tokens_of_teacher, tokens_of_student = (
        [torch.cat([cls[:, None], patches], dim=1) for cls, patches in zip(role.cls.views, role.patches.views, strict=True)]  # type: ignore[union-attr]
        for role in (teacher, student)
    )
    losses = []
    for iq in range(2):
        targets = torch.softmax((tokens_of_teacher[iq] - centre) / 0.04, dim=-1)
        for v, logits in enumerate(tokens_of_student):
            if v == iq:
                continue
            pairs = [(0, 0)] + [(t + 1, s + 1) for t, s in matches[iq, v]]
            of_teacher, of_student = [t for t, _ in pairs], [s for _, s in pairs]
            log_probabilities = torch.log_softmax(logits[:, of_student] / 0.1, dim=-1)
            losses.append(torch.sum(-targets[:, of_teacher] * log_probabilities, dim=-1).mean())
    return float(sum(losses) / len(losses))


@pytest.mark.parametrize("chunk_values", [1, 5 * 7, 2**26])
def test_joint_loss_is_the_authors(monkeypatch: pytest.MonkeyPatch, chunk_values: int) -> None:
    """Also where the logits of patches are made some rows at a time."""
    monkeypatch.setattr("pretrain.objectives.patch_matching._CHUNK_VALUES", chunk_values)
    torch.manual_seed(0)
    made = objective(MatchingConfig())
    student, teacher = outputs(images=4)
    views, grids = [WHOLE, MIRRORED, CORNER], [GLOBAL, GLOBAL, LOCAL]
    pairs = itertools.product(range(2), range(3))
    matches = {(iq, v): matching_patches(views[iq], views[v], GLOBAL, grids[v]).tolist() for iq, v in pairs}
    assert matches[0, 2]
    assert not matches[1, 2]
    expected = authors_loss(made, student, teacher, matches)
    found = made(student, teacher, 0.04, [stack_boxes([box] * 4) for box in views])
    assert found["loss"].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("matching", [MatchingConfig(), MatchingConfig(loss="weighted", cls_weight=0.7)])
def test_each_image_has_the_loss_that_it_has_alone(matching: MatchingConfig) -> None:
    """Also where nothing matches, and only the CLS token counts."""
    roles = outputs(images=3)

    def losses(images: slice, boxes: list[list[CropBox]]) -> dict[str, float]:
        torch.manual_seed(1)
        cut = [
            role._replace(
                cls=Projections([view[images] for view in role.cls.views]),
                patches=Projections([view[images] for view in role.patches.views]),  # type: ignore[union-attr]
            )
            for role in roles
        ]
        found = objective(matching)(*cut, 0.04, [stack_boxes(view[images]) for view in boxes])
        return {name: value.item() for name, value in found.items()}

    boxes = [[WHOLE, WHOLE, MIRRORED], [MIRRORED, ELSEWHERE, WHOLE], [CORNER, CORNER, CORNER]]
    alone = [losses(slice(image, image + 1), boxes)["loss"] for image in range(3)]
    assert losses(slice(0, 3), boxes)["loss"] == pytest.approx(sum(alone) / 3, abs=1e-5)
    apart = losses(slice(0, 3), [[CropBox(100 * view, 0, 50, 50, False)] * 3 for view in range(3)])
    # The authors' code for CIFAR-10 keeps the weight of the CLS term where nothing matches.
    assert apart["loss"] == pytest.approx(apart["cls_loss"] * (0.7 if matching.loss == "weighted" else 1))
    assert apart["patch_loss"] == 0
    if matching.loss == "weighted":
        # All pairs with a global view have 9 matches, those with the local one 4: parts are averaged over pairs.
        same = losses(slice(0, 3), [[WHOLE] * 3] * 3)
        assert same["loss"] == pytest.approx(0.7 * same["cls_loss"] + 0.3 * same["patch_loss"], abs=1e-5)


def test_the_sum_is_over_matches_and_the_images_that_share_their_draws() -> None:
    made = objective(MatchingConfig(loss="sum", cls_weight=0.8), shared_by=2)
    roles = outputs(images=4)
    apart = made(*roles, 0.04, [stack_boxes([CropBox(100 * view, 0, 50, 50, False)] * 4) for view in range(3)])
    assert apart["loss"].item() == pytest.approx(2 * 0.8 * apart["cls_loss"].item())
    # With the global views alone, all pairs have 9 matches.
    student, teacher = roles
    assert student.patches is not None
    student = Outputs(Projections(student.cls.views[:2]), Projections(student.patches.views[:2]), student.grids[:2])
    same = made(student, teacher, 0.04, [stack_boxes([WHOLE] * 4)] * 2)
    assert same["loss"].item() == pytest.approx(2 * (0.8 * same["cls_loss"].item() + 0.2 * 9 * same["patch_loss"].item()))


def test_centres_move_per_position() -> None:
    made = objective(MatchingConfig())
    made.cls_centre.mean_K.zero_()
    made.patch_centre.mean_K.zero_()
    student, teacher = outputs(images=2)
    made(student, teacher, 0.04, [stack_boxes([WHOLE] * 2)] * 3)
    made.move()
    assert teacher.patches is not None
    torch.testing.assert_close(made.patch_centre.mean_K, 0.1 * torch.stack([*teacher.patches.views]).mean((0, 1)))
    torch.testing.assert_close(made.cls_centre.mean_K, 0.1 * torch.stack([*teacher.cls.views]).mean((0, 1)))


boxes = st.builds(CropBox, st.integers(0, 60), st.integers(0, 60), st.integers(5, 90), st.integers(5, 90), st.booleans())
grids = st.tuples(st.integers(1, 14), st.integers(1, 14))


@settings(max_examples=300, deadline=None)
@given(first=boxes, second=boxes, first_grid=grids, second_grid=grids)
def test_matches_are_one_to_one_and_symmetric(
    first: CropBox, second: CropBox, first_grid: tuple[int, int], second_grid: tuple[int, int]
) -> None:
    pairs = matching_patches(first, second, first_grid, second_grid).tolist()
    assert sorted(matching_patches(second, first, second_grid, first_grid).tolist()) == sorted([b, a] for a, b in pairs)
    for side, (h, w) in enumerate((first_grid, second_grid)):
        patches = [pair[side] for pair in pairs]
        assert len(set(patches)) == len(patches)
        assert all(0 <= patch < h * w for patch in patches)
