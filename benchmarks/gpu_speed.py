"""The parts of `benchmarks.gpu` that measure speed, by the other benchmarks; each yields rows of the table.

Where a ratio is short of what is wanted, ours runs once more under torch's profiler, which leaves a trace in the output folder.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import davis_propagation, finetune_step, pretrain_step, probes
from benchmarks import views as view_benchmark
from benchmarks.gpu_run import DATA, RESULTS, GPUConfig, found
from benchmarks.turns import FASTER, OF_MEMORY, SECONDS, WARM_UP_STEPS, Table, rounds, take_turns
from common.distributed import choose_device
from eval.davis.data import DavisSplit, find_sequences
from eval.propagation.protocol import PropagationSettings
from eval.propagation.writing import write_sequence
from pretrain.networks import build_networks
from pretrain.schedules import step_settings
from pretrain.step import training_step

CONSUMED = "images/s of a step"

Rows = Iterator[dict[str, Any]]
Bounds = dict[str, tuple[str, float]]  # of columns: `at least` or `at most` a number


def rows_of(table: Table, judged: str = "", bounds: Bounds | None = None) -> list[dict[str, Any]]:
    """A table's rows, and what is wanted of the one named `judged`."""
    rows = [found("on", table.heading)]
    for cells in table.rows:
        numbers = {column: cell for column, cell in cells.items() if isinstance(cell, int | float)}
        wanted, passed = "", None
        if bounds and cells[""] == judged:
            wanted = ", ".join(f"{column} {sign} {bound:g}" for column, (sign, bound) in bounds.items())
            passed = all(
                numbers[column] >= bound if sign == "at least" else numbers[column] <= bound
                for column, (sign, bound) in bounds.items()
            )
        rows.append(found(cells[""], numbers, wanted, passed))
    return rows


def measured(
    module: Any, options: Any, config: GPUConfig, folder: Path, judged: str, bounds: Bounds, ours: str, steps: int
) -> Rows:
    """A benchmark's rows; where what is wanted of `judged` is missed, the third step of `ours` is traced."""
    (folder / "measured").mkdir()
    (table,) = module.benchmark(options, folder / "measured")
    rows = rows_of(table, judged, bounds)
    yield from rows
    if any(row["passed"] is False for row in rows):
        again = folder / "again"
        again.mkdir()
        for file in filter(Path.is_file, (folder / "measured").iterdir()):
            shutil.copy(file, again)
        trace = config.output.absolute() / f"{folder.name}.trace.json"
        take_turns(module.work, [ours], steps, options, again, trace=trace)
        yield found(f"trace of {ours}", trace.name)


def pretraining_step(config: GPUConfig, folder: Path) -> Rows:
    recipe = "sample_selfpatch" if config.tiny else "imagenet_selfpatch_vit_small"
    batch, steps = (2, 1) if config.tiny else (64, 8)
    options = pretrain_step.BenchmarkConfig(
        recipe=recipe, batch_size=batch, steps=steps, compile=not config.tiny, device=config.device
    )
    best = "compiled" if options.compile else "patchbench"
    bounds: Bounds = {FASTER: ("at least", 2.5), OF_MEMORY: ("at most", 0.7)}
    seconds = math.nan
    for row in measured(pretrain_step, options, config, folder, best, bounds, best, steps + WARM_UP_STEPS):
        if row["what"] == best:
            seconds = row["measured"][SECONDS]
        yield row
    yield found(best, {CONSUMED: batch / seconds})
    needed, possible = floating_point_operations(options), product_speed(config)
    yield found(
        "model FLOPs utilisation",
        {
            "share": needed / seconds / possible,
            "TFLOP of a step": needed / 1e12,
            "TFLOP/s of bfloat16 products": possible / 1e12,
        },
    )


def floating_point_operations(options: pretrain_step.BenchmarkConfig) -> float:
    """Of our step, counted in one of two images, which has as many per image."""
    run, device = pretrain_step.run_config(replace(options, batch_size=2)), choose_device(options.device)
    networks, now = build_networks(run, device), step_settings(run, 1, run.optim.warmup_epochs + 1)
    with FlopCounterMode(display=False) as counter:
        training_step(networks.student, networks, next(pretrain_step.batches(run, device)), now)
    return counter.get_total_flops() * options.batch_size / 2


