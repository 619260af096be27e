"""Curves of a log, and drawn predictions, without a network."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from eval.openmmlab.plots import PREDICTIONS_FOLDER, PredictionsHook, draw_curves, list_predictions

HEIGHT, WIDTH = 64, 96


def test_curves_that_cannot_be_drawn_are_an_error_in_the_log_and_no_artefact(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "empty/training.jsonl"
    log.parent.mkdir()
    log.touch()
    assert draw_curves(tmp_path, "absent") == draw_curves(tmp_path, "empty") == {}
    assert "absent/curves.png is missing" in caplog.text
    assert "holds no line" in caplog.text
    log.write_text('{"iteration": 1, "loss": 2, "lr": 1}\n{"iter', encoding="utf-8")
    assert draw_curves(tmp_path, "empty")
    assert "leaves out 1 lines" in caplog.text


class _Dataset(list[str]):
    metainfo: ClassVar[dict[str, Any]] = {"classes": ("a ", "b"), "palette": [(255, 0, 0), (0, 255, 0)]}

    def get_data_info(self, index: int) -> dict[str, str]:
        return {"img_path": self[index]}


@pytest.fixture
def runner(tmp_path: Path) -> Any:
    paths = _Dataset(str(tmp_path / f"{index}.png") for index in range(6))
    for index, path in enumerate(paths):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), (10 * index, 0, 200), np.uint8)).save(path)
    return SimpleNamespace(test_dataloader=SimpleNamespace(dataset=paths))


def segmented(path: str) -> SegDataSample:
    sample = SegDataSample(metainfo={"img_path": path})
    for name, label in (("gt_sem_seg", 0), ("pred_sem_seg", 1)):
        setattr(sample, name, PixelData(data=torch.full((1, HEIGHT, WIDTH), label)))
    return sample


def test_the_chosen_images_are_drawn_or_an_error_in_the_log(
    runner: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "out" / PREDICTIONS_FOLDER
    folder.mkdir(parents=True)
    (folder / "007.png").touch()  # of an earlier test with more images
    hook = PredictionsHook(str(folder), 3, "mmseg.SegLocalVisualizer")
    hook.before_test(runner)
    paths = runner.test_dataloader.dataset
    Path(paths[3]).write_bytes(b"")
    for number, path in enumerate(paths):
        hook.after_test_iter(runner, number, outputs=[segmented(path)])
    hook.after_test(runner)
    # The images chosen are 1, 3 and 5; drawing the second fails, which is said and does not end the test.
    assert list_predictions(tmp_path / "out") == {
        "prediction on 1.png": "predictions/000.png",
        "prediction on 5.png": "predictions/002.png",
    }
    assert sorted(path.name for path in folder.iterdir()) == ["000.png", "002.png", "images.json"]
    (record,) = caplog.records
    assert "001.png is missing" in record.message
    # Ground truth on the left, prediction on the right, in the classes' colours.
    drawn = np.asarray(Image.open(folder / "000.png"))
    assert drawn.shape == (HEIGHT, 2 * WIDTH, 3)
    assert [int(drawn[-1, column].argmax()) for column in (0, -1)] == [0, 1]
