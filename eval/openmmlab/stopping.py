"""Ends a training on request: a scheduler's signal leaves a checkpoint behind."""

from typing import Any

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from common.interruption import Interrupted, StopRequest
from eval.openmmlab.runner import CHECKPOINT_NAME

_ASK_OTHERS_EVERY = 10
"""Updates after which processes tell each other of signals; each time they wait for their devices. A signal reaches one of them."""


@HOOKS.register_module()
class StopHook(Hook):
    """Saves after the update in which `stop` was signalled, and raises `Interrupted`."""

    priority = "LOWEST"  # whatever else belongs to the update is done

    def __init__(self) -> None:
        """Nothing is requested yet."""
        self.stop = StopRequest()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Look for a signal."""
        iteration = runner.iter + 1
        if iteration == runner.max_iters or not (signum := self._signum(iteration)):
            return
        runner.save_checkpoint(runner.work_dir, filename=CHECKPOINT_NAME.format(iteration), by_epoch=False)
        if dist.is_initialized():
            dist.barrier()  # until the first process, which writes, has done so
        raise Interrupted(signum)

    def _signum(self, iteration: int) -> int:
        """The signal that any process got; 0 if none, or if this is not the time to ask."""
        if not dist.is_initialized():
            return self.stop.signum
        if iteration % _ASK_OTHERS_EVERY:
            return 0
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        highest = torch.tensor(self.stop.signum, device=device)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        return int(highest)
