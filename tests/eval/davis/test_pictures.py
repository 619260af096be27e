import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.davis.masks import read_mask, write_mask
from eval.davis.pictures import main, panel_titles, sequence_metrics, write_chart
from eval.davis.scores import Scores
from tests.eval.davis.conftest import FRAMES, HEIGHT, WIDTH

Run = Callable[..., tuple[int, str, str]]


def test_titles_are_what_tells_folders_apart() -> None:
    assert panel_titles([Path("/runs/a/davis/masks"), Path("/runs/b/davis/masks")]) == ["a", "b"]
    assert panel_titles([Path("/runs/a/davis/masks")]) == ["masks"]
    three = [Path("/runs/a/davis/masks"), Path("/runs/b/davis/masks"), Path("/theirs/masks")]
    assert panel_titles(three) == ["a/davis", "b/davis", "theirs"]


def test_the_command_compares_two_backbones(davis: Path, tmp_path: Path, run: Run) -> None:
    annotations, empty = davis / "Annotations/480p", tmp_path / "empty"
    (empty / "boat").mkdir(parents=True)
    for path in (annotations / "boat").iterdir():
        write_mask(empty / "boat" / path.name, np.zeros((HEIGHT, WIDTH), np.uint8))
    shutil.copytree(annotations, tmp_path / "perfect")
    options = ("--davis", davis, "--output", tmp_path / "out", "--sequences", "boat", "--width", WIDTH)
    status, printed, errors = run(main, *options, "--compare", tmp_path / "perfect", empty, "--titles", "[one,two]")
    assert (status, errors) == (0, "")
    assert printed.splitlines() == [str(tmp_path / "out/boat.gif"), str(tmp_path / "out/j_and_f.png")]
    with Image.open(tmp_path / "out/boat.gif") as animation:
        assert (animation.n_frames, animation.size) == (FRAMES, (3 * WIDTH, HEIGHT + 16))
        animation.seek(2)
        page = np.asarray(animation.convert("RGB")).astype(int)[16:]
    truth, perfect, nothing = (page[:, start : start + WIDTH] for start in (0, WIDTH, 2 * WIDTH))
    inside = read_mask(annotations / "boat/00002.png") == 1
    assert (truth == perfect).all()
    assert (truth - nothing)[inside].mean(0)[0] > (truth - nothing)[inside].mean(0)[1] + 20  # the first object is red
    assert np.abs(truth - nothing)[read_mask(annotations / "boat/00002.png") == 0].mean() < 8  # of 256 colours


def test_the_chart_has_a_bar_for_each_sequence_and_title(tmp_path: Path) -> None:
    """Objects had a bar each, and masks of the same title one together."""
    names = [f"{name}_{number}" for name in ("boat", "a_cart") for number in (1, 2)]
    scores = {
        title: Scores(
            overall={"J&F-Mean": mean}, per_object={name: {"J&F-Mean": mean + 0.1 * (name[-1] == "2")} for name in names}
        )
        for title, mean in (("low", 0.2), ("high", 0.8))
    }
    assert sequence_metrics(scores["low"]) == pytest.approx({"boat": 25, "a_cart": 25})
    write_chart(tmp_path / "chart.png", scores)
    with Image.open(tmp_path / "chart.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    low, high = ((np.abs(pixels - colour).sum(2) < 30).sum(1).max() for colour in ((31, 119, 180), (255, 127, 14)))
    assert high / low == pytest.approx(85 / 25, rel=0.05)


def test_masks_of_another_size_are_named(davis: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(davis / "Annotations/480p", tmp_path / "masks")
    write_mask(tmp_path / "masks/boat/00001.png", np.zeros((4, 5), np.uint8))
    status, _, errors = run(main, "--davis", davis, "--output", tmp_path / "out", "--compare", tmp_path / "masks")
    assert (status, len(errors.splitlines())) == (2, 1)
    assert f"boat/00001.png: 5 x 4 pixels, but its frame has {WIDTH} x {HEIGHT}" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--compare", "[]"), "names no folder of masks"),
        (("--compare", "nowhere"), "nowhere/boat/00000.png: no such mask"),
        (("--compare", "nowhere", "--titles", "a", "b"), "1 folders need as many titles"),
        (("--compare", "one", "two", "--titles", "a", "a"), "2 folders need as many titles, each another"),
        (("--compare", "one", "./one"), "compare names a folder twice"),
    ],
)
def test_mistakes_are_one_line(options: tuple[str, ...], message: str, davis: Path, tmp_path: Path, run: Run) -> None:
    status, _, errors = run(main, "--davis", davis, "--output", tmp_path / "out", *options)
    assert (status, len(errors.splitlines())) == (2, 1)
    assert message in errors
