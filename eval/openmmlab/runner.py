"""mmengine's Runner, train loop and hooks for fine-tuning: updates, checkpoints, seeds, statistics, progress and log, stopping.

An iteration of the train loop is an update of the weights, however many micro-batches it takes: mmengine accumulates gradients
over iterations, so that schedules, validation and checkpoints count micro-batches, and a schedule published in updates would
change with the memory of a GPU. Here the loader delivers the whole batch and the loop divides it.
"""

import json
import logging
import math
import zipfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import all_reduce, all_reduce_dict, broadcast, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel, is_model_wrapper, revert_sync_batchnorm
from mmengine.registry import HOOKS, LOOPS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.optim.swa_utils import update_bn

from common.cli import Interrupted, StopRequest
from common.distributed import wait_for_all
from common.files import names_file, write_atomically, write_text_atomically
from eval.openmmlab.loading import seed_generators
from eval.progress import Progress

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "iter_{}.pth"
CONFIG_FILE = "mmengine_config.json"
LOG_FILE = "training.jsonl"

_LOG_INTERVAL = 50  # most iterations between two lines of the log file
_LEAST_LINES = 100  # a short run has so many lines all the same
# Updates after which processes tell each other of signals, which reach one of them; each time they wait for their devices.
_ASK_OTHERS_EVERY = 10


class JsonConfig(Config):
    """A config whose text is JSON. mmengine formats it as Python source instead, which takes seconds, several times a run."""

    @property
    def pretty_text(self) -> str:
        return json.dumps(self.to_dict(), indent=1)


class FineTuningRunner(Runner):
    """mmengine's Runner with checkpoints that are written whole and read strictly, on the device that the user chose."""

    device: torch.device

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Put the model on the device; for several processes, wrap it in DistributedDataParallel.

        SyncBN needs several GPUs; it becomes an ordinary batch norm elsewhere. mmengine would take any GPU that it finds and hand its
        index to DistributedDataParallel on the CPU too.
        """
        assert model_wrapper_cfg is None
        self.device = torch.device(self.cfg.device)
        if not self.distributed or self.device.type == "cpu":
            model = revert_sync_batchnorm(model)
        model = model.to(self.device)
        if not self.distributed:
            return model
        device_ids = None if self.device.type == "cpu" else [self.device.index]
        return MMDistributedDataParallel(module=model, device_ids=device_ids, broadcast_buffers=False)

    def test(self) -> dict[str, Any]:
        """Test the model as process 0 saves it: without SyncBN, the running statistics of the processes differ."""
        for buffer in self.model.buffers():
            broadcast(buffer, src=0)
        return dict(super().test())

    def dump_config(self) -> None:
        if is_main_process():
            write_text_atomically(Path(self.work_dir) / CONFIG_FILE, self.cfg.pretty_text + "\n")

    def load_checkpoint(self, filename: str, map_location: Any = "cpu", strict: bool = True, revise_keys: Any = ()) -> Any:
        """Load a checkpoint of this run: every weight must be there and fit. mmengine's default forgives both."""
        assert strict
        return super().load_checkpoint(filename, map_location="cpu", strict=True, revise_keys=list(revise_keys))

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint under a temporary name, flush it to disk, then rename it: a kill leaves the previous one whole."""
        if is_main_process():
            write = super().save_checkpoint
            write_atomically(Path(out_dir) / filename, lambda path: write(str(path.parent), path.name, *args, **kwargs))


def list_checkpoints(work_dir: Path) -> dict[int, Path]:
    """The checkpoints of a run by their iteration, in no order, without those that break off after a crash of the machine."""
    paths = [path for path in work_dir.glob(CHECKPOINT_NAME.format("*")) if zipfile.is_zipfile(path)]
    return {int(path.stem.removeprefix("iter_")): path for path in paths}


def micro_batches(batch: Mapping[str, Sequence[Any]], count: int) -> list[dict[str, Sequence[Any]]]:
    """Divide a batch of mmengine's `pseudo_collate`, such as `{"inputs": [...], "data_samples": [...]}`, into equal parts, in order.

    Each list has one entry per image; `count` divides their number.
    """
    size, remainder = divmod(len(batch["inputs"]), count)
    assert not remainder, f"{len(batch['inputs'])} images do not make {count} equal micro-batches"
    return [{key: values[part * size : (part + 1) * size] for key, values in batch.items()} for part in range(count)]


@LOOPS.register_module()
class AccumulatingIterLoop(IterBasedTrainLoop):
    """An `IterBasedTrainLoop` for an optimiser wrapper with `accumulative_counts`.

    The gradient of an iteration is the mean over its micro-batches, which equals the gradient of the whole batch where a loss is
    a mean over images of one size. Batch normalisation sees one micro-batch at a time.
    """

    def run(self) -> Any:
        wrapper = self.runner.optim_wrapper
        self._counts = wrapper._accumulative_counts
        # The runner initialised the wrapper's counter with iterations; it counts micro-batches.
        wrapper.initialize_count_status(self.runner.model, self.iter * self._counts, self.max_iters * self._counts)
        return super().run()

    def run_iter(self, data_batch: Mapping[str, Sequence[Any]]) -> None:
        """Make one update of the weights."""
        self.runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=data_batch)
        outputs: dict[str, Any] = {}
        for part in micro_batches(data_batch, self._counts):
            for name, value in self.runner.model.train_step(part, optim_wrapper=self.runner.optim_wrapper).items():
                outputs[name] = outputs.get(name, 0.0) + value.detach() / self._counts
        self.runner.call_hook("after_train_iter", batch_idx=self._iter, data_batch=data_batch, outputs=outputs)
        self._iter += 1


@HOOKS.register_module()
class SeedByIterationHook(Hook):
    """Seeds every random generator of the training process from (seed, process, iteration) before it computes.

    The randomness of an iteration then does not depend on how the run came there, so a run that was interrupted continues exactly.
    Loading images has seeds of its own (`eval.openmmlab.loading`); the images of an iteration are loaded by then.
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        seed_generators(self.seed, "computing", get_rank(), runner.iter)


