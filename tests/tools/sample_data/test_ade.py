from pathlib import Path

import numpy as np
import pytest
from mmseg.datasets import ADE20KDataset
from PIL import Image

from tools.sample_data.ade import ADE_CLASSES, UNLABELLED


@pytest.mark.parametrize(("split", "count"), [("training", 8), ("validation", 4)])
def test_every_image_has_a_mask_of_its_size_with_known_numbers(samples: Path, split: str, count: int) -> None:
    root = samples / "ade/ADEChallengeData2016"
    images = sorted((root / "images" / split).iterdir())
    masks = sorted((root / "annotations" / split).iterdir())
    assert [path.stem for path in images] == [path.stem for path in masks]
    assert len(images) == count
    seen: set[int] = set()
    for image_path, mask_path in zip(images, masks, strict=True):
        with Image.open(image_path) as image, Image.open(mask_path) as mask:
            assert image.mode == "RGB"
            assert mask.mode == "L"
            assert image.size == mask.size
            seen |= set(np.unique(np.asarray(mask)).tolist())
    assert seen <= {UNLABELLED, *ADE_CLASSES.values()}
    assert UNLABELLED in seen
    assert len(seen) >= 6


def test_numbers_are_those_of_the_benchmark() -> None:
    names = ADE20KDataset.METAINFO["classes"]
    own_names = {"motorcycle": "minibike", "cat": "animal"}
    for name, number in ADE_CLASSES.items():
        assert names[number - 1] == own_names.get(name, name)
