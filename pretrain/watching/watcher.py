"""The observers of training that make it visible."""

import logging

import torch

from pretrain.config import PretrainConfig
from pretrain.data.sources import ImageFiles, images_of_folder
from pretrain.distributed import rank
from pretrain.observers import Moment
from pretrain.watching.collapse import CollapseWatch
from pretrain.watching.curves import CURVES_FILE, KNN, write_curves
from pretrain.watching.online_knn import OnlineKNN
from pretrain.watching.panels import write_figure
from pretrain.watching.photographs import Photograph, choose_photographs
from pretrain.watching.pictures import draw_pictures
from pretrain.watching.subject import Subject, subject_of

logger = logging.getLogger(__name__)

WATCH_FOLDER = "watch"


def is_due(config: PretrainConfig, moment: Moment) -> bool:
    """Whether pictures, k-NN and curves are made after this step: every so many epochs, and after the run's last one.

    Not when the run was asked to stop here: what asked may not wait.
    """
    every, epochs_done = config.watch.every, moment.epoch + 1
    if not every or not moment.epoch_ended:
        return False
    is_complete = epochs_done == config.train.epochs
    return is_complete or (epochs_done % every == 0 and not moment.is_last)


class Watcher:
    """Warns of collapse at every logged step; when it is time, adds the k-NN accuracy to the line of the log and draws pictures.

    Comes before the recorder, which writes that line.
    """

    def __init__(self, config: PretrainConfig, source: ImageFiles, device: torch.device) -> None:
        """Read what is needed, so that what is missing or damaged is found before training.

        Args:
            config: The run.
            source: The training images.
            device: Of this process.

        Raises:
            ValueError: If the images to draw or the labelled ones cannot be used.
        """
        self._config = config
        watch = config.watch
        self._collapse = CollapseWatch()
        self._photographs: list[Photograph] = []
        if watch.every:
            # On all processes, so that all of them find what is wrong.
            if watch.images is not None:
                self._photographs = choose_photographs(
                    images_of_folder(watch.images, "watch.images"), watch.num_images, spread=False
                )
            else:
                self._photographs = choose_photographs(source, watch.num_images, spread=True)
        self._knn = None
        if watch.knn_train is not None and watch.knn_val is not None:
            self._knn = OnlineKNN(watch.knn_train, watch.knn_val, config.views.global_size, config.data.workers, device)
            self._knn.check()

    def after_step(self, moment: Moment) -> None:
        """See `Observer`; all processes take part in the k-NN, the first one does the rest."""
        if moment.is_logged and rank() == 0:
            self._collapse.update(moment.step, {name: value.item() for name, value in moment.losses.items()})
        if not is_due(self._config, moment):
            return
        subject = subject_of(moment.networks.teacher, self._config)
        if self._knn is not None:
            accuracy = self._knn.accuracy(subject.backbone)
            if accuracy is not None and moment.log is not None:
                logger.info("epoch %d: k-NN top-1 %.1f %%", moment.epoch + 1, accuracy)
                moment.log.add({KNN: accuracy})
        if moment.log is not None:
            self._draw(subject, moment)

    def _draw(self, subject: Subject, moment: Moment) -> None:
        assert moment.log is not None
        folder = self._config.train.output / WATCH_FOLDER / f"epoch_{moment.epoch + 1:04d}"
        try:
            for name, figure in draw_pictures(subject, self._photographs).items():
                picture = write_figure(figure, folder / f"{name}.png")
                moment.log.board.add_image(f"{WATCH_FOLDER}/{name}", picture, moment.step, dataformats="HWC")
        except OSError as error:
            logger.error("no pictures of epoch %d: %s", moment.epoch + 1, error)

    def close(self) -> None:
        """Nothing is held."""


class CurveDrawer:
    """Draws the log when pictures are made; comes after the recorder, whose line of this step is part of it."""

    def __init__(self, config: PretrainConfig) -> None:
        """Store the run."""
        self._config = config

    def after_step(self, moment: Moment) -> None:
        """See `Observer`."""
        if moment.log is None or not is_due(self._config, moment):
            return
        output = self._config.train.output
        try:
            write_curves(output, output / WATCH_FOLDER / CURVES_FILE)
        except OSError as error:
            logger.error("no curves at epoch %d: %s", moment.epoch + 1, error)

    def close(self) -> None:
        """Nothing is held."""
