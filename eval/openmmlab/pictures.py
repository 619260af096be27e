"""Pictures of what a test predicts, drawn of a few images while it runs; what they show is the task's own matter.

Shapes: H x W pixels.
"""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

from common.files import write_atomically, write_text_atomically
from eval.drawing import Picture
from eval.openmmlab.images import ReadImage

logger = logging.getLogger(__name__)

PREDICTIONS_FOLDER = "predictions"
LIST_FILE = "images.json"


def spread(count: int, total: int) -> list[int]:
    """The middles of `count` equal parts of `range(total)`; all of it where it has no more."""
    count = min(count, total)
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


class PicturesHook(Hook, ABC):
    """Draws the predictions on `count` test images, spread evenly over the data set, as `NNN.png`.

    Each process draws those of its images that are among them. A picture that cannot be drawn is an error in the log and no reason
    to lose a test. `images.json` says which image each picture shows.
    """

    priority = "LOW"

    def __init__(self, folder: str, count: int) -> None:
        """Remember where to draw how many.

        Args:
            folder: Its earlier pictures are removed when a test begins.
            count: At least 1.
        """
        self.folder = Path(folder)
        self.count = count
        self._shown: dict[str, Path] = {}

    @abstractmethod
    def draw(self, image: Picture, sample: Any) -> Image.Image:
        """The picture of one image.

        Args:
            image: As stored, [H, W, 3].
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
        """Draw the images of a batch that were chosen."""
        for sample in outputs or ():
            if sample.img_path in self._shown:
                self._write(self._shown[sample.img_path], sample)

    def after_test(self, runner: Runner) -> None:
        """List the pictures. By now every process has handed over its predictions, so it has drawn them."""
        if is_main_process():
            names = {path.name: Path(image).name for image, path in self._shown.items() if path.is_file()}
            try:
                write_text_atomically(self.folder / LIST_FILE, json.dumps(names, indent=1) + "\n")
            except OSError as error:
                logger.error("%s was not written: %s", self.folder / LIST_FILE, error)
        barrier()

    def _write(self, path: Path, sample: Any) -> None:
        try:
            image = ReadImage().transform({"img_path": sample.img_path})["img"][..., ::-1]
            write_atomically(path, self.draw(image, sample.cpu()).save)
        except (OSError, ValueError) as error:
            logger.error("%s is missing, %s was not drawn: %s", path, sample.img_path, error)


def list_pictures(output: Path) -> dict[str, str]:
    """The pictures that a test drew: artefact name, which holds the image's, -> path in the output folder."""
    path = output / PREDICTIONS_FOLDER / LIST_FILE
    if not path.is_file():
        return {}  # writing it failed, which the log says
    names: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return {f"prediction on {image}": f"{PREDICTIONS_FOLDER}/{picture}" for picture, image in names.items()}
