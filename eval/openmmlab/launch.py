"""Fine-tune and test one OpenMMLab config: continues after a kill, never trains a finished run again."""

import atexit
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed
from mmengine.config import Config
from mmengine.dist import is_main_process

from common.files import write_text_atomically
from common.memory import peak_memory_bytes
from eval.inputs import Inputs, differences
from eval.openmmlab.compatibility import quiet_packages
from eval.openmmlab.progress import ProgressHook
from eval.openmmlab.runner import CHECKPOINT_NAME, FineTuningRunner, JsonConfig, latest_checkpoint, local_rank
from eval.openmmlab.stopping import StopHook

logger = logging.getLogger(__name__)

_FUSED_ON_CPU = ("Adam", "AdamW", "SGD")

DeviceChoice = Literal["auto", "cpu", "cuda"]
"""`auto` is the GPU where there is one."""

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""`auto` is bfloat16 on a GPU that has it, float16 with loss scaling on any other GPU, float32 on the CPU."""

RUN_FILE = "run.json"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a finished run measured."""

    metrics: dict[str, float]
    """As the config's test evaluator returned them."""
    wall_time_s: float
    """Seconds of this session: training (or what was left of it) and testing."""
    peak_memory_bytes: int
    """See `common.memory.peak_memory_bytes`."""
    checkpoint: Path
    """The fine-tuned model."""


def resolve_device(choice: DeviceChoice) -> torch.device:
    """The device of this process.

    Raises:
        ValueError: If a GPU is asked for and there is none.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no CUDA device is available here; use --device cpu")
    if choice == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank())


def resolve_precision(choice: Precision, device: torch.device) -> Precision:
    """The precision of training on a device.

    Raises:
        ValueError: If a half precision is asked for on the CPU.
    """
    if device.type == "cpu":
        if choice not in ("auto", "float32"):
            raise ValueError(f"--precision {choice} needs a GPU; the CPU computes in float32")
        return "float32"
    if choice == "auto":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return choice


def optimiser_wrapper(config: dict[str, Any], precision: Precision, accumulation: int) -> dict[str, Any]:
    """The `optim_wrapper` entry of an mmengine config, with mixed precision and gradient accumulation.

    Args:
        config: The entry of the task's config: optimizer, paramwise_cfg, clip_grad.
        precision: A resolved precision.
        accumulation: Forward passes per update.
    """
    wrapper = {**config, "type": "OptimWrapper", "accumulative_counts": accumulation}
    if precision != "float32":
        wrapper |= {"type": "AmpOptimWrapper", "dtype": precision}
    if precision == "float16":
        wrapper["loss_scale"] = "dynamic"
    return wrapper


def fuse_updates(optimiser: dict[str, Any], device: torch.device) -> None:
    """Let an optimiser on the CPU go through the weights once per update, in place.

    PyTorch's default there reads and writes every weight about twenty times: 0.2 s for the 42 million of Mask R-CNN on one core,
    0.03 s fused. The weights differ in the last digit.

    Args:
        optimiser: The `optimizer` entry of an mmengine config; its own choice stays.
        device: Where it runs.
    """
    if device.type == "cpu" and optimiser["type"] in _FUSED_ON_CPU:
        optimiser.setdefault("fused", True)


def run(
    config: Config, work_dir: Path, *, inputs: Inputs, device: torch.device, seed: int, checkpoint_interval: int = 1000
) -> Outcome:
    """Train, or continue training, and test. Under torchrun, every process calls this.

    Args:
        config: A full iteration-based mmengine config (`train_cfg.type` IterBasedTrainLoop, `train_cfg.max_iters`) with an
            InfiniteSampler for training, so that a continued run finds its place in the data. Hooks, visualisation, device, seeds
            and resuming are set here.
        work_dir: Where checkpoints and logs go.
        inputs: What determines the figures, from `eval.inputs.describe_inputs`. A run that was begun with others is not continued.
        device: From `resolve_device`.
        seed: Seeds sampling and everything random.
        checkpoint_interval: Iterations between two checkpoints; the last iteration always makes one.

    Raises:
        ValueError: If `work_dir` holds a run with other inputs, or the training has diverged.
        Interrupted: After a signal of `common.interruption.STOP_SIGNALS` during the training: an update was finished and saved.
    """
    start = time.monotonic()
    _join_processes(device)
    _begin(work_dir, inputs)
    config = _prepared(config, work_dir, device=device, seed=seed, checkpoint_interval=checkpoint_interval)
    latest = latest_checkpoint(work_dir)
    trained = latest is not None and latest[1] == config.train_cfg.max_iters
    if latest is not None:
        logger.info("continuing from %s", latest[0])
        config.load_from, config.resume = str(latest[0]), not trained
    metrics = _train_and_test(config, trained)
    final = work_dir / CHECKPOINT_NAME.format(config.train_cfg.max_iters)
    if is_main_process():
        for earlier in work_dir.glob(CHECKPOINT_NAME.format("*")):
            if earlier != final:
                earlier.unlink()
    return Outcome(
        metrics=metrics,
        wall_time_s=time.monotonic() - start,
        peak_memory_bytes=peak_memory_bytes(device),
        checkpoint=final,
    )


def _train_and_test(config: Config, trained: bool) -> dict[str, float]:
    with quiet_packages():
        runner = FineTuningRunner.from_cfg(config)
        stopping = next(hook for hook in runner.hooks if isinstance(hook, StopHook))
        try:
            if not trained:
                with stopping.stop:  # before the workers start, which take over how signals are handled
                    runner.train()
            return {name: float(value) for name, value in runner.test().items()}
        finally:
            for hook in runner.hooks:
                if isinstance(hook, ProgressHook):
                    hook.close()


def _begin(work_dir: Path, inputs: Inputs) -> None:
    """Mark the folder as this run's, or make sure that it already is."""
    path = work_dir / RUN_FILE
    if path.exists():
        begun = json.loads(path.read_text(encoding="utf-8"))["inputs"]
        if begun != inputs:
            raise ValueError(
                f"{work_dir} holds an unfinished run with other inputs ({differences(begun, inputs)}); "
                "choose another --output or remove the folder"
            )
    elif is_main_process():
        write_text_atomically(path, json.dumps({"inputs": inputs}, indent=1) + "\n")


