"""A few COCO-format images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import eval.openmmlab.operators  # noqa: F401 - before any test imports mmdet

# Two of COCO's categories with their official ids.
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]


@pytest.fixture(scope="session")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three training and two validation images of two rectangles each, and a training image without any."""
    root = tmp_path_factory.mktemp("coco") / "coco"
    random = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for split, count, empty in (("train2017", 3, 1), ("val2017", 2, 0)):
        (root / split).mkdir()
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
        for index in range(count + empty):
            image = Image.fromarray(random.integers(0, 80, (96, 128, 3), dtype=np.uint8))
            for slot in range(2 if index < count else 0):
                left, top = 8 + 60 * slot, int(random.integers(4, 30))
                right, bottom = left + 44, top + 50
                ImageDraw.Draw(image).rectangle((left, top, right, bottom), fill=(230, 60 + 150 * slot, 40))
                ids = {"id": len(content["annotations"]) + 1, "image_id": index, "category_id": CATEGORIES[slot]["id"]}
                shape = {"bbox": [left, top, 44, 50], "segmentation": [[left, top, right, top, right, bottom, left, bottom]]}
                content["annotations"].append({**ids, **shape, "area": 44 * 50, "iscrowd": 0})
            content["images"].append({"id": index, "file_name": f"{index:012d}.jpg", "width": 128, "height": 96})
            image.save(root / split / f"{index:012d}.jpg")
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return root
