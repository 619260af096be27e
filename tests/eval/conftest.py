"""A backbone file of a toy ViT, a few pairs like ADE20K's, and what holds of the items of every task's result."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.spec import ViTSpec
from eval.result import Result
from eval.tasks import TASKS
from tests.toy import write_toy_backbone

WIDTH, HEIGHT = 70, 50  # no multiples of the patch size
PATCHES_OF_14 = ViTSpec(embed_dim=24, depth=2, num_heads=3, patch_size=14, image_size=56, class_token=True, final_norm=True)


@pytest.fixture(scope="session")
def toy_spec() -> ViTSpec:
    """With everything that DINO's published file has and SelfPatch's has not: CLS token and final norm."""
    return ViTSpec(embed_dim=24, depth=4, num_heads=3, patch_size=16, image_size=64, class_token=True, final_norm=True)


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory, toy_spec: ViTSpec) -> Path:
    return write_toy_backbone(tmp_path_factory.mktemp("backbones"), toy_spec)


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


def names_of_items(result: Result, folder: Path, metrics: Sequence[str]) -> tuple[str, ...]:
    """The names of a result's items, which its task reads, and which must give these of its metrics."""
    items = TASKS[result.task].load("items", "read_items")(result, folder)
    assert items is not None
    names, means, metrics_of = items
    found = {name: np.nanmean(values) for name, values in means.items()}
    if metrics_of is not None:
        found |= {name: values_R[0] for name, values_R in metrics_of(np.ones((1, len(names)))).items()}
    assert [found[name] for name in metrics] == pytest.approx([result.metrics[name].value for name in metrics])
    return tuple(names)
