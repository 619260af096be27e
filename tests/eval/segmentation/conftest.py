"""A few ADE20K-format pairs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval.openmmlab.operators  # noqa: F401 - before any test imports mmseg

WIDTH, HEIGHT = 70, 50  # no multiples of the patch size


@pytest.fixture(scope="session")
def ade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and three validation pairs: a bright wall beside a dark door, an unlabelled strip between them."""
    root = tmp_path_factory.mktemp("ade") / "ADEChallengeData2016"
    random = np.random.default_rng(0)
    for split, count in (("training", 4), ("validation", 3)):
        for folder in ("images", "annotations"):
            (root / folder / split).mkdir(parents=True)
        for index in range(count):
            labels = np.ones((HEIGHT, WIDTH), np.uint8)
            edge = int(random.integers(20, 50))
            labels[:, edge:] = 15
            labels[:, edge - 2 : edge + 2] = 0
            image = np.where(labels[..., None] == 1, 200, 40) + random.integers(0, 30, (HEIGHT, WIDTH, 3))
            name = f"ADE_{split}_{index:08d}"
            Image.fromarray(image.astype(np.uint8)).save(root / "images" / split / f"{name}.jpg")
            Image.fromarray(labels).save(root / "annotations" / split / f"{name}.png")
    return root