def _join_processes(device: torch.device) -> None:
    """Join the process group that torchrun describes. mmengine's own way supposes a GPU."""
    if "WORLD_SIZE" in os.environ and not torch.distributed.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(torch.distributed.destroy_process_group)


def _prepared(config: Config, work_dir: Path, *, device: torch.device, seed: int, checkpoint_interval: int) -> Config:
    """The config with everything that does not belong to a task's protocol."""
    config = JsonConfig(config.to_dict())
    config.work_dir = str(work_dir)
    config.device = str(device)
    config.launcher = "pytorch" if torch.distributed.is_initialized() else "none"
    config.randomness = {"seed": seed}
    config.log_level = "ERROR"
    config.load_from, config.resume = None, False
    # Only the fine-tuned model is tested; the published figures are those of the last iteration.
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.visualizer = {"type": "mmengine.Visualizer", "vis_backends": []}
    config.default_hooks = {
        "logger": None,
        "checkpoint": {
            "type": "CheckpointHook",
            "by_epoch": False,
            "interval": checkpoint_interval,
            "max_keep_ckpts": 2,
            "filename_tmpl": CHECKPOINT_NAME,
        },
    }
    config.custom_hooks = [
        *config.get("custom_hooks", []),
        {"type": "ProgressHook"},
        {"type": "StopHook"},
        {"type": "PlainCheckpointHook"},
        {"type": "SeedByIterationHook", "seed": seed},
    ]
    fuse_updates(config.optim_wrapper.optimizer, device)
    # Augmentation must not depend on who loads an image, nor on what was loaded before.
    train = config.train_dataloader
    train.sampler = {**train.sampler, "type": "PlaceSampler"}
    train.dataset = {"type": "SeededByPlace", "dataset": train.dataset, "seed": seed}
    # Pinned memory only helps copies to a GPU.
    for loader in (config.train_dataloader, config.test_dataloader):
        loader.pin_memory = device.type == "cuda"
        loader.persistent_workers = loader.num_workers > 0
    return config
