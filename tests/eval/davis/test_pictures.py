from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.davis.pictures import main, panel_titles
from tests.eval.davis.conftest import FRAMES

Run = Callable[..., tuple[int, str, str]]


def test_titles_are_what_tells_folders_apart() -> None:
    assert panel_titles([Path("/runs/a/davis/masks"), Path("/runs/b/davis/masks")]) == ["a", "b"]
    assert panel_titles([Path("/runs/a/davis/masks")]) == ["masks"]


def test_the_command_compares_two_backbones(davis: Path, tmp_path: Path, run: Run) -> None:
    annotations = davis / "Annotations/480p"
    options = ("--davis", davis, "--output", tmp_path / "out", "--sequences", "boat", "--width", 48, "--titles", "[one,two]")
    status, printed, errors = run(main, *options, "--compare", annotations, annotations)
    assert (status, errors) == (0, "")
    assert printed.splitlines() == [str(tmp_path / "out/boat.gif"), str(tmp_path / "out/j_and_f.png")]
    with Image.open(tmp_path / "out/boat.gif") as animation:
        assert (animation.n_frames, animation.size) == (FRAMES, (3 * 48, 32 + 16))
        first, second = (np.asarray(animation.convert("RGB"))[16:, start : start + 48] for start in (48, 96))
    assert (first == second).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--compare", "[]"), "names no folder of masks"),
        (("--compare", "nowhere"), "nowhere/boat/00000.png: no such mask"),
        (("--compare", "nowhere", "--titles", "a", "b"), "1 folders need as many titles"),
    ],
)
def test_mistakes_are_one_line(options: tuple[str, ...], message: str, davis: Path, tmp_path: Path, run: Run) -> None:
    status, _, errors = run(main, "--davis", davis, "--output", tmp_path / "out", *options)
    assert (status, len(errors.splitlines())) == (2, 1)
    assert message in errors
