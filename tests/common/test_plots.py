import json
from pathlib import Path

import numpy as np
import pytest

from common.plots import read_log, smoothed


def test_smoothing_is_a_mean_over_neighbours_that_are_finite() -> None:
    values = np.array([1.0, 3.0, np.nan, 5.0, np.inf])
    assert smoothed(values, 3).tolist() == [2.0, 2.0, 4.0, 5.0, 5.0]
    assert smoothed(np.array([4.0]), 3).tolist() == [4.0]
    assert np.isnan(smoothed(np.array([np.nan, np.nan]), 3)).all()


def test_a_continued_run_replaces_lines_of_its_log_and_a_damaged_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    losses = [(1, 4.0), (2, 3.0), (3, 9.0), (2, 2.0)]
    lines = [{"iteration": iteration, "loss": loss} for iteration, loss in losses]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"iteration": 3, "lo')
    assert read_log(path) == ([lines[0], lines[3]], 1)
    for text, problem in (("", "holds no line"), ('{"loss": 1}\n', "without an iteration"), ("3\n", "without")):
        path.write_text(text)
        with pytest.raises(ValueError, match=problem):
            read_log(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_log(tmp_path / "absent")