class _ForwardOfBatches(nn.Module):
    """A model of mmengine that takes a batch as its loader hands it over."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Sequence[Any]]) -> Any:
        return self.model(**self.model.data_preprocessor(batch, training=True), mode="loss")


@HOOKS.register_module()
class PreciseBatchNormHook(Hook):
    """Measures batch normalisation's statistics on training batches after the last update, before its checkpoint is written.

    The running averages of training mix statistics of many versions of the weights. Detectron2's option TEST.PRECISE_BN, part of the
    ResNet protocols on COCO, replaces them by the plain mean over 200 batches of the training's total size, with the weights fixed.
    Source: facebookresearch/fvcore 1256a64f, fvcore/nn/precise_bn.py.
    """

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 < runner.max_iters:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        wrapper, batches = runner.optim_wrapper, islice(runner.train_loop.dataloader_iterator, self.iterations)
        parts = (part for batch in batches for part in micro_batches(batch, wrapper._accumulative_counts))
        with wrapper.optim_context(model):
            update_bn(parts, _ForwardOfBatches(model))


@HOOKS.register_module()
class ProgressHook(Hook):
    """A progress bar on stderr for training and testing, and a line of losses every few iterations in `training.jsonl`.

    Losses are means over all processes. Where a line is due, a loss that is not finite ends the run by a ValueError: the network
    would be useless.
    """

    priority = "BELOW_NORMAL"  # before the schedulers step: the learning rate is that of the iteration

    def __init__(self) -> None:
        self._bar = Progress(desc="", total=0, unit="", disable=True)

    def before_train(self, runner: Runner) -> None:
        self._open("training", runner.max_iters, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Any = None) -> None:
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
            raise ValueError(
                f"update {iteration}: the loss is {line['loss']}; the training has diverged. A lower learning rate may help "
                "(--override optim_wrapper.optimizer.lr=RATE), in another --output"
            )
        self._bar.set_postfix({"loss": f"{line['loss']:.3f}", "lr": f"{line['lr']:.1e}"}, refresh=False)
        if is_main_process():
            path = Path(runner.work_dir) / LOG_FILE
            with names_file(path), path.open("a", encoding="utf-8") as log:
                log.write(json.dumps({"iteration": iteration, **line}) + "\n")

    def before_test(self, runner: Runner) -> None:
        self._open("testing", len(runner.test_dataloader), 0)

    def after_test_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self._bar.update()

    def _open(self, what: str, total: int, initial: int) -> None:
        quiet = not is_main_process()
        self._bar = Progress(desc=what, total=total, initial=initial, unit="iteration", mininterval=1.0, disable=quiet)

    def close(self, runner: Runner | None = None) -> None:
        """End the bar's line, also where the run ends early."""
        self._bar.close()

    after_train = after_test = close


@HOOKS.register_module()
class StopHook(Hook):
    """Saves a checkpoint after the update in which `stop` was signalled, as by a scheduler, and raises `Interrupted`."""

    priority = "LOWEST"  # whatever else belongs to the update is done

    def __init__(self) -> None:
        self.stop = StopRequest()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        iteration = runner.iter + 1
        if iteration == runner.max_iters or (dist.is_initialized() and iteration % _ASK_OTHERS_EVERY):
            return
        signum = torch.tensor(self.stop.signum)
        all_reduce(signum, op="max")  # leaves it alone where there is one process
        if signum:
            runner.save_checkpoint(runner.work_dir, filename=CHECKPOINT_NAME.format(iteration), by_epoch=False)
            wait_for_all()  # until the first process, which writes, has done so
            stopped = Interrupted(int(signum))
            if is_main_process():
                logger.info("%s after update %d, which is saved; the same command line continues", stopped, iteration)
            raise stopped


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Leaves mmengine's histories of logged values out of checkpoints; of its message hub, keeps only which checkpoints there are.

    They hold bound methods, for which reading would have to allow `getattr`; without them a checkpoint is tensors and plain values.
    The losses are kept in the log file of `ProgressHook`.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        kept = {key: value for key, value in checkpoint["message_hub"]["runtime_info"].items() if key == "keep_ckpt_ids"}
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": kept, "resumed_keys": dict.fromkeys(kept, True)}
