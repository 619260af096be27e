import numpy as np

from eval.drawing import overlay, side_by_side


def test_panels_stand_beside_each_other_under_their_titles() -> None:
    panels = [np.full((40, 80, 3), value, np.uint8) for value in (50, 200)]
    picture = np.asarray(side_by_side(panels, ["left", "right"], 80))
    assert picture.shape == (56, 160, 3)
    assert (picture[16:, :80] == 50).all()
    assert (picture[16:, 80:] == 200).all()
    assert (picture[:16] < 128).any()


def test_a_label_has_its_colour_inside_and_on_its_contour() -> None:
    picture = np.full((9, 9, 3), 100, np.uint8)
    labels = np.zeros((9, 9), np.int64)
    labels[2:7, 2:7] = 1
    drawn = overlay(picture, labels, np.array([[9, 9, 9], [200, 0, 50]], np.uint8))
    assert drawn[4, 4].tolist() == [150, 50, 75]
    assert drawn[2, 4].tolist() == [200, 0, 50]
    assert (drawn[labels == 0] == 100).all()
