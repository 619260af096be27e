"""When the checkpoint is written, and which copies of it are kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrain.config import TrainConfig
from pretrain.distributed import rank
from pretrain.observers import Moment
from pretrain.state import keep_copy, save_checkpoint


class CheckpointWriter:
    """Writes the checkpoint every `train.checkpoint_every` steps and at the end; the first process does."""

    def __init__(self, path: Path, settings: Mapping[str, Any], train: TrainConfig, steps_per_epoch: int) -> None:
        """Store what to write and when.

        Args:
            path: The checkpoint.
            settings: From `pretrain.state.run_settings`.
            train: How often.
            steps_per_epoch: Steps of an epoch.
        """
        self._path = path
        self._settings = settings
        self._train = train
        self._every = train.checkpoint_every or steps_per_epoch

    def after_step(self, moment: Moment) -> None:
        """Write if it is time."""
        if rank() != 0 or not (moment.step % self._every == 0 or moment.is_last):
            return
        epochs_done = moment.epoch + moment.epoch_ended
        save_checkpoint(self._path, self._settings, moment.networks, moment.step, epochs_done)
        if self._train.keep_every and moment.epoch_ended and epochs_done % self._train.keep_every == 0:
            keep_copy(self._path, epochs_done)

    def close(self) -> None:
        """Nothing is held."""
