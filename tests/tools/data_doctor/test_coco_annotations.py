from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_tools

from tests.tools.data_doctor.conftest import HEIGHT, WIDTH, coco_content
from tools.data_doctor.coco_annotations import check_annotations, decode_runs

Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    return coco_content((4, 5))


def _first(**changes: object) -> Callable[[Content], None]:
    return lambda content: content["annotations"][0].update(changes)


def _crowd(**changes: object) -> Callable[[Content], None]:
    return lambda content: content["annotations"][-1]["segmentation"].update(changes)


def test_a_healthy_file(content: Content) -> None:
    assert check_annotations(content, "file") == []


@pytest.mark.parametrize(
    ("damage", "phrase", "name"),
    [
        (_first(category_id=12), "category that is not listed", "annotation 104 of image 4 (category 12)"),
        (_first(bbox=[50.0, 5.0, 20.0, 10.0]), "boxes reach beyond", "annotation 104 of image 4"),
        (_first(bbox=[10.0, 40.0, 20.0, 10.0]), "boxes reach beyond", "annotation 104 of image 4"),
        (_first(bbox=[-3.0, 5.0, 20.0, 10.0]), "boxes reach beyond", "annotation 104 of image 4"),
        (_first(bbox=[10.0, 5.0, -20.0, 10.0]), "negative width", "annotation 104 of image 4"),
        (_first(bbox=[10.0, 5.0, 20.0]), "not four numbers", "annotation 104 of image 4"),
        (_first(bbox=[10.0, 5.0, 20.0, float("nan")]), "not four numbers", "annotation 104 of image 4"),
        (_first(segmentation=[]), "neither polygons nor run lengths", "annotation 104 of image 4"),
        (_first(segmentation=[[10.0, 5.0, 30.0, 5.0]]), "fewer than three points", "annotation 104 of image 4"),
        (_first(segmentation=[[1.0, 5.0, 3.0, 5.0, 3.0, 9.0, 4.0]]), "half a point", "annotation 104 of image 4"),
        (_first(segmentation=[[1.0, 5.0, 3.0, 5.0, 3.0, "9"]]), "not lists of numbers", "annotation 104 of image 4"),
        (_first(segmentation=[[1.0, 5.0, 99.0, 5.0, 3.0, 9.0]]), "polygons reach beyond", "annotation 104 of image 4"),
        (_first(segmentation=[[1.0, 5.0, 9.0, 99.0, 3.0, 9.0]]), "polygons reach beyond", "annotation 104 of image 4"),
        (_crowd(size=[WIDTH, HEIGHT]), "another size", "annotation 200 of image 4"),
        (_crowd(counts=[1, 2, 3]), "do not cover", "annotation 200 of image 4"),
        (_crowd(counts=[-1, HEIGHT * WIDTH + 1]), "do not cover", "annotation 200 of image 4"),
        (_crowd(counts="not runs"), "do not cover", "annotation 200 of image 4"),
        (lambda content: content["annotations"].append(content["annotations"][0]), "ids of annotations", "104"),
        (lambda content: content["images"].append({**content["images"][0], "file_name": "x.jpg"}), "ids of images", "4"),
        (
            lambda content: content["images"].append({**content["images"][0], "id": 9}),
            "listed more than once",
            "000000000004.jpg",
        ),
        (lambda content: content["categories"].append({"id": 91, "name": "hair brush"}), "not among COCO's 80", "hair brush"),
    ],
)
def test_what_contradicts_itself_is_named(
    content: Content, damage: Callable[[Content], object], phrase: str, name: str
) -> None:
    damage(content)
    (finding,) = check_annotations(content, "instances_val2017.json")
    assert finding.kind == "wrong"
    assert finding.what.startswith("instances_val2017.json: ")
    assert phrase in finding.what
    assert finding.names == (name,)


@pytest.mark.parametrize(
    ("damage", "phrase"),
    [
        # As annotation 918 of the official train2017.
        (_first(bbox=[10.0, 5.0, 1.03, 0.0]), "less than a pixel"),
        (_first(image_id=77), "images that are not listed"),
    ],
)
def test_what_the_tasks_can_do_with_is_a_note(content: Content, damage: Callable[[Content], object], phrase: str) -> None:
    damage(content)
    (finding,) = check_annotations(content, "file")
    assert finding.kind == "note"
    assert phrase in finding.what


def test_consecutive_category_ids_are_a_note(content: Content) -> None:
    number = {entry["id"]: index for index, entry in enumerate(content["categories"], start=1)}
    for entry in content["categories"]:
        entry["id"] = number[entry["id"]]
    for annotation in content["annotations"]:
        annotation["category_id"] = number[annotation["category_id"]]
    (finding,) = check_annotations(content, "file")
    assert finding.kind == "note"
    assert "stop sign (12, not 13)" in finding.names


def test_rounded_coordinates_may_reach_a_little_beyond(content: Content) -> None:
    _first(bbox=[0.0, 0.0, WIDTH + 0.5, HEIGHT + 0.5])(content)
    assert check_annotations(content, "file") == []


@pytest.mark.parametrize("seed", range(8))
def test_compressed_runs_are_decoded_as_pycocotools_wrote_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = (rng.random((97, 61)) < rng.random()).astype(np.uint8) if seed else np.zeros((97, 61), np.uint8)
    text = mask_tools.encode(np.asfortranarray(pixels))["counts"].decode()
    columns = pixels.ravel(order="F")
    ends = [*np.flatnonzero(np.diff(columns)) + 1, columns.size]
    expected = np.diff([0, *([0] if columns[0] else []), *ends])
    assert decode_runs(text) == expected.tolist()


@pytest.mark.parametrize("text", ["~", "P", "0 0"])
def test_what_is_no_run_text(text: str) -> None:
    assert decode_runs(text) is None
