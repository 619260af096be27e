import numpy as np
import pytest
import torch
from PIL import Image

from eval.classification.transforms import MEAN, STD, CentreCrop, RandomCropAndFlip

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (40, 40)])
def test_centre_crop(height: int, width: int) -> None:
    picture = PICTURE.resize((width, height))
    found = CentreCrop(resize=36, crop=32)(picture, 0)
    # The shorter side becomes 36 by Pillow's bicubic filter; then the middle 32 x 32.
    scale = 36 / min(height, width)
    resized = (
        np.asarray(picture.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC), np.float32) / 255
    )
    top, left = (resized.shape[0] - 32) // 2, (resized.shape[1] - 32) // 2
    expected = (resized[top : top + 32, left : left + 32] - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(found.permute(1, 2, 0), expected, atol=1e-5)


def test_random_crops_depend_on_seed_epoch_and_image_only() -> None:
    first = RandomCropAndFlip(crop=32, seed=0, epoch=1)(PICTURE, 5)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert torch.equal(first, RandomCropAndFlip(crop=32, seed=0, epoch=1)(PICTURE, 5))
    assert torch.equal(before, torch.get_rng_state())
    others = [
        RandomCropAndFlip(crop=32, seed=seed, epoch=epoch)(PICTURE, index)
        for seed, epoch, index in ((1, 1, 5), (0, 2, 5), (0, 1, 6))
    ]
    assert not any(torch.equal(first, other) for other in others)
    assert first.shape == (3, 32, 32)


def test_half_of_the_pictures_are_mirrored() -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], (60, 1, 3)))
    crops = torch.stack([RandomCropAndFlip(crop=16, seed=0, epoch=0)(ramp, index) for index in range(200)])
    mirrored = (crops[:, 0, :, 0].mean(1) > crops[:, 0, :, -1].mean(1)).float().mean()
    assert 0.4 < mirrored < 0.6
