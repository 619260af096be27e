"""A pretraining step of SelfPatch on DINO: ours beside the authors', with the same weights, crops and stochastic depth, in one run.

The authors' step is that of `tests/references/selfpatch.py`, which the golden training steps hold to their code. Seconds are
medians. Crops are noise: what they show changes no cost. On a CPU all compute in float32. On a GPU the authors' step is in float16
with loss scaling, as they train, ours in bfloat16, and memory is what was allocated. `--compile` adds ours through torch.compile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.turns import WARM_UP_STEPS, Table, Turns, machine, run, table_of_steps, take_turns
from common.distributed import choose_device
from pretrain.config import PretrainConfig, parse_run
from pretrain.data.views import view_kinds
from pretrain.methods import ALL_PATCHES
from pretrain.networks import build_networks
from pretrain.schedules import StepSettings, step_settings
from pretrain.step import training_step, wrap_student
from tests.references import selfpatch as reference


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure a training step of SelfPatch on DINO."""

    recipe: str = "coco_selfpatch_vit_tiny"  # Network, crops, heads and loss; a recipe of SelfPatch on DINO as published.
    batch_size: int = 8  # Images per step.
    steps: int = 4  # Steps to measure, after two to warm up.
    compile: bool = False  # Whether ours runs a second time, compiled.
    device: str = "auto"  # `cpu`, `cuda`, or `auto` for a GPU where there is one.


def run_config(options: BenchmarkConfig) -> PretrainConfig:
    """The configuration of our run, of which the authors' code must have the step."""
    config = parse_run([options.recipe, "--train.batch_size", str(options.batch_size), "--train.device", options.device])
    selfpatch = config.selfpatch
    published = (selfpatch.border, selfpatch.aggregation, selfpatch.negatives) == ("wrap", "attention", False)
    if config.method != "selfpatch" or not published or selfpatch.window == ALL_PATCHES:
        raise ValueError(f"recipe {options.recipe} is not SelfPatch on DINO as published, which the reference computes")
    return config


def batches(config: PretrainConfig, device: torch.device) -> Iterator[list[Tensor]]:
    """The same crops and the same draws of stochastic depth for both parts."""
    sizes = [kind.size for kind in view_kinds(config.views)]
    for seed in range(2**31):
        torch.manual_seed(seed)
        yield [torch.randn(config.train.batch_size, 3, size, size, device=device) for size in sizes]


def authors_losses(config: PretrainConfig, now: StepSettings, device: torch.device, folder: Path) -> Iterator[float]:
    dimensions = reference.Dimensions(
        dim=config.backbone.embed_dim,
        grid_side=config.views.global_size // config.backbone.patch_size,
        out_dim_patch=config.selfpatch.out_dim,
        **{name: getattr(config.backbone, name) for name in ("depth", "num_heads", "patch_size")},
        **{name: getattr(config.dino, name) for name in ("out_dim", "hidden_dim", "bottleneck_dim")},
        **{name: getattr(config.selfpatch, name) for name in ("k", "window")},
    )
    student = reference.Network(dimensions, config.backbone.drop_path_rate)
    teacher = reference.Network(dimensions)
    for network in (student, teacher):
        network.load_state_dict(torch.load(folder / "initial.pt", mmap=True))
        network.to(device)
    shared = {name: getattr(now, name) for name in ("lr", "weight_decay", "clip_grad", "freeze_last_layer")}
    values = reference.Schedule(momentum=now.teacher_momentum, temperature=now.teacher_temperature, **shared)
    steps = ((crops, values) for crops in batches(config, device))
    for losses in reference.training_steps(student, teacher, steps, half_precision=device.type == "cuda"):
        yield losses["loss"]


def our_losses(config: PretrainConfig, now: StepSettings, device: torch.device, folder: Path) -> Iterator[float]:
    del folder  # the run's seed determines the weights
    networks = build_networks(config, device)
    student = wrap_student(networks, device, config.train.compile)
    for crops in batches(config, device):
        yield training_step(student, networks, crops, now)["loss"].item()


PARTS = {"authors": authors_losses, "patchbench": our_losses, "compiled": our_losses}


def work(turns: Turns, part: str, options: BenchmarkConfig, folder: Path) -> torch.device:
    config, device = run_config(options), choose_device(options.device)
    config.train.compile = part == "compiled"
    # Past warm-up and frozen layers.
    now = step_settings(config, 1, config.optim.warmup_epochs + config.optim.freeze_last_layer_epochs)
    losses = PARTS[part](config, now, device, folder)
    for _ in range(options.steps + WARM_UP_STEPS):
        turns.begin()
        turns.end(next(losses))
    return device


def benchmark(options: BenchmarkConfig, folder: Path) -> Iterator[Table]:
    config, device = run_config(options), choose_device(options.device)
    torch.save(build_networks(config, torch.device("cpu")).student.state_dict(), folder / "initial.pt")
    parts = list(PARTS) if options.compile else list(PARTS)[:-1]
    steps, memory = take_turns(work, parts, options.steps + WARM_UP_STEPS, options, folder)
    loss = max(abs(ours.value - theirs.value) for ours, theirs in zip(steps["patchbench"], steps["authors"], strict=True))
    crops = len(view_kinds(config.views))
    run_on = f"{options.recipe}, {options.batch_size} images per step, {crops} crops each; {machine(device)}"
    yield table_of_steps(
        f"{run_on}\nlargest difference of the losses of {len(steps['authors'])} steps: {loss:.1e}", steps, memory
    )


if __name__ == "__main__":
    run("pretrain_step", BenchmarkConfig, benchmark)
