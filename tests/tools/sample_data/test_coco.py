import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tools.sample_data import coco as coco_sample
from tools.sample_data.coco import draw_coco
from tools.sample_data.coco_categories import CATEGORY_IDS, coco_categories
from tools.sample_data.cutouts import Cutout

SPLITS = ["train2017", "val2017"]


@pytest.mark.parametrize(("split", "count"), [("train2017", 8), ("val2017", 4)])
def test_pycocotools_reads_it_and_boxes_and_areas_are_the_masks(samples: Path, split: str, count: int) -> None:
    coco = COCO(samples / "coco/annotations" / f"instances_{split}.json")
    assert len(coco.imgs) == count
    assert len(coco.cats) == 80
    for image in coco.imgs.values():
        with Image.open(samples / "coco" / split / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
        taken = np.zeros((image["height"], image["width"]), dtype=int)
        assert coco.imgToAnns[image["id"]]
        for annotation in coco.imgToAnns[image["id"]]:
            mask = coco.annToMask(annotation)
            taken += mask
            rows, columns = np.nonzero(mask)
            assert annotation["area"] == mask.sum() > 50
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert taken.max() == 1


def test_masks_are_the_drawn_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `paste` really covered, recorded while drawing, against what pycocotools reads from the file."""
    covered: list[np.ndarray] = []

    def paste_and_record(canvas: np.ndarray, cutout: Cutout, left: int, top: int) -> np.ndarray:
        # What a black and a white canvas have in common afterwards is what was pasted.
        black, white = np.zeros_like(canvas), np.full_like(canvas, 255)
        paste(black, cutout, left, top)
        paste(white, cutout, left, top)
        covered.append((black == white).all(axis=2))
        return paste(canvas, cutout, left, top)

    paste = coco_sample.paste
    monkeypatch.setattr(coco_sample, "paste", paste_and_record)
    monkeypatch.setattr(coco_sample, "CROWD_MEMBERS", 1)
    draw_coco(tmp_path, np.random.default_rng(5), train_images=6, val_images=2)
    read = []
    for split in SPLITS:
        coco = COCO(tmp_path / "annotations" / f"instances_{split}.json")
        read += [coco.annToMask(coco.anns[number]) for number in sorted(coco.anns)]
    assert len(read) == len(covered) > 12
    for drawn, mask in zip(covered, read, strict=True):
        np.testing.assert_array_equal(drawn, mask)


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_has_polygons_and_a_crowd_of_people(samples: Path, split: str) -> None:
    coco = COCO(samples / "coco/annotations" / f"instances_{split}.json")
    crowds = [entry for entry in coco.anns.values() if entry["iscrowd"]]
    assert [entry["category_id"] for entry in crowds] == [CATEGORY_IDS["person"]]
    counts = crowds[0]["segmentation"]["counts"]
    assert sum(counts) == np.prod(crowds[0]["segmentation"]["size"])
    assert all(isinstance(entry["segmentation"], list) for entry in coco.anns.values() if not entry["iscrowd"])


def test_perfect_detections_score_one(samples: Path) -> None:
    coco = COCO(samples / "coco/annotations/instances_val2017.json")
    detections = [{**entry, "score": 0.9} for entry in coco.anns.values() if not entry["iscrowd"]]
    for kind in ("bbox", "segm"):
        evaluation = COCOeval(coco, coco.loadRes(detections), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1.0)


def test_ids_are_unique_over_both_splits(samples: Path) -> None:
    contents = [json.loads((samples / "coco/annotations" / f"instances_{split}.json").read_text()) for split in SPLITS]
    for key in ("images", "annotations"):
        ids = [entry["id"] for content in contents for entry in content[key]]
        assert len(ids) == len(set(ids))


@pytest.mark.data
def test_categories_are_the_official_ones(real_data_dir: Path) -> None:
    official = json.loads((real_data_dir / "coco/annotations/instances_val2017.json").read_text())["categories"]
    assert coco_categories() == official
