"""Small data sets in the layouts of VOC 2012, Cityscapes and COCO-Stuff: a bright half and a dark half, and void between them."""

from pathlib import Path

import numpy as np
from PIL import Image

from eval.probes.data import VOID

WIDTH, HEIGHT = 46, 38


def draw_pair(image: Path, labels: Path, seed: int, left: int, right: int) -> None:
    random = np.random.default_rng(seed)
    edge = int(random.integers(12, 34))
    labels_HW = np.full((HEIGHT, WIDTH), left, np.uint8)
    labels_HW[:, edge:] = right
    labels_HW[:, edge - 1 : edge + 1] = VOID
    pixels = np.where(np.arange(WIDTH)[:, None] < edge, 200, 40) + random.integers(0, 30, (HEIGHT, WIDTH, 3))
    for path in (image, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(image)
    Image.fromarray(labels_HW).save(labels)


def make_voc(root: Path) -> Path:
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, folder, start, count in (
        ("train", "SegmentationClass", 0, 3),
        ("trainaug", "SegmentationClassAug", 0, 4),
        ("val", "SegmentationClass", 4, 2),
    ):
        names = [f"2007_{number:06d}" for number in range(start, start + count)]
        for number, name in enumerate(names, start):
            draw_pair(root / f"JPEGImages/{name}.jpg", root / folder / f"{name}.png", number, 0, 15)
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def make_cityscapes(root: Path) -> Path:
    for split, city, count in (("train", "aachen", 3), ("val", "munster", 2)):
        for number in range(count):
            name = f"{city}_{number:06d}_000019"
            image = root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png"
            draw_pair(image, root / f"gtFine/{split}/{city}/{name}_gtFine_labelTrainIds.png", number, 0, 13)
    return root


def make_coco_stuff(root: Path) -> Path:
    """A person before grass: numbers 0 and 123 of 182."""
    for split, start, count in (("train2017", 0, 3), ("val2017", 3, 2)):
        for number in range(start, start + count):
            name = f"{number:012d}"
            draw_pair(root / f"images/{split}/{name}.jpg", root / f"annotations/{split}/{name}.png", number, 0, 123)
    return root
