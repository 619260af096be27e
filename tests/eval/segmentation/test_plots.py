import numpy as np
from mmseg.datasets.ade import ADE20KDataset
from PIL import Image

from eval.drawing import CAPTION_HEIGHT
from eval.segmentation.metric import CLASSES, IGNORED_LABEL
from eval.segmentation.plots import GAP, LONG_SIDE, draw_segmentation

WALL, TREE, DOOR = CLASSES.index("wall"), CLASSES.index("tree"), CLASSES.index("door")
COLOURS = [tuple(colour) for colour in ADE20KDataset.METAINFO["palette"]]


def draw(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    image = np.full((*truth.shape, 3), 77, np.uint8)
    return np.asarray(draw_segmentation(image, truth, prediction, "image.jpg"))


def panel(picture: np.ndarray, number: int, height: int) -> np.ndarray:
    left = number * (LONG_SIDE + GAP)
    return picture[CAPTION_HEIGHT : CAPTION_HEIGHT + height, left : left + LONG_SIDE]


def test_panels_have_the_palettes_exact_colours() -> None:
    truth = np.full((16, 32), WALL, np.uint8)
    truth[:, 16:] = TREE
    truth[:4] = IGNORED_LABEL
    prediction = np.full((16, 32), TREE, np.uint8)
    prediction[12:] = DOOR
    picture = draw(truth, prediction)
    height = LONG_SIDE // 2
    resized, drawn_truth, drawn_prediction = (panel(picture, number, height) for number in range(3))
    assert (resized == 77).all()
    assert {tuple(colour) for colour in drawn_truth.reshape(-1, 3)} == {COLOURS[WALL], COLOURS[TREE], (0, 0, 0)}
    assert tuple(drawn_truth[0, 0]) == (0, 0, 0)
    assert tuple(drawn_truth[64, 255]) == COLOURS[WALL]
    assert tuple(drawn_truth[64, 256]) == COLOURS[TREE]
    assert tuple(drawn_prediction[0, 0]) == tuple(drawn_prediction[191, 511]) == COLOURS[TREE]
    assert tuple(drawn_prediction[192, 0]) == COLOURS[DOOR]


def test_the_legend_shows_every_colour_and_no_other_class() -> None:
    truth = np.full((16, 32), WALL, np.uint8)
    prediction = truth.copy()
    prediction[:, 16:] = DOOR
    legend = draw(truth, prediction)[CAPTION_HEIGHT + LONG_SIDE // 2 :]
    shown = {tuple(colour) for colour in legend.reshape(-1, 3)}
    assert {COLOURS[WALL], COLOURS[DOOR]} <= shown
    assert COLOURS[TREE] not in shown


def test_a_wrong_prediction_looks_different_from_the_right_one() -> None:
    truth = np.full((16, 32), WALL, np.uint8)
    truth[:, 16:] = TREE
    right, wrong = (panel(draw(truth, prediction), 2, LONG_SIDE // 2) for prediction in (truth, truth[:, ::-1].copy()))
    assert (right == panel(draw(truth, truth), 1, LONG_SIDE // 2)).all()
    assert (right != wrong).any(axis=-1).all()


def test_a_portrait_fits_and_many_classes_make_more_rows() -> None:
    truth = np.arange(150, dtype=np.uint8).reshape(50, 3).repeat(2, axis=1)
    picture = Image.fromarray(draw(truth, truth))
    assert picture.width == 3 * round(6 * LONG_SIDE / 50) + 2 * GAP
    assert picture.height > CAPTION_HEIGHT + LONG_SIDE + 150 * 18
