"""Class folders and CIFAR's files: what is read, what is refused, and what the data check says of them."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.cifar import LAYOUTS, CifarLayout
from eval.classification.data import Splits, examine, read_class_list, read_image, read_splits
from tests.eval.classification.conftest import TEST_IMAGES, TRAIN_IMAGES
from tests.eval.test_image_checks import zero_the_checksum

CIFAR_10, CIFAR_100 = LAYOUTS


def read(root: Path, classes: str = "") -> Splits:
    return read_splits(root, "train", "val", classes)


def test_labels_follow_the_sorted_folders(images: Path) -> None:
    (images / "val/red/deeper").mkdir()
    shutil.move(images / "val/red/1.png", images / "val/red/deeper/1.JPEG")
    (images / "val/red/notes.txt").write_text("not an image")
    (images / "val/red/deeper/again").symlink_to(images / "val/red")
    for hidden in ("train/.ipynb_checkpoints", "val/__MACOSX"):
        shutil.copytree(images / "val/blue", images / hidden)
    shutil.copy(images / "val/blue/0.png", images / "val/red/._0.png")
    splits = read(images)
    assert splits.train.classes == splits.test.classes == ["blue", "green", "red"]
    assert (len(splits.train), len(splits.test)) == (3 * TRAIN_IMAGES, 3 * TEST_IMAGES)
    assert splits.test.names[-1] == "red/deeper/1.JPEG"
    assert splits.test.labels.tolist() == [0] * TEST_IMAGES + [1] * TEST_IMAGES + [2] * TEST_IMAGES
    assert np.asarray(read_image(splits.test.source, 0)).mean((0, 1)).argmax() == 2
    assert splits.test.fingerprint.coverage == "subset"


def test_a_list_of_classes(images: Path, tmp_path: Path) -> None:
    names = tmp_path / "two.txt"
    names.write_text("red and a remark\n\nblue\n")
    splits = read(images, str(names))
    assert (splits.test.classes, len(splits.test)) == (["blue", "red"], 2 * TEST_IMAGES)
    with pytest.raises(ValueError, match="give imagenet-100, or a text file"):
        read(images, "imagenet-99")
    for text, message in (("red\nviolet", "lacks classes: violet"), ("red\nred", "none twice"), ("\n", "at least one class")):
        names.write_text(text)
        with pytest.raises(ValueError, match=message):
            read(images, str(names))


def test_a_list_of_classes_may_hold_anything(images: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("blue\n" + "x" * 5000)
    with pytest.raises(ValueError, match=r"^classes=\S*/list.txt: .*give a name of at most 200") as refused:
        read_class_list(str(tmp_path / "list.txt"), images / "train")
    assert len(str(refused.value)) < 600


def test_the_published_sets_are_known_by_their_classes(tmp_path: Path) -> None:
    names = read_class_list("imagenet-100", tmp_path)
    assert len(names) == 100
    assert names == sorted(names)
    assert {"n01558993", "n02869837", "n13040303"} < set(names)
    for place in [f"{split}/n{number:08d}" for split in ("train", "val") for number in range(1000)]:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "0.JPEG").touch()
    fingerprint = read(tmp_path).test.fingerprint
    assert (fingerprint.name, fingerprint.num_items, fingerprint.coverage) == ("ImageNet-1k", 1000, "subset")


def test_every_change_of_a_file_is_seen(images: Path) -> None:
    before = read(images).train
    path = images / "train/red/0.png"
    Image.open(images / "train/red/1.png").save(path)
    assert read(images).train.content_sha256 != before.content_sha256
    shutil.copy2(path, images / "train/red/99.png")
    assert read(images).train.fingerprint.listing_sha256 != before.fingerprint.listing_sha256


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        ("rm -r val", "missing", "val: no such folder; --data is the folder that holds train and val"),
        ("rm -r val; touch ILSVRC2012_img_val.tar", "missing", "ILSVRC2012_img_val.tar is not unpacked; mkdir -p "),
        ("mv val/red/* val; rm -r val/*/", "misplaced", "val are not in class folders: 0.png, .*; .* come unsorted.*valprep"),
        ("rm -r train/*; touch train/red.tar", "missing", r"in train are not unpacked: red.tar; cd .* for a in \*.tar"),
        ("mv val/green val/lime", "missing", "train lacks classes: lime; .*val lacks classes: green"),
        ("rm train/red/*", "missing", "class folders hold no image: train/red; endings looked for: .bmp, .jpeg"),
        ("rm -r train/*", "missing", "train has no class folders; for ImageNet"),
        ("mkdir inner; mv train inner; mv inner train", "misplaced", "train is in .*: train/train; move its content up"),
    ],
)
def test_the_evaluation_refuses_what_the_data_check_finds(spoil: str, kind: str, message: str, images: Path) -> None:
    assert {finding.kind for finding in examine(images, deep=True, jobs=1)} == {"subset"}
    subprocess.run(spoil, shell=True, cwd=images, check=True)
    problems = [finding for finding in examine(images, deep=False, jobs=1) if finding.is_problem]
    assert {finding.kind for finding in problems} == {kind}
    with pytest.raises(ValueError, match=message) as refused:
        read(images)
    assert str(refused.value) == "; ".join(map(str, problems))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("rm -r train/red && ln -s blue train/red", "would count twice: train/red; remove the links"),
        ("rm -r val/red && ln -s ../train/red val/red", "would count twice: val/red; remove the links"),
        ("ln -s ../blue train/red/more", "folders are the same as others"),
        # Each image was its own neighbour.
        ("rm -r val && ln -s train val", "train and val are the same folder; test on other images"),
        ("mkfifo train/red/z.jpg", "broken links, pipes or devices: train/red/z.jpg; remove"),
        ("ln -s nowhere.jpg train/red/z.jpg", "broken links, pipes or devices: train/red/z.jpg; remove"),
        (r"for s in train val; do mv $s/red $s/$'r\nd'; done", "control characters or are not in UTF-8: train/r d/0"),
        ("ln val/red/0.png train/red/mine.png", "are the same files as training images: val/red/0.png; remove the links"),
        ("ln -s ../../train/blue/0.png val/red/more.png", "are the same files as training images: val/red/more.png"),
        ("for s in train val; do mv $s/red $s/=1+1; done", r"train: class folder '=1\+1': give a name"),
        (r"mv train/red/0.png train/red/$'caf\351.png'", "control characters or are not in UTF-8: train/red/caf .png; rename"),
    ],
)
def test_links_pipes_and_names_that_cannot_be_written_are_found(spoil: str, message: str, images: Path) -> None:
    subprocess.run(["bash", "-c", spoil], cwd=images, check=True)
    with pytest.raises(ValueError, match=message):
        read(images)
    assert any(finding.is_problem for finding in examine(images, deep=False, jobs=1))


def test_the_data_check_names_damage_and_notes_what_nobody_reads(images: Path) -> None:
    cut, changed = images / "train/red/0.png", images / "val/blue/0.png"
    zero_the_checksum(changed)
    cut.write_bytes(cut.read_bytes()[:-20])
    for name in ("val/blue/list.txt", "val/.DS_Store", "train/sheet.png"):
        (images / name).write_text("mine")
    noted = {"val/blue/list.txt", "val/.DS_Store", "sheet.png"}
    for deep, damaged in ((False, {"train/red/0.png"}), (True, {"train/red/0.png", "val/blue/0.png"})):
        findings = examine(images, deep, jobs=1)
        for kind, names in (("damaged", damaged), ("note", noted), ("missing", set())):
            assert {name.split(" ")[0] for one in findings if one.kind == kind for name in one.names} == names
    assert len(read(images).test) == 3 * TEST_IMAGES
    with pytest.raises(ValueError, match=r"files are cut off before their end: train/red/0\.png; copy them again"):
        read(images).refuse_damage(images)


def write_cifar(root: Path, layout: CifarLayout, train: int = 6, test: int = 4) -> dict[str, np.ndarray]:
    """Random records; label bytes count up. Returns them by file."""
    rng = np.random.default_rng(0)
    (root / layout.class_file).write_text("\n".join(f"class{number}" for number in range(layout.num_classes)) + "\n\n")
    files = {}
    for name, count in ((layout.train_files[0], train), (layout.test_file, test)):
        records = rng.integers(0, 256, (count, layout.label_bytes + 3072), dtype=np.uint8)
        # The last label byte is the class, the one before it CIFAR-100's superclass.
        records[:, : layout.label_bytes] = np.arange(count)[:, None] + [[7, 3][-layout.label_bytes :]]
        records.tofile(root / name)
        files[name] = records
    return files


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_cifars_records_become_images(layout: CifarLayout, tmp_path: Path) -> None:
    files = write_cifar(tmp_path, layout)
    splits = read(tmp_path)
    assert splits.test.labels.tolist() == [3, 4, 5, 6]
    assert (splits.test.classes[3], len(splits.train)) == ("class3", 6)
    image = np.asarray(read_image(splits.test.source, 1))
    planes_3HW = files[layout.test_file][1, layout.label_bytes :].reshape(3, 32, 32)
    np.testing.assert_array_equal(image, planes_3HW.transpose(1, 2, 0))
    assert (splits.train.fingerprint.name, splits.train.fingerprint.coverage) == (layout.name, "subset")
    assert examine(tmp_path, deep=True, jobs=1) == []


def test_the_batches_of_cifar(tmp_path: Path) -> None:
    files = write_cifar(tmp_path, CIFAR_10)
    files["data_batch_1.bin"][:2].tofile(tmp_path / "data_batch_3.bin")
    before = read(tmp_path)
    assert before.train.names[5:] == ["data_batch_1.bin:5", "data_batch_3.bin:0", "data_batch_3.bin:1"]
    assert read_image(before.train.source, 6) == read_image(before.train.source, 0)
    files["test_batch.bin"][2, 100] ^= 1
    files["test_batch.bin"].tofile(tmp_path / "test_batch.bin")
    after = read(tmp_path)
    assert before.test.content_sha256 != after.test.content_sha256
    assert before.test.fingerprint.listing_sha256 != after.test.fingerprint.listing_sha256
    assert before.train.content_sha256 == after.train.content_sha256


def test_damaged_cifar(tmp_path: Path) -> None:
    def refuses(message: str) -> None:
        with pytest.raises(ValueError, match=message) as refused:
            read(tmp_path)
        (finding,) = examine(tmp_path, deep=False, jobs=1)
        assert (finding.kind, finding.text) == ("wrong", str(refused.value))

    records = write_cifar(tmp_path, CIFAR_10)["test_batch.bin"]
    with pytest.raises(ValueError, match="evaluated as a whole"):
        read(tmp_path, "imagenet-100")
    (tmp_path / "test_batch.bin").write_bytes(records.tobytes()[:-1])
    refuses(r"test_batch.bin: 12291 bytes are not a whole number of 3073-byte records")
    (tmp_path / "test_batch.bin").unlink()
    (tmp_path / "test_batch.bin").symlink_to("data_batch_1.bin")
    refuses("data_batch_1.bin and test_batch.bin are the same file")
    (tmp_path / "test_batch.bin").unlink()
    records[1, 0] = 10
    records.tofile(tmp_path / "test_batch.bin")
    refuses(r"test_batch.bin:1 has label 10, CIFAR-10 has classes 0 to 9")
    (tmp_path / "data_batch_1.bin").unlink()
    refuses(r"without data_batch_1.bin or")
    (tmp_path / "batches.meta.txt").write_text("cat dog")
    refuses("2 names, CIFAR-10 has 10 classes")
    (tmp_path / "batches.meta.txt").write_text("cat " * 10)
    refuses("10 names, CIFAR-10 has 10 classes, each with its own")
    (tmp_path / "batches.meta.txt").write_bytes(b"\xff")
    refuses("batches.meta.txt: not a text file in UTF-8")
    (tmp_path / "batches.meta.txt").unlink()
    refuses("no such file; CIFAR-10's binary archive holds it")
