"""The data sets with label maps: how each lists its pairs, what its labels are, and where it comes from.

ADEChallengeData2016/{images,annotations}/{training,validation}/NAME.{jpg,png}    0 = unlabelled, 1 to 150 = classes
VOCdevkit/VOC2012/{JPEGImages/NAME.jpg,SegmentationClass/NAME.png}                0 to 20 = classes, 255 = void
VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt                          names, one per line
VOCdevkit/VOC2012/{SegmentationClassAug,ImageSets/Segmentation/trainaug.txt}      the same for the split `trainaug`
cityscapes/leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png
cityscapes/gtFine/{train,val}/CITY/NAME_gtFine_labelTrainIds.png                  0 to 18 = classes, 255 = void
cocostuff/{images,annotations}/{train2017,val2017}/NAME.{jpg,png}                 0 to 181 = 27 coarse classes, 255 = void

Loads no torch.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from common.images import is_hidden, read_lines
from eval.findings import Finding, about
from eval.image_checks import list_images, same_folder_findings
from eval.probes.classes import (
    ADE20K_CLASSES,
    CITYSCAPES_CLASSES,
    COCO_STUFF_CLASSES,
    COCO_STUFF_COARSE,
    VOC2012_CLASSES,
    voc_colours,
)
from eval.probes.data import LabelledSet, Pairs, list_splits, shared_names
from eval.shared import ADE20K_SET, CITYSCAPES_SET, COCO_STUFF_SET, VOC2012_SET

_MOST_ABSENT_NAMED = 100


def _files(
    found: LabelledSet, root: Path, place: str, suffix: Literal[".jpg", ".png"], full: int
) -> tuple[dict[str, Path], list[Finding]]:
    """The files in a folder by their names without suffix, and what is wrong with it."""
    expected = f"(expected {full} {suffix} files in the full benchmark)"
    if not (root / place).is_dir():
        return {}, [Finding("missing", f"{root} has no folder {place} {expected}", advice=f"get it from {found.address}")]
    files, findings = list_images(root / place, suffix, root)
    if not files:
        text = f"{root} has no {suffix} files in {place} {expected}"
        findings.append(Finding("missing", text, advice=f"get them from {found.address}"))
    return files, findings


def _subset(found: LabelledSet, split: str, pairs: Pairs, absent: Iterable[str] = ()) -> list[Finding]:
    full = found.sizes[split]
    text = f"{split}: {len(pairs):,} of {full:,} pairs of image and label map"
    return [Finding("subset", text, tuple(absent))] if pairs and len(pairs) != full else []


def _folder_pairs(found: LabelledSet, root: Path, split: str) -> tuple[Pairs, list[Finding]]:
    """Of a set with a folder of images and one of label maps for each split."""
    findings: list[Finding] = []
    if split == found.test:
        for part in ("images", "annotations"):
            findings += same_folder_findings(root, *(f"{part}/{name}" for name in found.sizes))
    full = found.sizes[split]
    images, more = _files(found, root, f"images/{split}", ".jpg", full)
    labels, others = _files(found, root, f"annotations/{split}", ".png", full)
    findings += more + others
    if not images or not labels:
        return {}, findings
    text = f"{root}/annotations/{split} lacks the .png of {len(images.keys() - labels)} images"
    findings += about("missing", text, sorted(images.keys() - labels), f"get them from {found.address}")
    text = f"{root}/images/{split} lacks the .jpg of {len(labels.keys() - images)} label maps"
    findings += about("missing", text, sorted(labels.keys() - images), f"get them from {found.address}")
    pairs = {stem: (images[stem], labels[stem]) for stem in images if stem in labels}
    return pairs, findings + _subset(found, split, pairs, _absent_of_ade(split, full, pairs) if found is ADE20K else ())


def _absent_of_ade(split: str, full: int, pairs: Pairs) -> list[str]:
    """The names that ADE20K has and a copy does not, unless they are too many to be told."""
    prefix = "ADE_train" if split == "training" else "ADE_val"
    absent = sorted({f"{prefix}_{number:08d}" for number in range(1, full + 1)} - set(pairs))
    return absent if len(absent) <= _MOST_ABSENT_NAMED else []


def _voc_pairs(found: LabelledSet, root: Path, split: str) -> tuple[Pairs, list[Finding]]:
    folder = "SegmentationClassAug" if split == "trainaug" else "SegmentationClass"
    listing = f"ImageSets/Segmentation/{split}.txt"
    advice = _AUGMENTED if split == "trainaug" else f"get it from {found.address}"
    absent = [place for place in ("JPEGImages", folder) if not (root / place).is_dir()]
    if not (root / listing).is_file():
        absent.append(listing)
    if absent:
        return {}, [Finding("missing", f"{root} has no {' and no '.join(absent)}", advice=advice)]
    images, findings = list_images(root / "JPEGImages", ".jpg", root)
    labels, more = list_images(root / folder, ".png", root)
    findings += more
    try:
        names = read_lines(root / listing)
    except ValueError as error:
        return {}, [*findings, Finding("damaged", str(error), advice=advice)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    odd = [name for name in names if "/" in name or " " in name]
    if not names or twice or odd:
        text = f"{root / listing} must have at least one line, each the name of an image without folder and ending, none twice"
        return {}, [*findings, Finding("wrong", text, (*odd, *twice), advice)]
    for place, files in (("JPEGImages", images), (folder, labels)):
        lacking = [name for name in names if name not in files]
        findings += about("missing", f"{root / place} lacks images that {listing} names", lacking, advice)
    pairs = {name: (images[name], labels[name]) for name in sorted(names) if name in images and name in labels}
    return pairs, findings + _subset(found, split, pairs)


def _cityscapes_pairs(found: LabelledSet, root: Path, split: str) -> tuple[Pairs, list[Finding]]:
    image_end, label_end, raw_end = "_leftImg8bit", "_gtFine_labelTrainIds", "_gtFine_labelIds"
    findings: list[Finding] = []
    if split == found.test:
        for part in ("leftImg8bit", "gtFine"):
            findings += same_folder_findings(root, f"{part}/train", f"{part}/val")
    files: dict[str, dict[str, Path]] = {image_end: {}, label_end: {}, raw_end: {}}
    twice: list[str] = []
    for part, ends in (("leftImg8bit", (image_end,)), ("gtFine", (label_end, raw_end))):
        place = root / part / split
        if not place.is_dir():
            expected = f"(expected {found.sizes[split]} images in folders of cities)"
            text = f"{root} has no folder {part}/{split} {expected}"
            findings.append(Finding("missing", text, advice=f"get it from {found.address}"))
            continue
        for path in _files_of_cities(place):
            for end in ends:
                if path.stem.endswith(end):
                    name = path.stem.removesuffix(end)
                    twice += [name] if name in files[end] else []
                    files[end][name] = path
    findings += about(
        "wrong", f"{root} has images of {split} in two folders of cities", sorted(set(twice)), "remove one of each"
    )
    images, labels, raw = files.values()
    if any(finding.kind == "missing" for finding in findings):
        return {}, findings
    lacking = sorted(images.keys() - labels)
    converted = (
        f"{root}/gtFine/{split} has raw label ids (*{raw_end}.png), but not the 19 train ids (*{label_end}.png) of images"
    )
    findings += about("wrong", converted, [name for name in lacking if name in raw], _CONVERT.format(root))
    text = f"{root}/gtFine/{split} lacks *{label_end}.png of images"
    findings += about("missing", text, [name for name in lacking if name not in raw], f"get them from {found.address}")
    text = f"{root}/leftImg8bit/{split} lacks *{image_end}.png of label maps"
    findings += about("missing", text, sorted(labels.keys() - images), f"get them from {found.address}")
    if not images:
        text = f"{root}/leftImg8bit/{split} has no CITY/*{image_end}.png"
        findings.append(Finding("missing", text, advice=f"get them from {found.address}"))
    pairs = {name: (images[name], labels[name]) for name in sorted(images) if name in labels}
    return pairs, findings + _subset(found, split, pairs)


def _files_of_cities(place: Path) -> list[Path]:
    """The PNG files in the folders in a folder."""
    cities = [city for city in place.iterdir() if city.is_dir() and not is_hidden(city.name)]
    files = [path for city in cities for path in city.iterdir() if not is_hidden(path.name)]
    return sorted(path for path in files if path.suffix.lower() == ".png")


_AUGMENTED = (
    "get SegmentationClassAug and trainaug.txt (into ImageSets/Segmentation), for example by the links of "
    "https://github.com/vpariza/open-hummingbird-eval"
)
_CONVERT = (
    "make them with `pip install cityscapesscripts` and `CITYSCAPES_DATASET={} python -m "
    "cityscapesscripts.preparation.createTrainIdLabelImgs`"
)

ADE20K = LabelledSet(
    name=ADE20K_SET.dataset,
    address=ADE20K_SET.downloads[0].address,
    sizes={"training": 20210, "validation": 2000},
    train="training",
    test="validation",
    classes=ADE20K_CLASSES,
    void=0,
    void_name="unlabelled",
    foreign="they are of another version of ADE20K, or colour tables",
    list_pairs=_folder_pairs,
)
VOC2012 = LabelledSet(
    name=VOC2012_SET.dataset,
    address=VOC2012_SET.downloads[0].address,
    sizes={"train": 1464, "val": 1449, "trainaug": 10582},
    train="train",
    test="val",
    classes=VOC2012_CLASSES,
    void=255,
    void_name="void",
    foreign="they are not VOC's 20 classes and background",
    colours=voc_colours(),
    list_pairs=_voc_pairs,
)
CITYSCAPES = LabelledSet(
    name=CITYSCAPES_SET.dataset,
    address=f"{CITYSCAPES_SET.downloads[0].address} (demands an account)",
    sizes={"train": 2975, "val": 500},
    train="train",
    test="val",
    classes=CITYSCAPES_CLASSES,
    void=255,
    void_name="void",
    foreign=f"they are raw label ids in files of train ids; {_CONVERT.format('DATA')}",
    list_pairs=_cityscapes_pairs,
)
COCO_STUFF = LabelledSet(
    name=COCO_STUFF_SET.dataset,
    address=COCO_STUFF_SET.downloads[0].address,
    sizes={"train2017": 118_287, "val2017": 5000},
    train="train2017",
    test="val2017",
    classes=COCO_STUFF_CLASSES,
    void=255,
    void_name="unlabelled",
    foreign="they are not those of stuffthingmaps_trainval2017.zip",
    list_pairs=_folder_pairs,
    class_of_number=COCO_STUFF_COARSE,
)

_SIGNS = (
    (VOC2012, ("SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation")),
    (CITYSCAPES, CITYSCAPES_SET.signs),
    (COCO_STUFF, COCO_STUFF_SET.signs),
    (ADE20K, ADE20K_SET.signs),
)


def find_set(root: Path) -> LabelledSet:
    """The data set that a folder holds, by its sub-folders; ValueError, with the folder below it that holds one, if it is none."""
    found = _set_in(root)
    if found is not None:
        return found
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; {_advice(root)}")
    below = sorted(path for pattern in ("*", "*/*") for path in root.glob(pattern) if _set_in(path) is not None)
    raise ValueError(f"{root}: not a known data set; {f'{below[0]} is one' if below else _advice(root)}")


def _advice(root: Path) -> str:
    """Where the data set comes from that the folder's name promises, or which folders there are."""
    for known in (ADE20K_SET, VOC2012_SET, CITYSCAPES_SET, COCO_STUFF_SET):
        if root.name == Path(known.folder).name:
            return f"get {known.dataset} from {known.downloads[0].address}"
    return (
        "--data is ADEChallengeData2016 with annotations, VOC2012 with SegmentationClass, cityscapes with gtFine, or cocostuff with "
        "annotations/val2017"
    )


def _set_in(root: Path) -> LabelledSet | None:
    return next((found for found, signs in _SIGNS if any((root / sign).is_dir() for sign in signs)), None)


def examine(folder: Path, deep: bool, jobs: int, augmented: bool = False) -> list[Finding]:
    """Everything that is wrong with the data set in a folder; `augmented`: VOC must have its augmented labels."""
    found = _set_in(folder)
    if found is None:
        return [Finding("missing", f"{folder} holds none of the data sets", advice=_advice(folder))]
    names = [name for name in found.sizes if name != "trainaug" or augmented or (folder / "SegmentationClassAug").is_dir()]
    splits, findings = list_splits(found, folder, names)
    if len(names) < len(found.sizes):
        text = "there is no SegmentationClassAug, which the protocols neco and hummingbird train on"
        findings.append(Finding("note", text, advice=_AUGMENTED))
    findings += shared_names(splits)
    return findings + [finding for split in splits.values() for finding in split.check_files(deep, jobs)]
