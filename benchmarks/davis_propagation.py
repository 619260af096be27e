"""Label propagation under each protocol beside the network alone, and beside DINO's loop; same weights, same frames, one run.

Time per frame is the median over the last pairs of frames, whose context is full, with decoding and writing. Ours takes two frames
through the network at once where that is faster, and so does the network alone, at the size of the protocol's frames; the loop takes
them one by one. The loop runs twice: with our network, which shows what the propagation itself gains, and with a plain version of
theirs, which computes attention as a matrix; that is what their script costs. It builds a mask of reachable pairs once per sequence
in Python, whose time is printed and shared out over 66 frames, as many as DAVIS' validation sequences have on average.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from backbones.build import build_backbone
from backbones.spec import ViTSpec
from benchmarks.turns import MEBIBYTE, Table, Turns, machine, run, take_turns
from common.distributed import choose_device
from eval.davis.data import DavisSplit, find_sequences
from eval.propagation.features import FeatureExtractor, input_size, read_frame
from eval.propagation.labels import channel_ids, compete, first_labels, to_mask
from eval.propagation.masks import Mask, read_mask, write_mask
from eval.propagation.propagator import propagate_sequence
from eval.propagation.protocol import RULES, PropagationSettings, ProtocolName, Rules
from eval.propagation.videos import VideoSequence
from tests.references import davis_propagation as reference
from tests.references.vit import patch_features

DINO = RULES["dino"]
FRAMES_PER_STEP = 2
MEASURED = 4  # steps at the end, whose context is full
USUAL_FRAMES = 66  # of a sequence
NETWORK_TIMES, FASTER = "times the network", "PatchBench is faster by"  # columns
LOOP, PLAIN_LOOP = "loop, with our network", "loop, with a network like the authors'"


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure label propagation."""

    davis: Path  # DAVIS folder.
    protocols: list[ProtocolName] = field(default_factory=lambda: ["dino", "dinov3", "cropmae", "crw"])
    """Protocols to measure; `dino` with the authors' loop."""
    short_side: int = 480  # Of the frames; 480 is what all protocols but `dinov3`, with 960, have.
    frames: int = 30  # Of the first sequence; even, since two may share a pass of the network, and more than fill the context.
    patch_size: int = 16  # Patch size of the network, a ViT-S.
    depth: int = 12  # Its blocks.
    device: str = "cpu"  # `cpu` or `cuda`.

    def __post_init__(self) -> None:
        least = 1 + FRAMES_PER_STEP * MEASURED + max(RULES[name].n_last_frames for name in self.protocols)
        if self.frames % FRAMES_PER_STEP or self.frames < least:
            raise ValueError(f"frames={self.frames} must be even and at least {least}")

    def rules(self, part: str) -> Rules:
        """Those of a part, whose name ends with a protocol's where it is not DINO's."""
        name = part.rpartition(" ")[2]
        named = {protocol: PropagationSettings(protocol=protocol, short_side=self.short_side) for protocol in self.protocols}
        return named[name].rules if name in named else replace(DINO, short_side=self.short_side)


def chosen_sequence(config: BenchmarkConfig) -> VideoSequence:
    """The first frames of the list's first sequence."""
    sequence = find_sequences(DavisSplit(root=config.davis), all_masks=False)[0]
    if len(sequence.frames) < config.frames:
        raise ValueError(f"frames={config.frames}: {sequence.name} has {len(sequence.frames)}")
    return replace(sequence, frames=sequence.frames[: config.frames])


def extractor(config: BenchmarkConfig) -> FeatureExtractor:
    torch.manual_seed(0)
    shape: Any = {"embed_dim": 384, "depth": config.depth, "num_heads": 6, "patch_size": config.patch_size, "image_size": 224}
    backbone = build_backbone(ViTSpec(**shape, class_token=False, final_norm=False))
    return FeatureExtractor(backbone.eval(), None, choose_device(config.device))


def run_network(extract: FeatureExtractor, sequence: VideoSequence, rules: Rules) -> Iterator[None]:
    """Forward passes alone, on decoded images."""
    image_3HW = read_frame(sequence.frames[0], input_size(*sequence.size, rules, extract.input_multiple), rules)
    at_once = extract.frames_at_once(*image_3HW.shape[1:])
    images_B3HW = torch.stack([image_3HW] * at_once)
    for number in range(len(sequence.frames) - 1):
        if number % at_once == 0:
            extract(images_B3HW)
        yield


