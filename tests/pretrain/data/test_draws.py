"""Every parameter has the published pipeline's distribution."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import ColorJitter, RandomResizedCrop

from pretrain.config import ViewsConfig
from pretrain.data.draws import ColourDraws, ViewDraws, draw_boxes, draw_views
from pretrain.data.views import view_kinds

IMAGES = 4000
UNLIKELY = 1e-4
"""A test with a fixed seed that falls below has found a wrong distribution."""
KINDS = view_kinds(ViewsConfig())


def boxes(width: int, height: int, scale: tuple[float, float], count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    return draw_boxes(width, height, np.array([scale] * count), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def draws() -> list[ViewDraws]:
    rng = np.random.default_rng(0)
    return [draw_views(KINDS, 400, 300, rng) for _ in range(IMAGES)]


def colours(draws: list[ViewDraws]) -> ColourDraws:
    """Of all images and views: [images, views, ...]."""
    return ColourDraws(*(np.stack(fields) for fields in zip(*(draw.colours for draw in draws), strict=True)))


def assert_rate(hits: npt.NDArray[np.bool_], probability: float) -> None:
    if probability in (0.0, 1.0):
        assert (hits == bool(probability)).all()
    else:
        assert stats.binomtest(int(hits.sum()), hits.size, probability).pvalue > UNLIKELY


def assert_uniform(values: npt.NDArray[np.float64], low: float, high: float) -> None:
    assert stats.kstest(values.ravel(), stats.uniform(low, high - low).cdf).pvalue > UNLIKELY


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 600),
    height=st.integers(1, 600),
    smallest=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**32),
)
def test_boxes_lie_inside_the_image(width: int, height: int, smallest: float, seed: int) -> None:
    top, left, crop_height, crop_width = boxes(width, height, (smallest, 1.0), 3, seed).T
    assert (crop_height >= 1).all()
    assert (crop_width >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top <= height - crop_height).all()
    assert (left <= width - crop_width).all()


@pytest.mark.parametrize("scale", [(0.25, 1.0), (0.05, 0.25)])
@pytest.mark.parametrize(("width", "height"), [(400, 300), (150, 500)])
def test_boxes_are_distributed_as_torchvisions(scale: tuple[float, float], width: int, height: int) -> None:
    """Each of top, left, height and width, the area and the aspect ratio; the narrow image needs several attempts."""
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(IMAGES)])
    ours = boxes(width, height, scale, IMAGES)
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > UNLIKELY
    for derived in (lambda box: box[:, 2] * box[:, 3], lambda box: box[:, 3] / box[:, 2]):
        assert stats.ks_2samp(derived(ours), derived(theirs)).pvalue > UNLIKELY


def test_where_nothing_fits_the_largest_central_box() -> None:
    """As torchvision falls back: 600 x 100 allows at most 4:3."""
    image = torch.empty(3, 100, 600)
    theirs = RandomResizedCrop.get_params(image, [1.0, 1.0], [3 / 4, 4 / 3])
    assert boxes(600, 100, (1.0, 1.0), 2).tolist() == [list(theirs)] * 2
    assert boxes(100, 600, (1.0, 1.0), 1).tolist() == [[(600 - 133) // 2, 0, 133, 100]]


def test_operations_occur_as_often_as_published(draws: list[ViewDraws]) -> None:
    drawn = colours(draws)
    assert_rate(np.stack([draw.flip_V for draw in draws]), 0.5)
    assert_rate(drawn.jitter_V, 0.8)
    assert_rate(drawn.grey_V, 0.2)
    for view, blur in enumerate([1.0, 0.1, *[0.5] * 8]):
        assert_rate(drawn.radius_V[:, view] > 0, blur)
    for view, solarisation in enumerate([0.0, 0.2, *[0.0] * 8]):
        assert_rate(drawn.solarise_V[:, view], solarisation)


def test_parameters_are_uniform_in_the_published_ranges(draws: list[ViewDraws]) -> None:
    """The ranges are those that torchvision's ColorJitter makes of (0.4, 0.4, 0.2, 0.1)."""
    drawn, published = colours(draws), ColorJitter(0.4, 0.4, 0.2, 0.1)
    ranges = (published.brightness, published.contrast, published.saturation, published.hue)
    for column, (low, high) in enumerate(ranges):
        assert_uniform(drawn.factors_V4[..., column], low, high)
    assert_uniform(drawn.radius_V[drawn.radius_V > 0], 0.1, 2.0)


def test_orders_of_jitter_are_equally_likely(draws: list[ViewDraws]) -> None:
    orders = colours(draws).order_V4.reshape(-1, 4)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > UNLIKELY


def test_parameters_do_not_depend_on_each_other(draws: list[ViewDraws]) -> None:
    drawn = colours(draws)
    columns = np.column_stack(
        [
            np.stack([draw.boxes_V4[0] for draw in draws]),
            np.stack([draw.flip_V[:2] for draw in draws]),
            drawn.jitter_V[:, :2],
            drawn.factors_V4[:, 0],
            drawn.grey_V[:, :2],
            drawn.radius_V[:, 0],
            drawn.solarise_V[:, 1],
        ]
    )
    correlations = np.corrcoef(columns.T)
    # Boxes' own numbers do depend on each other: a large box begins near the corner.
    correlations[:4, :4] = 0
    assert np.abs(np.triu(correlations, 1)).max() < 4.5 / np.sqrt(IMAGES)


def test_the_image_does_not_change_how_much_is_drawn() -> None:
    """So that images that share a generator's seed share their colours, too."""
    after = []
    for width, height in ((400, 300), (20, 900)):
        rng = np.random.default_rng(5)
        after.append((draw_views(KINDS, width, height, rng).colours, rng.random()))
    assert after[0][1] == after[1][1]
    assert all(np.array_equal(a, b) for a, b in zip(after[0][0], after[1][0], strict=True))
