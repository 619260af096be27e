"""The parts of `benchmarks.gpu` that measure speed, by the other benchmarks; each yields rows of the table.

Where a ratio is short of what is wanted, ours runs once more under torch's profiler, which leaves a trace in the output folder. The
benchmarks are imported where they run: one that lacks a package does not keep the others from running, and OpenMMLab's packages ask
for the GPU when they are imported, which no process may do before it forks.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_run import DATA, RESULTS, GPUConfig, found
from benchmarks.turns import FASTER, OF_MEMORY, SECONDS, WARM_UP_STEPS, Table, rounds, take_turns
from common.distributed import choose_device

CONSUMED = "images/s of a step"

Rows = Iterator[dict[str, Any]]
Bounds = Mapping[str, float]  # of columns


def judged(what: str, numbers: Mapping[str, float], at_least: Bounds, at_most: Bounds) -> dict[str, Any]:
    wanted = [f"{column} at least {bound:g}" for column, bound in at_least.items()]
    wanted += [f"{column} at most {bound:g}" for column, bound in at_most.items()]
    enough = all(numbers[column] >= bound for column, bound in at_least.items())
    passed = enough and all(numbers[column] <= bound for column, bound in at_most.items())
    return found(what, numbers, ", ".join(wanted), passed if wanted else None)


def rows_of(
    table: Table, name: str = "", at_least: Bounds | None = None, at_most: Bounds | None = None
) -> list[dict[str, Any]]:
    """A table's rows, with what is wanted of the one of this name."""
    rows = [found("on", table.heading)]
    for cells in table.rows:
        numbers = {column: cell for column, cell in cells.items() if isinstance(cell, int | float)}
        is_judged = bool(name) and cells[""] == name
        rows.append(judged(cells[""], numbers, (is_judged and at_least) or {}, (is_judged and at_most) or {}))
    return rows


def measure(module: Any, options: Any, folder: Path) -> Table:
    """The table of a benchmark that leaves its files in `folder/measured`."""
    (folder / "measured").mkdir()
    (table,) = module.benchmark(options, folder / "measured")
    return table


def trace_if_slow(row: Mapping[str, Any], module: Any, options: Any, config: GPUConfig, folder: Path, ours: str) -> Rows:
    """Trace the first of our steps after the warm-up where a row misses what is wanted."""
    if row["passed"] is False:
        again, steps = folder / "again", WARM_UP_STEPS + 1
        again.mkdir()
        for file in filter(Path.is_file, (folder / "measured").iterdir()):
            shutil.copy(file, again)
        trace = config.output.absolute() / f"{folder.name}.trace.json.gz"
        take_turns(module.work, [ours], steps, options, again, trace=trace)
        yield found(f"trace of {ours}", trace.name)


def pretraining_step(config: GPUConfig, folder: Path, compiled: bool) -> Rows:
    from benchmarks import pretrain_step

    recipe, batch, steps = ("sample_selfpatch", 2, 1) if config.tiny else ("imagenet_selfpatch_vit_small", 64, 8)
    options = pretrain_step.BenchmarkConfig(
        recipe=recipe, batch_size=batch, steps=steps, compile=compiled, device=config.device
    )
    ours = "compiled" if compiled else "patchbench"
    bounds = {"at_least": {FASTER: 2.5}, "at_most": {OF_MEMORY: 0.7}} if compiled else {}
    rows = rows_of(measure(pretrain_step, options, folder), ours, **bounds)
    yield from rows
    (row,) = (row for row in rows if row["what"] == ours)
    seconds = row["measured"][SECONDS]
    yield found(ours, {CONSUMED: batch / seconds})
    needed, possible = floating_point_operations(options), product_speed(config)
    numbers = {"share": needed / seconds / possible, "TFLOP of a step": needed / 1e12}
    yield found("model FLOPs utilisation", numbers | {"TFLOP/s of bfloat16 products": possible / 1e12})
    yield from trace_if_slow(row, pretrain_step, options, config, folder, ours)


def floating_point_operations(options: Any) -> float:
    """Of our step, counted in one of two images, which has as many per image."""
    from benchmarks.pretrain_step import batches, run_config
    from pretrain.networks import build_networks
    from pretrain.schedules import step_settings
    from pretrain.step import training_step

    run, device = run_config(replace(options, batch_size=2)), choose_device(options.device)
    networks, now = build_networks(run, device), step_settings(run, 1, run.optim.warmup_epochs + 1)
    with FlopCounterMode(display=False) as counter:
        training_step(networks.student, networks, next(batches(run, device)), now)
    return counter.get_total_flops() * options.batch_size / 2


