import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.classification.datasets import read_splits
from eval.classification.image_folder import read_class_list
from eval.classification.images import Splits
from tests.eval.classification.conftest import TEST_IMAGES, TRAIN_IMAGES


def read(root: Path, classes: str = "") -> Splits:
    return read_splits(root, "train", "val", classes)


def test_labels_follow_the_sorted_folders(images: Path) -> None:
    (images / "val/red/deeper").mkdir()
    shutil.move(images / "val/red/1.png", images / "val/red/deeper/1.JPEG")
    (images / "val/red/notes.txt").write_text("not an image")
    splits = read(images)
    assert splits.train.classes == splits.test.classes == ["blue", "green", "red"]
    assert (len(splits.train), len(splits.test)) == (3 * TRAIN_IMAGES, 3 * TEST_IMAGES)
    assert splits.test.names[-1] == "red/deeper/1.JPEG"
    assert splits.test.labels.tolist() == [0] * TEST_IMAGES + [1] * TEST_IMAGES + [2] * TEST_IMAGES
    assert np.asarray(splits.test.source[0]).mean((0, 1)).argmax() == 2
    assert splits.test.fingerprint.coverage == "subset"


def test_a_list_of_classes(images: Path, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("red and a remark\n\nblue\n")
    splits = read(images, str(tmp_path / "two.txt"))
    assert splits.test.classes == ["blue", "red"]
    assert len(splits.test) == 2 * TEST_IMAGES
    (tmp_path / "two.txt").write_text("red\nviolet\n")
    with pytest.raises(ValueError, match="1 of the 2 classes are absent, such as violet"):
        read(images, str(tmp_path / "two.txt"))
    (tmp_path / "two.txt").write_text("red\nred\n")
    with pytest.raises(ValueError, match="red twice"):
        read(images, str(tmp_path / "two.txt"))
    with pytest.raises(ValueError, match="give imagenet-100, or a text file"):
        read(images, "imagenet-99")
    (tmp_path / "two.txt").write_text("\n")
    with pytest.raises(ValueError, match="names no class"):
        read(images, str(tmp_path / "two.txt"))


def test_imagenet_100() -> None:
    names = read_class_list("imagenet-100")
    assert len(names) == 100
    assert names == sorted(names)
    assert {"n01558993", "n02869837", "n13040303"} < set(names)


def test_the_published_set_is_known_by_its_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number in range(1000):
            folder = tmp_path / split / f"n{number:08d}"
            folder.mkdir(parents=True)
            (folder / "0.JPEG").touch()
    fingerprint = read(tmp_path).test.fingerprint
    assert (fingerprint.name, fingerprint.num_items, fingerprint.coverage) == ("ImageNet-1k", 1000, "subset")


def test_every_change_of_a_file_is_seen(images: Path) -> None:
    before = read(images).train
    path = images / "train/red/0.png"
    state = path.stat()
    Image.open(images / "train/red/1.png").save(path)
    assert read(images).train.content_sha256 != before.content_sha256
    shutil.copy2(images / "train/red/0.png", images / "train/red/99.png")
    with_copy = read(images).train
    assert with_copy.fingerprint.listing_sha256 != before.fingerprint.listing_sha256
    assert state.st_mtime_ns != path.stat().st_mtime_ns


def test_folders_that_are_not_class_folders(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: no such folder; give the one that holds train and val"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="must hold one folder of class folders for training"):
        read(images / "train")
    (images / "val/green").rename(images / "val/lime")
    with pytest.raises(ValueError, match=r"only one has green, lime"):
        read(images)
    shutil.rmtree(images / "val")
    (images / "val").mkdir()
    (images / "val/ILSVRC2012_val_00000001.JPEG").touch()
    with pytest.raises(ValueError, match="validation images come unsorted"):
        read(images)
    for name in ("blue", "green", "red"):
        (images / "val" / name).mkdir()
    with pytest.raises(ValueError, match=r"val/blue: no image; suffixes looked for: .bmp, .jpeg"):
        read(images)
