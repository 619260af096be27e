"""A fine-tuning step: ours beside the same model as plain OpenMMLab runs it; same weights and images, one run.

    python -m benchmarks.finetune_step --task detection --data data/coco
    python -m benchmarks.finetune_step --task segmentation --data data/ade/ADEChallengeData2016 --compile

Each part is a process of its own; they advance by a step in turns, each first in its turn. Steps differ in size, and all parts see
the same images: a ratio is the median of the steps' own ratios. Seconds per step are medians, with loading where it is not hidden;
CPU seconds are the training process's, all its threads together, which other work on the machine disturbs less; memory is the peak
(on a GPU: allocated).

    reference   attention as a matrix and a softmax (timm's blocks with `fused_attn` off), as the published code computes it
    timm        attention as timm's blocks compute it by default
    patchbench  ours
    compiled    ours with its backbone through torch.compile (--compile); steps to warm up see every size of image first

The first two load with two processes that end with each epoch, leave freed memory to the C library, update weights by PyTorch's
default implementation and, on a GPU, train in float16 with loss scaling, as the published runs do; ours in bfloat16.
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
from typing import Any, Literal, NamedTuple

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

Part = Literal["reference", "timm", "patchbench", "compiled"]
PARTS: tuple[Part, ...] = ("reference", "timm", "patchbench")

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

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is compared."""
        return (*PARTS, "compiled") if self.compile else PARTS


class Step(NamedTuple):
    """What one step took."""

    seconds: float
    """On the clock."""
    cpu_seconds: float
    """Of the training process, over its threads."""


@HOOKS.register_module()
class TurnHook(Hook):
    """Tells how long each step took and waits for its turn."""

    priority = "LOWEST"

    parent: Connection
    """To the benchmark; set before the runner is built."""

    def before_train(self, runner: Any) -> None:
        """Wait for the first turn."""
        self.parent.recv()
        self._begin()

    def _begin(self) -> None:
        self._start, self._cpu_start = time.perf_counter(), time.process_time()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Report, and wait for the next turn."""
        if runner.device.type == "cuda":
            torch.cuda.synchronize()
        self.parent.send(Step(time.perf_counter() - self._start, time.process_time() - self._cpu_start))
        self.parent.recv()
        self._begin()


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


def is_ours(part: Part) -> bool:
    """Whether a part is PatchBench as it is."""
    return part in ("patchbench", "compiled")


def resolved_config(config: BenchmarkConfig, part: Part, backbone: Path, folder: Path) -> Any:
    """The OpenMMLab config of one part."""
    steps = config.steps + _WARM_UP_STEPS
    precision: Precision = "auto"
    if not is_ours(part) and torch.cuda.is_available():
        precision = "float16"
    common: dict[str, Any] = {
        "backbone": backbone,
        "data": config.data,
        "output": folder,
        "batch_size": config.images,
        "device_batch_size": config.images,
        "workers": config.workers and (config.workers if is_ours(part) else _DEFAULT_WORKERS),
        "iterations": steps,
        "precision": precision,
        "compile": part == "compiled",
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
    if is_ours(part):
        reuse_freed_memory()
    torch.set_num_threads(config.threads)
    TurnHook.parent = parent
    device = resolve_device("auto")
    resolved = resolved_config(config, part, backbone, folder)
    resolved.custom_hooks = [*resolved.get("custom_hooks", []), {"type": "TurnHook"}]
    steps = config.steps + _WARM_UP_STEPS
    resolved = launch._prepared(resolved, folder, device=device, seed=0, checkpoint_interval=steps)
    if not is_ours(part):
        resolved.train_dataloader.persistent_workers = False
        resolved.optim_wrapper.optimizer.pop("fused", None)
    with quiet_packages():
        runner = FineTuningRunner.from_cfg(resolved)
        if part == "reference":
            for module in runner.model.modules():
                if hasattr(module, "fused_attn"):
                    module.fused_attn = False
        runner.train()
    parent.send(peak_memory_bytes(device))


def take_turns(config: BenchmarkConfig, folder: Path) -> tuple[dict[Part, list[Step]], dict[Part, int]]:
    """The steps after those to warm up, and peak memory in bytes."""
    backbone = folder / "backbone.safetensors"
    write_backbone(config, backbone)
    context = multiprocessing.get_context("spawn")
    workers: dict[Part, Connection] = {}
    for part in config.parts:
        workers[part], theirs = context.Pipe()
        # Not a daemon: it has loading processes of its own.
        context.Process(target=work, args=(config, part, backbone, folder / part, theirs)).start()
    steps: dict[Part, list[Step]] = {part: [] for part in config.parts}
    for number in range(config.steps + _WARM_UP_STEPS):
        first = number % len(config.parts)
        for part in (*config.parts[first:], *config.parts[:first]):
            workers[part].send(True)
            steps[part].append(workers[part].recv())
    for worker in workers.values():
        worker.send(True)
    memory = {part: worker.recv() for part, worker in workers.items()}
    return {part: values[_WARM_UP_STEPS:] for part, values in steps.items()}, memory


def times_as_fast(reference: Sequence[float], other: Sequence[float]) -> float:
    """The median of the steps' own ratios."""
    return median(before / after for before, after in zip(reference, other, strict=True))


def benchmark(config: BenchmarkConfig) -> None:
    """Print a Markdown table."""
    with tempfile.TemporaryDirectory() as name:
        steps, memory = take_turns(config, Path(name))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {config.threads} threads"
    print(
        f"{config.task}, {config.images} images per step, ViT of width {config.embed_dim}; {device}, torch {torch.__version__}\n"
    )
    print("| | s/step | times as fast | CPU s/step | times as fast | peak memory | of the reference's |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    clocks = {part: [step.seconds for step in values] for part, values in steps.items()}
    cpus = {part: [step.cpu_seconds for step in values] for part, values in steps.items()}
    for part in config.parts:
        by_clock, by_cpu = (times_as_fast(times["reference"], times[part]) for times in (clocks, cpus))
        print(
            f"| {part} | {median(clocks[part]):.3f} | {by_clock:.2f} | {median(cpus[part]):.3f} | {by_cpu:.2f} "
            f"| {memory[part] / 2**20:.0f} MiB | {memory[part] / memory['reference']:.2f} |"
        )


def main(argv: Sequence[str]) -> int:
    """Parse, measure."""
    benchmark(parse_config(BenchmarkConfig, "python -m benchmarks.finetune_step", argv))
    return 0


if __name__ == "__main__":
    run_command(main)
