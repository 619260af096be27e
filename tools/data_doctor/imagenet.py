"""Examines ImageNet, or whatever folders of classes lie in its place, as classification reads them."""

import os
from collections.abc import Iterator
from pathlib import Path

from eval.classification.image_folder import IMAGE_SUFFIXES, IMAGENET, PUBLISHED_SIZES, SORT_BY_CLASS, read_image_folder
from eval.result import SAMPLE_MARKER
from tools.data_doctor.findings import CLUTTER, add_archives, add_damage, add_elsewhere, add_leftovers, add_nested
from tools.data_doctor.folders import is_clutter, move_command, subfolders
from tools.data_doctor.image_files import FileFacts, decode_picture, look
from tools.data_doctor.report import DatasetReport, Download, SplitReport, count_of
from tools.data_doctor.survey import survey

FOLDER = "imagenet"
"""Below `--data`."""
ADDRESS = "https://image-net.org/download-images.php"
"""Demands an account."""
SPLITS = ("train", "val")

_CLASSES, *_IMAGES = PUBLISHED_SIZES[IMAGENET]
_ARCHIVES = {"train": "ILSVRC2012_img_train", "val": "ILSVRC2012_img_val"}
_KAGGLE = "ILSVRC/Data/CLS-LOC"
# A class of every copy of ImageNet; `train` alone would be found in too many places.
_SIGNS = ("train/n01440764", "val/n01440764")
_FILES_AT_ONCE = 50_000  # what is known of a million files would take a gigabyte


def describe(data: Path) -> DatasetReport:
    """The report before anything was looked at."""
    download = Download(address=ADDRESS, into=data / FOLDER)
    return DatasetReport(task="classification", name=IMAGENET, data=data, folder=data / FOLDER, downloads=(download,))


def examine(data: Path, deep: bool, jobs: int) -> DatasetReport:
    """Examine the dataset below `data`.

    Args:
        data: Holds `FOLDER`.
        deep: Decode every file.
        jobs: Processes; 0: one per core.
    """
    report = describe(data)
    root = report.folder
    if not any((root / split).is_dir() for split in SPLITS):
        _look_elsewhere(report)
        return report
    report.sample = (root / SAMPLE_MARKER).exists()
    classes = {split: found for split in SPLITS if (found := _class_folders(report, split)) is not None}
    if len(classes) == len(SPLITS):
        for split, other in (SPLITS, SPLITS[::-1]):
            absent = sorted(set(classes[other]) - set(classes[split]))
            report.add_named("missing", f"{split} lacks classes that {other} has", absent, str(report.downloads[0]))
    for split, names in classes.items():
        _examine_split(report, split, names, deep, jobs)
    if not report.problems:
        try:
            read_image_folder(root, *SPLITS, classes="")
        except ValueError as error:
            report.add("wrong", f"the evaluation refuses it: {error}")
    add_leftovers(report, list(_ARCHIVES.values()))
    return report


def _look_elsewhere(report: DatasetReport) -> None:
    root = report.folder
    if (root / _KAGGLE / SPLITS[0]).is_dir():
        report.add("misplaced", "it lies as Kaggle ships it", [str(root / _KAGGLE)], move_command(root / _KAGGLE, root))
        return
    add_elsewhere(report, _SIGNS)
    for split in SPLITS:
        add_archives(report, [_ARCHIVES[split]], root / split, str(report.downloads[0]))


def _class_folders(report: DatasetReport, split: str) -> list[str] | None:
    """Names of the class folders, with findings about what else lies beside them; None where there are none."""
    folder, advice = report.folder / split, str(report.downloads[0])
    if not folder.is_dir():
        if not add_archives(report, [_ARCHIVES[split]], folder, advice):
            report.add("missing", f"there is no folder {split}", advice=advice)
        return None
    nested = add_nested(report, folder)
    with os.scandir(folder) as entries:
        files = sorted(entry.name for entry in entries if entry.is_file() and not is_clutter(entry.name))
    images = [name for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    archives = [name for name in files if name.endswith(".tar")]
    report.add_named("misplaced", f"images of {split} lie outside class folders", images, SORT_BY_CLASS)
    report.add_named("missing", f"archives of classes in {split} are not unpacked", archives, _unpack(folder))
    others = [f"{split}/{name}" for name in files if name not in {*images, *archives}]
    report.add_named("note", "entries do not belong where they are", others)
    names = [path.name for path in subfolders(folder) if not (nested and path.name == split)]
    if not names and not (images or archives or nested):
        report.add("missing", f"there are no class folders in {split}", advice=advice)
    return names or None


def _unpack(folder: Path) -> str:
    return f'cd {folder} && for a in *.tar; do mkdir -p "${{a%.tar}}" && tar -xf "$a" -C "${{a%.tar}}" && rm "$a"; done'


def _examine_split(report: DatasetReport, split: str, classes: list[str], deep: bool, jobs: int) -> None:
    folder, advice = report.folder / split, str(report.downloads[0])
    files = {name: list(_files(folder / name)) for name in classes}
    images = {name: [path for path in found if _is_image(path)] for name, found in files.items()}
    empty = [f"{split}/{name}" for name in classes if not images[name]]
    report.add_named("missing", "class folders hold no image", empty, advice)
    others = [path for found in files.values() for path in found if not _is_image(path)]
    for what, of_a_system in ((CLUTTER, True), ("files have no image's ending; nobody reads them", False)):
        names = (path.relative_to(report.folder).as_posix() for path in others if is_clutter(path.name) is of_a_system)
        report.add_named("note", what, names)
    paths = [path for found in images.values() for path in found]
    report.splits.append(
        SplitReport(
            name=split,
            unit="images",
            found=len(paths),
            full=_IMAGES[SPLITS.index(split)],
            also=count_of(len(classes), _CLASSES, "classes"),
            also_full=len(classes) == _CLASSES,
        )
    )
    add_damage(report, _damaged(paths, deep, jobs, f"{report.name} {split}"), advice)


def _damaged(paths: list[Path], deep: bool, jobs: int, what: str) -> Iterator[FileFacts]:
    for start in range(0, len(paths), _FILES_AT_ONCE):
        part = paths[start : start + _FILES_AT_ONCE]
        label = f"{what} {start + 1:,} to {start + len(part):,} of {len(paths):,}"
        yield from (fact for fact in survey(part, decode_picture if deep else look, jobs, label) if fact.damage is not None)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES  # macOS' `._a.JPEG` too: the evaluation reads and refuses it


def _files(folder: Path) -> Iterator[Path]:
    """All files at any depth."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))
