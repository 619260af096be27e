"""Probes on frozen features. Dense retrieval: PatchBench beside a plain implementation, on the same features.

The plain one does what open-hummingbird-eval does, one image after the other: it counts the classes of every patch in Python, keeps
one-hot labels, multiplies an image's patches with the whole memory at once and enlarges the probabilities of all classes. Features
are drawn: a direction for each class, and noise. PatchBench reads them from files, as the task does, and runs once more on a memory
of the same size from four times as many images, to show that its own memory does not grow.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.turns import MEBIBYTE, Turns, print_table, ratio, run, take_turns
from eval.probes.patches import patch_pixels
from eval.probes.search import nearest, unit
from eval.retrieval_segmentation import rules

CHANNELS, SIDE, SIZE, CLASSES = 384, 32, 512, 151
K, TEMPERATURE, NOISE = 30, 0.02, 4.0
PARTS = ("PatchBench", "PatchBench, 4 x the images", "plain")
STEPS = ("memory", "segmentation")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure dense retrieval: the making of a memory, and the segmentation of images by it."""

    train: int = 32  # Training images.
    test: int = 4  # Images to segment.
    memory: int = 16_384  # Patches in the memory.
    device: str = "cpu"  # `cpu` or `cuda`.


def draw(config: BenchmarkConfig, folder: Path) -> None:
    """For each image the labels, in blocks of random classes, and a feature per patch."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(CLASSES, CHANNELS, generator=generator)
    for name, count in (("train", 4 * config.train), ("test", config.test)):
        features = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (count, SIDE**2, CHANNELS))
        labels = np.lib.format.open_memmap(folder / f"{name}_labels.npy", "w+", np.uint8, (count, SIZE, SIZE))
        for image in range(count):
            coarse = torch.randint(CLASSES, (1, 1, 5, 5), generator=generator).float()
            labels[image] = F.interpolate(coarse, (SIZE, SIZE))[0, 0].byte().numpy()
            middles = patch_pixels(torch.from_numpy(labels[image])[None], SIDE)[0, :, 0].long()
            features[image] = (directions[middles] + NOISE * torch.randn(SIDE**2, CHANNELS, generator=generator)).numpy()


def read(folder: Path, name: str, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Features [N, D] and labels [S, S], image by image."""
    for image in range(count):
        arrays = (np.load(folder / f"{kind}.npy", mmap_mode="r")[image] for kind in (name, f"{name}_labels"))
        features, labels = (torch.from_numpy(np.array(array)) for array in arrays)
        yield features, labels


def draws_of(image: int) -> Tensor:
    return torch.rand(SIDE**2, generator=torch.Generator().manual_seed(image))


