"""Small sets in the layouts of image retrieval, copy detection and object discovery. Each `draw_...` function writes a new folder."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.copy_detection.data import FURTHER_BLOCKS
from tools.sample_data.formats import VOC_CLASSES, draw_coco_split, draw_voc, write_image, write_json, write_lines
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
    half = (train_images + 1) // 2
    for landmark in _LANDMARKS:
        photograph = read_photograph(COLOUR_PHOTOGRAPHS[landmark])
        numbers: dict[str, list[int]] = {"easy": [], "hard": [], "junk": []}
        for sort in ("query", *["easy"] * half, *["hard"] * half, "junk"):
            name = f"{landmark}_{len(names) + len(queries):06d}"
            pixels = draw_crop(photograph, rng)
            write_image(root / f"jpg/{name}.jpg", 255 - pixels if sort == "hard" else pixels)
            if sort == "query":
                queries.append(name)
                box = [0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0])]
            else:
                numbers[sort].append(len(names))
                names.append(name)
        truth.append({"bbx": box, **{sort: np.array(found) for sort, found in numbers.items()}})
    content = {"gnd": truth, "imlist": names, "qimlist": queries}
    (root / f"gnd_{key}.pkl").write_bytes(pickle.dumps(content, protocol=2))


def draw_copydays(root: Path, rng: np.random.Generator, val_images: int) -> None:
    """Write `root/{original,strong,jpegqual/*,crops/*}`: originals, two strong changes of each, and one of every other kind."""
    subjects = list(COLOUR_PHOTOGRAPHS)
    for number in range(val_images):
        name = f"{2000 + number}00.jpg"
        pixels = draw_crop(read_photograph(COLOUR_PHOTOGRAPHS[subjects[number % len(subjects)]]), rng)
        write_image(root / "original" / name, pixels)
        painted = pixels[:, ::-1].copy()
        painted[: _PAINTED[0], : _PAINTED[1]] = 255
        write_image(root / f"strong/{2000 + number}01.jpg", painted)
        write_image(root / f"strong/{2000 + number}02.jpg", (pixels // 3).astype(np.uint8))
        for block in FURTHER_BLOCKS:
            kind, strength = block.split("/")
            if kind == "jpegqual":
                write_image(root / block / name, pixels, quality=int(strength))
            else:  # crops, of so many percent of the image less
                above, left = (round(side * (1 - (1 - int(strength) / 100) ** 0.5) / 2) for side in pixels.shape[:2])
                write_image(root / block / name, pixels[above : pixels.shape[0] - above, left : pixels.shape[1] - left])


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
    content = draw_coco_split(root / "JPEGImages", rng, range(1, train_images + 1), "{:06d}.jpg")
    categories = {category["id"]: category["name"] for category in content["categories"]}
    boxes: dict[str, list[VocBox]] = {}
    for image in content["images"]:
        name = f"{image['id']:06d}"
        own = [found for found in content["annotations"] if found["image_id"] == image["id"] and not found["iscrowd"]]
        boxes[name] = []
        for found in own:
            left, top, width, height = map(int, found["bbox"])
            is_difficult = int(len(own) > 1 and found is own[-1])
            boxes[name].append((categories[found["category_id"]], is_difficult, left + 1, top + 1, left + width, top + height))
    _write_voc_boxes(root, boxes)


def _write_voc_boxes(root: Path, boxes: dict[str, list[VocBox]]) -> None:
    """Write the annotations of images by name, and their list."""
    (root / "Annotations").mkdir()
    for name, objects in boxes.items():
        text = "".join(_VOC_OBJECT.format(*found) for found in objects)
        with Image.open(root / f"JPEGImages/{name}.jpg") as image:
            size = f"<size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>"
        annotation = f"<annotation>\n\t<filename>{name}.jpg</filename>\n\t{size}\n{text}</annotation>\n"
        (root / f"Annotations/{name}.xml").write_text(annotation, encoding="utf-8")
    write_lines(root / "ImageSets/Main/trainval.txt", boxes)


def draw_coco20k(root: Path, rng: np.random.Generator, train_images: int) -> None:
    """Write `root/{train2014,annotations/instances_train2014.json,coco_20k_filenames.txt}`."""
    content = draw_coco_split(root / "train2014", rng, range(1, train_images + 1), "COCO_train2014_{:012d}.jpg")
    write_json(root / "annotations/instances_train2014.json", content)
    write_lines(root / "coco_20k_filenames.txt", [f"train2014/{image['file_name']}" for image in content["images"]])
