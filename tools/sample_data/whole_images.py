"""Small sets in the layouts of image retrieval, copy detection and object discovery. Each `draw_...` function writes a new folder."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.copy_detection.data import FURTHER_BLOCKS
from tools.sample_data.formats import draw_coco_split, write_jpeg
from tools.sample_data.scenes import COLOUR_PHOTOGRAPHS, draw_crop, read_photograph

_LANDMARKS = ("astronaut", "cat", "coffee", "motorcycle")
_PAINTED = (64, 64)  # height and width of what a strong change hides
_VOC_OBJECT = """\t<object>
\t\t<name>{name}</name>
\t\t<truncated>0</truncated>
\t\t<difficult>{difficult}</difficult>
\t\t<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>
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


def draw_voc_boxes(root: Path, rng: np.random.Generator, train_images: int) -> None:
    """Write `root/{JPEGImages,Annotations,ImageSets/Main/trainval.txt}`; the last object of an image is difficult."""
    content = draw_coco_split(root / "JPEGImages", rng, range(1, train_images + 1))
    categories = {category["id"]: category["name"] for category in content["categories"]}
    names = []
    for image in content["images"]:
        name = f"{image['id']:06d}"
        (root / "JPEGImages" / image["file_name"]).rename(root / f"JPEGImages/{name}.jpg")
        text = io.StringIO()
        own = [found for found in content["annotations"] if found["image_id"] == image["id"] and not found["iscrowd"]]
        for found in own:
            left, top, width, height = map(int, found["bbox"])
            ends = {"xmin": left + 1, "ymin": top + 1, "xmax": left + width, "ymax": top + height}
            difficult = int(len(own) > 1 and found is own[-1])
            text.write(_VOC_OBJECT.format(name=categories[found["category_id"]], difficult=difficult, **ends))
        path = root / f"Annotations/{name}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"<annotation>\n\t<filename>{name}.jpg</filename>\n{text.getvalue()}</annotation>\n", encoding="utf-8")
        names.append(name)
    listing = root / "ImageSets/Main/trainval.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def draw_coco20k(root: Path, rng: np.random.Generator, train_images: int) -> None:
    """Write `root/{train2014,annotations/instances_train2014.json,coco_20k_filenames.txt}`."""
    content = draw_coco_split(root / "train2014", rng, range(1, train_images + 1), "COCO_train2014_")
    (root / "annotations").mkdir()
    (root / "annotations/instances_train2014.json").write_text(json.dumps(content), encoding="utf-8")
    names = "".join(f"train2014/{image['file_name']}\n" for image in content["images"])
    (root / "coco_20k_filenames.txt").write_text(names, encoding="utf-8")
