"""Monitoring of a run: every so many epochs its k-NN accuracy goes to the log, and plots and curves to the folder `watch/`."""

import json
import logging
from collections.abc import Collection

import torch
from torch import nn

from common.files import write_atomically
from common.plots import Panel, write_panels
from pretrain.config import PretrainConfig
from pretrain.data.sources import ImageFiles, images_of_folder
from pretrain.log import LOG_FILE, RunLog
from pretrain.monitoring.knn import OnlineKNN
from pretrain.monitoring.plots import choose_images, draw_all, subject_of

WATCH_FOLDER = "watch"
CURVES_FILE = "curves.png"
KNN = "knn_top1"  # name of the k-NN accuracy in the log, in percent


def _of_cls_and_patches(*names: str) -> list[str]:
    return [f"{part}_{name}" for part in ("cls", "patch") for name in names]


_PANELS = (
    Panel("loss", ["loss"]),
    Panel("parts of the loss", _of_cls_and_patches("loss")),
    Panel("entropy of targets\n(part of log K)", _of_cls_and_patches("entropy_part", "batch_entropy_part")),
    Panel("length of the centre", _of_cls_and_patches("centre_norm")),
    Panel("spread of embeddings", _of_cls_and_patches("deviation", "similarity", "queue_similarity")),
    Panel("k-NN top-1 (%)", [KNN], smooth=False),
    Panel("learning rate", ["lr"], smooth=False),
)

logger = logging.getLogger(__name__)


class Monitor:
    """Looks at the teacher at the ends of epochs.

    A run computes bit for bit the same without it: it may read networks and draw random numbers, but change nothing else.
    """

    def __init__(self, config: PretrainConfig, source: ImageFiles, device: torch.device) -> None:
        """Read what is needed on all processes, so that all of them find before training what is missing or damaged."""
        self._config, watch = config, config.watch
        drawn = source if watch.images is None else images_of_folder(watch.images, "watch.images")
        self._images = choose_images(drawn, watch.num_images, spread=watch.images is None)
        self._knn = OnlineKNN(config, device) if watch.knn_train is not None else None

    def before_log(self, step: int, epochs_done: int, teacher: nn.Module, log: RunLog | None) -> dict[str, float]:
        """At an epoch's end, draw, on the first process, which has the log, and return what its next line gets: the k-NN accuracy."""
        subject = subject_of(teacher, self._config)
        accuracy = self._knn.accuracy(subject.backbone) if self._knn else None
        if log is None:
            return {}
        if accuracy is not None:
            logger.info("epoch %d: k-NN top-1 %.1f %%", epochs_done, accuracy)
        folder = self._config.train.output / WATCH_FOLDER / f"epoch_{epochs_done:04d}"
        try:
            for name, figure in draw_all(subject, self._images).items():
                write_atomically(folder / f"{name}.png", figure.savefig)
                log.board.add_figure(f"{WATCH_FOLDER}/{name}", figure, step)
        except OSError as error:
            logger.error("no plots of epoch %d: %s", epochs_done, error)
        return {} if accuracy is None else {KNN: accuracy}

    def after_log(self, epochs_done: int) -> None:
        """Draw the curves of the log, whose line of this epoch's end is written; for the first process."""
        output = self._config.train.output
        try:
            lines = [json.loads(line) for line in (output / LOG_FILE).read_text(encoding="utf-8").splitlines()]
            names = {name for line in lines for name in line}
            write_panels(lines, "step", panels(names), output / WATCH_FOLDER / CURVES_FILE)
        except OSError as error:
            logger.error("no curves at epoch %d: %s", epochs_done, error)


def panels(names: Collection[str]) -> list[Panel]:
    """What to draw of the numbers that a log has."""
    present = [panel._replace(names=[name for name in panel.names if name in names]) for panel in _PANELS]
    return [panel for panel in present if panel.names]
