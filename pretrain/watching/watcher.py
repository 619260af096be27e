# shim: remove
"""What `pretrain.run` calls until it calls `pretrain.monitoring.monitor.Monitor` itself."""

import torch

from pretrain.config import PretrainConfig
from pretrain.data.sources import ImageFiles
from pretrain.distributed import rank
from pretrain.monitoring.monitor import Monitor
from pretrain.observers import Moment
from pretrain.watching.collapse import CollapseWatch


class Watcher:
    def __init__(self, config: PretrainConfig, source: ImageFiles, device: torch.device) -> None:
        self._collapse = CollapseWatch()
        self.monitor = Monitor(config, source, device) if config.watch.every else None

    def after_step(self, moment: Moment) -> None:
        if moment.is_logged and rank() == 0:
            self._collapse.update(moment.step, {name: value.item() for name, value in moment.losses.items()})
        if self.monitor is not None:
            self.monitor.before_log(moment)

    def close(self) -> None: ...


class CurveDrawer:
    def __init__(self, config: PretrainConfig) -> None:
        self._config = config

    def after_step(self, moment: Moment) -> None:
        if self._config.watch.every:
            monitor = object.__new__(Monitor)
            monitor._config = self._config
            monitor.after_log(moment)

    def close(self) -> None: ...
