from pathlib import Path

import numpy as np
from PIL import Image

from common.plots import Panel, smoothed, write_panels


def test_smoothing_is_a_mean_over_neighbours_that_are_finite() -> None:
    values = np.array([1.0, 3.0, np.nan, 5.0, np.inf])
    assert smoothed(values, 3).tolist() == [2.0, 2.0, 4.0, 5.0, 5.0]
    assert smoothed(np.array([4.0]), 3).tolist() == [4.0]
    assert np.isnan(smoothed(np.array([np.nan, np.nan]), 3)).all()


def test_a_number_that_few_lines_have_is_a_line_all_the_same(tmp_path: Path) -> None:
    every = [{"step": step, "accuracy": 3.0 * step} for step in (1, 3, 5)]
    sparse = [*every, {"step": 2}, {"step": 4}]
    panels = [Panel("accuracy", ["accuracy"], smooth=False)]
    for name, lines in (("every", every), ("sparse", sorted(sparse, key=lambda line: line["step"]))):
        write_panels(lines, "step", panels, tmp_path / f"{name}.png")
    pictures = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("every", "sparse")]
    assert (pictures[0] == pictures[1]).all()
