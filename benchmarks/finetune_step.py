"""A fine-tuning step: ours beside the same model as plain OpenMMLab runs it; same weights and images, one run.

Steps differ in size, and all parts see the same images: a ratio is the median of the steps' own ratios. Seconds per step are medians,
with loading where it is not hidden; CPU seconds are the training process's; memory is the peak (on a GPU: allocated).

    reference   attention as a matrix and a softmax (timm's blocks with `fused_attn` off), as the published code computes it
    timm        attention as timm's blocks compute it by default
    patchbench  ours
    compiled    ours with its backbone through torch.compile (--compile); steps to warm up see every size of image first

The first two load with two processes that end with each epoch, update weights by PyTorch's default implementation and, on a GPU,
train in float16 with loss scaling, as the published runs do; ours in bfloat16.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from backbones.build import build_backbone
from backbones.file import write_backbone_file
from backbones.layouts.base import Source
from backbones.spec import ViTSpec
from benchmarks.turns import WARM_UP_STEPS, Table, Turns, machine, run, table_of_steps, take_turns
from common.distributed import choose_device
from eval.openmmlab.finetune import complete_config
from eval.openmmlab.operators import quiet_packages
from eval.openmmlab.runner import FineTuningRunner
from eval.tasks import TASKS

PARTS, OURS = ("reference", "timm", "patchbench", "compiled"), ("patchbench", "compiled")

_SHORT_SIDE, _WORKERS = 480, 2  # of test images in detection (published: 800), training images likewise


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure the training step of a fine-tuning task."""

    task: Literal["detection", "segmentation"]  # The task.
    data: Path  # Folder of the dataset.
    batch_size: int = 2  # Images per step.
    steps: int = 8  # Steps to measure, after two to warm up.
    embed_dim: int = 384  # Width of the ViT: 384 is ViT-S/16.
    num_heads: int = 6  # Its attention heads.
    compile: bool = False  # Whether ours runs a second time, with its backbone through torch.compile.
    device: str = "auto"  # `cpu`, `cuda`, or `auto` for a GPU where there is one.


@HOOKS.register_module()
class TurnHook(Hook):
    """Tells how long each step took and waits for its turn."""

    priority = "LOWEST"
    turns: Turns  # set before the runner is built

    def before_train(self, runner: Any) -> None:
        self.turns.begin()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.turns.end()
        if runner.iter + 1 < runner.max_iters:
            self.turns.begin()


def network(config: BenchmarkConfig) -> ViTSpec:
    width, heads = config.embed_dim, config.num_heads
    return ViTSpec(embed_dim=width, depth=12, num_heads=heads, patch_size=16, image_size=224, class_token=True, final_norm=True)


def resolved_config(config: BenchmarkConfig, part: str, folder: Path, device: torch.device) -> Any:
    values: dict[str, Any] = {
        "backbone": folder / "backbone.safetensors",
        "data": config.data,
        "output": folder / part,
        "batch_size": config.batch_size,
        "device_batch_size": config.batch_size,
        "workers": _WORKERS,
        "iterations": config.steps + WARM_UP_STEPS,
        "checkpoint_interval": config.steps + WARM_UP_STEPS,
        "precision": "auto" if part in OURS or device.type == "cpu" else "float16",
        "compile": part == "compiled",
        "device": config.device,
        **({"short_side": _SHORT_SIDE} if config.task == "detection" else {}),
    }
    options: Any = TASKS[config.task].config(**values)
    resolved = TASKS[config.task].load("task", "prepare")(options, network(config), device).config
    resolved.custom_hooks = [*resolved.get("custom_hooks", []), {"type": "TurnHook"}]
    return complete_config(resolved, options, device)


def work(turns: Turns, part: str, config: BenchmarkConfig, folder: Path) -> torch.device:
    TurnHook.turns = turns
    device = choose_device(config.device)
    resolved = resolved_config(config, part, folder, device)
    if part not in OURS:
        resolved.train_dataloader.persistent_workers = False
        resolved.optim_wrapper.optimizer.pop("fused", None)
    with quiet_packages():
        runner = FineTuningRunner.from_cfg(resolved)
        if part == "reference":
            for module in runner.model.modules():
                if hasattr(module, "fused_attn"):
                    module.fused_attn = False
        runner.train()
    return device


def benchmark(config: BenchmarkConfig, folder: Path) -> Iterator[Table]:
    parts = PARTS if config.compile else PARTS[:-1]
    torch.manual_seed(0)
    source = Source(format="random", branch="model", file_name="random", sha256="0" * 64, epoch=-1)
    write_backbone_file(folder / "backbone.safetensors", network(config), source, build_backbone(network(config)).state_dict())
    steps, memory = take_turns(work, parts, config.steps + WARM_UP_STEPS, config, folder)
    images = f"{config.task}, {config.batch_size} images per step, ViT of width {config.embed_dim}"
    yield table_of_steps(f"{images}; {machine(choose_device(config.device))}", steps, memory)


if __name__ == "__main__":
    run("finetune_step", BenchmarkConfig, benchmark)
