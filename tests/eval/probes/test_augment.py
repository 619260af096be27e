"""mmseg's transforms where nothing of them is recorded: colours in OpenCV's space, and the share of a class in a crop."""

import cv2
import numpy as np
import pytest
import torch

from eval.probes.augment import colour_changes, first_mixed_box, recoloured


@pytest.mark.parametrize("factor", [0.1, -0.1, 0.4999])
def test_hue_turns_in_half_degrees_and_saturation_is_cut_at_255(factor: float) -> None:
    hues = np.arange(180, dtype=np.uint8)[None]
    rgb = cv2.cvtColor(np.stack([hues, np.full_like(hues, 200), np.full_like(hues, 250)], axis=-1), cv2.COLOR_HSV2RGB)
    hue, saturation, value = np.moveaxis(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV).astype(int), -1, 0)
    turned = (hue + int(np.floor(180 * factor)) + 180) % 180
    stronger = np.minimum(saturation * (1 + factor), 255).astype(int)
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)
    for change, wanted in (("hue", (turned, saturation, value)), ("saturation", (hue, stronger, value))):
        by = factor if change == "hue" else 1 + factor
        found = recoloured(pixels, [(change, by, 0.0)], by_opencv=True).permute(1, 2, 0).numpy()
        expected = cv2.cvtColor(np.stack(wanted, axis=-1).astype(np.uint8), cv2.COLOR_HSV2RGB)
        assert np.array_equal(found, expected)


def test_a_class_with_exactly_the_largest_share_is_refused() -> None:
    labels = np.array([[1, 1, 1, 2, 2, 255]], dtype=np.uint8)
    boxes = [(0, 1, 0, 4), (0, 1, 0, 3), (0, 1, 5, 6), (0, 1, 0, 5), (0, 1, 0, 6)]
    assert first_mixed_box(labels, iter(boxes), 0.75) == (0, 1, 0, 5)
    assert first_mixed_box(labels, iter(boxes), None) == boxes[0]
    assert first_mixed_box(labels, iter([boxes[0]] * 10 + [boxes[1], boxes[3]]), 0.75) == boxes[1]


def test_colour_changes_are_drawn_half_of_the_time_within_mmsegs_ranges() -> None:
    drawn = [colour_changes(36.0, np.random.default_rng(seed)) for seed in range(4000)]
    values: dict[str, list[float]] = {"brightness": [], "contrast": [], "saturation": [], "hue": []}
    contrast_first = []
    for changes in drawn:
        names = [name if name != "convert" else "brightness" if offset else "contrast" for name, _, offset in changes]
        for name, (_, factor, offset) in zip(names, changes, strict=True):
            assert (factor == 1.0) if name == "brightness" else (offset == 0.0)
            values[name].append(offset if name == "brightness" else factor)
        if {"contrast", "saturation"} <= set(names):
            contrast_first.append(names.index("contrast") < names.index("saturation"))
    assert all(1850 < len(found) < 2150 for found in values.values())
    assert 0.45 < np.mean(contrast_first) < 0.55
    for name, low, high in (("brightness", -32, 32), ("contrast", 0.5, 1.5), ("saturation", 0.5, 1.5), ("hue", -0.1, 0.1)):
        assert (min(values[name]), max(values[name])) == pytest.approx((low, high), rel=2e-3, abs=(high - low) * 1e-3)
        assert low <= min(values[name]) <= max(values[name]) <= high