def plain(turns: Turns, config: BenchmarkConfig, folder: Path, device: torch.device) -> list[Tensor]:
    turns.begin()
    patch, features, labels = SIZE // SIDE, [], []
    for image, (features_ND, labels_SS) in enumerate(read(folder, "train", config.train)):
        pixels = labels_SS.long().reshape(SIDE, patch, SIDE, patch).transpose(1, 2).reshape(SIDE**2, -1)
        frequency, scores = torch.zeros(CLASSES), torch.zeros(SIDE**2)
        for each in pixels:
            frequency[each.unique()] += 1
        for place, each in enumerate(pixels):
            scores[place] = frequency[each.unique()].sum()
        chosen = (scores * draws_of(image)).topk(config.memory // config.train, largest=False).indices
        features.append(F.normalize(features_ND[chosen], dim=1))
        labels.append(F.one_hot(pixels, CLASSES).float().mean(1)[chosen])
    memory_MD, labels_MC = torch.cat(features).to(device), torch.cat(labels).to(device)
    turns.end()
    turns.begin()
    predictions = []
    for features_ND, _ in read(folder, "test", config.test):
        queries_ND = F.normalize(features_ND.to(device), dim=1)
        chosen = (queries_ND @ memory_MD.T).topk(K).indices
        weights = (torch.einsum("nd,nkd->nk", queries_ND, memory_MD[chosen]) / TEMPERATURE).softmax(1)
        votes = torch.einsum("nk,nkc->nc", weights, labels_MC[chosen])
        maps = F.interpolate(votes.T.reshape(1, CLASSES, SIDE, SIDE), (SIZE, SIZE), mode="bilinear")
        predictions.append(maps[0].argmax(0).cpu())
    turns.end()
    return predictions


def ours(turns: Turns, config: BenchmarkConfig, folder: Path, device: torch.device, images: int) -> list[Tensor]:
    turns.begin()
    per_image = config.memory // images
    rows = np.lib.format.open_memmap(folder / f"memory{images}.npy", "w+", np.float32, (config.memory, CHANNELS))
    pixels = np.empty((config.memory, (SIZE // SIDE) ** 2), np.uint8)
    for image, (features_ND, labels_SS) in enumerate(read(folder, "train", images)):
        pixels_NP = patch_pixels(labels_SS[None], SIDE)[0]
        chosen = rules.sample_patches(rules.class_counts(pixels_NP, CLASSES), draws_of(image), per_image)
        place = slice(image * per_image, (image + 1) * per_image)
        rows[place], pixels[place] = features_ND[chosen].numpy(), pixels_NP[chosen].numpy()
    del rows
    turns.end()
    turns.begin()
    stored = np.load(folder / f"memory{images}.npy", mmap_mode="r")
    blocks = (unit(torch.from_numpy(np.array(stored[start : start + 16384]))) for start in range(0, config.memory, 16384))
    queries = torch.cat([unit(features_ND) for features_ND, _ in read(folder, "test", config.test)])
    found = nearest(queries, blocks, K, device)
    predictions = []
    for scores_NK, indices_NK in zip(*(each.split(SIDE**2) for each in found), strict=True):
        rows_U, places_NK = indices_NK.unique(return_inverse=True)
        pixels_UP = torch.from_numpy(pixels[rows_U])
        votes_NC = rules.soft_votes(scores_NK, places_NK, pixels_UP, CLASSES, TEMPERATURE)
        predictions.append(rules.predict_softly(votes_NC, SIZE))
    turns.end()
    return predictions


def work(turns: Turns, part: str, config: BenchmarkConfig, folder: Path) -> torch.device:
    device = torch.device(config.device)
    images = config.train * (4 if "4 x" in part else 1)
    made = plain(turns, config, folder, device) if part == "plain" else ours(turns, config, folder, device, images)
    torch.save(made, folder / f"{part}.pt")
    return device


def benchmark(config: BenchmarkConfig, folder: Path) -> None:
    draw(config, folder)
    steps, memory = take_turns(work, PARTS, len(STEPS), config, folder, threads=1)
    made = {part: torch.load(folder / f"{part}.pt") for part in PARTS}
    print(f"{config.train} images into a memory of {config.memory} x {CHANNELS}, {config.test} segmented, {config.device}\n")
    rows: list[list[object]] = []
    for part in PARTS:
        clocks = [[step.cpu] for step in steps[part]]
        ratios = [ratio([step.cpu], of_part) for step, of_part in zip(steps["plain"], clocks, strict=True)]
        whole = sum(step.cpu for step in steps["plain"]) / sum(step.cpu for step in steps[part])
        differ = sum(int((ours != plain).sum()) for ours, plain in zip(made[part], made["plain"], strict=True))
        times = [f"{value:.2f}" for clock, times in zip(clocks, ratios, strict=True) for value in (*clock, times)]
        rows.append([part, *times, f"{whole:.2f}", memory[part] // MEBIBYTE, "" if "4 x" in part else differ])
    columns = [title for step in STEPS for title in (f"{step}: CPU s", "times as fast")]
    print_table(("", *columns, "both", "peak MiB", "pixels that differ from plain"), rows)


if __name__ == "__main__":
    run("probes", BenchmarkConfig, benchmark)
