"""The labelled images of classification: ImageNet, anybody's folders of classes, or CIFAR, and what can be wrong with them.

`python -m eval` refuses what `examine` reports, except that it decodes images only when it needs them. Nothing here loads torch.
"""

import hashlib
import itertools
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from common.cifar import CifarLayout, find_layout, picture_planes, present_train_files, read_records
from common.files import CONTROLS, check_name, one_line, text_sha256
from common.images import IMAGE_SUFFIXES, is_hidden, is_image_name, read_lines, require_file, to_rgb, walk_files
from eval.classification import TASK
from eval.findings import Finding, Kind, about, merged, refuse
from eval.image_checks import PILLOW_ERRORS, UNWRITABLE, by_pillow, damage_findings, look_at_all, same_folder_findings
from eval.record import describe_dataset
from eval.result import Dataset

logger = logging.getLogger(__name__)

IMAGENET, IMAGENET_100 = "ImageNet-1k", "ImageNet-100"
PUBLISHED_SIZES = {IMAGENET: (1_281_167, 50_000), IMAGENET_100: (126_689, 5_000)}
"""Numbers of training and validation images. Sources: ILSVRC-2012; for ImageNet-100 the count of Tian et al.'s classes in it."""

_IMAGENET_CLASSES = 1000
_IMAGENET_100_OPTION = "imagenet-100"
_IMAGENET_100_LIST = Path(__file__).parent / "lists" / "imagenet100.txt"
_WORDNET_ID = re.compile(r"n\d{8}")
_DOWNLOAD = f"download it from {TASK.downloads[0].address} (demands an account)"
_REPAIR = f"copy them again; for ImageNet, {_DOWNLOAD}"
_FOLDERS = (
    "--data is the folder that holds train and val, each with a folder per class (--train-folder, --test-folder name others), or "
    f"CIFAR's binary files; for ImageNet, {_DOWNLOAD}"
)
_SORT_BY_CLASS = (
    "ImageNet's validation images come unsorted: sort them by the devkit's labels, for example with `valprep.sh` of "
    "soumith/imagenetloader.torch"
)
_STRANGE: Mapping[str, tuple[Kind, str, str]] = {
    "other": ("note", "files without an image's ending are ignored", ""),
    "unreadable": ("damaged", "files are broken links, pipes or devices", "remove them"),
    "unwritable": ("wrong", UNWRITABLE, "rename them"),
    "shared": ("wrong", "folders are the same as others, so that their images would count twice", "remove the links"),
}
_FILES_AT_ONCE = 50_000  # what is known of a million files would take a gigabyte

ImageFile = tuple[str, int, int]
"""Path (text, since a million Path objects would take a gigabyte), size in bytes, time of the last change in ns."""

Source = list[str] | npt.NDArray[np.uint8]
"""The images of a split: paths of files, or RGB pixels [N, H, W, 3]."""


def read_image(source: Source, index: int) -> Image.Image:
    """An image in RGB, decoded as torchvision's `ImageFolder` does, but for 16 bits of grey."""
    if not isinstance(source, list):
        return Image.fromarray(np.ascontiguousarray(source[index]))
    try:
        with Image.open(source[index]) as image:
            return to_rgb(image)
    except PILLOW_ERRORS as error:  # leaving the image out would change the benchmark
        raise ValueError(f"{source[index]}: cannot be decoded ({error}); repair or replace it") from error


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """One split of N images.

    Labels [N] are indices into the names of the classes, which are the same in both splits; `names` [N] identify the images within
    their set. `content_sha256` changes with every change of a file, for caches: unlike the fingerprint, which goes into the result,
    it may differ between copies of the same data.
    """

    source: Source
    labels: npt.NDArray[np.int64]
    names: list[str]
    classes: list[str]
    fingerprint: Dataset
    content_sha256: str

    def __len__(self) -> int:
        return len(self.labels)


