"""Curves of a log, and drawn predictions, without a network."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from eval.openmmlab.plots import PREDICTIONS_FOLDER, PredictionsHook, draw_curves, list_predictions

HEIGHT, WIDTH = 64, 96


def write_log(folder: Path, iterations: list[int], loss: float = 2.0, **more: float) -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / "training.jsonl").open("a", encoding="utf-8") as log:
        for iteration in iterations:
            log.write(json.dumps({"iteration": iteration, "loss": loss, "loss_cls": loss, "lr": 1e-4, **more}) + "\n")
    return folder / "training.jsonl"


def test_a_loss_of_one_part_has_one_panel_fewer(tmp_path: Path) -> None:
    write_log(tmp_path / "one", [1, 2], acc=50.0)
    write_log(tmp_path / "two", [1, 2], acc=50.0, loss_mask=1.0)
    for name in ("one", "two"):
        assert draw_curves(tmp_path, name) == {"training_curves": f"{name}/curves.png"}
    short, tall = (Image.open(tmp_path / name / "curves.png") for name in ("one", "two"))
    assert tall.width == short.width
    assert tall.height > short.height


def test_curves_that_cannot_be_drawn_are_an_error_in_the_log_and_no_artefact(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_log(tmp_path / "empty", [])
    assert draw_curves(tmp_path, "absent") == draw_curves(tmp_path, "empty") == {}
    assert "absent/curves.png is missing" in caplog.text
    assert "holds no line" in caplog.text
    (tmp_path / "empty/training.jsonl").write_text('{"iteration": 1, "loss": 2, "lr": 1}\n{"iter', encoding="utf-8")
    assert draw_curves(tmp_path, "empty")
    assert "leaves out 1 lines" in caplog.text


class _Dataset(list[str]):
    """A data set of image paths."""

    metainfo: ClassVar[dict[str, Any]] = {"classes": ("a ", "b", "c"), "palette": [(255, 0, 0), (0, 255, 0), (0, 0, 255)]}

    def get_data_info(self, index: int) -> dict[str, str]:
        return {"img_path": self[index]}


@pytest.fixture
def runner(tmp_path: Path) -> Any:
    paths = _Dataset(str(tmp_path / f"{index}.png") for index in range(6))
    for index, path in enumerate(paths):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), (10 * index, 0, 200), np.uint8)).save(path)
    return SimpleNamespace(test_dataloader=SimpleNamespace(dataset=paths))


def segmented(path: str, truth: int = 0, predicted: int = 1) -> SegDataSample:
    sample = SegDataSample(metainfo={"img_path": path})
    for name, label in (("gt_sem_seg", truth), ("pred_sem_seg", predicted)):
        setattr(sample, name, PixelData(data=torch.full((1, HEIGHT, WIDTH), label)))
    return sample


def detected(path: str, labels: list[int], scores: list[float]) -> DetDataSample:
    def instances(labels: list[int], **more: Any) -> InstanceData:
        boxes, masks = torch.zeros(len(labels), 4), torch.zeros(len(labels), HEIGHT, WIDTH, dtype=bool)
        for number in range(len(labels)):  # each in a place of its own
            left = 8 + 45 * number
            boxes[number] = torch.tensor([left, 8, left + 35, 40])
            masks[number, 8:40, left : left + 35] = True
        return InstanceData(bboxes=boxes.reshape(-1, 4), labels=torch.tensor(labels, dtype=torch.long), masks=masks, **more)

    sample = DetDataSample(metainfo={"img_path": path})
    sample.gt_instances, sample.pred_instances = instances([1]), instances(labels, scores=torch.tensor(scores))
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


def test_detections_are_drawn_by_confidence_and_named_by_the_annotation_file(runner: Any, tmp_path: Path) -> None:
    """Labels count the categories of the file; the head may have more."""
    hook = PredictionsHook(str(tmp_path / "out"), 6, "mmdet.DetLocalVisualizer", ["person", "dog"])
    hook.before_test(runner)
    paths = runner.test_dataloader.dataset
    found: list[tuple[list[int], list[float]]] = [
        *(([1], [0.9]), ([1, 0], [0.9, 0.4]), ([1, 7], [0.9, 0.95])),  # only the first of each is drawn
        *(([0], [0.4]), ([], []), ([7], [0.9])),
    ]
    for path, (labels, scores) in zip(paths, found, strict=True):
        hook.after_test_iter(runner, 0, outputs=[detected(path, labels, scores)])
    hook.after_test(runner)
    images = [np.asarray(Image.open(tmp_path / f"out/{number:03}.png")).astype(int) for number in range(6)]
    background = [np.array([10 * number, 0, 200]) for number in range(6)]
    changed = [(abs(image - colour).sum(axis=2) > 30)[:, WIDTH:] for image, colour in zip(images, background, strict=True)]
    assert [bool(panel.any()) for panel in changed] == [True, True, True, True, False, False]
    assert (changed[0] == changed[1]).mean() > 0.99
    assert (changed[0] == changed[2]).mean() > 0.99
