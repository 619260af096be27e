"""A fine-tuning step: ours beside the same model as plain OpenMMLab runs it; same weights and images, one run.

    python -m benchmarks.finetune_step --task detection --data data/coco
    python -m benchmarks.finetune_step --task segmentation --data data/ade/ADEChallengeData2016 --compile

Each part is a process of its own; they advance by a step in turns. Steps differ in size, and all parts see the same images: a ratio
is the median of the steps' own ratios. Seconds per step are medians, with loading where it is not hidden; CPU seconds are the
training process's; memory is the peak (on a GPU: allocated).

    reference   attention as a matrix and a softmax (timm's blocks with `fused_attn` off), as the published code computes it
    timm        attention as timm's blocks compute it by default
    patchbench  ours
    compiled    ours with its backbone through torch.compile (--compile); steps to warm up see every size of image first

The first two load with two processes that end with each epoch, update weights by PyTorch's default implementation and, on a GPU,
train in float16 with loss scaling, as the published runs do; ours in bfloat16.
"""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

import eval.detection.task
import eval.segmentation.task
from backbones.build import build_backbone
from backbones.file import Source, write_backbone_file
from backbones.spec import ViTSpec
from benchmarks.turns import MEBIBYTE, Turns, ratio, table, take_turns
from common.cli import parse, run_command
from common.distributed import choose_device
from eval.detection.config import DetectionConfig
from eval.openmmlab.finetune import complete_config
from eval.openmmlab.operators import quiet_packages
from eval.openmmlab.runner import FineTuningRunner
from eval.segmentation.config import SegmentationConfig

PARTS = ("reference", "timm", "patchbench")

_DEFAULT_WORKERS = 2
_WARM_UP_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure the training step of a fine-tuning task."""

    task: Literal["detection", "segmentation"]
    """Which."""
    data: Path
    """Folder of the dataset."""
    steps: int = 8
    """Steps to measure, after two to warm up."""
    images: int = 2
    """Images per step."""
    short_side: int = 480
    """Of test images in detection (published: 800); training images are scaled with it."""
    embed_dim: int = 384
    """Width of the ViT: 384 is ViT-S/16."""
    num_heads: int = 6
    """Its attention heads."""
    workers: int = 2
    """Loading processes of ours; 0: in the training process, for both."""
    threads: int = 2
    """Threads of torch on the CPU."""
    compile: bool = False
    """Whether ours runs a second time, with its backbone through torch.compile."""


@HOOKS.register_module()
class TurnHook(Hook):
    """Tells how long each step took and waits for its turn."""

    priority = "LOWEST"

    turns: Turns
    """Set before the runner is built."""

    def before_train(self, runner: Any) -> None:
        self.turns.begin()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.device.type == "cuda":
            torch.cuda.synchronize()
        self.turns.end()
        if runner.iter + 1 < runner.max_iters:
            self.turns.begin()


def network(config: BenchmarkConfig) -> ViTSpec:
    """ViT-S/16, or another width."""
    return ViTSpec(
        embed_dim=config.embed_dim,
        depth=12,
        num_heads=config.num_heads,
        patch_size=16,
        image_size=224,
        class_token=True,
        final_norm=True,
    )


def write_backbone(config: BenchmarkConfig, path: Path) -> None:
    """A backbone file with random weights."""
    torch.manual_seed(0)
    source = Source(format="random", branch="model", file_name="random", sha256="0" * 64, epoch=-1)
    write_backbone_file(path, network(config), source, build_backbone(network(config)).state_dict())


def resolved_config(config: BenchmarkConfig, part: str, is_ours: bool, folder: Path, device: torch.device) -> Any:
    """The OpenMMLab config of one part."""
    common: dict[str, Any] = {
        "backbone": folder / "backbone.safetensors",
        "data": config.data,
        "output": folder / part,
        "batch_size": config.images,
        "device_batch_size": config.images,
        "workers": config.workers and (config.workers if is_ours else _DEFAULT_WORKERS),
        "iterations": config.steps + _WARM_UP_STEPS,
        "precision": "auto" if is_ours or device.type == "cpu" else "float16",
        "compile": part == "compiled",
    }
    if config.task == "detection":
        options = DetectionConfig(**common, short_side=config.short_side)
        return eval.detection.task.prepare(options, network(config), device).config
    return eval.segmentation.task.prepare(SegmentationConfig(**common), network(config), device).config


def work(turns: Turns, part: str, config: BenchmarkConfig, folder: Path) -> torch.device:
    logging.disable(logging.WARNING)
    torch.set_num_threads(config.threads)
    TurnHook.turns = turns
    device, is_ours = choose_device("auto"), part in ("patchbench", "compiled")
    resolved = resolved_config(config, part, is_ours, folder, device)
    resolved.custom_hooks = [*resolved.get("custom_hooks", []), {"type": "TurnHook"}]
    resolved = complete_config(
        resolved, folder / part, device=device, seed=0, checkpoint_interval=config.steps + _WARM_UP_STEPS
    )
    if not is_ours:
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


def benchmark(config: BenchmarkConfig) -> None:
    """Print a Markdown table."""
    parts = [*PARTS, "compiled"] if config.compile else list(PARTS)
    with tempfile.TemporaryDirectory() as name:
        write_backbone(config, Path(name) / "backbone.safetensors")
        steps, memory = take_turns(work, parts, config.steps + _WARM_UP_STEPS, config, Path(name))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {config.threads} threads"
    print(
        f"{config.task}, {config.images} images per step, ViT of width {config.embed_dim}; {device}, torch {torch.__version__}\n"
    )
    wall, cpu = ({part: [step[clock] for step in taken[_WARM_UP_STEPS:]] for part, taken in steps.items()} for clock in (0, 1))
    rows = []
    for part in parts:
        cells = [f"{median(wall[part]):.3f}", f"{ratio(wall['reference'], wall[part]):.2f}"]
        cells += [f"{median(cpu[part]):.3f}", f"{ratio(cpu['reference'], cpu[part]):.2f}"]
        rows.append([part, *cells, memory[part] // MEBIBYTE, f"{memory[part] / memory['reference']:.2f}"])
    table(" | s/step | times as fast | CPU s/step | times as fast | peak MiB | of the reference's", rows)


def main(argv: Sequence[str]) -> int:
    benchmark(parse(BenchmarkConfig, argv, "python -m benchmarks.finetune_step"))
    return 0


if __name__ == "__main__":
    run_command(main)
