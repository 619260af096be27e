"""The sample data have the same bytes for the same seed, in formats that the benchmarks' own readers accept."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from common.files import LOCK_FILE
from eval.copy_detection import data as copydays
from eval.depth.data import check_data, read_pair
from eval.object_discovery.data import check_data as check_boxes
from eval.probes.data import check_splits
from eval.probes.sets import VOC2012, find_set
from eval.result import SAMPLE_MARKER
from eval.retrieval import data as landmarks
from tests.conftest import REPOSITORY, RunMain
from tools.make_sample_data import SampleConfig, draw_samples, main
from tools.sample_data.formats import CATEGORY_IDS, COCO_CATEGORIES

# Over all label maps and annotation files of seed 3, as first recorded.
DIGEST_OF_SEED_3 = "6ca0b0596fdf7a9e0cc998649aa896ce1e1f89fdead6ceea9a01ed8f0d0ff7a5"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample data of seed 3."""
    folder = tmp_path_factory.mktemp("samples")
    draw_samples(SampleConfig(output=folder, seed=3))
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LOCK_FILE)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_seed_gives_the_same_bytes_in_another_process_and_another_seed_other_images(
    samples: Path, small_samples: Path, small_sizes: dict[str, Any], tmp_path: Path
) -> None:
    command = [sys.executable, REPOSITORY / "tools/make_sample_data.py", "--output", tmp_path / "again", "--seed", "3"]
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, capture_output=True)
    assert digests(tmp_path / "again") == digests(samples)
    draw_samples(SampleConfig(output=tmp_path / "other", seed=4, **small_sizes))
    ours, others = digests(small_samples), digests(tmp_path / "other")
    assert set(ours) == set(others)
    lists = {
        "DAVIS/ImageSets/2017/val.txt",
        *("nyu/nyu_train.txt", "nyu/nyu_test.txt"),
        *(f"VOCdevkit/VOC{year}/ImageSets/Main/trainval.txt" for year in (2007, 2012)),
        "coco20k/coco_20k_filenames.txt",
        *("VIP_Fine/lists/val_videos.txt", "JHMDB/splits/stand_test_split1.txt", "JHMDB/splits/wave_test_split1.txt"),
        *(f"VOCdevkit/VOC2012/ImageSets/Segmentation/{split}.txt" for split in VOC2012.sizes),
    }
    assert {name for name in ours if ours[name] == others[name]} == lists


def test_labels_and_annotations_are_those_that_were_recorded(samples: Path) -> None:
    """The quickstart's metrics depend on them. Pixels are compared, since the bytes of an image may change with Pillow."""
    whole = hashlib.sha256()
    for path in sorted(path for name in ("ade", "coco", "DAVIS") for path in (samples / name).rglob("*")):
        if path.suffix == ".png":
            whole.update(np.asarray(Image.open(path)).tobytes())
        elif path.suffix == ".json" and path.name != SAMPLE_MARKER:
            whole.update(path.read_bytes())
    assert whole.hexdigest() == DIGEST_OF_SEED_3


def test_no_image_of_the_labelled_set_or_to_pretrain_on_is_there_twice(samples: Path) -> None:
    found = [digest for name, digest in digests(samples).items() if name.startswith(("imagenet", "photos"))]
    assert len(set(found)) == len(found) == 8 * (8 + 4 + 6) + 2  # a marker for each set


