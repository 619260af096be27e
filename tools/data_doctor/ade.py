"""Examines ADE20K as the scene-parsing challenge ships it."""

from pathlib import Path

from eval.result import SAMPLE_MARKER
from eval.segmentation.data import ADDRESS, FULL_SIZES, IMAGE_SUFFIX, LABEL_SUFFIX, NAME, DataError, check_data
from tools.data_doctor.findings import (
    add_archives,
    add_damage,
    add_elsewhere,
    add_entries,
    add_leftovers,
    add_nested,
    add_sizes,
)
from tools.data_doctor.folders import Listing, list_images
from tools.data_doctor.image_files import FileFacts, decode_labels, decode_photo, look, look_at_labels
from tools.data_doctor.report import DatasetReport, Download, SplitReport
from tools.data_doctor.survey import survey

FOLDER = "ade/ADEChallengeData2016"
"""Below `--data`."""
LARGEST_LABEL = 150
"""0 is unlabelled, 1 to 150 are the classes."""

_SIGNS = ("images/training", "images/validation", "annotations/training", "annotations/validation")
_LABELS_READ = 200  # label maps per split whose values are read without --deep
_STEMS = {"training": "ADE_train_{:08d}", "validation": "ADE_val_{:08d}"}
_MOST_ABSENT_NAMED = 100


def describe(data: Path) -> DatasetReport:
    """The report before anything was looked at."""
    folder = data / FOLDER
    download = Download(address=ADDRESS, into=folder.parent)
    return DatasetReport(task="segmentation", name=NAME, data=data, folder=folder, downloads=(download,))


def examine(data: Path, deep: bool, jobs: int) -> DatasetReport:
    """Examine the dataset below `data`.

    Args:
        data: Holds `FOLDER`.
        deep: Decode every file.
        jobs: Processes; 0: one per core.
    """
    report = describe(data)
    root = report.folder
    if not any((root / sign).is_dir() for sign in _SIGNS):
        add_elsewhere(report, _SIGNS)
        add_archives(report, [root.name], root.parent, str(report.downloads[0]))
        return report
    report.sample = (root / SAMPLE_MARKER).exists()
    for split in FULL_SIZES:
        _examine_split(report, split, deep, jobs)
    if not report.problems:
        try:
            check_data(root)
        except DataError as error:
            report.add("wrong", f"the evaluation refuses it: {error}")
    add_leftovers(report, [root.name])
    return report


def _examine_split(report: DatasetReport, split: str, deep: bool, jobs: int) -> None:
    images = _list(report, f"images/{split}", IMAGE_SUFFIX)
    labels = _list(report, f"annotations/{split}", LABEL_SUFFIX)
    if images is None or labels is None:
        return
    image_stems, label_stems = ({Path(name).stem for name in listing.files} for listing in (images, labels))
    # What only has a wrong ending is reported as such, not as missing too.
    renamed_images, renamed_labels = ({Path(name).stem for name in listing.misnamed} for listing in (images, labels))
    advice = str(report.downloads[0])
    report.add_named(
        "missing",
        f"images/{split} lacks the image of label maps",
        sorted(f"{stem}{IMAGE_SUFFIX}" for stem in label_stems - image_stems - renamed_images),
        advice,
    )
    report.add_named(
        "missing",
        f"annotations/{split} lacks the label map of images",
        sorted(f"{stem}{LABEL_SUFFIX}" for stem in image_stems - label_stems - renamed_labels),
        advice,
    )
    pairs = sorted(image_stems & label_stems)
    _count(report, split, pairs)
    _examine_files(report, split, sorted(image_stems), sorted(label_stems), deep, jobs)


def _list(report: DatasetReport, place: str, suffix: str) -> Listing | None:
    """The entries of a folder, with findings about those that are not as they should be; None if it is not there."""
    folder = report.folder / place
    nested = add_nested(report, folder)
    if not folder.is_dir():
        report.add("missing", f"there is no folder {place}", advice=str(report.downloads[0]))
        return None
    listing = list_images(folder, suffix)
    add_entries(report, {folder: listing})
    if not listing.files and not listing.misnamed and not nested:
        report.add("missing", f"there are no {suffix} files in {place}", advice=str(report.downloads[0]))
    return listing


def _count(report: DatasetReport, split: str, pairs: list[str]) -> None:
    full = FULL_SIZES[split]
    report.splits.append(SplitReport(name=split, unit="pairs of image and label map", found=len(pairs), full=full))
    published = (_STEMS[split].format(number) for number in range(1, full + 1))
    absent = sorted(set(published) - set(pairs))
    if absent and len(absent) <= _MOST_ABSENT_NAMED and not report.sample:
        report.add("note", f"pairs of the published {split} set are not there", absent)


def _examine_files(
    report: DatasetReport, split: str, image_stems: list[str], label_stems: list[str], deep: bool, jobs: int
) -> None:
    images, annotations = report.folder / "images" / split, report.folder / "annotations" / split
    image_paths = [images / f"{stem}{IMAGE_SUFFIX}" for stem in image_stems]
    label_paths = [annotations / f"{stem}{LABEL_SUFFIX}" for stem in label_stems]
    photos = survey(image_paths, decode_photo if deep else look, jobs, f"{report.name} {split} images")
    labels = survey(label_paths, decode_labels if deep else look_at_labels, jobs, f"{report.name} {split} label maps")
    if not deep:
        _read_some(labels, jobs, f"{report.name} {split} labels")
    add_damage(report, [*photos, *labels], str(report.downloads[0]))
    sizes = {fact.path.stem: fact.size for fact in labels if fact.size is not None}
    known = ((fact, sizes[fact.path.stem]) for fact in photos if fact.path.stem in sizes)
    add_sizes(report, known, "their label maps")
    foreign = {
        fact.path.name: [value for value in fact.values if not 0 <= value <= LARGEST_LABEL] for fact in labels if fact.values
    }
    report.add_named(
        "wrong",
        f"label maps in annotations/{split} hold labels other than 0 to {LARGEST_LABEL}",
        (f"{name} ({', '.join(map(str, values[:5]))})" for name, values in foreign.items() if values),
        "they are of another version of ADE20K, or colour tables",
    )


def _read_some(labels: list[FileFacts], jobs: int, what: str) -> None:
    """Decode label maps spread evenly over the split, in place."""
    step = max(1, len(labels) // _LABELS_READ)
    chosen = [index for index in range(0, len(labels), step) if labels[index].damage is None]
    for index, fact in zip(chosen, survey([labels[index].path for index in chosen], decode_labels, jobs, what), strict=True):
        labels[index] = fact
