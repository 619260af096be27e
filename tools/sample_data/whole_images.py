"""Small sets in the layouts of image retrieval, copy detection and object discovery. Each `draw_...` function writes a new folder."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.copy_detection.data import FURTHER_BLOCKS
from tools.sample_data.formats import VOC_CLASSES, draw_coco_split, draw_voc, write_jpeg
from tools.sample_data.scenes import COLOUR_PHOTOGRAPHS, draw_crop, read_photograph

_LANDMARKS = ("astronaut", "cat", "coffee", "motorcycle")
_PAINTED = (64, 64)  # height and width of what a strong change hides
VocBox = tuple[str, int, int, int, int, int]
"""Class, whether it is difficult, and left, top, right, bottom in pixels from 1, both ends within."""
_VOC_OBJECT = """\t<object>
\t\t<name>{}</name>
\t\t<truncated>0</truncated>
\t\t<difficult>{}</difficult>
\t\t<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>
\t</object>
"""


def draw_landmarks(root: Path, rng: np.random.Generator, key: str, train_images: int) -> None:
    """Write `root/jpg` and `root/gnd_KEY.pkl`: of each landmark a query, easy, hard and junk images, all of them crops."""
    names: list[str] = []
    queries: list[str] = []
    truth: list[dict[str, Any]] = []
    for landmark in _LANDMARKS:
        photograph = read_photograph(COLOUR_PHOTOGRAPHS[landmark])
        counts = {"query": 1, "easy": (train_images + 1) // 2, "hard": (train_images + 1) // 2, "junk": 1}
        entry: dict[str, Any] = {}
        for sort, count in counts.items():
            drawn = []
            for _ in range(count):
                name = f"{landmark}_{len(names) + len(queries):06d}"
                pixels = draw_crop(photograph, rng)
                write_jpeg(root / f"jpg/{name}.jpg", 255 - pixels if sort == "hard" else pixels)
                if sort == "query":
                    queries.append(name)
                    height, width = pixels.shape[:2]
                    entry["bbx"] = [0.0, 0.0, float(width), float(height)]
                else:
                    drawn.append(len(names))
                    names.append(name)
            if sort != "query":
                entry[sort] = np.array(drawn)
        truth.append(entry)
    content = {"gnd": truth, "imlist": names, "qimlist": queries}
    (root / f"gnd_{key}.pkl").write_bytes(pickle.dumps(content, protocol=2))


def draw_copydays(root: Path, rng: np.random.Generator, val_images: int) -> None:
    """Write `root/{original,strong,jpegqual/*,crops/*}`: originals, two strong changes of each, and one of every other kind."""
    subjects = list(COLOUR_PHOTOGRAPHS)
    for number in range(val_images):
        name = f"{2000 + number}00.jpg"
        pixels = draw_crop(read_photograph(COLOUR_PHOTOGRAPHS[subjects[number % len(subjects)]]), rng)
        write_jpeg(root / "original" / name, pixels)
        painted = pixels[:, ::-1].copy()
        painted[: _PAINTED[0], : _PAINTED[1]] = 255
        write_jpeg(root / f"strong/{2000 + number}01.jpg", painted)
        write_jpeg(root / f"strong/{2000 + number}02.jpg", (pixels // 3).astype(np.uint8))
        for block in FURTHER_BLOCKS:
            kind, strength = block.split("/")
            (root / block).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(pixels)
            if kind == "crops":  # of so many percent of the image less
                margin = [round(side * (1 - (1 - int(strength) / 100) ** 0.5) / 2) for side in image.size]
                image = image.crop((margin[0], margin[1], image.width - margin[0], image.height - margin[1]))
            image.save(root / block / name, quality=int(strength) if kind == "jpegqual" else 92)


def draw_voc2012(root: Path, rng: np.random.Generator, train_images: int, val_images: int) -> None:
    """As `draw_voc`, and for the images of train and val a box around each class."""
    draw_voc(root, rng, train_images, val_images)
    boxes: dict[str, list[VocBox]] = {}
    for path in sorted((root / "SegmentationClass").glob("*.png")):
        with Image.open(path) as image:
            labels = np.asarray(image)
        boxes[path.stem] = []
        for name, label in VOC_CLASSES.items():
            rows, columns = np.nonzero(labels == label)
            if len(rows):
                left, top, right, bottom = columns.min(), rows.min(), columns.max(), rows.max()
                boxes[path.stem].append((name, 0, int(left) + 1, int(top) + 1, int(right) + 1, int(bottom) + 1))
    _write_voc_boxes(root, boxes)


def draw_voc2007(root: Path, rng: np.random.Generator, train_images: int) -> None:
    """Write `root/{JPEGImages,Annotations,ImageSets/Main/trainval.txt}`; the last of several objects of an image is difficult."""
    content = draw_coco_split(root / "JPEGImages", rng, range(1, train_images + 1))
    categories = {category["id"]: category["name"] for category in content["categories"]}
    boxes: dict[str, list[VocBox]] = {}
    for image in content["images"]:
        name = f"{image['id']:06d}"
        (root / "JPEGImages" / image["file_name"]).rename(root / f"JPEGImages/{name}.jpg")
        own = [found for found in content["annotations"] if found["image_id"] == image["id"] and not found["iscrowd"]]
        boxes[name] = []
        for found in own:
            left, top, width, height = map(int, found["bbox"])
            is_difficult = int(len(own) > 1 and found is own[-1])
            boxes[name].append((categories[found["category_id"]], is_difficult, left + 1, top + 1, left + width, top + height))
    _write_voc_boxes(root, boxes)


def _write_voc_boxes(root: Path, boxes: dict[str, list[VocBox]]) -> None:
    """Write the annotations of images by name, and their list."""
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for name, objects in boxes.items():
        text = "".join(_VOC_OBJECT.format(*found) for found in objects)
        with Image.open(root / f"JPEGImages/{name}.jpg") as image:
            size = f"<size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>"
        annotation = f"<annotation>\n\t<filename>{name}.jpg</filename>\n\t{size}\n{text}</annotation>\n"
        (root / f"Annotations/{name}.xml").write_text(annotation, encoding="utf-8")
    (root / "ImageSets/Main/trainval.txt").write_text("".join(f"{name}\n" for name in boxes), encoding="utf-8")


def draw_coco20k(root: Path, rng: np.random.Generator, train_images: int) -> None:
    """Write `root/{train2014,annotations/instances_train2014.json,coco_20k_filenames.txt}`."""
    content = draw_coco_split(root / "train2014", rng, range(1, train_images + 1), "COCO_train2014_")
    (root / "annotations").mkdir()
    (root / "annotations/instances_train2014.json").write_text(json.dumps(content), encoding="utf-8")
    names = "".join(f"train2014/{image['file_name']}\n" for image in content["images"])
    (root / "coco_20k_filenames.txt").write_text(names, encoding="utf-8")
