"""A toy backbone file and a few COCO-format images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import eval.openmmlab.operators  # noqa: F401 - before any test imports mmdet
from backbones.spec import ViTSpec
from tests.toy import write_toy_backbone

# Two of COCO's categories with their official ids.
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]


@pytest.fixture(scope="session")
def toy_spec() -> ViTSpec:
    return ViTSpec(embed_dim=24, depth=4, num_heads=3, patch_size=16, image_size=64, class_token=False, final_norm=False)


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory, toy_spec: ViTSpec) -> Path:
    return write_toy_backbone(tmp_path_factory.mktemp("backbones"), toy_spec)


def draw_coco(root: Path, sizes: dict[str, int], empty: int = 0) -> Path:
    """A COCO folder with `sizes[split]` images of two rectangles each, and `empty` training images without any."""
    random = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for split, count in sizes.items():
        (root / split).mkdir()
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
        for index in range(count + (empty if split == "train2017" else 0)):
            name, width, height = f"{index:012d}.jpg", 128, 96
            image = Image.fromarray(random.integers(0, 80, (height, width, 3), dtype=np.uint8))
            for slot in range(2 if index < count else 0):
                left, top = 8 + 60 * slot, int(random.integers(4, 30))
                box = (left, top, 44, 50)
                ImageDraw.Draw(image).rectangle((left, top, left + 44, top + 50), fill=(230, 60 + 150 * slot, 40))
                content["annotations"].append(_annotation(len(content["annotations"]) + 1, index, CATEGORIES[slot]["id"], box))
            image.save(root / split / name)
            content["images"].append({"id": index, "file_name": name, "width": width, "height": height})
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def _annotation(number: int, image: int, category: Any, box: tuple[int, int, int, int]) -> dict[str, Any]:
    left, top, width, height = box
    right, bottom = left + width, top + height
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
    }


@pytest.fixture(scope="session")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_coco(tmp_path_factory.mktemp("coco") / "coco", {"train2017": 3, "val2017": 2}, empty=1)


@pytest.fixture
def drawing() -> Any:
    """`draw_coco`, for tests that damage what it draws."""
    return draw_coco
