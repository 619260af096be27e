"""The numbers of a run: losses and schedules, averaged over the processes, at every logged step."""

import torch

from pretrain.distributed import mean_over_processes
from pretrain.observers import Moment


class Recorder:
    """Writes a logged step's line, with what earlier observers added to it by `RunLog.add`."""

    def __init__(self, device: torch.device) -> None:
        """Store the device over which the processes exchange values."""
        self._device = device

    def after_step(self, moment: Moment) -> None:
        """Log on the first process; all take part in averaging the losses."""
        log = moment.log
        if moment.is_logged:
            values = mean_over_processes({name: value.item() for name, value in moment.losses.items()}, self._device)
            if log is not None:
                now = moment.settings
                log.add(values)
                log.add({"lr": now.lr, "weight_decay": now.weight_decay, "teacher_momentum": now.teacher_momentum})
                log.write(moment.step, moment.epoch)
        if log is not None:
            log.advance()

    def close(self) -> None:
        """Nothing is held."""
