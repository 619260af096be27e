from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.spec import ViTSpec
from eval.retrieval_segmentation.config import RetrievalSegmentationConfig
from tests.toy import write_toy_backbone

SPEC = ViTSpec(embed_dim=32, depth=2, num_heads=2, patch_size=8, image_size=64, class_token=False, final_norm=False)
TRAIN, TEST = [f"t{number}" for number in range(10)], [f"v{number}" for number in range(3)]


def draw_voc(root: Path) -> None:
    """Squares of two textures, classes 3 and 7, on a plain ground, with a void border."""
    rng = np.random.default_rng(0)
    textures = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for place in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
        (root / place).mkdir(parents=True)
    for number, name in enumerate([*TRAIN, *TEST]):
        image, labels = np.full((64, 80, 3), 90, np.uint8), np.zeros((64, 80), np.uint8)
        for which, left in ((0, 4 + number % 8), (1, 44)):
            image[16:48, left : left + 28] = textures[which, :32, :28]
            labels[15:49, left - 1 : left + 29] = 255
            labels[16:48, left : left + 28] = (3, 7)[which]
        Image.fromarray(image).save(root / f"JPEGImages/{name}.jpg", quality=95)
        folder = "SegmentationClassAug" if name in TRAIN else "SegmentationClass"
        Image.fromarray(labels).save(root / folder / f"{name}.png")
    for split, names in (("trainaug", TRAIN), ("val", TEST)):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names) + "\n")


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOC2012"
    draw_voc(root)
    return root


@pytest.fixture
def config(voc: Path, tmp_path: Path) -> RetrievalSegmentationConfig:
    return RetrievalSegmentationConfig(
        backbone=write_toy_backbone(tmp_path, SPEC),
        data=voc,
        output=tmp_path / "out",
        memory_size=200,
        input_size=64,
        neighbours=5,
        pictures=1,
        workers=0,
        device="cpu",
    )
