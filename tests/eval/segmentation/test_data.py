"""What is missing from an ADE20K folder is named before anything runs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.findings import Finding
from eval.result import SAMPLE_MARKER
from eval.segmentation.data import FULL_SIZES, check_data, examine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in FULL_SIZES:
        for folder, suffix in (("images", ".jpg"), ("annotations", ".png")):
            (tmp_path / folder / split).mkdir(parents=True)
            for index in (2, 0, 1):
                (tmp_path / folder / split / f"{index}{suffix}").write_bytes(b"x" * (index + 1))
    return tmp_path


def test_pairs_are_sorted_and_limited(root: Path) -> None:
    splits = check_data(root, max_train_images=2, max_val_images=3)
    assert [split.stems for split in splits.values()] == [("0", "1"), ("0", "1", "2")]
    assert [split.restricted for split in splits.values()] == [True, False]
    assert splits["training"].labels("1") == root / "annotations" / "training" / "1.png"
    (root / "images/training/._0.jpg").touch()  # a hidden file
    assert check_data(root)["training"].stems == ("0", "1", "2")


def test_fingerprint_depends_on_names_sizes_and_marker(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = check_data(root)["training"].describe()
    assert (before.name, before.split, before.num_items, before.coverage) == ("ADE20K", "training", 3, "subset")
    (root / "annotations/training/1.png").write_bytes(b"other")
    assert check_data(root)["training"].describe().listing_sha256 != before.listing_sha256
    monkeypatch.setitem(FULL_SIZES, "training", 3)
    assert check_data(root)["training"].describe().coverage == "full"
    assert check_data(root, max_train_images=2)["training"].describe().coverage == "subset"
    (root / SAMPLE_MARKER).touch()
    assert check_data(root)["training"].describe().coverage == "sample"


def test_every_unpaired_file_is_named(root: Path) -> None:
    for name in ("annotations/training/1.png", "images/validation/0.jpg", "images/validation/2.jpg"):
        (root / name).unlink()
    with pytest.raises(ValueError, match=r"annotations/training lacks the \.png of 1 images: 1;") as error:
        check_data(root)
    assert "images/validation lacks the .jpg of 2 label maps: 0, 2;" in str(error.value)
    (root / "annotations/training/1.png").touch()
    for index in range(20):
        (root / f"images/training/extra{index:02d}.jpg").touch()
    with pytest.raises(ValueError, match="of 20 images: extra00, extra01, extra02 and 17 more"):
        check_data(root)


@pytest.fixture
def pairs(ade: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ade, tmp_path / "ade"))


def problems(root: Path, deep: bool) -> list[Finding]:
    return [finding for finding in examine(root, deep, 1) if finding.is_problem]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    "place", ["images/validation/ADE_validation_00000001.jpg", "annotations/training/ADE_training_00000002.png"]
)
def test_files_that_break_off_are_found_before_the_training(pairs: Path, place: str, deep: bool) -> None:
    """They were met at their turn, after it; and with the file in order again, the run was refused as one of other data."""
    assert problems(pairs, deep) == []
    path = pairs / place
    path.write_bytes(path.read_bytes()[:-20])
    (found,) = problems(pairs, deep)
    assert (found.kind, found.names) == ("damaged", (place,))
    split = "validation" if "validation" in place else "training"
    assert check_data(pairs)[split].check_files(deep, 1) == [found]
    path.write_bytes(b"")
    (found,) = problems(pairs, deep)
    assert "empty" in found.text


@pytest.mark.parametrize("deep", [False, True])
def test_labels_beyond_the_classes_and_other_sizes_are_found(pairs: Path, deep: bool) -> None:
    path = pairs / "annotations/training/ADE_training_00000002.png"
    Image.fromarray(np.full((7, 5), 151, np.uint8)).save(path)
    size, labels = problems(pairs, deep)
    assert size.names == ("images/training/ADE_training_00000002.jpg (70 x 50 instead of 5 x 7)",)
    assert labels.names == ("annotations/training/ADE_training_00000002.png (151)",)


def test_missing_folders_name_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "images" / "training").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no folder annotations/validation \(expected 2000 \.png files") as error:
        check_data(tmp_path)
    assert "no .jpg files in images/training (expected 20210 .jpg files in the full benchmark)" in str(error.value)
    with pytest.raises(ValueError, match=r"nowhere: no such folder; .*ADEChallengeData2016\.zip"):
        check_data(tmp_path / "nowhere")
