"""The hook that draws, with a task of its own and without a network."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.drawing import Picture
from eval.openmmlab.pictures import PREDICTIONS_FOLDER, PicturesHook, list_pictures, spread


class _Sample(SimpleNamespace):
    def cpu(self) -> "_Sample":
        return self


class _CopyHook(PicturesHook):
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
    assert list_pictures(tmp_path / "out") == {
        "prediction on 1.png": "predictions/000.png",
        "prediction on 5.png": "predictions/002.png",
    }
    assert sorted(path.name for path in folder.iterdir()) == ["000.png", "002.png", "images.json"]
    assert np.asarray(Image.open(folder / "000.png"))[0, 0].tolist() == [10, 0, 200]
    (record,) = caplog.records
    assert "001.png is missing" in record.message
    assert "no such colour" in record.message
