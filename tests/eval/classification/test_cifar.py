from pathlib import Path

import numpy as np
import pytest

from common.cifar import LAYOUTS, CifarLayout
from eval.classification.datasets import read_splits
from eval.classification.images import Splits

CIFAR_10, CIFAR_100 = LAYOUTS


def write(root: Path, layout: CifarLayout, train: int = 6, test: int = 4) -> dict[str, np.ndarray]:
    """Random records; label bytes count up. Returns them by file."""
    rng = np.random.default_rng(0)
    root.mkdir(exist_ok=True)
    (root / layout.class_file).write_text("\n".join(f"class{number}" for number in range(layout.num_classes)) + "\n\n")
    files = {}
    for name, count in ((layout.train_files[0], train), (layout.test_file, test)):
        records = rng.integers(0, 256, (count, layout.label_bytes + 3072), dtype=np.uint8)
        records[:, : layout.label_bytes] = np.arange(count)[:, None] + [[7, 3][-layout.label_bytes :]]
        records.tofile(root / name)
        files[name] = records
    return files


def read(root: Path) -> Splits:
    return read_splits(root, "train", "val", "")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_records_become_pictures(layout: CifarLayout, tmp_path: Path) -> None:
    files = write(tmp_path, layout)
    splits = read(tmp_path)
    assert splits.test.labels.tolist() == [
        3,
        4,
        5,
        6,
    ]  # the last label byte is the class, the one before it CIFAR-100's superclass
    assert (splits.test.classes[3], len(splits.train)) == ("class3", 6)
    picture = np.asarray(splits.test.source[1])
    planes = files[layout.test_file][1, layout.label_bytes :]
    for channel in range(3):
        np.testing.assert_array_equal(picture[:, :, channel].ravel(), planes[channel * 1024 : (channel + 1) * 1024])
    assert splits.train.fingerprint.name == layout.name
    assert splits.train.fingerprint.coverage == "subset"


def test_all_training_batches_in_order(tmp_path: Path) -> None:
    first = write(tmp_path, CIFAR_10)["data_batch_1.bin"]
    first[:2].tofile(tmp_path / "data_batch_3.bin")
    train = read(tmp_path).train
    assert train.names[5:] == ["data_batch_1.bin:5", "data_batch_3.bin:0", "data_batch_3.bin:1"]
    np.testing.assert_array_equal(np.asarray(train.source[6]), np.asarray(train.source[0]))


def test_a_changed_byte_changes_the_fingerprint(tmp_path: Path) -> None:
    records = write(tmp_path, CIFAR_10)["test_batch.bin"]
    before = read(tmp_path)
    records[2, 100] ^= 1
    records.tofile(tmp_path / "test_batch.bin")
    after = read(tmp_path)
    assert before.test.content_sha256 != after.test.content_sha256
    assert before.test.fingerprint.listing_sha256 != after.test.fingerprint.listing_sha256
    assert before.train.content_sha256 == after.train.content_sha256


def test_damaged_files(tmp_path: Path) -> None:
    records = write(tmp_path, CIFAR_10)["test_batch.bin"]
    with pytest.raises(ValueError, match="evaluated as a whole"):
        read_splits(tmp_path, "train", "val", "imagenet-100")
    (tmp_path / "test_batch.bin").write_bytes(records.tobytes()[:-1])
    with pytest.raises(ValueError, match=r"test_batch.bin: 12291 bytes are not a whole number of 3073-byte records"):
        read(tmp_path)
    records[1, 0] = 10
    records.tofile(tmp_path / "test_batch.bin")
    with pytest.raises(ValueError, match=r"test_batch.bin:1 has label 10, CIFAR-10 has classes 0 to 9"):
        read(tmp_path)
    (tmp_path / "data_batch_1.bin").unlink()
    with pytest.raises(ValueError, match=r"without data_batch_1.bin or"):
        read(tmp_path)
    (tmp_path / "batches.meta.txt").write_text("cat dog")
    with pytest.raises(ValueError, match="2 names, CIFAR-10 has 10 classes"):
        read(tmp_path)
    (tmp_path / "batches.meta.txt").unlink()
    with pytest.raises(ValueError, match="no such file; CIFAR-10's binary archive holds it"):
        read(tmp_path)
