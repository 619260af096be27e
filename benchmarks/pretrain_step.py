"""A pretraining step of SelfPatch on DINO: ours beside the authors', with the same weights, crops and stochastic depth, in one run.

    python -m benchmarks.pretrain_step [--recipe coco_selfpatch_vit_tiny] [--batch_size 8] [--steps 4] [--compile]

The authors' step is that of `tests/references/selfpatch_*.py`, which the golden training steps hold to their code. Each part is
a process of its own; they advance by a step in turns. Seconds are medians. Crops are noise: what they show changes no cost.

On a CPU both compute in float32, unless `--precision bfloat16` is given for ours. On a GPU the authors' step is in float16 with loss
scaling, as they train, ours in bfloat16; memory is what was allocated there.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import torch
from torch import Tensor

from benchmarks.turns import MEBIBYTE, Turns, table, take_turns
from common.cli import parse, run_command
from common.distributed import choose_device
from pretrain.config import PretrainConfig, parse_run
from pretrain.data.views import view_kinds
from pretrain.methods import ALL_PATCHES
from pretrain.networks import build_networks, choose_autocast
from pretrain.schedules import StepSettings, step_settings
from pretrain.step import training_step
from tests.references import selfpatch_step as reference

PARTS = ("authors", "patchbench")

_WARM_UP_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure a training step of SelfPatch on DINO."""

    recipe: str = "coco_selfpatch_vit_tiny"
    """Network, crops, heads and loss; a recipe of SelfPatch on DINO as published."""
    batch_size: int = 8
    """Images per step."""
    steps: int = 4
    """Steps to measure, after two to warm up."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of our step, see train.precision."""
    compile: bool = False
    """Whether our networks are compiled."""
    accumulate: int = 1
    """Parts in which our step processes the batch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where both run."""
    threads: int = 2
    """Threads of torch on a CPU."""

    def run(self) -> PretrainConfig:
        """The configuration of our run.

        Raises:
            ValueError: If the authors' code has no such step.
        """
        options = {"batch_size": self.batch_size, "device": self.device, "accumulate": self.accumulate}
        config = parse_run(
            [self.recipe, *(str(token) for name, value in options.items() for token in (f"--train.{name}", value))]
        )
        selfpatch = config.selfpatch
        published = (selfpatch.border, selfpatch.aggregation, selfpatch.negatives) == ("wrap", "attention", False)
        if config.method != "selfpatch" or not published or selfpatch.window == ALL_PATCHES:
            raise ValueError(f"recipe {self.recipe} is not SelfPatch on DINO as published, which the reference computes")
        return config


def dimensions(config: PretrainConfig) -> reference.Dimensions:
    """The authors' networks of a configuration."""
    return reference.Dimensions(
        dim=config.backbone.embed_dim,
        depth=config.backbone.depth,
        num_heads=config.backbone.num_heads,
        patch_size=config.backbone.patch_size,
        grid_side=config.views.global_size // config.backbone.patch_size,
        out_dim=config.dino.out_dim,
        out_dim_patch=config.selfpatch.out_dim,
        hidden_dim=config.dino.hidden_dim,
        bottleneck_dim=config.dino.bottleneck_dim,
        k=config.selfpatch.k,
        window=config.selfpatch.window,
    )


def batches(config: PretrainConfig, device: torch.device) -> Iterator[list[Tensor]]:
    """The same crops and the same draws of stochastic depth for both parts."""
    for seed in range(2**31):
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        kinds = view_kinds(config.views)
        yield [torch.randn(config.train.batch_size, 3, kind.size, kind.size, generator=generator).to(device) for kind in kinds]


def schedule(config: PretrainConfig) -> StepSettings:
    """Values past warm-up and frozen layers."""
    return step_settings(config, 1)(config.optim.warmup_epochs + config.optim.freeze_last_layer_epochs)


