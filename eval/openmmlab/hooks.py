"""What happens around the updates of a fine-tuning run: seeds, statistics, progress and log, stopping, plain checkpoints."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import all_reduce_dict, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from common.cli import Interrupted, StopRequest
from common.distributed import wait_for_all
from eval.openmmlab.loading import seed_generators
from eval.openmmlab.runner import CHECKPOINT_NAME, micro_batches

LOG_FILE = "training.jsonl"

_LOG_INTERVAL = 50
"""Most iterations between two lines of the log file."""
_LEAST_LINES = 100
"""A short run has so many lines all the same."""
_ASK_OTHERS_EVERY = 10
"""Updates after which processes tell each other of signals, which reach one of them; each time they wait for their devices."""


class DivergedError(ValueError):
    """The loss is not finite any more, so that the network would be useless."""


@HOOKS.register_module()
class SeedByIterationHook(Hook):
    """Seeds every random generator of the training process from (seed, process, iteration) before it computes.

    The randomness of an iteration then does not depend on how the run came there, so a run that was interrupted continues exactly.
    Loading images has seeds of its own (`eval.openmmlab.loading`).
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Seed the computation; the images of this iteration are loaded by now."""
        seed_generators(self.seed, "computing", get_rank(), runner.iter)


@contextmanager
def measuring_statistics(model: nn.Module) -> Iterator[None]:
    """Within the block, every forward pass in training mode adds a batch to the mean of batch means and variances, from nothing."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # by this PyTorch takes the mean over all batches since the reset
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


@HOOKS.register_module()
class PreciseBatchNormHook(Hook):
    """Measures batch normalisation's statistics on training batches after the last update, before its checkpoint is written.

    The running averages of training mix statistics of many versions of the weights. Detectron2's option TEST.PRECISE_BN, part of the
    ResNet protocols on COCO, replaces them by the plain mean over 200 batches, with the weights fixed.
    Source: facebookresearch/fvcore 1256a64f, fvcore/nn/precise_bn.py.
    """

    def __init__(self, iterations: int) -> None:
        """Average over `iterations` batches of the training's total size."""
        self.iterations = iterations

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Measure, if this was the last update."""
        if runner.iter + 1 < runner.max_iters:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        batches = runner.train_loop.dataloader_iterator
        with torch.no_grad(), measuring_statistics(model):
            for _ in range(self.iterations):
                for part in micro_batches(next(batches), runner.optim_wrapper._accumulative_counts):
                    with runner.optim_wrapper.optim_context(model):
                        model(**model.data_preprocessor(part, training=True), mode="loss")


@HOOKS.register_module()
class ProgressHook(Hook):
    """A progress bar on stderr for training and testing, and a line of losses every few iterations in `training.jsonl`.

    Losses are means over all processes. Where a line is due, a loss that is not finite ends the run (`DivergedError`).
    """

    priority = "BELOW_NORMAL"  # before the schedulers step: the learning rate is that of the iteration

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def before_train(self, runner: Runner) -> None:
        """Open the bar at the first iteration of this session."""
        self._bar = _bar("training", runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Advance the bar; write a line where one is due."""
        assert self._bar is not None
        assert outputs is not None
        self._bar.update()
        iteration = runner.iter + 1
        interval = max(1, min(_LOG_INTERVAL, runner.max_iters // _LEAST_LINES))
        if iteration % interval and iteration != runner.max_iters:
            return
        means = {name: torch.as_tensor(value).detach().clone() for name, value in outputs.items()}
        all_reduce_dict(means, op="mean")
        line = {name: float(value) for name, value in means.items()}
        line["lr"] = runner.optim_wrapper.get_lr()["lr"][0]
        if not math.isfinite(line["loss"]):
            raise DivergedError(
                f"update {iteration}: the loss is {line['loss']}; the training has diverged. A lower learning rate may help "
                "(--override optim_wrapper.optimizer.lr=RATE), in another --output"
            )
        self._bar.set_postfix({"loss": f"{line['loss']:.3f}", "lr": f"{line['lr']:.1e}"}, refresh=False)
        if is_main_process():
            with (Path(runner.work_dir) / LOG_FILE).open("a", encoding="utf-8") as log:
                log.write(json.dumps({"iteration": iteration, **line}) + "\n")

    def after_train(self, runner: Runner) -> None:
        """Close the bar."""
        self.close()

    def before_test(self, runner: Runner) -> None:
        """Open the bar of the test."""
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


@HOOKS.register_module()
class StopHook(Hook):
    """Saves a checkpoint after the update in which `stop` was signalled, as by a scheduler, and raises `Interrupted`."""

    priority = "LOWEST"  # whatever else belongs to the update is done

    def __init__(self) -> None:
        self.stop = StopRequest()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Look for a signal."""
        iteration = runner.iter + 1
        if iteration == runner.max_iters or not (signum := self._signum(iteration)):
            return
        runner.save_checkpoint(runner.work_dir, filename=CHECKPOINT_NAME.format(iteration), by_epoch=False)
        wait_for_all()  # until the first process, which writes, has done so
        raise Interrupted(signum)

    def _signum(self, iteration: int) -> int:
        """The signal that any process got; 0 if none did, or where processes do not ask each other in this iteration."""
        if not dist.is_initialized():
            return self.stop.signum
        if iteration % _ASK_OTHERS_EVERY:
            return 0
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        highest = torch.tensor(self.stop.signum, device=device)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        return int(highest)


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Leaves mmengine's histories of logged values out of checkpoints.

    They hold bound methods, for which reading would have to allow `getattr`; without them a checkpoint is tensors and plain values.
    The losses are kept in the log file of `ProgressHook`.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep of mmengine's message hub only which checkpoints there are."""
        kept = {key: value for key, value in checkpoint["message_hub"]["runtime_info"].items() if key == "keep_ckpt_ids"}
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": kept, "resumed_keys": dict.fromkeys(kept, True)}
