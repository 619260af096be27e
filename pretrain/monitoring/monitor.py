"""Monitoring of a run: every so many epochs its k-NN accuracy goes to the log, and plots and curves to the folder `watch/`."""

import json
import logging
from collections.abc import Collection

import torch

from common.files import write_atomically
from common.plots import Panel, write_panels
from pretrain.config import PretrainConfig
from pretrain.data.sources import ImageFiles, images_of_folder
from pretrain.log import LOG_FILE, StepInfo
from pretrain.monitoring.knn import OnlineKNN
from pretrain.monitoring.plots import choose_images, draw_all
from pretrain.monitoring.subject import subject_of

WATCH_FOLDER = "watch"
CURVES_FILE = "curves.png"
KNN = "knn_top1"  # name of the k-NN accuracy in the log, in percent

_SPREAD = [f"{part}_{name}" for part in ("cls", "patch") for name in ("deviation", "similarity", "queue_similarity")]
_PANELS = (
    Panel("loss", ["loss"]),
    Panel("parts of the loss", ["cls_loss", "patch_loss"]),
    Panel(
        "entropy of targets\n(part of log K)",
        ["cls_entropy_part", "cls_batch_entropy_part", "patch_entropy_part", "patch_batch_entropy_part"],
    ),
    Panel("length of the centre", ["cls_centre_norm", "patch_centre_norm"]),
    Panel("spread of embeddings", _SPREAD),
    Panel("k-NN top-1 (%)", [KNN], smooth=False),
    Panel("learning rate", ["lr"], smooth=False),
)

logger = logging.getLogger(__name__)


class Monitor:
    """Looks at the teacher every `watch.every` epochs and after the run's last one.

    Not after a step at which the run was asked to stop: what asked may not wait.
    """

    def __init__(self, config: PretrainConfig, source: ImageFiles, device: torch.device) -> None:
        """Read what is needed on all processes, so that all of them find before training what is missing or damaged."""
        self._config, watch = config, config.watch
        drawn = source if watch.images is None else images_of_folder(watch.images, "watch.images")
        self._images = choose_images(drawn, watch.num_images, spread=watch.images is None)
        self._knn = None
        if watch.knn_train is not None:
            self._knn = OnlineKNN(config, device)
            self._knn.check()

    def _is_due(self, info: StepInfo) -> bool:
        done, config = info.epoch + 1, self._config
        return info.epoch_ended and (done == config.train.epochs or (done % config.watch.every == 0 and not info.is_last))

    def before_log(self, info: StepInfo) -> None:
        """Add the k-NN accuracy, in which all processes take part, to the line of the log that comes next, and draw."""
        if not self._is_due(info):
            return
        subject, epochs_done = subject_of(info.networks.teacher, self._config), info.epoch + 1
        accuracy = self._knn.accuracy(subject.backbone) if self._knn else None
        if info.log is None:
            return
        if accuracy is not None:
            logger.info("epoch %d: k-NN top-1 %.1f %%", epochs_done, accuracy)
            info.log.add({KNN: accuracy})
        folder = self._config.train.output / WATCH_FOLDER / f"epoch_{epochs_done:04d}"
        try:
            for name, figure in draw_all(subject, self._images).items():
                write_atomically(folder / f"{name}.png", figure.savefig)
                info.log.board.add_figure(f"{WATCH_FOLDER}/{name}", figure, info.step)
        except OSError as error:
            logger.error("no plots of epoch %d: %s", epochs_done, error)

    def after_log(self, info: StepInfo) -> None:
        """Draw the curves of the log, whose line of this step is written."""
        output = self._config.train.output
        if info.log is not None and self._is_due(info):
            try:
                lines = [json.loads(line) for line in (output / LOG_FILE).read_text(encoding="utf-8").splitlines()]
                names = {name for line in lines for name in line}
                write_panels(lines, "step", panels(names), output / WATCH_FOLDER / CURVES_FILE)
            except OSError as error:
                logger.error("no curves at epoch %d: %s", info.epoch + 1, error)


def panels(names: Collection[str]) -> list[Panel]:
    """What to draw of the numbers that a log has."""
    present = [panel._replace(names=[name for name in panel.names if name in names]) for panel in _PANELS]
    return [panel for panel in present if panel.names]