def test_pycocotools_reads_masks_whose_boxes_and_areas_are_stated(samples: Path) -> None:
    for split, count in (("train2017", 8), ("val2017", 4)):
        coco = COCO(samples / f"coco/annotations/instances_{split}.json")
        assert (len(coco.imgs), len(coco.cats)) == (count, 80)
        for image in coco.imgs.values():
            with Image.open(samples / "coco" / split / image["file_name"]) as opened:
                assert opened.size == (image["width"], image["height"])
        for annotation in coco.anns.values():
            rows, columns = np.nonzero(coco.annToMask(annotation))
            assert annotation["area"] == len(rows) > 50
            assert annotation["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        (crowd,) = [entry for entry in coco.anns.values() if entry["iscrowd"]]
        assert crowd["category_id"] == CATEGORY_IDS["person"]


def test_voc_and_cityscapes_are_read_as_such(samples: Path) -> None:
    for place, name, sizes in (
        ("VOCdevkit/VOC2012", "PASCAL VOC 2012", {"train": 8, "val": 4, "trainaug": 12}),
        ("cityscapes", "Cityscapes", {"train": 8, "val": 4}),
    ):
        found = find_set(samples / place)
        splits = check_splits(found, samples / place, sizes)
        assert (found.name, {split: len(listed.pairs) for split, listed in splits.items()}) == (name, sizes)
        assert not [finding for split in splits.values() for finding in split.check_files(deep=True) if finding.is_problem]


def test_nyu_is_read_as_such(samples: Path) -> None:
    splits = check_data(samples / "nyu")
    assert {name: len(split.pairs) for name, split in splits.items()} == {"train": 8, "test": 4}
    for pair in splits["test"].pairs.values():
        _, depth_mm = read_pair(pair)
        assert 1000 <= np.median(depth_mm[depth_mm > 0]) <= 8000


def test_sets_of_whole_images_are_read_as_such(samples: Path) -> None:
    for key in ("roxford5k", "rparis6k"):
        found = landmarks.check_data(samples / key)
        assert (len(found.queries), len(found.images)) == (4, 4 * (4 + 4 + 1))
    assert [len(block) for block in copydays.check_data(samples / "copydays").blocks.values()] == [4, 8, *[4] * 18]
    for place, name, count in (
        ("VOCdevkit/VOC2007", "PASCAL VOC 2007", 8),
        ("VOCdevkit/VOC2012", "PASCAL VOC 2012", 12),
        ("coco20k", "COCO 20k", 8),
    ):
        boxes = check_boxes(samples / place)
        assert (boxes.name, len(boxes.images)) == (name, count)
        assert sum(bool(len(image.boxes)) for image in boxes.images.values()) > count // 2


@pytest.mark.data
def test_coco_categories_are_the_official_ones(real_data_dir: Path) -> None:
    official = json.loads((real_data_dir / "coco/annotations/instances_val2017.json").read_text())
    assert official["categories"] == COCO_CATEGORIES


def test_a_drawn_set_stays_other_options_replace_it_and_a_foreign_folder_is_refused(
    small_samples: Path, small_sizes: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(small_samples, tmp_path, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(SAMPLE_MARKER)}
    draw_samples(SampleConfig(output=tmp_path, **{**small_sizes, "photos": 1}))
    changed = [path.parent.name for path, stamp in before.items() if path.stat().st_mtime_ns != stamp]
    assert (len(before), changed) == (15, ["photos"])
    foreign = tmp_path / "elsewhere/DAVIS/mine.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("precious")
    with pytest.raises(ValueError, match=r"DAVIS exists and is not sample data.*--output"):
        draw_samples(SampleConfig(output=tmp_path / "elsewhere"))
    assert [path.name for path in (tmp_path / "elsewhere").rglob("*")] == ["DAVIS", "mine.txt"]


def test_an_interrupted_drawing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw_half(root: Path, rng: np.random.Generator, count: int) -> None:
        (root / "half").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.sample_data.formats.draw_photos", draw_half)
    with pytest.raises(KeyboardInterrupt):
        draw_samples(SampleConfig(output=tmp_path, train_images=1, val_images=1, frames=3))
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK_FILE, "DAVIS", "ade", "coco"]


def test_mistakes_are_one_line(tmp_path: Path, run_main: RunMain) -> None:
    for options, message in (
        ("--seed -1", "--seed -1 is negative"),
        ("--frames 2", "--frames 2 is too few; pass 3 or more"),
        ("--output /proc/nowhere", "/proc/nowhere"),
    ):
        assert message in run_main(main, ["--output", tmp_path, *options.split()]).mistake()
