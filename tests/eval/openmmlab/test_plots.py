"""Curves of a log, and the hook that draws predictions, with a task of its own and without a network."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.drawing import Picture
from eval.openmmlab.plots import (
    PREDICTIONS_FOLDER,
    PredictionsHook,
    draw_curves,
    list_predictions,
    read_log,
    spread,
    write_curves,
)


def write_log(path: Path, iterations: list[int], loss: float = 2.0) -> Path:
    with path.open("a", encoding="utf-8") as log:
        for iteration in iterations:
            parts = {"loss_cls": loss / 2, "loss_mask": loss / 2, "acc": 50.0, "lr": 1e-4}
            log.write(json.dumps({"iteration": iteration, "loss": loss, **parts}) + "\n")
    return path


def test_a_continued_run_replaces_what_it_trained_anew(tmp_path: Path) -> None:
    # Killed after iteration 40, continued from the checkpoint of iteration 20.
    log = write_log(tmp_path / "log.jsonl", [10, 20, 30, 40], loss=9.0)
    write_log(log, [30, 40, 50], loss=1.0)
    lines = read_log(log)
    assert [(line["iteration"], line["loss"]) for line in lines] == [(10, 9), (20, 9), (30, 1), (40, 1), (50, 1)]


def test_the_curves_of_a_continued_run_are_those_of_an_uninterrupted_one(tmp_path: Path) -> None:
    write_curves(write_log(tmp_path / "whole.jsonl", [10, 20, 30]), tmp_path / "whole.png")
    killed = write_log(write_log(tmp_path / "killed.jsonl", [10, 20], loss=7.0), [10, 20, 30])
    write_curves(killed, tmp_path / "killed.png")
    write_curves(write_log(tmp_path / "other.jsonl", [10, 20, 30], loss=7.0), tmp_path / "other.png")
    whole, resumed, other = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("whole", "killed", "other"))
    assert (whole == resumed).all()
    assert (whole != other).any()


def test_a_line_that_a_kill_cut_off_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = write_log(tmp_path / "log.jsonl", [10])
    with log.open("a", encoding="utf-8") as stream:
        stream.write('{"iteration": 20, "lo\n')
    write_log(log, [30])
    with caplog.at_level(logging.WARNING):
        assert [line["iteration"] for line in read_log(log)] == [10, 30]
    assert "line 2 is cut off" in caplog.text


def test_a_log_without_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(ValueError, match="no line to draw"):
        write_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")


def test_a_loss_of_one_part_has_one_panel_fewer(tmp_path: Path) -> None:
    several = write_log(tmp_path / "several.jsonl", [1, 2])
    (tmp_path / "one.jsonl").write_text(
        "".join(
            json.dumps({key: value for key, value in line.items() if key != "loss_cls"}) + "\n" for line in read_log(several)
        ),
        encoding="utf-8",
    )
    for name in ("several", "one"):
        write_curves(tmp_path / f"{name}.jsonl", tmp_path / f"{name}.png")
    tall, short = (Image.open(tmp_path / f"{name}.png") for name in ("several", "one"))
    assert tall.width == short.width
    assert tall.height > short.height


def test_curves_that_cannot_be_drawn_are_an_error_in_the_log_and_no_artefact(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert draw_curves(tmp_path, "training") == {}
    assert "training/curves.png is missing" in caplog.text
    (tmp_path / "training").mkdir()
    write_log(tmp_path / "training" / "training.jsonl", [1])
    assert draw_curves(tmp_path, "training") == {"training_curves": "training/curves.png"}
    assert (tmp_path / "training" / "curves.png").is_file()


class _Sample(SimpleNamespace):
    def cpu(self) -> "_Sample":
        return self


class _CopyHook(PredictionsHook):
    def draw(self, image: Picture, sample: Any) -> Image.Image:
        if sample.img_path.endswith("3.png"):
            raise ValueError("no such colour")
        return Image.fromarray(image)


class _Dataset:
    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def get_data_info(self, index: int) -> dict[str, str]:
        return {"img_path": self.paths[index]}


def test_the_choice_is_spread_over_the_set_without_repeats() -> None:
    assert spread(1, 9) == [4]
    assert spread(4, 100) == [12, 37, 62, 87]
    assert spread(8, 5) == [0, 1, 2, 3, 4]
    assert len(set(spread(8, 9))) == 8


@pytest.fixture
def runner(tmp_path: Path) -> Any:
    paths = []
    for index in range(6):
        paths.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(np.full((4, 4, 3), (10 * index, 0, 200), np.uint8)).save(paths[-1])
    return SimpleNamespace(test_dataloader=SimpleNamespace(dataset=_Dataset(paths)))


def test_processes_together_draw_every_chosen_image(runner: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "out" / PREDICTIONS_FOLDER
    folder.mkdir(parents=True)
    (folder / "007.png").touch()  # of an earlier test with more pictures
    hooks = [_CopyHook(str(folder), 3) for _ in range(2)]
    for hook in hooks:
        hook.before_test(runner)
    with caplog.at_level(logging.ERROR):
        for number, path in enumerate(runner.test_dataloader.dataset.paths):
            hooks[number % 2].after_test_iter(runner, number // 2, outputs=[_Sample(img_path=path)])
    hooks[0].after_test(runner)
    # The images chosen are 1, 3 and 5; drawing the second fails, which is said and does not end the test.
    assert list_predictions(tmp_path / "out") == {
        "prediction on 1.png": "predictions/000.png",
        "prediction on 5.png": "predictions/002.png",
    }
    assert sorted(path.name for path in folder.iterdir()) == ["000.png", "002.png", "images.json"]
    assert np.asarray(Image.open(folder / "000.png"))[0, 0].tolist() == [10, 0, 200]
    (record,) = caplog.records
    assert "001.png is missing" in record.message
    assert "no such colour" in record.message
