from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.davis.masks import MaskError, davis_palette, read_mask, single_object, without_void, write_mask


def test_the_palette_is_that_of_pascal_voc() -> None:
    palette = davis_palette()
    assert palette[[0, 1, 2, 3, 7, 8, 21, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [128, 128, 128],
        [64, 0, 0],
        [128, 64, 128],
        [224, 224, 192],
    ]


def test_ids_survive_the_file(tmp_path: Path) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "mask.png", mask)
    assert (read_mask(tmp_path / "mask.png") == mask).all()
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"


def test_grey_and_binary_files_hold_ids_too(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 2]], np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "binary.png")
    assert read_mask(tmp_path / "grey.png").tolist() == [[0, 2]]
    assert read_mask(tmp_path / "binary.png").tolist() == [[0, 1]]


def test_files_that_are_no_masks_are_named(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "colour.png")
    Image.new("L", (4, 4)).save(tmp_path / "photo.jpg")
    (tmp_path / "photo.jpg").rename(tmp_path / "photo.png")
    (tmp_path / "text.png").write_text("no image")
    write_mask(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    expected = {"colour": "mode RGB", "photo": "a JPEG file", "text": "damaged", "cut": "damaged", "absent": "no such mask"}
    for name, message in expected.items():
        with pytest.raises(MaskError, match=rf"{name}\.png: .*{message}"):
            read_mask(tmp_path / f"{name}.png")


def test_void_and_single_object() -> None:
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    assert without_void(mask).tolist() == [[0, 1, 2, 0]]
    assert single_object(mask).tolist() == [[0, 1, 1, 1]]