class Splits(NamedTuple):
    """A data set: labelled neighbours, or images that a probe is trained on, and those to classify."""

    train: LabelledImages
    test: LabelledImages

    def refuse_damage(self, root: Path) -> None:
        """Raise ValueError if a file of the data set, in the folder `root`, cannot be an image by its header and its end."""
        for images in self:
            if isinstance(images.source, list):
                refuse(_damage(root, images.fingerprint.split, images.source))


def read_splits(root: Path, train_folder: str, test_folder: str, classes: str) -> Splits:
    """List CIFAR's binary files or two folders of class folders, whose sorted names are the labels.

    ValueError for every problem of `examine` that shows without opening images, and for a list of classes that does not fit.
    """
    if (layout := find_layout(root)) is not None:
        if classes:
            raise ValueError(f"classes={classes}: {layout.name} is evaluated as a whole; leave the option out")
        return _read_cifar(root, layout)
    wanted = read_class_list(classes, root / train_folder) if classes else None
    files, findings = _list_images(root, (train_folder, test_folder), wanted)
    refuse(findings)
    name, found = root.resolve().name, files[train_folder]
    if classes:
        name = IMAGENET_100 if classes == _IMAGENET_100_OPTION else f"{name}, classes of {Path(classes).name}"
    elif len(found) == _IMAGENET_CLASSES and all(map(_WORDNET_ID.fullmatch, found)):
        name = IMAGENET
    sizes = PUBLISHED_SIZES.get(name, (0, 0))
    return Splits(*(_label(root, split, files[split], name, size) for split, size in zip(files, sizes, strict=True)))


def read_class_list(classes: str, folder: Path) -> list[str]:
    """The class folders in a folder, sorted, that an option's value names: `imagenet-100`, or a file with a folder name per line."""
    path = _IMAGENET_100_LIST if classes == _IMAGENET_100_OPTION else Path(classes)
    if not path.is_file():
        raise ValueError(f"classes={classes}: no such file; give imagenet-100, or a text file with a folder name per line")
    # Words after the name of a folder are a remark, unless they are part of it.
    present = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208
    names = [check_name(line if line in present else line.split()[0], f"classes={classes}:") for line in read_lines(path)]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"classes={classes}: the file must name at least one class, and none twice")
    return sorted(names)


def examine(folder: Path, deep: bool, jobs: int) -> list[Finding]:
    """Everything that is wrong with CIFAR's files, or with ImageNet or other class folders in `train` and `val`.

    With `deep`, every image is decoded, not only its beginning and end looked at.
    """
    if (layout := find_layout(folder)) is not None:
        try:
            _read_cifar(folder, layout)
        except ValueError as error:
            return [Finding("wrong", str(error))]
        return []
    files, findings = _list_images(folder, ("train", "val"), None)
    for (split, images), full in zip(files.items(), PUBLISHED_SIZES[IMAGENET], strict=True):
        paths = [path for class_images in images.values() for path, _, _ in class_images]
        if paths and (len(paths), len(images)) != (full, _IMAGENET_CLASSES):
            found = f"{split}: {len(paths):,} of {full:,} images, {len(images):,} of {_IMAGENET_CLASSES:,} classes"
            findings.append(Finding("subset", found))
        findings += _damage(folder, split, paths, deep, jobs)
    return findings


def _damage(root: Path, split: str, paths: Sequence[str], deep: bool = False, jobs: int = 0) -> list[Finding]:
    findings = []
    for start in range(0, len(paths), _FILES_AT_ONCE):
        part = [Path(path) for path in paths[start : start + _FILES_AT_ONCE]]
        label = f"{split} {start + 1:,} to {start + len(part):,} of {len(paths):,}"
        findings += damage_findings(look_at_all(part, jobs, label, by_pillow if deep else None), root, _REPAIR)
    return merged(findings)


