"""What results hold of their items gives back the results' own figures, and those of any set of items."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tables.collect import Measurement, collect
from tables.items import read_items, segmentation_figures

Write = Callable[..., Path]


def _measurement(runs: Path) -> Measurement:
    (one,) = collect(runs)
    return one.measurements[0]


def _object(j: float, f: float) -> dict[str, float]:
    return {"J&F-Mean": (j + f) / 2, "J-Mean": j, "F-Mean": f}


def test_a_sequence_is_drawn_with_all_its_objects(runs: Path, write: Write) -> None:
    breakdown = {"two_dogs_1": _object(10, 20), "two_dogs_2": _object(30, 50), "cat_1": _object(70, 90)}
    write("one", "davis", breakdown=breakdown)
    items = read_items(_measurement(runs))
    assert items is not None
    assert items.names == ("cat", "two_dogs")
    figures = items.figures(np.array([[1.0, 1.0], [0.0, 2.0], [3.0, 0.0], [1.0, 2.0]]))
    assert figures["J-Mean"] == pytest.approx(np.array([110 / 3, 20, 70, 150 / 5]))
    assert figures["F-Mean"] == pytest.approx(np.array([160 / 3, 35, 90, 230 / 5]))
    assert figures["J&F-Mean"] == pytest.approx((figures["J-Mean"] + figures["F-Mean"]) / 2)


def _write_images(path: Path, names: Sequence[str], counts: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, names=np.array(names), counts=counts)


def test_mean_iou_is_computed_again_from_the_pixels_of_each_set(runs: Path, write: Write) -> None:
    counts_N3K = np.array([[[4, 1, 0], [5, 3, 0], [6, 2, 0]], [[0, 2, 0], [0, 4, 1], [0, 5, 0]]], dtype=np.int32)
    write("one", "segmentation", artefacts={"image_pixels": "image_pixels.npz"})
    _write_images(runs / "one/segmentation/image_pixels.npz", ["a", "b"], counts_N3K)
    items = read_items(_measurement(runs))
    assert items is not None
    figures = items.figures(np.array([[2.0, 0.0], [1.0, 1.0]]))
    # The third class is in neither image of the first set; in the second one it is predicted but labelled nowhere: IoU 0.
    assert figures["mIoU"] == pytest.approx(np.array([100 * (4 / 7 + 1 / 4) / 2, 100 * (4 / 7 + 3 / 11 + 0) / 3]))
    assert figures["aAcc"] == pytest.approx(np.array([100 * 5 / 8, 100 * 7 / 13]))
    assert figures["mAcc"] == pytest.approx(np.array([100 * (4 / 6 + 1 / 2) / 2, 100 * (4 / 6 + 3 / 7) / 2]))


def test_a_set_without_labels_has_no_value() -> None:
    figures = segmentation_figures(np.zeros((1, 3, 2)), np.ones((1, 1)))
    assert all(np.isnan(values_R).all() for values_R in figures.values())


def test_ranks_become_top_1_and_top_5(runs: Path, write: Write) -> None:
    path = write("one", "classification", artefacts={"predictions": "predictions.csv"}).parent / "predictions.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [
                ["image", "class", "10-NN rank", "linear rank"],
                ["b.jpg", "x", 0, 7],
                ["a.jpg", "y", 4, 0],
                ["c,d.jpg", "y", 5, 0],
            ]
        )
    items = read_items(_measurement(runs))
    assert items is not None
    assert items.names == ("a.jpg", "b.jpg", "c,d.jpg")
    figures = items.figures(np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0]]))
    wanted = {
        "10-NN top-1": [100 / 3, 100],
        "10-NN top-5": [200 / 3, 100],
        "linear top-1": [200 / 3, 0],
        "linear top-5": [200 / 3, 0],
    }
    assert {name: values_R.tolist() for name, values_R in figures.items()} == {
        name: pytest.approx(values) for name, values in wanted.items()
    }


@pytest.mark.parametrize("task", ["davis", "detection", "segmentation", "classification"])
def test_results_without_items_have_none(runs: Path, write: Write, task: str) -> None:
    write("one", task)
    assert read_items(_measurement(runs)) is None


@pytest.mark.parametrize(
    ("task", "artefact", "content"),
    [
        ("detection", "image_matches", b"no archive"),
        ("segmentation", "image_pixels", b"no archive"),
        ("segmentation", "image_pixels", None),
        ("classification", "predictions", b"class,10-NN rank\nx,0\n"),
        ("classification", "predictions", b"image,class,10-NN rank\nsame,x,0\nsame,x,0\n"),
        ("classification", "predictions", b"image,class,10-NN rank\nshort\n"),
        ("classification", "predictions", b""),
    ],
)
def test_damaged_items_are_named_and_mark_nothing(
    runs: Path, write: Write, caplog: pytest.LogCaptureFixture, task: str, artefact: str, content: bytes | None
) -> None:
    path = write("one", task, artefacts={artefact: "items.file"}).parent / "items.file"
    if content is not None:
        path.write_bytes(content)
    assert read_items(_measurement(runs)) is None
    assert f"one/{task}/result.json: its single items cannot be read" in caplog.text
    assert caplog.text.count("\n") == 1


def test_counts_of_another_shape_are_refused(runs: Path, write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write("one", "segmentation", artefacts={"image_pixels": "x.npz"}).parent / "x.npz"
    _write_images(path, ["a", "b"], np.zeros((3, 3, 2)))
    assert read_items(_measurement(runs)) is None
    assert "counts of shape (3, 3, 2) for 2 images" in caplog.text
