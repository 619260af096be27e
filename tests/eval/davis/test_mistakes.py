"""What a user does wrong is one line, whichever command meets it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eval.davis.masks import write_mask
from tests.eval.davis.conftest import HEIGHT, WIDTH, Run


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("task", "--backbone none", "no such file; make it with"),
        ("task", "--data none", "should be a DAVIS folder"),
        ("task", "--jobs -1", "jobs=-1 must be at least 0"),
        ("propagation", "--output {}/full", "files of unknown origin"),
        ("propagation", "--block 2", "taps [2] are not ascending indices of this vit's 2 blocks"),
        ("propagation", "--temperature 0.01", "temperature=0.01 must be at least 0.0125"),
        ("propagation", "--device abacus", "device 'abacus' is not known"),
        ("propagation", "--short_side 68", "not a multiple of the patch size"),
        ("propagation", "--unknown 1", "--unknown"),
        ("scores", "--official", "requirements-official.txt"),
        ("scores", "--official --year 2016", "2017 only"),
        ("pictures", "--compare []", "names no folder of masks"),
        ("pictures", "--compare nowhere", "nowhere/boat/00000.png: no such mask"),
        ("pictures", "--compare nowhere --titles a b", "1 folders need as many titles"),
        ("pictures", "--compare one two --titles a a", "2 folders need as many titles, each another"),
        ("pictures", "--compare one ./one", "compare names a folder twice"),
        ("pictures", "--compare {}/small", f"boat/00001.png: 5 x 4 pixels, but its frame has {WIDTH} x {HEIGHT}"),
        ("explain", "--frame 99", "boat has frames 0 to 4"),
        ("explain", "--frame 0", "at least 1"),
        ("explain", "--x 96", "outside the 96 x 64 pixels"),
        ("explain", "--output why.gif", "must end in .png"),
        ("explain", "--sequence boat,cart", "sequence='boat,cart' must be the name of one sequence"),
    ],
)
def test_options(command: str, options: str, message: str, davis: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("mine")
    shutil.copytree(davis / "Annotations/480p", tmp_path / "small")
    write_mask(tmp_path / "small/boat/00001.png", np.zeros((4, 5), np.uint8))
    assert message in run(command, *options.format(tmp_path).split()).mistake()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "place", "spoil", "message"),
    [
        ("task", "DAVIS/Annotations/480p/boat/00002.png", Path.unlink, "scoring needs a mask of every frame"),
        ("scores", "predictions/cart", shutil.rmtree, r"s/cart: no such folder \(1 of 3 sequences are missing\)"),
        ("scores", "predictions/cart/00002.png", lambda path: path.write_text("x"), r"cart/00002\.png: damaged mask"),
        ("scores", "predictions", shutil.rmtree, "predictions: no such folder"),
    ],
)
def test_data(command: str, place: str, spoil: Callable[[Path], object], message: str, tmp_path: Path, run: Run) -> None:
    spoil(tmp_path / place)
    assert re.search(message, run(command).mistake())
    assert not (tmp_path / "out").exists()
