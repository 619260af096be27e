"""What is missing from an ADE20K folder is named before anything runs."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.findings import Finding
from eval.result import SAMPLE_MARKER
from eval.segmentation.data import FULL_SIZES, check_data, examine
from eval.segmentation.metric import ListedADE20K
from tests.eval.conftest import HEIGHT, WIDTH


@pytest.fixture
def pairs(ade: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ade, tmp_path / "ade"))


def test_pairs_are_sorted_and_limited(pairs: Path) -> None:
    splits = check_data(pairs, max_train_images=2, max_val_images=3)
    stems = [f"ADE_{name}_{index:08d}" for name, count in (("training", 2), ("validation", 3)) for index in range(count)]
    assert [stem for split in splits.values() for stem in split.pairs] == stems
    assert [split.restricted for split in splits.values()] == [True, False]
    (pairs / "images/training/._0.jpg").touch()  # a hidden file
    assert check_data(pairs) == check_data(pairs, max_train_images=4)


def test_fingerprint_depends_on_names_sizes_and_marker(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = check_data(pairs)["training"].describe()
    assert (before.name, before.split, before.num_items, before.coverage) == ("ADE20K", "training", 4, "subset")
    (pairs / "annotations/training/ADE_training_00000001.png").write_bytes(b"other")
    assert check_data(pairs)["training"].describe().listing_sha256 != before.listing_sha256
    monkeypatch.setitem(FULL_SIZES, "training", 4)
    assert check_data(pairs)["training"].describe().coverage == "full"
    assert check_data(pairs, max_train_images=2)["training"].describe().coverage == "subset"
    (pairs / SAMPLE_MARKER).touch()
    assert check_data(pairs)["training"].describe().coverage == "sample"


def test_every_unpaired_file_is_named(pairs: Path) -> None:
    for index in (0, 2):
        (pairs / f"images/validation/ADE_validation_{index:08d}.jpg").unlink()
    (pairs / "images/training/extra.jpg").touch()
    with pytest.raises(ValueError, match=r"annotations/training lacks the \.png of 1 images: extra;") as error:
        check_data(pairs)
    lacking = "ADE_validation_00000000, ADE_validation_00000002;"
    assert f"images/validation lacks the .jpg of 2 label maps: {lacking}" in str(error.value)
    for index in range(20):
        (pairs / f"images/training/extra{index:02d}.jpg").touch()
    with pytest.raises(ValueError, match="of 21 images: extra, extra00, extra01 and 18 more"):
        check_data(pairs)


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


def test_label_maps_without_any_class_are_found(pairs: Path) -> None:
    """The metrics were no numbers, after a training."""
    for number, path in enumerate(sorted(pairs.glob("annotations/training/*"), reverse=True), start=1):
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path)
        assert len(problems(pairs, False)) == (number == 4)
    (found,) = check_data(pairs)["training"].check_files(False, 1)
    assert found.text == "annotations/training: no label map that is used shows a class, only 0 (unlabelled)"


def test_greys_that_decoders_stretch_are_no_labels(pairs: Path) -> None:
    """Of 4 bits, label 3 became 51: the numbers are spread over 0 to 255."""
    path = pairs / "annotations/training/ADE_training_00000002.png"
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 4, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x33" * (WIDTH // 2)) * HEIGHT)
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    parts = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    (found,) = problems(pairs, False)
    assert found.text == "files are greys of 2 or 4 bits, which decoders stretch to other numbers"


@pytest.mark.parametrize("name", ["a\nb", "caf\udce9"])
def test_names_that_cannot_be_listed_are_found(pairs: Path, name: str) -> None:
    for part, suffix in (("images", "jpg"), ("annotations", "png")):
        first = pairs / part / f"validation/ADE_validation_00000000.{suffix}"
        first.rename(first.with_name(f"{name}.{suffix}"))
    images, _ = problems(pairs, False)
    assert images.text == "names have control characters or are not in UTF-8"
    with pytest.raises(ValueError, match=r"not in UTF-8: images/validation/\w+ b?\.jpg; rename them"):
        check_data(pairs)


def test_validation_on_the_training_images_is_refused(pairs: Path) -> None:
    for part in ("images", "annotations"):
        shutil.rmtree(pairs / part / "validation")
        (pairs / part / "validation").symlink_to("training")
    with pytest.raises(ValueError, match="images/training and images/validation are the same folder; test on other images"):
        check_data(pairs)


def test_missing_folders_name_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "images" / "training").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no folder annotations/validation \(expected 2000 \.png files") as error:
        check_data(tmp_path)
    assert "no .jpg files in images/training (expected 20210 .jpg files in the full benchmark)" in str(error.value)
    with pytest.raises(ValueError, match=r"nowhere: no such folder; .*ADEChallengeData2016\.zip"):
        check_data(tmp_path / "nowhere")


def test_what_is_checked_is_what_is_read(pairs: Path) -> None:
    """mmseg took files in folders below, too, and was then cut to the checked number."""
    for part, suffix in (("images", "jpg"), ("annotations", "png")):
        first = pairs / part / f"validation/ADE_validation_00000000.{suffix}"
        (first.parent / "0_old").mkdir()
        shutil.copy(first, first.parent / "0_old")
        first.rename(first.with_suffix(f".{suffix.upper()}"))
    prefix = {"img_path": "images/validation", "seg_map_path": "annotations/validation"}
    found = ListedADE20K(data_root=str(pairs), data_prefix=prefix, pipeline=[], indices=2, test_mode=True)
    stated = [
        (found.get_data_info(index)["img_path"], found.get_data_info(index)["seg_map_path"]) for index in range(len(found))
    ]
    checked = check_data(pairs, max_val_images=2)["validation"].pairs.values()
    assert stated == [(str(image), str(labels)) for image, labels in checked]
    assert Path(stated[0][0]).name == "ADE_validation_00000000.JPG"