def run_authors(options: BenchmarkConfig, device: torch.device, folder: Path) -> Iterator[float]:
    """The authors' steps; yields losses, writes the weights when closed."""
    config, now = options.run(), schedule(options.run())
    student = reference.Network(dimensions(config), config.backbone.drop_path_rate)
    teacher = reference.Network(dimensions(config))
    for network in (student, teacher):
        network.load_state_dict(torch.load(folder / "initial.pt", mmap=True))
        network.to(device)
    values = reference.Schedule(
        lr=now.lr,
        weight_decay=now.weight_decay,
        momentum=now.teacher_momentum,
        temperature=now.teacher_temperature,
        clip_grad=now.clip_grad,
        freeze_last_layer=now.freeze_last_layer,
    )
    steps = ((crops, values) for crops in batches(config, device))
    try:
        for losses in reference.training_steps(student, teacher, steps, half_precision=device.type == "cuda"):
            yield losses["loss"]
    finally:
        torch.save(student.state_dict(), folder / "authors.pt")


def run_patchbench(options: BenchmarkConfig, device: torch.device, folder: Path) -> Iterator[float]:
    """Our steps, whose seed determines the weights; yields losses, writes the weights when closed."""
    config = options.run()
    now, autocast = schedule(config), choose_autocast(options.precision, device)
    networks = build_networks(config, device)
    if options.compile:
        for network in (networks.student, networks.teacher):
            network.compile(dynamic=False)
    trained = networks.student, networks.teacher, networks.objective, networks.optimizer
    try:
        for crops in batches(config, device):
            losses = training_step(*trained, crops, now, autocast, accumulate=options.accumulate)
            yield losses["loss"].item()
    finally:
        torch.save(networks.student.state_dict(), folder / "patchbench.pt")


def work(turns: Turns, part: str, options: BenchmarkConfig, folder: Path) -> torch.device:
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    steps = (run_authors if part == "authors" else run_patchbench)(options, device, folder)
    for _ in range(options.steps + _WARM_UP_STEPS):
        turns.begin()
        turns.end(next(steps))
    steps.close()  # type: ignore[attr-defined]
    return device


def largest_difference(folder: Path) -> float:
    """Of any two weights, biases of keys left out: the softmax ignores them, and AdamW makes steps of rounding noise."""
    ours, theirs = (torch.load(folder / f"{part}.pt", map_location="cpu") for part in ("patchbench", "authors"))
    largest = 0.0
    for name, value in theirs.items():
        difference = (ours[name] - value).abs()
        if name.endswith("attn.qkv.bias"):
            difference = difference.view(3, -1)[[0, 2]]
        if not name.endswith("key.bias"):
            largest = max(largest, difference.max().item())
    return largest


def benchmark(options: BenchmarkConfig) -> None:
    """Print a Markdown table."""
    config, device = options.run(), choose_device(options.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(build_networks(config, torch.device("cpu")).student.state_dict(), folder / "initial.pt")
        steps, memory = take_turns(work, PARTS, options.steps + _WARM_UP_STEPS, options, folder)
        weights = largest_difference(folder)
    loss = max(abs(ours.value - theirs.value) for ours, theirs in zip(steps["patchbench"], steps["authors"], strict=True))
    measured = {part: taken[_WARM_UP_STEPS:] for part, taken in steps.items()}
    wall, cpu = ({part: median(step[clock] for step in taken) for part, taken in measured.items()} for clock in (0, 1))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} threads"
    print(f"{options.recipe}, {options.batch_size} images per step, {len(view_kinds(config.views))} crops each; {where}")
    print(f"torch {torch.__version__}, precision {options.precision}, compile {options.compile}\n")
    rows = []
    for part in PARTS:
        ratios = f"{wall['authors'] / wall[part]:.2f}", f"{cpu['authors'] / cpu[part]:.2f}"
        share = memory[part] // MEBIBYTE, f"{memory[part] / memory['authors']:.2f}"
        rows.append([part, f"{wall[part]:.3f}", f"{cpu[part]:.3f}", *ratios, *share])
    table(" | s/step | CPU s/step | times as fast | by CPU time | peak MiB | of the authors'", rows)
    print(f"\nlargest difference of the losses of {len(steps['authors'])} steps: {loss:.1e}")
    print(f"largest difference of the weights after them, at a learning rate of {schedule(config).lr:.1e}: {weights:.1e}")


def main(argv: Sequence[str]) -> int:
    logging.disable(logging.INFO)
    benchmark(parse(BenchmarkConfig, argv, "python -m benchmarks.pretrain_step"))
    return 0


if __name__ == "__main__":
    run_command(main)
