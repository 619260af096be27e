"""mmengine's Runner with checkpoints that are written whole and read strictly, on the device that the user chose."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import broadcast, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from common.files import write_atomically, write_text_atomically
from eval.openmmlab.seeded_loading import seed_generators

CHECKPOINT_NAME = "iter_{}.pth"
CONFIG_FILE = "mmengine_config.json"


class JsonConfig(Config):
    """A config whose text is JSON. mmengine formats it as Python source instead, which takes seconds, several times a run."""

    @property
    def pretty_text(self) -> str:
        """The config as indented JSON; mmengine reads it back."""
        return json.dumps(self.to_dict(), indent=1)


class FineTuningRunner(Runner):
    """What `launch.run` builds from a config."""

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


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Leaves mmengine's histories of logged values out of checkpoints.

    They hold bound methods, for which reading would have to allow `getattr`; without them a checkpoint is tensors and plain values.
    The losses are kept in the log file of `eval.openmmlab.progress`.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep of mmengine's message hub only which checkpoints there are."""
        kept = {key: value for key, value in checkpoint["message_hub"]["runtime_info"].items() if key == "keep_ckpt_ids"}
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": kept, "resumed_keys": dict.fromkeys(kept, True)}


@HOOKS.register_module()
class SeedByIterationHook(Hook):
    """Seeds every random generator of the training process from (seed, process, iteration) before it computes.

    The randomness of an iteration then does not depend on how the run came there, so a run that was interrupted continues exactly.
    Loading images has seeds of its own (`eval.openmmlab.seeded_loading`).
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        """Remember the seed."""
        self.seed = seed

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Seed the computation; the images of this iteration are loaded by now."""
        seed_generators(self.seed, "computing", get_rank(), runner.iter)


def local_rank() -> int:
    """Index of this process on its machine, as torchrun states it; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0"))
