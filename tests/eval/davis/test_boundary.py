import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eval.davis.boundary import boundary_f, boundary_pixels, boundary_tolerance
from tests.references import davis_scores as reference

MASKS = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12).flatmap(lambda shape: hnp.arrays(bool, shape))


@settings(max_examples=100, deadline=None)
@given(mask=MASKS)
def test_boundary_pixels_are_the_official_ones(mask: np.ndarray) -> None:
    assert (boundary_pixels(mask) == reference.boundary(mask)).all()


@settings(max_examples=100, deadline=None)
@given(mask=MASKS, tolerance=st.integers(1, 4))
def test_a_contour_agrees_with_itself(mask: np.ndarray, tolerance: int) -> None:
    assert boundary_f(mask, mask, tolerance) == 1


@settings(max_examples=100, deadline=None)
@given(
    masks=hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12).flatmap(
        lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
    ),
    tolerance=st.integers(1, 4),
)
def test_precision_and_recall_change_places(masks: tuple[np.ndarray, np.ndarray], tolerance: int) -> None:
    assert boundary_f(masks[0], masks[1], tolerance) == pytest.approx(boundary_f(masks[1], masks[0], tolerance), abs=1e-12)


def test_the_tolerance_is_a_disk() -> None:
    point, shifted = np.zeros((2, 40, 40), bool)
    point[20, 20] = True
    for (dy, dx), expected in {(0, 5): 1, (3, 4): 1, (5, 1): 0}.items():
        shifted[:] = False
        shifted[20 + dy, 20 + dx] = True
        # The contour of a pixel is that pixel and its left, upper and upper left neighbours.
        assert (boundary_f(point, shifted, 5) == 1) == bool(expected)


def test_the_tolerance_of_davis() -> None:
    assert boundary_tolerance(480, 854) == 8
    assert boundary_tolerance(1080, 1920) == 18
