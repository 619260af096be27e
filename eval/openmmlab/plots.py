"""What a run draws: the curves of its training log, and its predictions on a few test images."""

import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mmcv
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, VISUALIZERS
from mmengine.runner import Runner

from common.distributed import gather_objects, wait_for_all
from common.files import write_atomically, write_text_atomically
from common.images import evenly
from common.plots import Panel, read_log, write_panels
from eval.openmmlab.options import FineTuningConfig
from eval.openmmlab.runner import LOG_FILE

logger = logging.getLogger(__name__)

CURVES_FILE = "curves.png"
PREDICTIONS_FOLDER = "predictions"
LIST_FILE = "images.json"

_SCORE_SHOWN = 0.5  # detections with a score above it are drawn
_BEST_SHOWN = 5  # so many are drawn where none has


def draw_curves(output: Path, work_folder: str) -> dict[str, str]:
    """Draw total loss, its parts, accuracies where there are some, and learning rate into a PNG; returns the artefact.

    Where that fails, it is an error in the log and no reason to lose the metrics.
    """
    plot = output / work_folder / CURVES_FILE
    try:
        if is_main_process():
            lines, cut_off = read_log(output / work_folder / LOG_FILE)
            if cut_off:
                logger.warning("%s leaves out %d lines of the log, which a kill cut off", plot, cut_off)
            names = sorted({name for line in lines for name in line} - {"iteration", "loss", "lr"})
            parts = [name for name in names if "loss" in name]
            panels = [
                Panel("total loss", ["loss"]),
                Panel("parts of the loss", parts if len(parts) > 1 else []),  # a single part is the total loss itself
                Panel("training accuracy (%)", [name for name in names if name not in parts]),  # of mmdet's or mmseg's heads
                Panel("learning rate", ["lr"], smooth=False),
            ]
            write_panels(lines, "iteration", [panel for panel in panels if panel.names], plot)
    except (OSError, ValueError) as error:
        logger.error("%s is missing; it was not drawn from %s: %s", plot, LOG_FILE, error)
        return {}
    return {"training_curves": f"{work_folder}/{CURVES_FILE}"}


@HOOKS.register_module()
class PredictionsHook(Hook):
    """Draws ground truth and prediction beside each other on `count` test images, spread over the data set, as `NNN.png`.

    The first process draws them all at the end, since mmengine's visualisers do nothing in the others. A plot that cannot be drawn
    is an error in the log and no reason to lose a test. `images.json` says which image each plot shows.
    """

    priority = "LOW"

    def __init__(self, folder: str, count: int, visualizer: str, classes: Sequence[str] | None = None) -> None:
        """Draw by a visualiser of mmdet or mmseg, such as `mmdet.DetLocalVisualizer`; a test removes the plots of an earlier one.

        `classes` are names by label where they are not the data set's: COCO's labels follow the annotation file.
        """
        self.folder = Path(folder)
        self.count = count
        self.visualizer = VISUALIZERS.get(visualizer)()
        self.classes = classes
        self._samples: dict[str, Any] = {}

    def before_test(self, runner: Runner) -> None:
        dataset = runner.test_dataloader.dataset
        chosen = evenly(range(len(dataset)), self.count)
        self._samples = dict.fromkeys(dataset.get_data_info(index)["img_path"] for index in chosen)
        classes = self.classes or dataset.metainfo["classes"]
        self.num_classes = len(classes)
        self.visualizer.dataset_meta = {**dataset.metainfo, "classes": classes}
        if is_main_process():
            self.folder.mkdir(parents=True, exist_ok=True)
            for earlier in (*self.folder.glob("*.png"), *self.folder.glob(LIST_FILE)):
                earlier.unlink()

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Any = None) -> None:
        """Keep what the plots show of this process's images."""
        for sample in outputs or ():
            if sample.img_path in self._samples:
                sample.pop("seg_logits", None)  # a number per class and pixel
                if "pred_instances" in sample:
                    sample.pred_instances = self._best(sample.pred_instances)
                self._samples[sample.img_path] = sample.cpu()

    def _best(self, found: Any) -> Any:
        """The detections to draw."""
        found = found[found.labels < self.num_classes]  # others cannot count
        confident = found[found.scores > _SCORE_SHOWN]
        return confident if len(confident) else found[found.scores.argsort(descending=True)[:_BEST_SHOWN]]

    def after_test(self, runner: Runner) -> None:
        shares = gather_objects(self._samples)
        if is_main_process():
            samples = {path: sample for share in shares for path, sample in share.items() if sample is not None}
            names = {}
            for number, path in enumerate(self._samples):
                plot = self.folder / f"{number:03}.png"
                try:
                    write_atomically(plot, partial(self._draw, samples[path]))
                    names[plot.name] = Path(path).name
                except Exception as error:  # whatever a drawing library raises
                    logger.error("%s is missing, %s was not drawn: %s", plot, path, error)
            try:
                write_text_atomically(self.folder / LIST_FILE, json.dumps(names, indent=1) + "\n")
            except OSError as error:
                logger.error("%s was not written: %s", self.folder / LIST_FILE, error)
        wait_for_all()  # until there are the plots, which every process lists

    def _draw(self, sample: Any, path: Path) -> None:
        image = mmcv.imread(sample.img_path, channel_order="rgb")
        # Labels of segments would lie on top of each other, and in the colours of the segments.
        options: dict[str, Any] = {"pred_score_thr": -1.0} if "pred_instances" in sample else {"with_labels": False}
        self.visualizer.add_datasample("", image, sample, out_file=str(path), **options)


def draw_predictions(config: Config, options: FineTuningConfig, visualizer: str, classes: Sequence[str] | None = None) -> None:
    """Add a `PredictionsHook` to a config, where the user wants drawings."""
    if options.draw_images:
        hook = {"type": "PredictionsHook", "folder": str(options.output / PREDICTIONS_FOLDER), "count": options.draw_images}
        config.custom_hooks = [*config.get("custom_hooks", []), {**hook, "visualizer": visualizer, "classes": classes}]


def list_predictions(output: Path) -> dict[str, str]:
    """The plots that a test drew: artefact name, which holds the image's, -> path in the output folder."""
    path = output / PREDICTIONS_FOLDER / LIST_FILE
    if not path.is_file():
        return {}  # writing it failed, which the log says
    names: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return {f"prediction on {image}": f"{PREDICTIONS_FOLDER}/{plot}" for plot, image in names.items()}