def _list_images(
    root: Path, splits: tuple[str, str], wanted: list[str] | None
) -> tuple[dict[str, dict[str, list[ImageFile]]], list[Finding]]:
    """The images by folder and class, sorted, and what is wrong with the folders; `wanted` are the only classes that count."""
    if same := same_folder_findings(root, *splits):
        return {split: {} for split in splits}, same
    findings: list[Finding] = []
    found = {split: _class_folders(root, split, findings) for split in splits}
    expected = set(wanted or itertools.chain(*found.values()))
    files: dict[str, dict[str, list[ImageFile]]] = {}
    entered: set[str] = set()
    strange: dict[str, list[str]] = {sort: [] for sort in _STRANGE}
    for split, names in found.items():
        for name in names:
            try:
                check_name(name, f"{split}: class folder")
            except ValueError as error:
                findings.append(Finding("wrong", str(error)))
        if names:
            advice = "" if wanted else "both folders need the same ones"
            findings += about("missing", f"{split} lacks classes", sorted(expected.difference(names)), advice)
        files[split] = {name: _walk(root / split / name, entered, strange) for name in sorted(expected.intersection(names))}
        empty = [f"{split}/{name}" for name, images in files[split].items() if not images]
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        findings += about("missing", "class folders hold no image", empty, f"endings looked for: {suffixes}")
    for sort, (kind, text, advice) in _STRANGE.items():
        findings += about(kind, text, sorted(one_line(os.path.relpath(path, root)) for path in strange[sort]), advice)
    return files, findings + _shared_images(root, *files.values())


def _shared_images(root: Path, train: dict[str, list[ImageFile]], test: dict[str, list[ImageFile]]) -> list[Finding]:
    """A finding about files that are in both splits by links, each of which would be its own nearest neighbour."""

    def identity(path: str) -> tuple[int, int]:
        status = os.stat(path)  # noqa: PTH116
        return status.st_dev, status.st_ino

    # Asking the system about each of a million files again takes a while; a link's size and time are those of its file.
    tested = [image for images in test.values() for image in images]
    likely = {(size, modified) for _, size, modified in tested}
    alike = (path for images in train.values() for path, size, modified in images if (size, modified) in likely)
    learned = set(map(identity, alike))
    shared = [os.path.relpath(path, root) for path, _, _ in tested if learned and identity(path) in learned]
    return about("wrong", "images to classify are the same files as training images", map(one_line, shared), "remove the links")


def _class_folders(root: Path, split: str, findings: list[Finding]) -> list[str]:
    """Names of the class folders of a split; what is wrong with what else is beside them is added to the findings."""
    folder, archive = root / split, root / f"ILSVRC2012_img_{split}.tar"
    if not folder.is_dir() and archive.is_file():
        advice = f"mkdir -p {folder} && tar -xf {archive} -C {folder}"
        findings.append(Finding("missing", f"{archive} is not unpacked", advice=advice))
        return []
    if not folder.is_dir():
        findings.append(Finding("missing", f"{folder}: no such folder", advice=_FOLDERS))
        return []
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir() for entry in entries}
    visible = sorted(name for name in kinds if not is_hidden(name))
    names = [name for name in visible if kinds[name]]
    images = [name for name in visible if not kinds[name] and is_image_name(name)]
    archives = [name for name in visible if not kinds[name] and name.endswith(".tar")]
    others = sorted(f"{split}/{name}" for name in kinds.keys() - {*names, *images, *archives})
    unpack = f'cd {folder} && for a in *.tar; do mkdir -p "${{a%.tar}}" && tar -xf "$a" -C "${{a%.tar}}" && rm "$a"; done'
    nested = [f"{split}/{name}" for name in names] if names == [Path(split).name] else []
    if not (names or images or archives):
        findings.append(Finding("missing", f"{folder} has no class folders", advice=f"for ImageNet, {_DOWNLOAD}"))
    findings += about("misplaced", f"{split} is in another folder of its name", nested, "move its content up")
    findings += about("note" if names else "misplaced", f"images of {split} are not in class folders", images, _SORT_BY_CLASS)
    findings += about("missing", f"archives of classes in {split} are not unpacked", archives, unpack)
    findings += about("note", "files do not belong in their folder", others)
    return [] if nested else names


