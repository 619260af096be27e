"""A fine-tuning step: ours beside the same model with plain attention and OpenMMLab's default loader; same weights, one run.

    python -m benchmarks.finetune_step --task detection --data data/coco
    python -m benchmarks.finetune_step --task segmentation --data data/ade/ADEChallengeData2016

Each part is a process of its own; they advance by a step in turns. Seconds per step are medians, with loading where it is not
hidden; memory is the peak (on a GPU: allocated). The reference computes attention as a matrix and a softmax (timm's blocks with
`fused_attn` off), loads with two processes that end with each epoch, leaves freed memory to the C library and, on a GPU, trains in
float16 with loss scaling, as the published runs do; ours in bfloat16.
"""

import logging
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
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
from common.allocation import reuse_freed_memory
from common.command import parse_config, run_command
from common.memory import peak_memory_bytes
from eval.detection.config import DetectionConfig
from eval.openmmlab import launch
from eval.openmmlab.compatibility import quiet_packages
from eval.openmmlab.launch import Precision, resolve_device
from eval.openmmlab.runner import FineTuningRunner
from eval.segmentation.config import SegmentationConfig

Part = Literal["reference", "patchbench"]
PARTS: tuple[Part, ...] = ("reference", "patchbench")

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
    """Whether ours runs its backbone through torch.compile."""


@HOOKS.register_module()
class TurnHook(Hook):
    """Tells how long each step took and waits for its turn."""

    priority = "LOWEST"

    parent: Connection
    """To the benchmark; set before the runner is built."""

    def before_train(self, runner: Any) -> None:
        """Wait for the first turn."""
        self.parent.recv()
        self._start = time.perf_counter()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Report, and wait for the next turn."""
        if runner.device.type == "cuda":
            torch.cuda.synchronize()
        self.parent.send(time.perf_counter() - self._start)
        self.parent.recv()
        self._start = time.perf_counter()


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


def resolved_config(config: BenchmarkConfig, part: Part, backbone: Path, folder: Path) -> Any:
    """The OpenMMLab config of one part."""
    steps = config.steps + _WARM_UP_STEPS
    precision: Precision = "auto"
    if part == "reference" and torch.cuda.is_available():
        precision = "float16"
    common: dict[str, Any] = {
        "backbone": backbone,
        "data": config.data,
        "output": folder,
        "batch_size": config.images,
        "device_batch_size": config.images,
        "workers": config.workers and (config.workers if part == "patchbench" else _DEFAULT_WORKERS),
        "iterations": steps,
        "precision": precision,
        "compile": config.compile and part == "patchbench",
    }
    device = resolve_device("auto")
    spec = network(config)
    if config.task == "detection":
        options = DetectionConfig(**common, short_side=config.short_side)
        return eval.detection.task.prepare(options, spec, device).config
    return eval.segmentation.task.prepare(SegmentationConfig(**common), spec, device).config


def work(config: BenchmarkConfig, part: Part, backbone: Path, folder: Path, parent: Connection) -> None:
    """One part in a process of its own."""
    logging.disable(logging.WARNING)
    if part == "patchbench":
        reuse_freed_memory()
    torch.set_num_threads(config.threads)
    TurnHook.parent = parent
    device = resolve_device("auto")
    resolved = resolved_config(config, part, backbone, folder)
    resolved.custom_hooks = [*resolved.get("custom_hooks", []), {"type": "TurnHook"}]
    steps = config.steps + _WARM_UP_STEPS
    resolved = launch._prepared(resolved, folder, device=device, seed=0, checkpoint_interval=steps)
    if part == "reference":
        resolved.train_dataloader.persistent_workers = False
    with quiet_packages():
        runner = FineTuningRunner.from_cfg(resolved)
        if part == "reference":
            for module in runner.model.modules():
                if hasattr(module, "fused_attn"):
                    module.fused_attn = False
        runner.train()
    parent.send(peak_memory_bytes(device))


def take_turns(config: BenchmarkConfig, folder: Path) -> tuple[dict[Part, float], dict[Part, int]]:
    """Seconds per step and peak memory in bytes."""
    backbone = folder / "backbone.safetensors"
    write_backbone(config, backbone)
    context = multiprocessing.get_context("spawn")
    workers: dict[Part, Connection] = {}
    for part in PARTS:
        workers[part], theirs = context.Pipe()
        # Not a daemon: it has loading processes of its own.
        context.Process(target=work, args=(config, part, backbone, folder / part, theirs)).start()
    steps: dict[Part, list[float]] = {part: [] for part in PARTS}
    for _ in range(config.steps + _WARM_UP_STEPS):
        for part, worker in workers.items():
            worker.send(True)
            steps[part].append(worker.recv())
    for worker in workers.values():
        worker.send(True)
    memory = {part: worker.recv() for part, worker in workers.items()}
    return {part: median(values[_WARM_UP_STEPS:]) for part, values in steps.items()}, memory


def benchmark(config: BenchmarkConfig) -> None:
    """Print a Markdown table."""
    with tempfile.TemporaryDirectory() as name:
        seconds, memory = take_turns(config, Path(name))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {config.threads} threads"
    print(
        f"{config.task}, {config.images} images per step, ViT of width {config.embed_dim}; {device}, torch {torch.__version__}\n"
    )
    print("| | s/step | times as fast | peak memory | of the reference's |\n| --- | --- | --- | --- | --- |")
    for part in PARTS:
        ratio, share = seconds["reference"] / seconds[part], memory[part] / memory["reference"]
        print(f"| {part} | {seconds[part]:.3f} | {ratio:.2f} | {memory[part] / 2**20:.0f} MiB | {share:.2f} |")


def main(argv: Sequence[str]) -> int:
    """Parse, measure."""
    benchmark(parse_config(BenchmarkConfig, "python -m benchmarks.finetune_step", argv))
    return 0


if __name__ == "__main__":
    run_command(main)
