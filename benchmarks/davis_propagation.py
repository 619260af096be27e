"""Label propagation: PatchBench beside the authors' loop and the network alone; same weights, same frames, one run.

    python -m benchmarks.davis_propagation --davis DAVIS [--patch_size 8] [--frames 14]

Time per frame is the median over the frames whose context is full, with decoding and writing; wall time, and CPU time of all threads,
which other work on the machine disturbs less. Memory is the peak of a process of its own. The reference builds its mask of
reachable pairs once per sequence in a Python loop; that time is not counted.
"""

import logging
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import torch

from backbones.build import build_backbone
from backbones.spec import ViTSpec
from common.command import parse_config, run_command
from common.memory import peak_memory_bytes
from eval.davis.dataset import DavisSplit, VideoSequence, find_sequences
from eval.davis.features import FeatureExtractor
from eval.davis.frames import read_frame
from eval.davis.labels import resize_mask
from eval.davis.masks import read_mask, write_mask
from eval.davis.propagator import propagate_sequence
from eval.davis.protocol import PropagationSettings
from tests.references import davis_propagation as reference

Part = Literal["network", "patchbench", "reference"]
SETTINGS = PropagationSettings()


class Moment(NamedTuple):
    """Two clocks, in seconds."""

    wall: float
    cpu: float


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure label propagation on the CPU."""

    davis: Path
    """DAVIS folder."""
    sequence: str = ""
    """Which sequence; by default the first of the list."""
    frames: int = 14
    """Frames to propagate through; more than the 8 of a full context."""
    embed_dim: int = 384
    """Width of the network: 384 is ViT-S."""
    num_heads: int = 6
    """Its attention heads."""
    patch_size: int = 16
    """Its patch size."""
    threads: int = 2
    """Threads of torch."""
    only: Part | None = None
    """Measure one part alone and print its time and memory; the whole benchmark starts itself in this way."""


def extractor(config: BenchmarkConfig) -> FeatureExtractor:
    """A network with random weights."""
    torch.manual_seed(0)
    spec = ViTSpec(
        embed_dim=config.embed_dim,
        depth=12,
        num_heads=config.num_heads,
        patch_size=config.patch_size,
        image_size=224,
        class_token=False,
        final_norm=False,
    )
    return FeatureExtractor(build_backbone(spec), None, torch.device("cpu"))


def chosen_sequence(config: BenchmarkConfig) -> VideoSequence:
    """The first frames of the chosen sequence."""
    split = DavisSplit.from_options(config.davis, "val", "2017", "480p", config.sequence)
    sequence = find_sequences(split, all_masks=False)[0]
    return replace(sequence, frames=sequence.frames[: config.frames])


def run_network(extract: FeatureExtractor, sequence: VideoSequence, output: Path) -> Iterator[None]:
    """Forward passes alone, on a decoded image."""
    del output
    image = read_frame(sequence.frames[0], SETTINGS, extract.input_multiple).image
    for _ in sequence.frames[1:]:
        extract(image)
        yield


def run_patchbench(extract: FeatureExtractor, sequence: VideoSequence, output: Path) -> Iterator[None]:
    """Ours, one thing after another; `write_sequence` decodes and writes in threads of their own."""
    output.mkdir()
    frames = (read_frame(path, SETTINGS, extract.input_multiple) for path in sequence.frames)
    for frame, ids in propagate_sequence(frames, sequence.first_mask(), extract, SETTINGS):
        write_mask(output / f"{frame.name}.png", resize_mask(ids.numpy(), frame.original_size))
        yield


@torch.inference_mode()
def run_reference(extract: FeatureExtractor, sequence: VideoSequence, output: Path) -> Iterator[None]:
    """The authors' loop."""

    def tokens(image: torch.Tensor) -> torch.Tensor:
        return extract.backbone.forward_tokens(image[None]).patches[0]

    output.mkdir()
    masks = reference.propagate_sequence(list(sequence.frames), sequence.first_mask(), tokens, extract.stride)
    for path, mask in zip(sequence.frames[1:], masks, strict=True):
        write_mask(output / f"{path.stem}.png", mask)
        yield


RUNS: dict[Part, Callable[[FeatureExtractor, VideoSequence, Path], Iterator[None]]] = {
    "network": run_network,
    "patchbench": run_patchbench,
    "reference": run_reference,
}


def take_turns(extract: FeatureExtractor, sequence: VideoSequence, folder: Path) -> dict[Part, Moment]:
    """Seconds per frame of each part; all advance by a frame in turns, so that other work on the machine disturbs them alike."""
    runs = {part: run(extract, sequence, folder / part) for part, run in RUNS.items()}
    steps: dict[Part, list[Moment]] = {part: [] for part in RUNS}
    for _ in sequence.frames[1:]:
        for part, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            next(run)
            steps[part].append(Moment(time.perf_counter() - wall, time.process_time() - cpu))
    full = {part: moments[SETTINGS.n_last_frames :] for part, moments in steps.items()}
    return {part: Moment(*(median(moment[clock] for moment in moments) for clock in (0, 1))) for part, moments in full.items()}


def measure_alone(config: BenchmarkConfig, part: Part) -> int:
    """Peak bytes of a new process that runs one part."""
    options = {"davis": config.davis, "sequence": chosen_sequence(config).name, "only": part}
    options |= {name: getattr(config, name) for name in ("frames", "embed_dim", "num_heads", "patch_size", "threads")}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "benchmarks.davis_propagation", *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def benchmark(config: BenchmarkConfig) -> None:
    """Print a Markdown table."""
    torch.set_num_threads(config.threads)
    extract, sequence = extractor(config), chosen_sequence(config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if config.only:
            for _ in RUNS[config.only](extract, sequence, folder / config.only):
                pass
            print(peak_memory_bytes(torch.device("cpu")))
            return
        seconds = take_turns(extract, sequence, folder)
        differing = sum(
            int((read_mask(folder / "patchbench" / path.name) != read_mask(path)).sum())
            for path in (folder / "reference").iterdir()
        )
    print(f"{sequence.name}, {len(sequence.frames)} frames; width {config.embed_dim}, patch {config.patch_size}")
    print(f"{platform.machine()}, {config.threads} threads, torch {torch.__version__}\n")
    print("| | wall s/frame | CPU s/frame | times the network (wall, CPU) | peak memory |\n| --- | --- | --- | --- | --- |")
    network, ours, plain = (seconds[part] for part in RUNS)
    for part in RUNS:
        wall, cpu = seconds[part]
        memory = measure_alone(config, part) / 2**20
        print(f"| {part} | {wall:.3f} | {cpu:.3f} | {wall / network.wall:.2f}, {cpu / network.cpu:.2f} | {memory:.0f} MiB |")
    print(f"\ntimes as fast as the reference: {plain.wall / ours.wall:.2f} (wall), {plain.cpu / ours.cpu:.2f} (CPU)")
    print(f"differing pixels: {differing}")


def main(argv: Sequence[str]) -> int:
    """Parse, measure."""
    logging.disable(logging.INFO)
    benchmark(parse_config(BenchmarkConfig, "python -m benchmarks.davis_propagation", argv))
    return 0


if __name__ == "__main__":
    run_command(main)