def _walk(folder: Path, entered: set[str], strange: dict[str, list[str]]) -> list[ImageFile]:
    """Every image at any depth, sorted by path; other paths are added to those in `strange`, real folders to `entered`."""
    images = []
    for parent, names in walk_files(folder):
        if (real := os.path.realpath(parent)) in entered:
            strange["shared"].append(parent)
        entered.add(real)
        for name in names:
            path = os.path.join(parent, name)  # noqa: PTH118 - a million of them: pathlib takes four times as long
            if not is_image_name(name):
                strange["other"].append(path)
                continue
            try:
                require_file(state := os.stat(path), path)  # noqa: PTH116
            except OSError:
                strange["unreadable"].append(path)
                continue
            images.append((path, state.st_size, state.st_mtime_ns))
            if CONTROLS.search(path):
                strange["unwritable"].append(path)
    return sorted(images)


def _label(root: Path, folder: str, files: dict[str, list[ImageFile]], name: str, full_size: int) -> LabelledImages:
    images = [image for class_images in files.values() for image in class_images]
    names = [os.path.relpath(path, root / folder) for path, _, _ in images]
    logger.info("%s: %d images of %d classes", root / folder, len(images), len(files))
    items = [f"{item} {size}" for item, (_, size, _) in zip(names, images, strict=True)]
    return LabelledImages(
        source=[path for path, _, _ in images],
        labels=np.repeat(np.arange(len(files)), [len(class_images) for class_images in files.values()]),
        names=names,
        classes=list(files),
        fingerprint=describe_dataset(root, name, folder, items, full_size),
        content_sha256=text_sha256("\n".join(f"{path} {size} {modified}" for path, size, modified in images)),
    )


def _read_cifar(root: Path, layout: CifarLayout) -> Splits:
    """Read both splits, also with fewer than all training batches."""
    class_file = root / layout.class_file
    if not class_file.is_file():
        raise ValueError(f"{class_file}: no such file; {layout.name}'s binary archive holds it beside {layout.test_file}")
    classes = [name for line in read_lines(class_file) for name in line.split()]
    if len(set(classes)) != layout.num_classes or len(classes) != layout.num_classes:
        raise ValueError(
            f"{class_file}: {len(classes)} names, {layout.name} has {layout.num_classes} classes, each with its own"
        )
    for name in classes:
        check_name(name, f"{class_file}: class")
    train_files = present_train_files(root, layout)
    if shared := [name for name in train_files if (root / name).samefile(root / layout.test_file)]:
        raise ValueError(f"{root}: {shared[0]} and {layout.test_file} are the same file; get the original files again")

    def label(split: str, files: list[str], full_size: int) -> LabelledImages:
        records, names = read_records(root, layout, files)
        labels = records[:, layout.label_bytes - 1].astype(np.int64)
        if labels.max() >= len(classes):
            bad = int(np.argmax(labels >= len(classes)))
            raise ValueError(f"{root}: {names[bad]} has label {labels[bad]}, {layout.name} has classes 0 to {len(classes) - 1}")
        items = [f"{name} {hashlib.sha256(record).hexdigest()}" for name, record in zip(names, records, strict=True)]
        return LabelledImages(
            source=picture_planes(records, layout).transpose(0, 2, 3, 1),
            labels=labels,
            names=names,
            classes=classes,
            fingerprint=describe_dataset(root, layout.name, split, items, full_size),
            content_sha256=text_sha256("\n".join(items)),
        )

    return Splits(label("train", train_files, layout.train_size), label("test", [layout.test_file], layout.test_size))