def product_speed(config: GPUConfig) -> float:
    """FLOP/s of the product of two large bfloat16 matrices, the most that a network could reach here."""
    side, device = 256 if config.tiny else 8192, choose_device(config.device)
    factor = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    seconds, *_ = rounds({"product": lambda: [factor @ factor for _ in range(10)]}, 4, device)
    return 10 * 2 * side**3 / min(seconds["product"])


def fine_tuning_step(config: GPUConfig, folder: Path, task: Any) -> Rows:
    """With the images of a published update, so that the GPU and not Python sets the pace."""
    from benchmarks import finetune_step

    data = config.output / DATA / ("coco" if task == "detection" else "ade/ADEChallengeData2016")
    options = finetune_step.BenchmarkConfig(task=task, data=data, device=config.device, batch_size=8)
    if config.tiny:
        options = replace(options, steps=1, embed_dim=64, num_heads=1, batch_size=2)
    rows = rows_of(measure(finetune_step, options, folder), "patchbench", {FASTER: 1.5})
    yield from rows
    yield from trace_if_slow(rows[-1], finetune_step, options, config, folder, "patchbench")


def propagation(config: GPUConfig, folder: Path, patch_size: int) -> Rows:
    """The whole task, which decodes and writes in threads, beside the authors' loop, and the network's forward passes alone."""
    from benchmarks import davis_propagation
    from eval.propagation.protocol import PropagationSettings
    from eval.propagation.writing import write_sequence

    options = davis_propagation.BenchmarkConfig(
        davis=config.output / DATA / "DAVIS", protocols=["dino"], frames=16, patch_size=patch_size, device=config.device
    )
    if config.tiny:
        options = replace(options, patch_size=2 * patch_size, depth=1)
    table = measure(davis_propagation, options, folder)
    yield from rows_of(table)
    extract, sequence, seconds = davis_propagation.extractor(options), davis_propagation.chosen_sequence(options), math.nan
    for turn in range(2):  # the first chooses kernels
        start = time.perf_counter()
        write_sequence(sequence, folder / f"masks{turn}", extract, PropagationSettings(), lambda: None)
        seconds = (time.perf_counter() - start) / (len(sequence.frames) - 1)
    alone = {cells[""]: cells["s/frame"] for cells in table.rows}
    numbers = {
        "frames/s": 1 / seconds,
        FASTER: alone[davis_propagation.PLAIN_LOOP] / seconds,
        "share of the network's forward pass": alone["network, dino"] / seconds,
    }
    row = judged(
        f"the whole task, {len(sequence.frames) - 1} frames, beside the authors' loop and network", numbers, {FASTER: 4}, {}
    )
    yield row
    yield from trace_if_slow(row, davis_propagation, options, config, folder, "patchbench, dino")


def probe(config: GPUConfig, folder: Path, name: str) -> Rows:
    from benchmarks import probes

    options = probes.BenchmarkConfig(device=config.device)
    if config.tiny:
        options = replace(options, train=2, test=1, memory=512, batch_size=1, rounds=1, features=2_000)
    for table in getattr(probes, name)(options, folder):
        yield from rows_of(table)


def views(config: GPUConfig, folder: Path) -> Rows:
    """How many workers feed a pretraining step, as measured before, if it was; with photographs of ImageNet's usual size."""
    from benchmarks import views as benchmark

    for number, path in enumerate(sorted((config.output / DATA / "photos").rglob("*.jpg"))):
        Image.open(path).resize((500, 375)).save(folder / f"{number}.jpg", quality=90)
    options = benchmark.BenchmarkConfig(photos=folder, images=16, rounds=1 if config.tiny else 5)
    (table,) = benchmark.benchmark(options, folder)
    yield from rows_of(table)
    parts = json.loads((config.output / RESULTS).read_text(encoding="utf-8"))["parts"]
    rows = [row["measured"] for part in parts for row in part["rows"] if isinstance(row["measured"], dict)]
    consumed = [numbers[CONSUMED] for numbers in rows if CONSUMED in numbers]
    (made,) = (cells[benchmark.IMAGES_PER_SECOND] for cells in table.rows if cells[""] == benchmark.WORKERS)
    if not consumed:
        yield found("workers that feed a step", "unknown, since no pretraining step was measured")
        return
    cores, workers = len(os.sched_getaffinity(0)), max(consumed) / made
    yield found(
        "workers that feed the fastest step", {"workers": workers}, f"at most {cores}, the cores here", workers <= cores
    )
