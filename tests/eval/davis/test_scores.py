import csv
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eval.propagation.measures import METRICS, SequenceMeasures, frame_statistics, score_sequences, summarise
from tests.eval.davis.conftest import SEQUENCES, Run
from tests.references import davis_scores as reference


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_command_writes_the_official_files(tmp_path: Path, run: Run) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "global_results-val.csv").write_text("J&F-Mean\n1.0\n")  # the official code would believe this
    printed = run("scores").output()
    (overall,) = read_csv(output / "global_results-val.csv")
    assert tuple(overall) == METRICS
    assert (output / "global_results-val.csv").read_text() == printed
    rows = read_csv(output / "per-sequence_results-val.csv")
    assert [row["Sequence"] for row in rows] == [f"{name}_{number}" for name in SEQUENCES for number in (1, 2)]
    assert 0.2 < float(overall["J-Mean"]) < 0.95


def test_which_sequences_are_scored(
    davis: Path, predictions: Path, tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    beside = davis / "Annotations/480p"
    without_lists = shutil.copytree(beside, tmp_path / "mine")
    (printed,) = {run("scores", "--annotations", folder).output() for folder in (without_lists, beside, davis)}
    assert printed.count("\n") == 2
    # A list beside the annotations chooses.
    (davis / "ImageSets/2017/val.txt").write_text("cart\n")
    shutil.rmtree(predictions / "boat")
    run("scores", "--annotations", beside).output()
    assert len(read_csv(tmp_path / "out/per-sequence_results-val.csv")) == 2
    mistake = run("scores", "--annotations", beside, "--sequences", "boat").mistake()
    assert "no sequence boat in split 'val'; it has cart" in mistake
    run("scores", "--predictions", beside).output()
    assert "480p: these are the annotations themselves, which score 100" in caplog.text


def test_processes_give_what_one_process_gives(davis: Path, predictions: Path) -> None:
    alone, several = (score_sequences(SEQUENCES, davis / "Annotations/480p", predictions, jobs=jobs) for jobs in (1, 2))
    assert several == alone


def measures(name: str, objects: int, frames: int, seed: int = 0) -> SequenceMeasures:
    region, boundary = np.random.default_rng(seed).random((2, objects, frames))
    return SequenceMeasures(name=name, region=region, boundary=boundary)


def test_statistics_of_the_frames() -> None:
    values = np.arange(10, 1, -1) / 10
    # 0.5 itself is no hit; neighbouring quarters share their border frames.
    assert frame_statistics(values) == pytest.approx((0.6, 5 / 9, 0.9 - 0.3))
    # The official positions wrap beyond 8 bits.
    assert frame_statistics(np.repeat([1.0, 0.0], 300))[2] == 1


def test_every_object_counts_once() -> None:
    scores = summarise([measures("a", 1, 10), measures("b", 3, 5, seed=1)])
    assert list(scores.per_object) == ["a_1", "b_1", "b_2", "b_3"]
    assert summarise([measures("b", 3, 5, seed=1), measures("a", 1, 10)]).overall == pytest.approx(scores.overall, abs=1e-12)
    for name in METRICS:
        assert scores.overall[name] == pytest.approx(np.mean([metrics[name] for metrics in scores.per_object.values()]))
    with pytest.raises(ValueError, match="nothing to score"):
        summarise([measures("empty", 0, 4)])


class Official:
    """A stand-in with the interface of the official package, which is on no index."""

    error, gives_up = 0.0, False

    def __init__(self, davis_root: str, task: str, gt_set: str, sequences: list[str], codalab: bool) -> None:
        assert (task, gt_set, codalab) == ("semi-supervised", "val", True)
        assert Path(davis_root, "ImageSets/2017/val.txt").read_text().split() == sequences
        self.masks, self.sequences = Path(davis_root, "Annotations/480p"), sequences

    def evaluate(self, res_path: str) -> dict[str, Any]:
        if self.gives_up:
            raise SystemExit
        result: dict[str, Any] = {measure: {"M": [], "R": [], "D": [], "M_per_object": {}} for measure in "JF"}
        for name in self.sequences:
            for measure, objects in zip("JF", reference.measure_sequence(self.masks / name, Path(res_path, name)), strict=True):
                for number, values in enumerate(objects, 1):
                    result[measure]["M_per_object"][f"{name}_{number}"] = values.mean()
                    for letter, value in zip("MRD", frame_statistics(values), strict=True):
                        result[measure][letter].append(value + self.error)
        return result


def test_any_difference_from_the_official_metrics_fails(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "davis2017.evaluation", SimpleNamespace(DAVISEvaluation=Official))
    wrong = ("error", 1e-8, "36 metrics differ from the official evaluation's, first: ")
    for attribute, value, message in (wrong, ("gives_up", True, "gave up on these masks")):
        with monkeypatch.context() as patch:
            patch.setattr(Official, attribute, value)
            finished = run("scores", "--official")
        assert message in finished.mistake()
        assert (finished.stdout, (tmp_path / "out").exists()) == ("", False)
    run("scores", "--official").output()
    assert (tmp_path / "out/global_results-val.csv").is_file()
