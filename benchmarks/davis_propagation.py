"""Label propagation: PatchBench beside the authors' loop and the network alone; same weights, same frames, one run.

    python -m benchmarks.davis_propagation --davis DAVIS [--patch_size 8] [--frames 12]

Time per frame is the median over the pairs of frames whose context is full, with decoding and writing; wall time, and CPU time of all
threads, which other work on the machine disturbs less. Each part is a process of its own, so that its peak memory is its own; they
advance by two frames in turns, so that other work on the machine disturbs them alike. Ours takes two through the network at once
where that is faster, and so does the network alone; the loop takes them one by one.

The authors' loop runs twice: with our network, which shows what the propagation itself gained, and with a plain version of theirs,
which computes attention as a matrix; that is what their script costs. The latter also keeps the C library's way with freed memory,
which our commands change; the others have ours. Either loop builds a mask of reachable pairs once per sequence in Python; its time
is printed, and shared out over the frames of the whole sequence in the rows of the loop.
"""

import logging
import multiprocessing
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from backbones.build import build_backbone
from backbones.spec import ViTSpec
from backbones.vit import ViT
from common.allocation import reuse_freed_memory
from common.command import parse_config, run_command
from common.memory import peak_memory_bytes
from eval.davis.dataset import DavisSplit, VideoSequence, find_sequences
from eval.davis.features import FeatureExtractor
from eval.davis.frames import read_frame
from eval.davis.labels import resize_mask
from eval.davis.masks import read_mask, write_mask
from eval.davis.propagator import propagate_sequence
from eval.davis.protocol import PropagationSettings
from eval.davis.writing import KEPT_BLOCK
from tests.references import davis_propagation as reference
from tests.references.vit import patch_tokens

Part = Literal["network", "patchbench", "loop", "authors"]
SETTINGS = PropagationSettings()
FRAMES_PER_STEP = 2


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
    frames: int = 20
    """Frames of the sequence to take, more than the 10 that fill the context; even, since two may share a pass of the network."""
    embed_dim: int = 384
    """Width of the network: 384 is ViT-S."""
    num_heads: int = 6
    """Its attention heads."""
    patch_size: int = 16
    """Its patch size."""
    threads: int = 2
    """Threads of torch."""

    def __post_init__(self) -> None:
        """Reject numbers of frames that would make the last step cheaper than the others, or leave none with a full context."""
        if self.frames % FRAMES_PER_STEP or self.frames <= SETTINGS.n_last_frames + 1 + FRAMES_PER_STEP:
            raise ValueError(f"frames={self.frames} must be even and more than {SETTINGS.n_last_frames + 1 + FRAMES_PER_STEP}")


def build_network(config: BenchmarkConfig) -> ViT:
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
    network = build_backbone(spec).eval()
    assert isinstance(network, ViT)
    return network


def extractor(network: ViT) -> FeatureExtractor:
    """Ours; the network is then good for nothing else."""
    return FeatureExtractor(network, None, torch.device("cpu"))


def whole_sequence(config: BenchmarkConfig) -> VideoSequence:
    """The chosen sequence."""
    split = DavisSplit.from_options(config.davis, "val", "2017", "480p", config.sequence)
    return find_sequences(split, all_masks=False)[0]


def chosen_sequence(config: BenchmarkConfig) -> VideoSequence:
    """Its first frames.

    Raises:
        ValueError: If it has fewer.
    """
    sequence = whole_sequence(config)
    if len(sequence.frames) < config.frames:
        raise ValueError(f"frames={config.frames}: {sequence.name} has {len(sequence.frames)}")
    return replace(sequence, frames=sequence.frames[: config.frames])


def run_network(network: ViT, sequence: VideoSequence, output: Path) -> Iterator[None]:
    """Forward passes alone, on decoded images."""
    del output
    extract = extractor(network)
    image_3HW = read_frame(sequence.frames[0], SETTINGS, extract.input_multiple).image
    at_once = extract.frames_at_once(*image_3HW.shape[1:])
    images_B3HW = torch.stack([image_3HW] * at_once)
    for number in range(len(sequence.frames) - 1):
        if number % at_once == 0:
            extract(images_B3HW)
        yield


def run_patchbench(network: ViT, sequence: VideoSequence, output: Path) -> Iterator[None]:
    """Ours, one thing after another; `write_sequence` decodes and writes in threads of their own."""
    output.mkdir()
    extract = extractor(network)
    frames = (read_frame(path, SETTINGS, extract.input_multiple) for path in sequence.frames)
    for frame, ids in propagate_sequence(frames, sequence.first_mask(), extract, SETTINGS):
        write_mask(output / f"{frame.name}.png", resize_mask(ids.numpy(), frame.original_size))
        yield


@torch.inference_mode()
def run_reference(tokens: Callable[[Tensor], Tensor], stride: int, sequence: VideoSequence, output: Path) -> Iterator[None]:
    """The authors' loop with a network [3, H, W] -> [N, D]."""
    output.mkdir()
    masks = reference.propagate_sequence(list(sequence.frames), sequence.first_mask(), tokens, stride)
    for path, mask in zip(sequence.frames[1:], masks, strict=True):
        write_mask(output / f"{path.stem}.png", mask)
        yield


