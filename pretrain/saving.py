"""When the checkpoint is written, and which older ones stay beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrain.config import TrainConfig
from pretrain.distributed import from_first_process, rank
from pretrain.kept import link_or_copy, name_by_epoch, name_by_step, prune
from pretrain.observers import Moment
from pretrain.state import CheckpointNotWrittenError, save_checkpoint


class CheckpointWriter:
    """Writes the checkpoint every `train.checkpoint_every` steps and at the end; the first process does."""

    def __init__(
        self, path: Path, settings: Mapping[str, Any], train: TrainConfig, steps_per_epoch: int, kept: list[str]
    ) -> None:
        """Store what to write and when.

        Args:
            path: The checkpoint.
            settings: From `pretrain.state.run_settings`.
            train: How often, and what to keep.
            steps_per_epoch: Steps of an epoch.
            kept: Names of the older checkpoints that this run has written so far and may remove.
        """
        self._path = path
        self._settings = settings
        self._train = train
        self._every = train.checkpoint_every or steps_per_epoch
        self._steps_per_epoch = steps_per_epoch
        self._kept = kept

    def is_due(self, step: int) -> bool:
        """Whether the checkpoint is written after this many steps, also if they are not the last."""
        return step % self._every == 0 or self._is_kept_for_good(step)

    def after_step(self, moment: Moment) -> None:
        """Write if it is time; all processes wait for the first one's success.

        Raises:
            CheckpointNotWrittenError: If there is no room, on all processes; the previous checkpoint is still there.
        """
        if not (self.is_due(moment.step) or moment.is_last):
            return
        failure = ""
        if rank() == 0:
            try:
                self._write(moment)
            except CheckpointNotWrittenError as error:
                failure = str(error)
        if failure := from_first_process(failure):
            raise CheckpointNotWrittenError(failure)

    def close(self) -> None:
        """Nothing is held."""

    def _write(self, moment: Moment) -> None:
        epochs_done = moment.epoch + moment.epoch_ended
        newest = name_by_step(self._path, moment.step)
        keeps_older = self._train.keep_last > 1
        kept = [*self._kept, newest.name] if keeps_older and newest.name not in self._kept else self._kept
        save_checkpoint(self._path, self._settings, moment.networks, moment.step, epochs_done, kept)
        if keeps_older:
            link_or_copy(self._path, newest)
        # Also with a smaller `keep_last` than before the run was continued.
        self._kept = prune(self._path.parent, kept, self._train.keep_last if keeps_older else 0)
        if self._is_kept_for_good(moment.step):
            link_or_copy(self._path, name_by_epoch(self._path, epochs_done))

    def _is_kept_for_good(self, step: int) -> bool:
        epochs, rest = divmod(step, self._steps_per_epoch)
        return bool(self._train.keep_every) and rest == 0 and epochs % self._train.keep_every == 0
