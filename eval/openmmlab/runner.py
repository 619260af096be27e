"""mmengine's Runner with checkpoints that are written whole and read strictly, on the device that the user chose.

And its train loop, whose iterations are updates of the weights, however many micro-batches each takes: mmengine accumulates
gradients over iterations, so that schedules, validation and checkpoints count micro-batches, and a schedule published in updates
would change with the memory of a GPU. Here the loader delivers the whole batch and the loop divides it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import broadcast, is_main_process
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn

from common.files import write_atomically, write_text_atomically

CHECKPOINT_NAME = "iter_{}.pth"
CONFIG_FILE = "mmengine_config.json"


class JsonConfig(Config):
    """A config whose text is JSON. mmengine formats it as Python source instead, which takes seconds, several times a run."""

    @property
    def pretty_text(self) -> str:
        """The config as indented JSON; mmengine reads it back."""
        return json.dumps(self.to_dict(), indent=1)


class FineTuningRunner(Runner):
    """The Runner that `eval.openmmlab.finetune` builds from a config."""

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

    def test(self) -> dict[str, float]:
        """Test the model as process 0 saves it: without SyncBN, the running statistics of the processes differ."""
        for buffer in self.model.buffers():
            broadcast(buffer, src=0)
        metrics: dict[str, float] = super().test()
        return metrics

    def dump_config(self) -> None:
        """Write the resolved config into the work folder."""
        if is_main_process():
            write_text_atomically(Path(self.work_dir) / CONFIG_FILE, self.cfg.pretty_text + "\n")

    def load_checkpoint(
        self, filename: str, map_location: Any = "cpu", strict: bool = True, revise_keys: Any = ()
    ) -> dict[str, Any]:
        """Load a checkpoint of this run: every weight must be there and fit. mmengine's default forgives both."""
        assert strict
        return super().load_checkpoint(filename, map_location="cpu", strict=True, revise_keys=list(revise_keys))

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint under a temporary name, flush it to disk, then rename it: a kill leaves the previous one whole."""
        if is_main_process():
            write = super().save_checkpoint
            write_atomically(Path(out_dir) / filename, lambda path: write(str(path.parent), path.name, *args, **kwargs))


def latest_checkpoint(work_dir: Path) -> tuple[Path, int] | None:
    """The newest checkpoint of a run and its iteration, or None where there is none."""
    found = [(int(path.stem.removeprefix("iter_")), path) for path in work_dir.glob(CHECKPOINT_NAME.format("*"))]
    if not found:
        return None
    iteration, path = max(found)
    return path, iteration


def micro_batches(batch: Mapping[str, Sequence[Any]], count: int) -> list[dict[str, Sequence[Any]]]:
    """Divide a batch of mmengine's `pseudo_collate` into `count` equal parts, in order.

    A batch is such as `{"inputs": [...], "data_samples": [...]}`, one entry per image; `count` divides the number of images.
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
        """Train."""
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
