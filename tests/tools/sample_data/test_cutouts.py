import numpy as np
import pytest

from tools.sample_data.cutouts import Cutout, cutout_names, make_cutout, paste, rasterise


def _square(side: int) -> Cutout:
    mask = np.ones((side, side), dtype=bool)
    pixels = np.arange(1, side * side + 1, dtype=np.uint8).reshape(side, side, 1).repeat(3, axis=2)
    return Cutout(pixels=pixels, mask=mask, polygon=np.zeros((0, 2)))


def test_rasterise_fills_the_pixels_inside() -> None:
    mask = rasterise(np.array([[1.0, 2.0], [4.0, 2.0], [4.0, 5.0], [1.0, 5.0]]), 7, 6)
    wanted = np.zeros((7, 6), dtype=bool)
    wanted[2:5, 1:4] = True
    np.testing.assert_array_equal(mask, wanted)


@pytest.mark.parametrize("name", cutout_names())
@pytest.mark.parametrize("mirrored", [False, True])
def test_cutout_has_the_wanted_size_and_fills_its_box(name: str, mirrored: bool) -> None:
    cutout = make_cutout(name, 60, mirrored)
    assert max(cutout.mask.shape) == 60
    assert cutout.pixels.shape == (*cutout.mask.shape, 3)
    rows, columns = np.nonzero(cutout.mask)
    assert rows.min() <= 1
    assert columns.min() <= 1
    assert rows.max() >= cutout.mask.shape[0] - 3
    assert columns.max() >= cutout.mask.shape[1] - 3
    assert 0.3 < cutout.mask.mean() < 0.95


def test_mirrored_cutout_shows_the_mirrored_pixels() -> None:
    plain, mirrored = make_cutout("cat", 50), make_cutout("cat", 50, mirrored=True)
    np.testing.assert_array_equal(plain.pixels[:, ::-1], mirrored.pixels)
    # COCO's rasteriser rounds to one side, so the border may differ by a pixel.
    assert (plain.mask[:, ::-1] != mirrored.mask).mean() < 0.03


@pytest.mark.parametrize(("left", "top"), [(2, 1), (-1, -2), (5, 4), (9, 1), (-4, 0), (0, 30)])
def test_paste_covers_exactly_the_mask_and_drops_what_lies_beyond(left: int, top: int) -> None:
    cutout = _square(3)
    canvas = np.zeros((6, 8, 3), dtype=np.uint8)
    mask = paste(canvas, cutout, left, top)
    for row in range(6):
        for column in range(8):
            covered = left <= column < left + 3 and top <= row < top + 3
            wanted = cutout.pixels[row - top, column - left, 0] if covered else 0
            assert mask[row, column] == covered
            assert canvas[row, column, 0] == wanted
