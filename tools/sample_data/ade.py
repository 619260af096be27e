"""A set in ADE20K's format (SceneParsing: masks 0 = unlabelled, 1 to 150)."""

from pathlib import Path

import numpy as np

from tools.sample_data.cutouts import cutout_names, make_cutout, paste
from tools.sample_data.images import write_grey_png, write_jpeg
from tools.sample_data.scenes import draw_scene

WIDTH, HEIGHT = 192, 144
"""Size of every image in pixels. Fine-tuning scales them to the protocol's size, so that larger ones would not train differently."""

ADE_CLASSES = {
    "wall": 1,
    "sky": 3,
    "grass": 10,
    "person": 13,
    "earth": 14,
    "table": 16,
    "motorcycle": 117,
    "cat": 127,
}
"""Numbers in the masks. ADE20K calls a motorcycle `minibike` and a cat `animal`; none of its 150 classes is a cup."""
UNLABELLED = 0
OBJECTS = (1, 3)
"""Fewest and most things in an image."""
OBJECT_SIZE = (48, 100)
"""Smallest and largest long side of a thing in pixels."""


def draw_ade(root: Path, rng: np.random.Generator, train_images: int, val_images: int) -> None:
    """Write `root/{images,annotations}/{training,validation}`.

    Args:
        root: The new folder, `ADEChallengeData2016`.
        rng: Chooses everything.
        train_images: Number of training images.
        val_images: Number of validation images.
    """
    for split, prefix, count in (("training", "train", train_images), ("validation", "val", val_images)):
        for number in range(1, count + 1):
            image, labels = _draw_pair(rng)
            name = f"ADE_{prefix}_{number:08d}"
            write_jpeg(root / "images" / split / f"{name}.jpg", image)
            write_grey_png(root / "annotations" / split / f"{name}.png", labels)


def _draw_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image [H, W, 3] and labels [H, W], both uint8. Later things hide earlier ones, and may pass the border."""
    scene = draw_scene(rng, WIDTH, HEIGHT)
    image = scene.image.copy()
    labels = np.where(scene.lower_mask, ADE_CLASSES[scene.lower], ADE_CLASSES[scene.upper]).astype(np.uint8)
    count = rng.integers(OBJECTS[0], OBJECTS[1], endpoint=True)
    for name in rng.choice(cutout_names(), size=count, replace=False):
        cutout = make_cutout(str(name), int(rng.integers(*OBJECT_SIZE, endpoint=True)), mirrored=bool(rng.random() < 0.5))
        own_height, own_width = cutout.mask.shape
        left = int(rng.integers(-own_width // 4, WIDTH - own_width * 3 // 4))
        top = int(rng.integers(HEIGHT // 8, HEIGHT - own_height * 3 // 4))
        labels[paste(image, cutout, left, top)] = ADE_CLASSES.get(str(name), UNLABELLED)
    return image, labels