def product_speed(config: GPUConfig) -> float:
    """FLOP/s of the product of two large bfloat16 matrices, the most that a network could reach here."""
    side, device = 256 if config.tiny else 8192, choose_device(config.device)
    factor = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    seconds, _ = rounds({"product": lambda: [factor @ factor for _ in range(10)]}, 4, device)
    return 10 * 2 * side**3 / min(seconds["product"])


def fine_tuning_step(config: GPUConfig, folder: Path, task: Any) -> Rows:
    data = config.output / DATA / ("coco" if task == "detection" else "ade/ADEChallengeData2016")
    options = finetune_step.BenchmarkConfig(task=task, data=data, device=config.device)
    if config.tiny:
        options = replace(options, steps=1, embed_dim=64, num_heads=1)
    bounds: Bounds = {FASTER: ("at least", 1.5)}
    yield from measured(
        finetune_step, options, config, folder, "patchbench", bounds, "patchbench", options.steps + WARM_UP_STEPS
    )


def propagation(config: GPUConfig, folder: Path, patch_size: int) -> Rows:
    """The ratio is to the authors' loop with their own attention; then the whole task, which decodes and writes in threads."""
    options = davis_propagation.BenchmarkConfig(
        davis=config.output / DATA / "DAVIS", protocols=["dino"], frames=16, patch_size=patch_size, device=config.device
    )
    if config.tiny:
        options = replace(options, patch_size=2 * patch_size, depth=1)
    ours, loop = "patchbench, dino", davis_propagation.PLAIN_LOOP
    steps = (options.frames - 1) // davis_propagation.FRAMES_PER_STEP
    bounds: Bounds = {davis_propagation.FASTER: ("at least", 4.0)}
    for row in measured(davis_propagation, options, config, folder, loop, bounds, ours, steps):
        yield row
        if row["what"] == ours:
            yield found("share of the network's forward pass", {"share": 1 / row["measured"][davis_propagation.NETWORK_TIMES]})
    extract, seconds = davis_propagation.extractor(options), math.nan
    (sequence, *_) = find_sequences(DavisSplit(root=options.davis), all_masks=False)
    for turn in range(2):  # the first chooses kernels
        start = time.perf_counter()
        write_sequence(sequence, folder / f"masks{turn}", extract, PropagationSettings(), lambda: None)
        seconds = time.perf_counter() - start
    yield found("the whole task", {"frames/s": (len(sequence.frames) - 1) / seconds})


_PROBES: dict[str, Callable[..., Iterator[Table]]] = {
    "dense retrieval": probes.measure_retrieval,
    "linear probe": probes.measure_linear_probe,
    "k-NN search": lambda options, folder: probes.measure_knn(options),
}


def probe(config: GPUConfig, folder: Path, name: str) -> Rows:
    options = probes.BenchmarkConfig(device=config.device)
    if config.tiny:
        options = replace(options, train=2, test=1, memory=512, batch_size=1, rounds=1, features=2_000)
    for table in _PROBES[name](options, folder):
        yield from rows_of(table)


def views(config: GPUConfig, folder: Path) -> Rows:
    """How many workers feed a pretraining step, as measured before, if it was; with photographs of ImageNet's usual size."""
    for number, path in enumerate(sorted((config.output / DATA / "photos").rglob("*.jpg"))):
        Image.open(path).resize((500, 375)).save(folder / f"{number}.jpg", quality=90)
    options = view_benchmark.BenchmarkConfig(photos=folder, images=16, rounds=1 if config.tiny else 5)
    (table,) = view_benchmark.benchmark(options, folder)
    yield from rows_of(table)
    parts = json.loads((config.output / RESULTS).read_text(encoding="utf-8"))["parts"]
    rows = [row["measured"] for part in parts for row in part["rows"] if isinstance(row["measured"], dict)]
    consumed = [numbers[CONSUMED] for numbers in rows if CONSUMED in numbers]
    if not consumed:
        yield found("workers that feed a step", "unknown, since the pretraining step was not measured")
        return
    cores, best = len(os.sched_getaffinity(0)), table.rows[-1]
    needed = consumed[0] / best[view_benchmark.IMAGES_PER_SECOND]
    yield found(
        f"workers that feed a step, {best['']}", {"workers": needed}, f"at most {cores}, the cores here", needed <= cores
    )