def run_loop(network: ViT, sequence: VideoSequence, output: Path) -> Iterator[None]:
    """The authors' loop with our network."""
    extract = extractor(network)

    def tokens(image_3HW: Tensor) -> Tensor:
        return extract.backbone.forward_tokens(image_3HW[None]).patches[0]

    return run_reference(tokens, extract.stride, sequence, output)


def run_authors(network: ViT, sequence: VideoSequence, output: Path) -> Iterator[None]:
    """The authors' loop with a network as theirs."""
    return run_reference(partial(patch_tokens, network), network.spec.patch_size, sequence, output)


RUNS: dict[Part, Callable[[ViT, VideoSequence, Path], Iterator[None]]] = {
    "network": run_network,
    "patchbench": run_patchbench,
    "loop": run_loop,
    "authors": run_authors,
}


def mask_seconds(stride: int, sequence: VideoSequence) -> float:
    """What the mask of reachable pairs costs the authors' loop, once per sequence."""
    image, _ = reference.read_frame(sequence.frames[0])
    h, w = (side // stride for side in image.shape[1:])
    start = time.perf_counter()
    reference.reachable(h, w, SETTINGS.neighbourhood_radius)
    return time.perf_counter() - start


def work(config: BenchmarkConfig, part: Part, output: Path, parent: Connection) -> None:
    """One part in a process of its own: a step for each message, answered by its time per frame; at the end peak memory in bytes."""
    if part != "authors":
        reuse_freed_memory(KEPT_BLOCK)
    torch.set_num_threads(config.threads)
    steps = RUNS[part](build_network(config), chosen_sequence(config), output)
    while parent.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(FRAMES_PER_STEP):
            next(steps)
        parent.send(
            Moment(
                *((now - before) / FRAMES_PER_STEP for now, before in ((time.perf_counter(), wall), (time.process_time(), cpu)))
            )
        )
    parent.send(peak_memory_bytes(torch.device("cpu")))


def take_turns(config: BenchmarkConfig, folder: Path) -> tuple[dict[Part, Moment], dict[Part, int]]:
    """Seconds per frame and peak memory in bytes of each part."""
    context = multiprocessing.get_context("spawn")
    workers: dict[Part, Connection] = {}
    for part in RUNS:
        workers[part], theirs = context.Pipe()
        context.Process(target=work, args=(config, part, folder / part, theirs), daemon=True).start()
    steps: dict[Part, list[Moment]] = {part: [] for part in RUNS}
    for _ in range((len(chosen_sequence(config).frames) - 1) // FRAMES_PER_STEP):
        for part, worker in workers.items():
            worker.send(True)
            steps[part].append(worker.recv())
    for worker in workers.values():
        worker.send(False)
    full = {part: moments[-(-SETTINGS.n_last_frames // FRAMES_PER_STEP) :] for part, moments in steps.items()}
    seconds = {
        part: Moment(*(median(moment[clock] for moment in moments) for clock in (0, 1))) for part, moments in full.items()
    }
    return seconds, {part: worker.recv() for part, worker in workers.items()}


def differing_pixels(ours: Path, theirs: Path) -> int:
    """Over all masks of two folders."""
    return sum(int((read_mask(ours / path.name) != read_mask(path)).sum()) for path in theirs.iterdir())


def benchmark(config: BenchmarkConfig) -> None:
    """Print a Markdown table."""
    sequence = chosen_sequence(config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds, memory = take_turns(config, folder)
        differing = {part: differing_pixels(folder / "patchbench", folder / part) for part in ("loop", "authors")}
    mask, whole = mask_seconds(config.patch_size, sequence), len(whole_sequence(config).frames)
    for part in ("loop", "authors"):
        seconds[part] = Moment(*(clock + mask / whole for clock in seconds[part]))
    print(f"{sequence.name}, {len(sequence.frames)} of {whole} frames; width {config.embed_dim}, patch {config.patch_size}")
    print(f"{platform.machine()}, {config.threads} threads, torch {torch.__version__}\n")
    print("| | s/frame | CPU s/frame | times the network | PatchBench is faster by | peak memory | differing pixels |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    network, ours = seconds["network"].wall, seconds["patchbench"].wall
    for part in RUNS:
        wall, cpu = seconds[part]
        ratios = f"{wall / network:.2f} | {wall / ours:.2f}"
        print(f"| {part} | {wall:.3f} | {cpu:.3f} | {ratios} | {memory[part] / 2**20:.0f} MiB | {differing.get(part, '')} |")
    print(f"\nmask of reachable pairs: {mask:.1f} s per sequence, included in the loop's rows")


def main(argv: Sequence[str]) -> int:
    """Parse, measure."""
    logging.disable(logging.INFO)
    benchmark(parse_config(BenchmarkConfig, "python -m benchmarks.davis_propagation", argv))
    return 0


if __name__ == "__main__":
    run_command(main)
