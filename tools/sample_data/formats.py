"""Small sets of images in the formats of the tasks, such as COCO and ADE20K, and a folder of images to pretrain on.

Each `draw_...` function writes a new folder. All randomness comes from its generator, so that the same seed gives the same bytes.
"""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from tools.sample_data.scenes import (
    COLOUR_PHOTOGRAPHS,
    CUTOUTS,
    LOWER,
    Cutout,
    draw_crop,
    draw_scene,
    make_cutout,
    paste,
    place_mask,
    read_photograph,
)

JPEG_QUALITY = 92  # A lower quality would blur the border of a cut-out beyond its mask.


def draw_photos(root: Path, rng: np.random.Generator, count: int) -> None:
    """Write `count` crops of each subject to pretrain on: `root/SUBJECT/NUMBER.jpg`."""
    _draw_crops(root, rng, {".": count})


def draw_classes(root: Path, rng: np.random.Generator, count: int) -> None:
    """Write a labelled set in ImageNet's layout, `root/{train,val}/SUBJECT/NUMBER.jpg`: `count` for training, half for `val`."""
    _draw_crops(root, rng, {"train": count, "val": (count + 1) // 2})


def _draw_crops(root: Path, rng: np.random.Generator, counts: dict[str, int]) -> None:
    for subject, file_name in COLOUR_PHOTOGRAPHS.items():
        for folder, count in counts.items():
            for number in range(count):
                write_image(root / folder / subject / f"{number:04d}.jpg", draw_crop(read_photograph(file_name), rng))


# ADE20K: label maps with 0 = unlabelled, 1 to 150 = classes.

ADE_SIZE = (192, 144)
"""Width and height of every image in pixels. Fine-tuning scales images, so that larger ones would not cost more."""
ADE_CLASSES = {"wall": 1, "sky": 3, "grass": 10, "person": 13, "earth": 14, "table": 16, "motorcycle": 117, "cat": 127}
"""Numbers in the label maps. ADE20K names a motorcycle `minibike` and a cat `animal`; it has no class for a cup."""
UNLABELLED = 0
ADE_OBJECTS = (1, 3)  # fewest and most in an image
ADE_OBJECT_SIZE = (48, 100)  # smallest and largest long side in pixels


def draw_ade(root: Path, rng: np.random.Generator, train_images: int, val_images: int) -> None:
    """Write `root/{images,annotations}/{training,validation}`."""
    for split, prefix, count in (("training", "train", train_images), ("validation", "val", val_images)):
        for number in range(1, count + 1):
            image, labels = _draw_pair(rng, ADE_SIZE, ADE_CLASSES, UNLABELLED)
            name = f"ADE_{prefix}_{number:08d}"
            write_image(root / "images" / split / f"{name}.jpg", image)
            write_image(root / "annotations" / split / f"{name}.png", labels)


def _draw_pair(
    rng: np.random.Generator, size: tuple[int, int], classes: dict[str, int], other: int
) -> tuple[np.ndarray, np.ndarray]:
    """Image [H, W, 3] and labels [H, W], both uint8, `other` for what has no class.

    Later things hide earlier ones, and may cross the border.
    """
    width, height = size
    image, upper, lower, lower_mask = draw_scene(rng, width, height)
    labels = np.where(lower_mask, classes.get(lower, other), classes.get(upper, other)).astype(np.uint8)
    count = rng.integers(*ADE_OBJECTS, endpoint=True)
    for name in rng.choice(CUTOUTS, size=count, replace=False):
        long_side = int(rng.integers(*ADE_OBJECT_SIZE, endpoint=True))
        cutout = make_cutout(str(name), long_side, mirrored=bool(rng.random() < 0.5))
        own_height, own_width = cutout.mask.shape
        left = int(rng.integers(-own_width // 4, width - own_width * 3 // 4))
        top = int(rng.integers(height // 8, height - own_height * 3 // 4))
        labels[paste(image, cutout, left, top)] = classes.get(str(name), other)
    return image, labels


# PASCAL VOC 2012: 0 = background, 1 to 20 = classes, 255 = void, which borders of things are. Cityscapes: 19 train ids, 255 = void.

VOC_SIZE = (176, 144)
VOC_CLASSES = {"cat": 8, "motorcycle": 14, "person": 15}
CITYSCAPES_SIZE = (256, 128)
CITYSCAPES_CLASSES = {"wall": 3, "grass": 9, "earth": 9, "sky": 10, "person": 11, "motorcycle": 17}
VOID = 255


def draw_voc(root: Path, rng: np.random.Generator, train_images: int, val_images: int) -> None:
    """Write `root/{JPEGImages,SegmentationClass,SegmentationClassAug,ImageSets/Segmentation}`; `trainaug` has half as many more."""
    numbers = itertools.count(1)
    sizes = {"train": train_images, "val": val_images, "trainaug": (train_images + 1) // 2}
    names = {split: [f"2012_{next(numbers):06d}" for _ in range(size)] for split, size in sizes.items()}
    for split, listed in names.items():
        for name in listed:
            image, labels = _draw_pair(rng, VOC_SIZE, VOC_CLASSES, 0)
            write_image(root / f"JPEGImages/{name}.jpg", image)
            if split != "trainaug":
                write_image(root / f"SegmentationClass/{name}.png", _outlined(labels))
            if split != "val":
                write_image(root / f"SegmentationClassAug/{name}.png", labels)
    names["trainaug"] = names["train"] + names["trainaug"]
    for split, listed in names.items():
        write_lines(root / f"ImageSets/Segmentation/{split}.txt", listed)


def draw_cityscapes(root: Path, rng: np.random.Generator, train_images: int, val_images: int) -> None:
    """Write `root/{leftImg8bit,gtFine}/{train,val}/CITY`, with train ids."""
    for split, city, count in (("train", "aachen", train_images), ("val", "munster", val_images)):
        for number in range(count):
            name = f"{city}_{number:06d}_000019"
            image, labels = _draw_pair(rng, CITYSCAPES_SIZE, CITYSCAPES_CLASSES, VOID)
            write_image(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", image)
            write_image(root / f"gtFine/{split}/{city}/{name}_gtFine_labelTrainIds.png", labels)


def _outlined(labels: np.ndarray) -> np.ndarray:
    """The same labels with void where a pixel's right or lower neighbour has another one."""
    border = np.zeros(labels.shape, dtype=bool)
    border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    border[:-1] |= labels[:-1] != labels[1:]
    return np.where(border, VOID, labels).astype(np.uint8)


# NYU depth: things that stand on the ground before a wall, in BTS's layout.

NYU_SIZE = (160, 120)
"""Width and height of every image in pixels, a quarter of NYU's."""
NYU_OBJECTS = (1, 3)  # fewest and most in an image
NYU_OBJECT_SIZE = (30, 70)  # smallest and largest long side in pixels
NYU_WALL_M, NYU_FLOOR_M = (4.0, 8.0), 1.0  # depth of the wall, between these, and of the floor at the lower border
FOCAL_LENGTH = 518.8579


def draw_nyu(root: Path, rng: np.random.Generator, train_images: int, val_images: int) -> None:
    """Write `root/nyu_{train,test}.txt` and the images and depth maps that they name."""
    for split, count in (("train", train_images), ("test", val_images)):
        lines = []
        for number in range(count):
            image, depth_mm = _draw_nyu_pair(rng)
            names = f"{split}/scene_{number:04d}/rgb_00000.jpg", f"{split}/scene_{number:04d}/sync_depth_00000.png"
            write_image(root / names[0], image)
            write_image(root / names[1], depth_mm)
            lines.append(f"/{names[0]} /{names[1]} {FOCAL_LENGTH}")  # BTS's lists begin with slashes
        write_lines(root / f"nyu_{split}.txt", lines)


def _draw_nyu_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image [H, W, 3], uint8, and depth [H, W] in millimetres, uint16; around the wall's lower edge nothing was measured."""
    width, height = NYU_SIZE
    image, _, _, floor = draw_scene(rng, width, height)
    wall = float(rng.uniform(*NYU_WALL_M))
    edge_W = height - floor.sum(axis=0)
    below_HW = np.clip((np.arange(height)[:, None] - edge_W) / (height - edge_W), 0, 1)
    depth = wall - (wall - NYU_FLOOR_M) * below_HW
    depth[np.abs(np.arange(height)[:, None] - edge_W) < 1] = 0
    sizes = np.sort(rng.integers(*NYU_OBJECT_SIZE, size=rng.integers(*NYU_OBJECTS, endpoint=True)))
    for name, long_side in zip(rng.choice(CUTOUTS, size=len(sizes), replace=False), sizes, strict=True):
        cutout = make_cutout(str(name), int(long_side), mirrored=bool(rng.random() < 0.5))
        left = int(rng.integers(0, width - cutout.mask.shape[1] // 2))
        top = int(rng.integers(height // 4, height - cutout.mask.shape[0] // 2))
        depth[paste(image, cutout, left, top)] = wall * NYU_OBJECT_SIZE[0] / long_side  # larger things are nearer
    return image, (1000 * depth).round().astype(np.uint16)


# COCO 2017: detection and instance segmentation, polygons, and one crowd as run lengths per split.

COCO_SIZES = ((176, 128), (128, 160))  # width and height in pixels, in turn
GROUNDS = tuple(name for name in LOWER if name != "table")  # a table would be a `dining table` without an annotation
COCO_OBJECTS = (2, 4)  # fewest and most that are tried in an image
COCO_OBJECT_SIZE = (36, 76)  # smallest and largest long side in pixels
CROWD_MEMBERS = 4
CROWD_MEMBER_SIZE = 26  # long side in pixels
ATTEMPTS = 40  # to find a free place; a thing without one is left out, which never happens to the first

COCO_CATEGORIES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("coco_categories.json").read_text(encoding="utf-8"))
"""The official ones, as in an annotation file."""
CATEGORY_IDS: dict[str, int] = {entry["name"]: entry["id"] for entry in COCO_CATEGORIES}


def draw_coco(root: Path, rng: np.random.Generator, train_images: int, val_images: int) -> None:
    """Write `root/{train2017,val2017}` and `root/annotations/instances_{train,val}2017.json`."""
    first_id = 1
    for split, count in (("train2017", train_images), ("val2017", val_images)):
        content = draw_coco_split(root / split, rng, range(first_id, first_id + count))
        first_id += count
        write_json(root / f"annotations/instances_{split}.json", content)


def draw_coco_split(folder: Path, rng: np.random.Generator, image_ids: range, name: str = "{:012d}.jpg") -> dict[str, Any]:
    """Write a split's images, with their numbers in their names; return the content of its annotation file."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in image_ids:
        width, height = COCO_SIZES[image_id % len(COCO_SIZES)]
        image, drawn = _draw_coco_image(rng, width, height, with_crowd=image_id == image_ids.start)
        file_name = name.format(image_id)
        write_image(folder / file_name, image)
        images.append({"license": 1, "file_name": file_name, "height": height, "width": width, "id": image_id})
        # Annotation ids are unique over both splits, as in COCO.
        annotations += [{**entry, "image_id": image_id, "id": 100 * image_id + index} for index, entry in enumerate(drawn)]
    return {
        "info": {"description": "PatchBench sample data in COCO's format: not a benchmark", "version": "1.0"},
        "licenses": [{"id": 1, "name": "see skimage.data", "url": "https://scikit-image.org"}],
        "images": images,
        "annotations": annotations,
        "categories": COCO_CATEGORIES,
    }


def _draw_coco_image(
    rng: np.random.Generator, width: int, height: int, with_crowd: bool
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The image, uint8 [height, width, 3], and its annotations without ids. Things do not overlap: their masks are polygons."""
    image, *_ = draw_scene(rng, width, height, lower=GROUNDS)
    taken = np.zeros((height, width), dtype=bool)
    annotations = []
    for _ in range(rng.integers(*COCO_OBJECTS, endpoint=True)):
        name = str(rng.choice(CUTOUTS))
        cutout = make_cutout(name, int(rng.integers(*COCO_OBJECT_SIZE, endpoint=True)), mirrored=bool(rng.random() < 0.5))
        place = _find_place(rng, cutout, taken)
        if place is None:
            continue
        mask = paste(image, cutout, *place)
        taken |= mask
        segmentation = [(cutout.polygon + place).round(2).ravel().tolist()]
        annotations.append(_annotation(CATEGORY_IDS[name], segmentation, mask, iscrowd=0))
    if with_crowd and (crowd := _draw_crowd(rng, image, taken)).any():
        run_lengths = {"size": [height, width], "counts": _run_lengths(crowd)}
        annotations.append(_annotation(CATEGORY_IDS["person"], run_lengths, crowd, iscrowd=1))
    return image, annotations


def _draw_crowd(rng: np.random.Generator, image: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Paste small people where there is room, in place; return the pixels of all of them, bool [H, W]."""
    crowd = np.zeros_like(taken)
    for _ in range(CROWD_MEMBERS):
        cutout = make_cutout("person", CROWD_MEMBER_SIZE, mirrored=bool(rng.random() < 0.5))
        place = _find_place(rng, cutout, taken | crowd)
        if place is not None:
            crowd |= paste(image, cutout, *place)
    return crowd


def _find_place(rng: np.random.Generator, cutout: Cutout, taken: np.ndarray) -> tuple[int, int] | None:
    """Left and top of a free place inside the image, or None."""
    height, width = taken.shape
    own_height, own_width = cutout.mask.shape
    for _ in range(ATTEMPTS):
        left, top = int(rng.integers(0, width - own_width + 1)), int(rng.integers(0, height - own_height + 1))
        if not (place_mask(cutout, left, top, height, width) & taken).any():
            return left, top
    return None


def _annotation(category_id: int, segmentation: object, mask: np.ndarray, iscrowd: int) -> dict[str, Any]:
    """An annotation without ids; area and box (x, y, width, height) are those of the mask."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "segmentation": segmentation,
        "area": float(coco_mask.area(encoded)),
        "iscrowd": iscrowd,
        "bbox": coco_mask.toBbox(encoded).tolist(),
        "category_id": category_id,
    }


def _run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: down the columns, beginning with the number of zeros, which may be none."""
    values = np.concatenate([[False], mask.ravel(order="F")])
    borders = np.flatnonzero(np.diff(values))
    return np.diff(np.concatenate([[0], borders, [mask.size]])).tolist()


def write_image(path: Path, pixels: np.ndarray, quality: int = JPEG_QUALITY) -> None:
    """Write pixels in the format of the path's suffix (PNG knows no quality); parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=quality)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
