from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from eval.davis.frames import input_size, read_frame
from eval.davis.protocol import PropagationSettings
from tests.references import davis_propagation as reference

PUBLISHED, FIXED = PropagationSettings(), PropagationSettings(protocol="fixed")


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        ((480, 854), (480, 832)),
        ((480, 910), (480, 896)),
        ((480, 1152), (480, 1152)),
        ((1080, 1920), (480, 832)),
        ((854, 480), (832, 480)),
    ],
)
def test_the_long_side_is_rounded_down(original: tuple[int, int], expected: tuple[int, int]) -> None:
    assert input_size(*original, PUBLISHED, 16) == expected


@pytest.mark.parametrize(
    ("original", "multiple", "expected"),
    [((480, 854), 16, (480, 848)), ((480, 854), 8, (480, 856)), ((480, 480), 14, (476, 476))],
)
def test_the_fixed_protocol_takes_the_nearest_size(original: tuple[int, int], multiple: int, expected: tuple[int, int]) -> None:
    assert input_size(*original, FIXED, multiple) == expected


def test_a_frame_is_read_as_the_authors_read_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 170, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "00007.jpg"), pixels)
    frame = read_frame(tmp_path / "00007.jpg", PUBLISHED, 16)
    image, size = reference.read_frame(tmp_path / "00007.jpg")
    assert (frame.name, frame.original_size) == ("00007", size)
    torch.testing.assert_close(frame.image, image, rtol=0, atol=1e-6)


def test_a_damaged_frame_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "whole.jpg"), np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8))
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image")
    for name in ("cut", "empty", "text"):
        with pytest.raises(ValueError, match=rf"{name}\.jpg: not a JPEG, or a damaged"):
            read_frame(tmp_path / f"{name}.jpg", PUBLISHED, 16)
    with pytest.raises(ValueError, match=r"absent\.jpg: no such frame"):
        read_frame(tmp_path / "absent.jpg", PUBLISHED, 16)


@pytest.mark.parametrize("orientation", [3, 6])
def test_pixels_stay_as_they_are_stored(orientation: int, tmp_path: Path) -> None:
    """Masks are drawn on stored pixels; OpenCV turned frames by their EXIF orientation, and the masks not."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 170, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "plain.jpg")
    turned, plain = (read_frame(tmp_path / f"{name}.jpg", PUBLISHED, 16) for name in ("turned", "plain"))
    assert turned.original_size == plain.original_size == (100, 170)
    assert torch.equal(turned.image, plain.image)


def test_bytes_after_the_end_marker_are_fine(tmp_path: Path) -> None:
    """2,000 of them were refused here, and nowhere else."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 170, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "frame.jpg"), pixels)
    before = read_frame(tmp_path / "frame.jpg", PUBLISHED, 16)
    with (tmp_path / "frame.jpg").open("ab") as stream:
        stream.write(bytes(2000))
    assert torch.equal(read_frame(tmp_path / "frame.jpg", PUBLISHED, 16).image, before.image)


def test_the_fixed_protocol_has_the_deviation_of_training(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "white.jpg"), np.full((64, 64, 3), 255, np.uint8))
    for settings, deviation in ((PUBLISHED, 0.228), (FIXED, 0.229)):
        image = read_frame(tmp_path / "white.jpg", settings, 16).image
        assert image[0, 0, 0].item() == pytest.approx((1 - 0.485) / deviation, rel=1e-5)
