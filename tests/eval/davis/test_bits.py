import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.morphology import disk

from eval.davis.bits import count, dilate, pack


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 40),
    width=st.integers(1, 200),
    radius=st.integers(0, 30) | st.integers(60, 70) | st.integers(120, 140),
    density=st.sampled_from([0.001, 0.02, 0.5]),
)
def test_dilation_by_a_disk_as_opencv_does_it(seed: int, height: int, width: int, radius: int, density: float) -> None:
    image, everything = np.random.default_rng(seed).random((height, width)) < density, np.ones((height, width), bool)
    expected = cv2.dilate(image.astype(np.uint8), disk(radius).astype(np.uint8)) > 0
    dilated = dilate(pack(image, radius), radius)
    assert count(dilated & pack(everything, radius)) == expected.sum()
    assert count(dilated & pack(expected, radius)) == expected.sum()


def test_the_first_pixel_is_the_lowest_bit() -> None:
    image = np.zeros((2, 70), bool)
    image[0, 0] = image[1, 65] = True
    assert pack(image, 0).tolist() == [[1, 0], [0, 2]]
    assert pack(image, 60).shape == (2, 3)
