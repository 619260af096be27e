import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.data.sources import ImageFiles, find_images, images_of_folder
from pretrain.watching.photographs import SHOWN_SIZE, choose_photographs, squares


def test_the_same_images_from_all_over_the_listing_or_the_first_ones(image_folder: Path) -> None:
    paths = find_images(image_folder)
    source = images_of_folder(image_folder)
    spread, first = (choose_photographs(source, 3, spread) for spread in (True, False))
    assert [photograph.name.split("/")[-1] for photograph in spread] == [paths[index].name for index in (0, 4, 8)]
    assert [photograph.name.split("/")[-1] for photograph in first] == [path.name for path in paths[:3]]
    assert len(choose_photographs(source, 50, True)) == len(paths)


def test_unreadable_images_are_passed_over(tmp_path: Path, image_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    damaged = tmp_path / "a.jpg"
    damaged.write_bytes(b"no image")
    good = find_images(image_folder)[:2]
    with caplog.at_level(logging.WARNING):
        chosen = choose_photographs(ImageFiles(tmp_path, ["a.jpg", *map(str, good)]), 2, spread=False)
    assert len(chosen) == 2
    assert "a.jpg" in caplog.text
    with pytest.raises(ValueError, match=r"none of the 1 images.*a\.jpg"):
        choose_photographs(ImageFiles(tmp_path, ["a.jpg"]), 2, spread=False)


def test_pictures_to_look_at_are_large_whatever_the_network_sees(image_folder: Path) -> None:
    photographs = choose_photographs(images_of_folder(image_folder), 2, spread=False)
    pictures, images = squares(photographs, 32, torch.device("cpu"))
    assert images.shape == (2, 3, 32, 32)
    assert pictures[0].shape == (SHOWN_SIZE, SHOWN_SIZE, 3)
    small = np.asarray(Image.fromarray(pictures[0]).resize((8, 8), Image.Resampling.BOX), dtype=np.float64)
    seen = images[0].permute(1, 2, 0) * torch.tensor([0.229, 0.224, 0.225]) + torch.tensor([0.485, 0.456, 0.406])
    seen_small = seen.reshape(8, 4, 8, 4, 3).mean((1, 3)) * 255
    assert abs(seen_small.numpy() - small).max() < 12, "both show the same part"
