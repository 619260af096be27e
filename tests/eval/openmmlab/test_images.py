from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from eval.openmmlab.images import ImageFileError, ReadImage


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "photograph.jpg"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    image.save(path, quality=90)
    return path


def test_whole_images_are_read_as_mmcv_reads_them(photograph: Path) -> None:
    for path in (photograph, photograph.with_suffix(".png")):
        Image.open(photograph).save(path)
        ours, theirs = ({"img_path": str(path)} for _ in range(2))
        ours, theirs = ReadImage()(ours), LoadImageFromFile()(theirs)
        np.testing.assert_array_equal(ours.pop("img"), theirs.pop("img"))
        assert ours == theirs


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("part", [0.2, 0.6, 0.99])
def test_a_jpeg_that_breaks_off_is_named(photograph: Path, part: float, progressive: bool) -> None:
    Image.open(photograph).save(photograph, progressive=progressive)
    content = photograph.read_bytes()
    photograph.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ImageFileError, match=r"photograph\.jpg: (the JPEG breaks off|not a readable image)"):
        ReadImage()({"img_path": str(photograph)})


@pytest.mark.parametrize("content", [b"", b"<html>"])
def test_what_is_no_image_is_named(photograph: Path, content: bytes) -> None:
    photograph.write_bytes(content)
    with pytest.raises(ImageFileError, match=r"photograph\.jpg: not a readable image"):
        ReadImage()({"img_path": str(photograph)})


def test_bytes_after_the_end_are_allowed(photograph: Path) -> None:
    photograph.write_bytes(photograph.read_bytes() + b"\0" * 100)
    assert ReadImage()({"img_path": str(photograph)})["img_shape"] == (40, 60)


def test_a_workers_traceback_shrinks_to_its_last_line() -> None:
    message = "Caught X in worker\nTraceback:\n  ...\neval.openmmlab.images.ImageFileError: a.jpg: not readable\n"
    assert str(ImageFileError(message)) == "a.jpg: not readable"


def test_a_photograph_of_another_size_than_its_annotations_is_named(photograph: Path) -> None:
    """Boxes would lie beside their objects, or outside."""
    assert ReadImage()({"img_path": str(photograph), "height": 40, "width": 60})["img_shape"] == (40, 60)
    with pytest.raises(ImageFileError, match=r"photograph\.jpg: 60 x 40 pixels, but 120 x 80 by the annotations"):
        ReadImage()({"img_path": str(photograph), "height": 80, "width": 120})
