import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mmdet.datasets import CocoDataset

from eval.detection.categories import CATEGORY_NAMES
from eval.detection.data import DataError, check_data
from tests.eval.coco_splits import full_coco


@pytest.fixture
def damaged(coco: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(coco, tmp_path / "coco"))


def test_names_are_mmdets() -> None:
    assert CocoDataset.METAINFO["classes"] == CATEGORY_NAMES


def test_images_without_annotations_are_listed_but_not_trained_on(coco: Path) -> None:
    splits = check_data(coco)
    train = splits["train2017"]
    assert (len(train.images), train.num_training_images) == (4, 3)
    assert train.describe().num_items == 4
    assert train.images[0] == "000000000000.jpg 2"
    assert splits["val2017"].describe().coverage == "subset"


def test_limits_are_part_of_the_fingerprint(coco: Path) -> None:
    whole, limited = check_data(coco), check_data(coco, max_train_images=2, max_val_images=1)
    assert limited["train2017"].num_training_images == 2
    assert limited["val2017"].describe().num_items == 1
    for name in ("train2017", "val2017"):
        assert whole[name].describe().listing_sha256 != limited[name].describe().listing_sha256
    # A limit beyond the data changes nothing.
    assert check_data(coco, max_val_images=99)["val2017"].describe() == whole["val2017"].describe()


def test_every_missing_part_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "train2017").mkdir()
    with pytest.raises(DataError) as caught:
        check_data(tmp_path)
    for part in ("annotations/instances_train2017.json", "annotations/instances_val2017.json", "no folder val2017", "5000"):
        assert part in str(caught.value)
    assert "no folder train2017" not in str(caught.value)


def test_a_missing_folder_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder with annotations, train2017 and val2017"):
        check_data(tmp_path / "absent")


def test_missing_images_are_counted_and_named(damaged: Path) -> None:
    (damaged / "train2017" / "000000000001.jpg").unlink()
    with pytest.raises(DataError, match=r"train2017 lacks 1 of the 4 images .*: 000000000001\.jpg"):
        check_data(damaged)


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}'])
def test_a_damaged_annotation_file_is_named(damaged: Path, content: str) -> None:
    path = damaged / "annotations" / "instances_val2017.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"instances_val2017\.json: not a COCO annotation file"):
        check_data(damaged)


def _change_categories(root: Path, split: str, change: Any) -> None:
    path = root / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content["categories"])
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("split", "changes", "message"),
    [
        ("val2017", {"segmentation": []}, "lacks segmentation"),
        ("val2017", {"area": None}, "lacks area"),
        ("train2017", {"category_id": 12}, "is of the unlisted category 12"),
    ],
)
def test_annotations_that_cannot_be_used_are_named(damaged: Path, split: str, changes: dict[str, Any], message: str) -> None:
    """Some ended in a traceback of the scoring, after the training; others were left out in silence."""
    path = damaged / f"annotations/instances_{split}.json"
    content = json.loads(path.read_text())
    content["annotations"][0].update(changes)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"instances_{split}\.json has 1 annotations that cannot be used: \d+ {message}"):
        check_data(damaged)


def test_other_annotations_are_other_data(damaged: Path) -> None:
    """A finished run's figures were taken for theirs."""
    before = check_data(damaged)["val2017"].describe()
    path = damaged / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["area"] += 1
    path.write_text(json.dumps(content))
    after = check_data(damaged)["val2017"].describe()
    assert (after.num_items, after.coverage) == (before.num_items, before.coverage)
    assert after.listing_sha256 != before.listing_sha256


def test_all_images_with_fewer_annotations_are_a_subset() -> None:
    split = full_coco()["train2017"]
    assert split.describe().coverage == "full"
    assert replace(split, num_annotations=86_000).describe().coverage == "subset"


def test_splits_must_agree_on_categories(damaged: Path) -> None:
    # mmdet numbers the classes by the order of the file: another order in the other file would exchange them in silence.
    _change_categories(damaged, "val2017", list.reverse)
    with pytest.raises(DataError, match="categories of the two annotation files differ"):
        check_data(damaged)


def test_foreign_categories_are_refused(damaged: Path) -> None:
    for split in ("train2017", "val2017"):
        _change_categories(damaged, split, lambda categories: categories.append({"id": 99, "name": "unicorn"}))
    with pytest.raises(DataError, match="unicorn"):
        check_data(damaged)