def run_patchbench(extract: FeatureExtractor, sequence: VideoSequence, rules: Rules) -> Iterator[Mask]:
    """Ours, one thing after another; `write_sequence` decodes and writes in threads of their own."""
    mask = sequence.first_mask()
    size, ids = input_size(*sequence.size, rules, extract.input_multiple), channel_ids(mask, rules)
    images = (read_frame(path, size, rules) for path in sequence.frames)
    start = partial(first_labels, mask, input_size=size, rules=rules)
    for labels_hwC in propagate_sequence(images, start, extract, rules):
        yield to_mask(compete(labels_hwC, rules, extract.stride, sequence.size), rules, ids, size, sequence.size)


@torch.inference_mode()
def run_loop(extract: FeatureExtractor, sequence: VideoSequence, plain: bool) -> Iterator[Mask]:
    """The authors' loop with our network, or with a plain one as theirs."""
    network = extract.backbone
    assert isinstance(network.spec, ViTSpec)
    heads = network.spec.num_heads

    def tokens(image_3HW: Tensor) -> Tensor:
        image_3HW = image_3HW.to(extract.device)
        if plain:
            return patch_features(network.state_dict(), image_3HW[None], heads)[0]
        return network.forward_tokens(image_3HW[None]).patches[0]

    yield from reference.propagate_sequence(list(sequence.frames), sequence.first_mask(), tokens, extract.stride)


def work(turns: Turns, part: str, config: BenchmarkConfig, folder: Path) -> torch.device:
    extract, sequence = extractor(config), chosen_sequence(config)
    (folder / part).mkdir()
    masks: Iterator[Mask | None]
    if part in (LOOP, PLAIN_LOOP):
        masks = run_loop(extract, sequence, part == PLAIN_LOOP)
    else:
        masks = (run_network if part.startswith("network") else run_patchbench)(extract, sequence, config.rules(part))
    frames = zip(sequence.frames[1:], masks, strict=True)
    for _ in range((config.frames - 1) // FRAMES_PER_STEP):
        turns.begin()
        for path, mask in itertools.islice(frames, FRAMES_PER_STEP):
            if mask is not None:
                write_mask(folder / part / f"{path.stem}.png", mask)
        turns.end()
    return extract.device


def benchmark(config: BenchmarkConfig, folder: Path) -> Iterator[Table]:
    sequence = chosen_sequence(config)
    parts = [f"{part}, {protocol}" for protocol in config.protocols for part in ("network", "patchbench")]
    if "dino" in config.protocols:
        parts += [LOOP, PLAIN_LOOP]
    steps, memory = take_turns(work, parts, (config.frames - 1) // FRAMES_PER_STEP, config, folder)
    masks = {part: {path.name: read_mask(path) for path in (folder / part).iterdir()} for part in parts}
    _, height, width = reference.read_frame(sequence.frames[0])[0].shape
    start = time.perf_counter()
    reference.reachable(height // config.patch_size, width // config.patch_size, int(DINO.neighbourhood_radius))
    mask = time.perf_counter() - start

    def seconds(part: str, clock: int) -> float:
        full = steps[part][-MEASURED:]
        return median(step[clock] for step in full) / FRAMES_PER_STEP + (mask / USUAL_FRAMES if "loop" in part else 0)

    rows = []
    for part in parts:
        of_protocol = part.rpartition(", ")[2] if part.rpartition(", ")[2] in config.protocols else "dino"
        network, ours = f"network, {of_protocol}", f"patchbench, {of_protocol}"
        rows.append(
            {
                "": part,
                "s/frame": seconds(part, 0),
                "CPU s/frame": seconds(part, 1),
                NETWORK_TIMES: seconds(part, 0) / seconds(network, 0),
                "in CPU s": seconds(part, 1) / seconds(network, 1),
                FASTER: seconds(part, 0) / seconds(ours, 0),
                "peak MiB": memory[part] // MEBIBYTE,
                "pixels that differ from ours": sum(
                    int((masks[ours][file] != theirs).sum()) for file, theirs in masks[part].items()
                ),
            }
        )
    taken = (
        f"{sequence.name}, {len(sequence.frames)} frames, patch {config.patch_size}, {machine(choose_device(config.device))}"
    )
    yield Table(f"{taken}\nmask of reachable pairs: {mask:.1f} s, included in the loop's rows", rows)


if __name__ == "__main__":
    run("davis_propagation", BenchmarkConfig, benchmark)
