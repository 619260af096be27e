import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from eval.davis.scores import main, score_sequences
from eval.davis.summary import GLOBAL_FIGURES
from tests.eval.davis.conftest import SEQUENCES

Run = Callable[..., tuple[int, str, str]]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_command_writes_the_official_files(davis: Path, predictions: Path, tmp_path: Path, run: Run) -> None:
    output = tmp_path / "scores"
    output.mkdir()
    (output / "global_results-val.csv").write_text("J&F-Mean\n1.0\n")  # the official code would believe this
    status, printed, errors = run(main, "--annotations", davis, "--predictions", predictions, "--output", output, "--jobs", 1)
    assert (status, errors) == (0, "")
    (overall,) = read_csv(output / "global_results-val.csv")
    assert tuple(overall) == GLOBAL_FIGURES
    assert (output / "global_results-val.csv").read_text() == printed
    rows = read_csv(output / "per-sequence_results-val.csv")
    assert [row["Sequence"] for row in rows] == [f"{name}_{number}" for name in SEQUENCES for number in (1, 2)]
    assert float(overall["J-Mean"]) == pytest.approx(sum(float(row["J-Mean"]) for row in rows) / len(rows), abs=1e-12)
    assert 0.2 < float(overall["J-Mean"]) < 0.95


def test_folders_of_masks_without_lists(davis: Path, predictions: Path, tmp_path: Path, run: Run) -> None:
    annotations = tmp_path / "mine"
    shutil.copytree(davis / "Annotations/480p", annotations)
    outputs = []
    for folder in (annotations, davis / "Annotations/480p", davis):
        status, printed, _ = run(main, "--annotations", folder, "--predictions", predictions, "--output", tmp_path, "--jobs", 1)
        assert status == 0
        outputs.append(printed)
    assert len(set(outputs)) == 1


def test_the_list_beside_the_annotations_chooses(davis: Path, predictions: Path, tmp_path: Path, run: Run) -> None:
    (davis / "ImageSets/2017/val.txt").write_text("cart\n")
    shutil.rmtree(predictions / "boat")
    arguments = ("--annotations", davis / "Annotations/480p", "--predictions", predictions, "--output", tmp_path, "--jobs", 1)
    assert run(main, *arguments)[0] == 0
    assert len(read_csv(tmp_path / "per-sequence_results-val.csv")) == 2
    status, _, errors = run(main, *arguments, "--sequences", "boat")
    assert status == 2
    assert "no annotations of sequence boat in split 'val'" in errors


def test_processes_give_what_one_process_gives(davis: Path, predictions: Path) -> None:
    annotations = davis / "Annotations/480p"
    alone = score_sequences(SEQUENCES, annotations, predictions, jobs=1)
    assert score_sequences(SEQUENCES, annotations, predictions, jobs=2) == alone
    assert score_sequences(SEQUENCES[::-1], annotations, predictions).overall == pytest.approx(alone.overall, abs=1e-12)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "cart"), r"predictions/cart: no such folder \(1 of 3 sequences are missing\)"),
        (lambda folder: (folder / "cart/00002.png").unlink(), r"cart/00002\.png: no such prediction"),
        (lambda folder: (folder / "cart/00002.png").write_text("x"), r"cart/00002\.png: damaged mask"),
        (shutil.rmtree, r"predictions: no such folder"),
    ],
)
def test_mistakes_are_one_line(
    spoil: Callable[[Path], object], message: str, davis: Path, predictions: Path, tmp_path: Path, run: Run
) -> None:
    spoil(predictions)
    output = tmp_path / "scores"
    status, _, errors = run(main, "--annotations", davis, "--predictions", predictions, "--output", output, "--jobs", 1)
    assert status == 2
    assert len(errors.splitlines()) == 1
    assert re.search(message, errors)
    assert not output.exists()


def test_options_that_do_not_exist(run: Run) -> None:
    status, _, errors = run(main, "--annotation", "x")
    assert status == 2
    assert "--help" in errors
