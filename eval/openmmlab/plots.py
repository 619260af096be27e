"""What a run draws: the curves of its training log, and its predictions on a few test images."""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

from common.files import write_atomically, write_text_atomically
from common.plots import Panel, write_panels
from eval.drawing import Picture
from eval.openmmlab.hooks import LOG_FILE
from eval.openmmlab.loading import ReadImage
from eval.openmmlab.options import FineTuningConfig

logger = logging.getLogger(__name__)

CURVES_FILE = "curves.png"
PREDICTIONS_FOLDER = "predictions"
LIST_FILE = "images.json"

_ITERATION, _TOTAL_LOSS, _LEARNING_RATE = "iteration", "loss", "lr"


def read_log(path: Path) -> list[dict[str, float]]:
    """The lines of a training log, in ascending order of iteration.

    A run that was killed wrote lines after its last checkpoint; the run that continued from there writes these iterations anew.
    Where the log goes back, what it says again replaces what it said before. A line that a kill cut off is left out with a warning.

    Raises:
        ValueError: If it has no line.
        OSError: If it cannot be read.
    """
    lines: list[dict[str, float]] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            logger.warning("%s: line %d is cut off and left out of the curves", path, number)
            continue
        while lines and lines[-1][_ITERATION] >= line[_ITERATION]:
            lines.pop()
        lines.append(line)
    if not lines:
        raise ValueError(f"{path} has no line to draw curves from")
    return lines


def write_curves(log: Path, plot: Path) -> None:
    """Draw a log file's curves into a PNG: total loss, its parts, accuracies where there are some, learning rate.

    Raises:
        ValueError: If the log is empty.
        OSError: If a file cannot be read or written.
    """
    lines = read_log(log)
    names = sorted({name for line in lines for name in line})
    parts = [name for name in names if "loss" in name and name != _TOTAL_LOSS]
    # The rest are accuracies of mmdet's or mmseg's heads.
    others = [name for name in names if "loss" not in name and name not in (_ITERATION, _LEARNING_RATE)]
    panels = [
        Panel("total loss", [_TOTAL_LOSS]),
        Panel("parts of the loss", parts if len(parts) > 1 else []),  # a single part is the total loss itself
        Panel("training accuracy (%)", others),
        Panel("learning rate", [_LEARNING_RATE], smooth=False),
    ]
    write_panels(lines, _ITERATION, [panel for panel in panels if panel.names], plot)


def draw_curves(output: Path, work_folder: str) -> dict[str, str]:
    """Draw the training curves; the artefact. A plot that fails is an error in the log and no reason to lose the metrics."""
    log, plot = output / work_folder / LOG_FILE, output / work_folder / CURVES_FILE
    try:
        if is_main_process():
            write_curves(log, plot)
    except (OSError, ValueError) as error:
        logger.error("%s is missing, the training curves were not drawn: %s", plot, error)
        return {}
    return {"training_curves": f"{work_folder}/{CURVES_FILE}"}


def spread(count: int, total: int) -> list[int]:
    """The middles of `count` equal parts of `range(total)`; all of it where it has no more."""
    count = min(count, total)
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


class PredictionsHook(Hook, ABC):
    """Draws the predictions on `count` test images, spread evenly over the data set, as `NNN.png`.

    Each process draws those of its images that are among them. A plot that cannot be drawn is an error in the log and no reason
    to lose a test. `images.json` says which image each plot shows.
    """

    priority = "LOW"

    def __init__(self, folder: str, count: int) -> None:
        """Draw at least one image into a folder, whose earlier plots are removed when a test begins."""
        self.folder = Path(folder)
        self.count = count
        self._shown: dict[str, Path] = {}

    @abstractmethod
    def draw(self, image: Picture, sample: Any) -> Image.Image:
        """The plot of one image.

        Args:
            image: [H, W, 3] as stored, RGB.
            sample: The data element that mmdet or mmseg returns, on the CPU: metadata, ground truth and prediction.
        """

    def before_test(self, runner: Runner) -> None:
        """Choose the images."""
        dataset = runner.test_dataloader.dataset
        paths = [dataset.get_data_info(index)["img_path"] for index in spread(self.count, len(dataset))]
        self._shown = {path: self.folder / f"{number:03}.png" for number, path in enumerate(paths)}
        if is_main_process():
            self.folder.mkdir(parents=True, exist_ok=True)
            for earlier in (*self.folder.glob("*.png"), *self.folder.glob(LIST_FILE)):
                earlier.unlink()
        barrier()

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Draw the chosen images of a batch."""
        for sample in outputs or ():
            if (path := self._shown.get(sample.img_path)) is None:
                continue
            try:
                image = ReadImage().transform({"img_path": sample.img_path})["img"][..., ::-1]
                write_atomically(path, self.draw(image, sample.cpu()).save)
            except (OSError, ValueError) as error:
                logger.error("%s is missing, %s was not drawn: %s", path, sample.img_path, error)

    def after_test(self, runner: Runner) -> None:
        """List the plots. By now every process has handed over its predictions, so it has drawn them."""
        if is_main_process():
            names = {path.name: Path(image).name for image, path in self._shown.items() if path.is_file()}
            try:
                write_text_atomically(self.folder / LIST_FILE, json.dumps(names, indent=1) + "\n")
            except OSError as error:
                logger.error("%s was not written: %s", self.folder / LIST_FILE, error)
        barrier()


def draw_predictions(config: Config, options: FineTuningConfig, hook: str, **more: Any) -> None:
    """Add a task's `PredictionsHook`, by its registered name, to a config, where the user wants drawings."""
    if options.draw_images:
        entry = {"type": hook, "folder": str(options.output / PREDICTIONS_FOLDER), "count": options.draw_images, **more}
        config.custom_hooks = [*config.get("custom_hooks", []), entry]


def list_predictions(output: Path) -> dict[str, str]:
    """The plots that a test drew: artefact name, which holds the image's, -> path in the output folder."""
    path = output / PREDICTIONS_FOLDER / LIST_FILE
    if not path.is_file():
        return {}  # writing it failed, which the log says
    names: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return {f"prediction on {image}": f"{PREDICTIONS_FOLDER}/{plot}" for plot, image in names.items()}
