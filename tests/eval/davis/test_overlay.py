import numpy as np

from eval.davis.overlay import overlay


def test_colours_contours_and_background() -> None:
    frame = np.full((9, 9, 3), 100, np.uint8)
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 1
    picture = overlay(frame, mask)
    assert picture[4, 4].tolist() == [114, 50, 50]  # half frame, half the palette's (128, 0, 0)
    assert picture[2, 4].tolist() == [128, 0, 0]
    assert (picture[mask == 0] == 100).all()
