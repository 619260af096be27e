"""Examines COCO 2017: both annotation files and both folders of images."""

import json
import logging
from pathlib import Path
from typing import Any

from eval.detection.data import FULL_ANNOTATIONS, FULL_SIZES, NAME, DataError, check_data
from eval.result import SAMPLE_MARKER
from tools.data_doctor.coco_annotations import check_annotations
from tools.data_doctor.findings import (
    add_archives,
    add_damage,
    add_elsewhere,
    add_entries,
    add_leftovers,
    add_nested,
    add_sizes,
)
from tools.data_doctor.folders import Listing, list_images, move_command
from tools.data_doctor.image_files import decode_photo, look, text_damage
from tools.data_doctor.report import DatasetReport, Download, SplitReport, count_of
from tools.data_doctor.survey import survey

FOLDER = "coco"
"""Below `--data`."""
"""Boxes of the published annotation files."""

logger = logging.getLogger(__name__)

_SLOW_BYTES = 10**8
_SITE = "http://images.cocodataset.org"
_ANNOTATIONS_ZIP = "annotations_trainval2017"
_SIGNS = ("annotations/instances_val2017.json", "annotations/instances_train2017.json", "train2017", "val2017")


def describe(data: Path) -> DatasetReport:
    """The report before anything was looked at."""
    folder = data / FOLDER
    downloads = (_annotations_download(folder), *(_images_download(folder, split) for split in FULL_SIZES))
    return DatasetReport(task="detection", name=NAME, data=data, folder=folder, downloads=downloads)


def examine(data: Path, deep: bool, jobs: int) -> DatasetReport:
    """Examine the dataset below `data`.

    Args:
        data: Holds `FOLDER`.
        deep: Decode every image.
        jobs: Processes; 0: one per core.
    """
    report = describe(data)
    root = report.folder
    if not any((root / sign).exists() for sign in _SIGNS):
        add_elsewhere(report, _SIGNS)
        for split in FULL_SIZES:
            add_archives(report, [split], root, str(_images_download(root, split)))
        return report
    report.sample = (root / SAMPLE_MARKER).exists()
    add_nested(report, root / "annotations")
    for split in FULL_SIZES:
        content = _read_annotations(report, split)
        listing = _list_images(report, split)
        if content is not None and listing is not None:
            _examine_images(report, split, content["images"], listing, deep, jobs)
        del content  # gigabytes for the full train2017
    if not report.problems:
        try:
            check_data(root)
        except DataError as error:
            report.add("wrong", f"the evaluation refuses it: {error}")
    add_leftovers(report, [*FULL_SIZES, _ANNOTATIONS_ZIP])
    return report


def _annotations_download(root: Path) -> Download:
    return Download(address=f"{_SITE}/annotations/{_ANNOTATIONS_ZIP}.zip", into=root)


def _images_download(root: Path, split: str) -> Download:
    return Download(address=f"{_SITE}/zips/{split}.zip", into=root)


def _read_annotations(report: DatasetReport, split: str) -> dict[str, Any] | None:
    """The content of an annotation file, with findings about it; None if it is of no use."""
    path = report.folder / "annotations" / f"instances_{split}.json"
    shown = path.relative_to(report.folder).as_posix()
    download = str(_annotations_download(report.folder))
    if not path.is_file():
        stray = next(
            (place / path.name for place in (report.folder, report.folder.parent) if (place / path.name).is_file()), None
        )
        if stray is not None:
            report.add("misplaced", f"{shown} lies elsewhere", [str(stray)], move_command(stray, path))
        elif not add_archives(report, [_ANNOTATIONS_ZIP], report.folder, download):
            report.add("missing", f"there is no {shown}", advice=download)
        return None
    if damage := text_damage(path):
        report.add_named("damaged", f"files are {damage}", [shown], download)
        return None
    if path.stat().st_size > _SLOW_BYTES:
        logger.info("reading %s, which takes a while", path)
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        report.findings += check_annotations(content, path.name)
        _count(report, split, content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        report.add("damaged", f"{shown} is no JSON, or breaks off ({error})", advice=download)
        return None
    except (KeyError, TypeError, AttributeError) as error:
        report.add("damaged", f"{shown} is no COCO annotation file ({error!r})", advice=download)
        return None
    return content


def _count(report: DatasetReport, split: str, content: dict[str, Any]) -> None:
    boxes, full_boxes = len(content["annotations"]), FULL_ANNOTATIONS[split]
    report.splits.append(
        SplitReport(
            name=split,
            unit="images",
            found=len(content["images"]),
            full=FULL_SIZES[split],
            also=count_of(boxes, full_boxes, "annotations"),
            also_full=boxes == full_boxes,
        )
    )


def _list_images(report: DatasetReport, split: str) -> Listing | None:
    """The entries of an image folder, with findings; None if it is not there, or all of it lies deeper."""
    folder = report.folder / split
    download = str(_images_download(report.folder, split))
    if not folder.is_dir():
        if not add_archives(report, [split], report.folder, download):
            report.add("missing", f"there is no folder {split}", advice=download)
        return None
    nested = add_nested(report, folder)
    listing = list_images(folder, ".jpg")
    add_entries(report, {folder: listing})
    return listing if listing.files or not nested else None


def _examine_images(
    report: DatasetReport, split: str, images: list[dict[str, Any]], listing: Listing, deep: bool, jobs: int
) -> None:
    """Findings about the images of a split and how they go with the annotation file."""
    download = f"get {_SITE}/{split}/NAME for each, or {_SITE}/zips/{split}.zip, and put them in {report.folder / split}"
    file_name = f"instances_{split}.json"
    listed = {image["file_name"]: (image["width"], image["height"]) for image in images}
    renamed = set(listing.misnamed.values())
    report.add_named(
        "missing", f"images of {file_name} are not in {split}", sorted(listed.keys() - listing.files - renamed), download
    )
    report.add_named(
        "note", f"images in {split} are not in {file_name}; the tasks leave them out", sorted(listing.files - listed.keys())
    )
    present = [report.folder / split / name for name in sorted(listing.files & listed.keys())]
    facts = survey(present, decode_photo if deep else look, jobs, f"{NAME} {split}")
    add_damage(report, facts, download)
    add_sizes(report, ((fact, listed[fact.path.name]) for fact in facts), file_name)
