"""What a fine-tuning run shows and keeps while it goes on: a bar with an ETA, and the losses as JSON lines."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce_dict, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from tqdm import tqdm

LOG_FILE = "training.jsonl"

_LEAST_LINES = 100


class DivergedError(ValueError):
    """A loss that is no number: what would be tested is no network."""


@HOOKS.register_module()
class ProgressHook(Hook):
    """A progress bar on stderr for training and testing, and a line of losses every few iterations in `training.jsonl`.

    Losses are means over all processes. Where a line is due, a loss that is not finite ends the run (`DivergedError`).
    """

    priority = "BELOW_NORMAL"  # before the schedulers step: the learning rate is that of the iteration

    def __init__(self, log_interval: int = 50) -> None:
        """Remember the interval.

        Args:
            log_interval: Most iterations between two lines of the log file; a short run has a hundred lines all the same.
        """
        self.log_interval = log_interval
        self._bar: tqdm[Any] | None = None

    def before_train(self, runner: Runner) -> None:
        """Open the bar where the run stands."""
        self._bar = _bar("training", runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Advance the bar; write a line where one is due."""
        assert self._bar is not None
        assert outputs is not None
        self._bar.update()
        iteration = runner.iter + 1
        interval = max(1, min(self.log_interval, runner.max_iters // _LEAST_LINES))
        if iteration % interval and iteration != runner.max_iters:
            return
        means = {name: torch.as_tensor(value).detach().clone() for name, value in outputs.items()}
        all_reduce_dict(means, op="mean")
        figures = {name: float(value) for name, value in means.items()}
        figures["lr"] = runner.optim_wrapper.get_lr()["lr"][0]
        if not math.isfinite(figures["loss"]):
            raise DivergedError(
                f"update {iteration}: the loss is {figures['loss']}; the training has diverged. A lower learning rate may help "
                "(--override optim_wrapper.optimizer.lr=RATE), in another --output"
            )
        self._bar.set_postfix({"loss": f"{figures['loss']:.3f}", "lr": f"{figures['lr']:.1e}"}, refresh=False)
        if is_main_process():
            with (Path(runner.work_dir) / LOG_FILE).open("a", encoding="utf-8") as log:
                log.write(json.dumps({"iteration": iteration, **figures}) + "\n")

    def after_train(self, runner: Runner) -> None:
        """Close the bar."""
        self.close()

    def before_test(self, runner: Runner) -> None:
        """Open the bar."""
        self._bar = _bar("testing", len(runner.test_dataloader), 0)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Advance the bar."""
        assert self._bar is not None
        self._bar.update()

    def after_test(self, runner: Runner) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """End the bar's line, also where the run ends early."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _bar(what: str, total: int, initial: int) -> "tqdm[Any]":
    return tqdm(desc=what, total=total, initial=initial, unit="it", mininterval=1.0, disable=not is_main_process())
