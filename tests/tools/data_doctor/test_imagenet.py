"""Damage to ImageNet, each kind reported once."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.tools.data_doctor.conftest import CLASSES, Examine, draw_photo, only
from tools.data_doctor import imagenet

FIRST, SECOND = CLASSES


def test_a_subset_is_counted(examine_task: Examine) -> None:
    report = examine_task("classification", deep=True)
    assert report.state == "subset"
    assert report.findings == []
    assert [(split.name, split.found, split.full, split.also) for split in report.splits] == [
        ("train", 6, 1_281_167, "2 of 1,000 classes"),
        ("val", 4, 50_000, "2 of 1,000 classes"),
    ]


def take_val_away(root: Path) -> None:
    shutil.rmtree(root / "val")


def flatten_val(root: Path) -> None:
    for path in (root / "val").glob("*/*"):
        path.rename(root / "val" / path.name)
    for folder in (root / "val").iterdir():
        if folder.is_dir():
            folder.rmdir()


def leave_classes_packed(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
    for name in CLASSES:
        (root / f"train/{name}.tar").write_bytes(b"a tar")


def leave_val_packed(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "ILSVRC2012_img_val.tar").write_bytes(b"a tar")


def take_a_class_from_val(root: Path) -> None:
    shutil.rmtree(root / "val" / SECOND)


def empty_a_class(root: Path) -> None:
    for path in (root / "train" / SECOND).iterdir():
        path.unlink()


def empty_train(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


def nest_train(root: Path) -> None:
    (root / "train").rename(root / "inner")
    (root / "train").mkdir()
    (root / "inner").rename(root / "train/train")


def cut_an_image(root: Path) -> None:
    path = root / f"train/{FIRST}/{FIRST}_1.JPEG"
    path.write_bytes(path.read_bytes()[:-100])


def leave_a_shadow(root: Path) -> None:
    (root / f"val/{SECOND}/._a.JPEG").write_bytes(b"Mac OS X")


def ship_as_kaggle(root: Path) -> None:
    inner = root / imagenet._KAGGLE
    inner.mkdir(parents=True)
    for split in imagenet.SPLITS:
        (root / split).rename(inner / split)


def put_it_under_another_name(root: Path) -> None:
    root.rename(root.with_name("ILSVRC2012"))


@pytest.mark.parametrize(
    ("spoil", "kind", "what", "names", "advice"),
    [
        (take_val_away, "missing", "there is no folder val", (), imagenet.ADDRESS),
        (
            flatten_val,
            "misplaced",
            "images of val lie outside class folders",
            tuple(f"{name}_{number}.JPEG" for name in CLASSES for number in (0, 1)),
            "valprep.sh",
        ),
        (
            leave_classes_packed,
            "missing",
            "archives of classes in train are not unpacked",
            tuple(f"{name}.tar" for name in CLASSES),
            "for a in *.tar; do",
        ),
        (leave_val_packed, "missing", "archives lie there, not unpacked", None, "mkdir -p "),
        (take_a_class_from_val, "missing", "val lacks classes that train has", (SECOND,), imagenet.ADDRESS),
        (empty_a_class, "missing", "class folders hold no image", (f"train/{SECOND}",), imagenet.ADDRESS),
        (empty_train, "missing", "there are no class folders in train", (), imagenet.ADDRESS),
        (nest_train, "misplaced", "train lies within another folder of its name", None, "find "),
        (cut_an_image, "damaged", "files are cut off before their end", (f"train/{FIRST}/{FIRST}_1.JPEG",), imagenet.ADDRESS),
        (leave_a_shadow, "damaged", "files are no images by their first bytes", (f"val/{SECOND}/._a.JPEG",), imagenet.ADDRESS),
        (ship_as_kaggle, "misplaced", "it lies as Kaggle ships it", None, "find "),
        (put_it_under_another_name, "misplaced", "ImageNet-1k lies in another folder than", None, "mv "),
    ],
)
def test_each_trouble_is_one_finding(
    spoil: Callable[[Path], None],
    kind: str,
    what: str,
    names: tuple[str, ...] | None,
    advice: str,
    data: Path,
    examine_task: Examine,
) -> None:
    spoil(data / "imagenet")
    finding = only(examine_task("classification"), kind)
    assert finding.what.startswith(what)
    assert names is None or finding.names == names
    assert advice in finding.advice


def test_what_nobody_reads_is_only_noted(data: Path, examine_task: Examine) -> None:
    root = data / "imagenet"
    (root / "train" / FIRST / ".DS_Store").write_bytes(b"")
    (root / "val" / FIRST / "list.txt").write_text("mine")
    (root / "val" / "synsets.txt").write_text("mine")
    report = examine_task("classification")
    assert report.state == "subset"
    assert {finding.names for finding in report.findings} == {
        (f"train/{FIRST}/.DS_Store",),
        (f"val/{FIRST}/list.txt",),
        ("val/synsets.txt",),
    }


def test_deep_decodes_as_classification_does(data: Path, examine_task: Examine) -> None:
    folder = data / "imagenet/val" / FIRST
    # ImageNet itself has a PNG by the name of a JPEG, and JPEGs in CMYK.
    Image.new("RGB", (30, 20)).save(folder / "png.JPEG", "PNG")
    Image.new("CMYK", (30, 20)).save(folder / "cmyk.JPEG", "JPEG")
    assert examine_task("classification", deep=True).state == "subset"
    draw_photo(folder / "broken.png", 3)
    png = folder / "png.JPEG"
    content = bytearray(png.read_bytes())
    content[-30] ^= 255
    png.write_bytes(content)
    assert only(examine_task("classification", deep=True), "damaged").names[0].startswith(f"val/{FIRST}/png.JPEG (")


def test_the_unpacking_command_works(data: Path, examine_task: Examine) -> None:
    folder = data / "imagenet/train"
    for name in CLASSES:
        subprocess.run(["tar", "-cf", f"{name}.tar", "-C", name, "."], cwd=folder, check=True)
        shutil.rmtree(folder / name)
    subprocess.run(only(examine_task("classification"), "missing").advice, shell=True, check=True, cwd=data)
    assert examine_task("classification").state == "subset"
