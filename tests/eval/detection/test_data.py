import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mmdet.datasets import CocoDataset

from eval.detection.data import CATEGORY_NAMES, check_data, examine
from tests.eval.rows import full_coco

NOT_COCO = r"instances_val2017\.json: not a COCO annotation file.*"


@pytest.fixture
def damaged(coco: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(coco, tmp_path / "coco"))


def test_images_without_annotations_are_listed_but_not_trained_on(coco: Path) -> None:
    splits = check_data(coco)
    train = splits["train2017"]
    assert CocoDataset.METAINFO["classes"] == CATEGORY_NAMES
    assert (len(train.images), len(train.trainable)) == (4, 3)
    assert train.describe().num_items == 4
    assert train.images[0] == "000000000000.jpg 2"
    assert splits["val2017"].describe().coverage == "subset"
    # Limits are part of the fingerprint; one beyond the data changes nothing.
    limited = check_data(coco, max_train_images=2, max_val_images=1)
    assert [limited[name].describe().num_items for name in splits] == [2, 1]
    digests = {one[name].describe().listing_sha256 for one in (splits, limited) for name in splits}
    assert len(digests) == 4
    assert check_data(coco, max_val_images=99)["val2017"].describe() == splits["val2017"].describe()


def test_every_missing_part_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "train2017").mkdir()
    with pytest.raises(ValueError, match=r"no folder val2017 \(the full benchmark has 5000") as caught:
        check_data(tmp_path)
    assert all(f"annotations/instances_{split}.json" in str(caught.value) for split in ("train2017", "val2017"))
    assert "no folder train2017" not in str(caught.value)
    with pytest.raises(ValueError, match="the folder with annotations, train2017 and val2017"):
        check_data(tmp_path / "absent")


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}', "[" * 99_999])
def test_missing_images_and_damaged_annotation_files_are_named(damaged: Path, content: str) -> None:
    (damaged / "train2017" / "000000000001.jpg").unlink()
    with pytest.raises(ValueError, match=r"train2017 lacks 1 of the 4 images .*: 000000000001\.jpg; get them from"):
        check_data(damaged)
    (damaged / "annotations/instances_val2017.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"instances_val2017\.json: not a COCO annotation file"):
        check_data(damaged)


def _change(root: Path, split: str, change: Callable[[dict[str, Any]], object]) -> None:
    path = root / f"annotations/instances_{split}.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("split", "changes", "message"),
    [
        ("val2017", {"segmentation": []}, "annotations lack segmentation"),
        ("val2017", {"area": None}, "annotations lack area"),
        ("train2017", {"category_id": 12}, "annotations are of the unlisted category 12"),
        ("train2017", {"bbox": [0, 0, "9", 9]}, "boxes are not four numbers"),
        ("train2017", {"bbox": [0, 0, 9]}, "boxes are not four numbers"),
        ("train2017", {"bbox": [0, 0, -9, 9]}, "boxes have a negative width or height"),
        ("train2017", {"bbox": [100, 0, 40, 9]}, "boxes reach beyond their image"),
        ("train2017", {"segmentation": [[1, 1, 9, 9]]}, "polygons have fewer than three points"),
        ("train2017", {"segmentation": [[1, 1, 9, 9, 1, 200]]}, "polygons reach beyond their image"),
        ("train2017", {"segmentation": [["a", 1, 9, 9, 1, 2]]}, "masks are neither lists of polygons nor run lengths"),
        ("train2017", {"segmentation": {"size": [5, 5], "counts": "x"}}, "run-length masks are damaged, or of another size"),
        ("train2017", {"segmentation": {"size": [80, 120], "counts": [5, -5, 9600]}}, "run-length masks are damaged"),
        ("train2017", {"segmentation": {"size": [80, 120], "counts": "o" * 99}}, "run-length masks are damaged"),
        ("train2017", {"segmentation": [[[1, 1, 9, 9, 1, 9]]]}, "masks are neither lists of polygons nor run lengths"),
        ("val2017", {"segmentation": [[1, 1, 9, 9], [1, 1, 9, 1, 9, 9]]}, "polygons have fewer than three points"),
        ("val2017", {"bbox": [math.nan, 0, 9, 9]}, "boxes are not four numbers"),
        ("val2017", {"iscrowd": None}, "annotations lack iscrowd"),
        ("train2017", {"segmentation": []}, "annotations lack segmentation"),
        ("val2017", {"area": 1e300}, "annotations have an iscrowd .* or an area that is not"),
        ("val2017", {"iscrowd": 2}, "annotations have an iscrowd that is neither 0 nor 1"),
    ],
)
def test_annotations_that_cannot_be_used_are_named(damaged: Path, split: str, changes: dict[str, Any], message: str) -> None:
    """Some ended in a traceback of the scoring, after the training; others were left out in silence."""
    _change(damaged, split, lambda content: content["annotations"][0].update(changes))
    with pytest.raises(ValueError, match=rf"instances_{split}\.json: {message}.*: \d+ of image \d+"):
        check_data(damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["annotations"][1].update(id=content["annotations"][0]["id"]), "annotations have the same id"),
        (lambda content: content["images"].append({**content["images"][0], "id": 99}), "images have the same file_name"),
        (lambda content: content["categories"].append({"id": 91, "name": "person"}), "categories have the same name"),
        (lambda content: content["annotations"][0].update(id="7"), "annotations: id '7' is not a whole number"),
        (lambda content: content["images"][0].update(width=128.0), "images: width 128.0 is not a whole number"),
        (lambda content: content["images"][0].update(file_name="/etc/passwd"), "file_name '/etc/passwd': give a name"),
        (lambda content: content["images"][0].update(file_name="./000000000000.jpg"), "file_name './000000000000.jpg': give"),
        (
            lambda content: content["images"][0].update(file_name="000000000000.JPG"),
            "lacks 1 of the 2 images .*: 000000000000.JPG",
        ),
        (lambda content: content["images"][0].update(id=2**63), "images: id 9223372036854775808 does not fit 64 bits"),
        (lambda content: content.update(images=None), "not a COCO annotation file"),
        (lambda content: content["images"][0].update(file_name=7), f"{NOT_COCO}images: file_name 7 is not a text"),
        (lambda content: content["categories"][0].update(name=7), f"{NOT_COCO}categories: name 7 is not a text"),
        (lambda content: content["annotations"][0].update(area=10**400), f"{NOT_COCO}OverflowError"),
        (lambda content: content["annotations"][0].update(bbox=[0, 0, 10**400, 1]), f"{NOT_COCO}OverflowError"),
    ],
)
def test_entries_that_cannot_be_told_apart_or_counted_are_named(
    damaged: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    _change(damaged, "val2017", change)
    with pytest.raises(ValueError, match=message):
        check_data(damaged)


@pytest.mark.parametrize(
    ("split", "changes"),
    [
        ("val2017", {"iscrowd": 1}),
        ("train2017", {"iscrowd": 1}),
        ("train2017", {"ignore": 1}),
        ("train2017", {"area": 0}),
        ("train2017", {"bbox": [3, 3, 0.5, 0.5]}),
    ],
)
def test_a_split_without_an_object_that_counts_is_refused(damaged: Path, split: str, changes: dict[str, Any]) -> None:
    """The metrics were no numbers, after a training, or the training had nothing to learn from."""
    _change(damaged, split, lambda content: [entry.update(changes) for entry in content["annotations"][:2]])
    check_data(damaged)
    limits = {"max_val_images" if split == "val2017" else "max_train_images": 1}
    with pytest.raises(ValueError, match=rf"instances_{split}\.json: no image that is used has an object"):
        check_data(damaged, **limits)
    _change(damaged, split, lambda content: [entry.update(changes) for entry in content["annotations"]])
    assert "no image that is used has an object" in str([one for one in examine(damaged, False, 1) if one.is_problem])


@pytest.mark.parametrize(
    "changes", [{"bbox": [3, 3, 0.5, 9]}, {"segmentation": [[1, 1, 9, 9], [1, 1, 9, 1, 9, 9]]}, {"ignore": 1}, {"area": 0}]
)
def test_what_training_leaves_out_is_only_noted(damaged: Path, changes: dict[str, Any]) -> None:
    """The official files have such boxes."""
    _change(damaged, "train2017", lambda content: content["annotations"][0].update(changes))
    check_data(damaged)
    (note,) = [finding for finding in examine(damaged, False, 1) if finding.kind == "note"]
    assert len(note.names) == 1


@pytest.mark.parametrize("deep", [False, True])
def test_the_data_check_and_the_evaluation_look_at_the_same_files(damaged: Path, deep: bool) -> None:
    assert {finding.kind for finding in examine(damaged, deep, 1)} == {"subset"}
    path = damaged / "val2017" / "000000000001.jpg"
    path.write_bytes(path.read_bytes()[:-20])
    (found,) = [finding for finding in examine(damaged, deep, 1) if finding.is_problem]
    assert (found.kind, found.names) == ("damaged", ("val2017/000000000001.jpg",))
    assert check_data(damaged)["val2017"].check_files(deep, 1) == [found]
    # Images that a run does not use do not stop it.
    assert check_data(damaged, max_val_images=1)["val2017"].check_files(deep, 1) == []
    _change(damaged, "train2017", lambda content: content["images"][0].update(width=129))
    (found,) = [finding for finding in examine(damaged, deep, 1) if finding.kind == "wrong"]
    assert found.names == ("train2017/000000000000.jpg (128 x 96 instead of 129 x 96)",)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_annotations_that_mmdet_could_not_read_are_named(damaged: Path, encoding: str) -> None:
    path = damaged / "annotations/instances_val2017.json"
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    with pytest.raises(ValueError, match=r"instances_val2017\.json: not a COCO annotation file"):
        check_data(damaged)


def test_other_annotations_are_other_data(damaged: Path) -> None:
    """A finished run's figures were taken for theirs."""
    before = check_data(damaged)["val2017"].describe()
    _change(damaged, "val2017", lambda content: content["annotations"][0].update(area=7))
    after = check_data(damaged)["val2017"].describe()
    assert replace(after, listing_sha256=before.listing_sha256) == before != after
    # All images with fewer annotations are a subset.
    split = full_coco()["train2017"]
    assert split.describe().coverage == "full"
    assert replace(split, num_annotations=86_000).describe().coverage == "subset"


def test_validation_on_the_training_images_is_refused(damaged: Path) -> None:
    shutil.rmtree(damaged / "train2017")
    (damaged / "train2017").symlink_to("val2017")
    with pytest.raises(ValueError, match="train2017 and val2017 are the same folder; test on other images"):
        check_data(damaged)


def test_splits_must_agree_on_coco_categories(damaged: Path) -> None:
    # mmdet numbers the classes by the order of the file: another order in the other file would exchange them in silence.
    _change(damaged, "val2017", lambda content: content["categories"].reverse())
    with pytest.raises(ValueError, match="categories of the two annotation files differ"):
        check_data(damaged)
    for split in ("train2017", "val2017"):
        _change(damaged, split, lambda content: content["categories"].append({"id": 99, "name": "unicorn"}))
    with pytest.raises(ValueError, match="unicorn"):
        check_data(damaged)
