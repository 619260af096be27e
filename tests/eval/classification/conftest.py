from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.spec import ViTSpec
from eval.classification.config import ClassificationConfig
from tests.toy import write_toy_backbone

Configure = Callable[..., ClassificationConfig]

SPEC = ViTSpec(embed_dim=32, depth=5, num_heads=2, patch_size=8, image_size=32, class_token=True, final_norm=True)
TRAIN_IMAGES, TEST_IMAGES = 9, 5
COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 40, 50)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Noisy pictures of three colours in class folders, 9 of each for training and 5 for testing."""
    root = tmp_path / "colours"
    rng = np.random.default_rng(0)
    for split, count in (("train", TRAIN_IMAGES), ("val", TEST_IMAGES)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 60, (44, 40, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture
def backbone_file(tmp_path: Path) -> Path:
    """A ViT with random weights."""
    return write_toy_backbone(tmp_path, SPEC)


@pytest.fixture
def configure(images: Path, backbone_file: Path, tmp_path: Path) -> Configure:
    """Options for a quick run; keyword arguments replace some."""

    def make(**changes: object) -> ClassificationConfig:
        options: dict[str, object] = {
            **{"backbone": backbone_file, "data": images, "output": tmp_path / "out", "device": "cpu", "workers": 0},
            **{"resize": 36, "crop": 32, "neighbours": [1, 5], "epochs": 3, "batch_size": 8, "extraction_batch_size": 4},
        }
        return ClassificationConfig(**(options | changes))  # type: ignore[arg-type]

    return make
