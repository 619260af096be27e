"""Probes on frozen features: dense retrieval beside a plain implementation, what a linear probe adds to the backbone, and k-NN.

Plain retrieval does what open-hummingbird-eval does, one image after the other: it counts the classes of every patch in Python, keeps
one-hot labels, multiplies an image's patches with the whole memory at once and enlarges the probabilities of all classes. Features
are drawn: a direction for each class, and noise. PatchBench runs once more on a memory of the same size from four times as many
images, to show that its own memory does not grow.

The backbone is a ViT-S/16 with random weights on crops of 512 pixels. Beside its forward pass alone stand a training step of linear
segmentation under DINOv3's protocol, the same step as plain PyTorch has it, and reading the same patches from the cache. Seconds are
medians over rounds in turns: CPU time, and on a GPU that of the clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.build import build_backbone
from backbones.spec import ViTSpec
from benchmarks.turns import FASTER, MEBIBYTE, Table, Turns, ratio, rounds, run, take_turns
from common.knn import find_neighbours
from eval.linear_segmentation.protocol import RULES
from eval.linear_segmentation.training import make_optimizer, train_step
from eval.probes.cache import FeatureStore
from eval.probes.features import FrozenFeatures
from eval.probes.heads import LinearHead, kept_channels
from eval.probes.patches import Patches, patch_pixels
from eval.retrieval_segmentation import rules
from eval.retrieval_segmentation.protocol import Labels, Settings
from eval.retrieval_segmentation.retrieval import Retrieval

CHANNELS, SIDE, SIZE, CLASSES, NOISE = 384, 32, 512, 151, 4.0
K, TEMPERATURE = 30, 0.02  # hummingbird's
SEGMENTATIONS = 2  # in the first of which a GPU chooses its kernels
PARTS = ("PatchBench", "PatchBench, 4 x the images", "plain")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure dense retrieval, the step of a linear probe, and the cache of features."""

    train: int = 32  # Images whose patches are remembered.
    test: int = 4  # Images to segment.
    memory: int = 16_384  # Patches in the memory.
    batch_size: int = 16  # Images of the linear probe's step.
    rounds: int = 3  # Steps of the linear probe, and searches of neighbours.
    features: int = 50_000  # Features among which neighbours are sought.
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


def read(folder: Path, name: str, count: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Features [N, D], labels [S, S] and uniform draws [N], image by image."""
    for image in range(count):
        arrays = (np.load(folder / f"{kind}.npy", mmap_mode="r")[image] for kind in (name, f"{name}_labels"))
        features, labels = (torch.from_numpy(np.array(array)) for array in arrays)
        yield features, labels, torch.rand(SIDE**2, generator=torch.Generator().manual_seed(image))


def plain(turns: Turns, config: BenchmarkConfig, folder: Path, device: torch.device) -> list[Tensor]:
    turns.begin()
    patch, features, labels = SIZE // SIDE, [], []
    for features_ND, labels_SS, draws_N in read(folder, "train", config.train):
        pixels = labels_SS.long().reshape(SIDE, patch, SIDE, patch).transpose(1, 2).reshape(SIDE**2, -1)
        frequency, scores = torch.zeros(CLASSES), torch.zeros(SIDE**2)
        for each in pixels:
            frequency[each.unique()] += 1
        for place, each in enumerate(pixels):
            scores[place] = frequency[each.unique()].sum()
        chosen = (scores * draws_N).topk(config.memory // config.train, largest=False).indices
        features.append(F.normalize(features_ND[chosen], dim=1))
        labels.append(F.one_hot(pixels, CLASSES).float().mean(1)[chosen])
    memory_MD, labels_MC = torch.cat(features).to(device), torch.cat(labels).to(device)
    turns.end()
    predictions: list[Tensor] = []
    for _ in range(SEGMENTATIONS):
        turns.begin()
        predictions.clear()
        for features_ND, _, _ in read(folder, "test", config.test):
            queries_ND = F.normalize(features_ND.to(device), dim=1)
            chosen = (queries_ND @ memory_MD.T).topk(K).indices
            weights = (torch.einsum("nd,nkd->nk", queries_ND, memory_MD[chosen]) / TEMPERATURE).softmax(1)
            votes = torch.einsum("nk,nkc->nc", weights, labels_MC[chosen])
            maps = F.interpolate(votes.T.reshape(1, CLASSES, SIDE, SIDE), (SIZE, SIZE), mode="bilinear")
            predictions.append(maps[0].argmax(0).cpu())
        turns.end()
    return predictions


def stored(folder: Path, kept: int, features: list[Tensor], pixels: list[Tensor]) -> Patches:
    """Patches in files, as the task reads them."""
    view: Any = SimpleNamespace(kept=kept, size=SIZE)
    stores = []
    for part in (features, pixels):
        rows = torch.cat(part).numpy()
        store = FeatureStore(folder, {"kind": str(rows.dtype)}, len(rows), rows.shape[1:], rows.dtype, len(rows))
        store.write(0, rows)
        stores.append(store)
    nothing: Any = None
    return Patches(split=nothing, view=view, side=SIDE, channels=CHANNELS, features=stores[0], pixels=stores[1])


def ours(turns: Turns, config: BenchmarkConfig, folder: Path, device: torch.device, images: int) -> list[Tensor]:
    turns.begin()
    features, pixels, kept = [], [], config.memory // images
    for features_ND, labels_SS, draws_N in read(folder, "train", images):
        pixels_NP = patch_pixels(labels_SS[None], SIDE)[0]
        chosen = rules.sample_patches(rules.class_counts(pixels_NP, CLASSES), draws_N, kept)
        features.append(features_ND[chosen])
        pixels.append(pixels_NP[chosen])
    train = stored(folder / f"train{images}", kept, features, pixels)
    turns.end()
    asking = [
        (features_ND, patch_pixels(labels_SS[None], SIDE)[0]) for features_ND, labels_SS, _ in read(folder, "test", config.test)
    ]
    test = stored(folder / f"test{images}", SIDE**2, *map(list, zip(*asking, strict=True)))
    labels = Labels(("",) * CLASSES, (), ())
    predictions: list[Tensor] = []
    for _ in range(SEGMENTATIONS):
        turns.begin()
        retrieval = Retrieval(Settings(), labels, train, test, device, "torch", 0)
        memory = retrieval.remember(range(images), "cosine")
        predictions = [maps[0] for _, maps in retrieval.segment(test, range(config.test), memory, [K])]
        turns.end()
    return predictions


def work(turns: Turns, part: str, config: BenchmarkConfig, folder: Path) -> torch.device:
    device = torch.device(config.device)
    images = config.train * (4 if "4 x" in part else 1)
    made = plain(turns, config, folder, device) if part == "plain" else ours(turns, config, folder, device, images)
    torch.save(made, folder / f"{part}.pt")
    return device


def measure_retrieval(config: BenchmarkConfig, folder: Path) -> Iterator[Table]:
    draw(config, folder)
    steps, memory = take_turns(work, PARTS, 1 + SEGMENTATIONS, config, folder, threads=1)
    made = {part: torch.load(folder / f"{part}.pt") for part in PARTS}
    clock = 1 if config.device == "cpu" else 0
    taken = {part: [step[clock] for step in (steps[part][0], steps[part][-1])] for part in PARTS}
    rows = []
    for part in PARTS:
        row: dict[str, Any] = {"": part}
        for stage, before, after in zip(("memory", "segmentation"), taken["plain"], taken[part], strict=True):
            row |= {f"{stage}: s": after, f"{stage}: times as fast": before / after}
        differ = sum(int((ours != plain).sum()) for ours, plain in zip(made[part], made["plain"], strict=True))
        row |= {FASTER: sum(taken["plain"]) / sum(taken[part]), "peak MiB": memory[part] // MEBIBYTE}
        rows.append(row | {"pixels that differ from plain": "" if "4 x" in part else differ})
    remembered = f"{config.train} images into a memory of {config.memory} x {CHANNELS}"
    yield Table(f"{remembered}, {config.test} segmented, {config.device}", rows)


def measure_linear_probe(config: BenchmarkConfig, folder: Path) -> Iterator[Table]:
    """The backbone's forward pass alone, a step of the linear probe, and its patches read from the cache, as retrieval does."""
    device, batch, protocol = torch.device(config.device), config.batch_size, RULES["dinov3"]
    spec = ViTSpec(embed_dim=CHANNELS, depth=12, num_heads=6, patch_size=16, image_size=224, class_token=True, final_norm=True)
    extract = FrozenFeatures(build_backbone(spec), device)
    heads = [LinearHead(CHANNELS, CLASSES - 1, True, protocol.weight_deviation, seed=0).to(device).train() for _ in range(2)]
    optimizer, plain_optimizer = (make_optimizer([head], protocol) for head in heads)
    images_B3SS, labels_BSS = torch.randn(batch, 3, SIZE, SIZE), torch.randint(CLASSES - 1, (batch, SIZE, SIZE))
    rows_RD = extract(images_B3SS)[0].cpu().flatten(2).transpose(1, 2).flatten(0, 1)
    patches = stored(folder, SIDE**2, [rows_RD], [patch_pixels(labels_BSS.to(torch.uint8), SIDE).flatten(0, 1)])

    def forward() -> None:
        extract(images_B3SS)

    def step() -> None:
        maps, labels = extract(images_B3SS), labels_BSS.to(device, torch.uint8)
        kept_BD = kept_channels(batch, CHANNELS, protocol.dropout, seed=0)
        assert kept_BD is not None
        train_step(heads[:1], optimizer, [maps], labels, [1e-3], [kept_BD.to(device)], protocol).tolist()

    def plain_step() -> None:
        """With logits enlarged to the size of the labels."""
        with torch.no_grad():
            (maps,) = extract.backbone.forward_maps(images_B3SS.to(device), [11])
        logits = F.interpolate(heads[1]([maps]), (SIZE, SIZE), mode="bilinear")
        plain_optimizer.zero_grad()
        F.cross_entropy(logits, labels_BSS.to(device), ignore_index=255).backward()
        plain_optimizer.step()

    parts = {
        "forward": forward,
        "step": step,
        "plain step": plain_step,
        "patches from the cache": lambda: patches.features.rows(patches.rows_of(range(batch))).to(device),
    }
    seconds, _, memory = rounds(parts, config.rounds, device)
    rows = [
        {
            "": part,
            "s": median(taken),
            "of the forward pass": ratio(taken, seconds["forward"]),
            FASTER: ratio(seconds["plain step"], taken),
            **memory[part],
        }
        for part, taken in seconds.items()
    ]
    yield Table(f"ViT-S/16, {batch} crops of {SIZE} pixels, {config.device}; times as fast as the plain step", rows)


def measure_knn(config: BenchmarkConfig, _folder: Path) -> Iterator[Table]:
    """With vectors of unit length around as many centres as ImageNet has classes."""
    generator, device = torch.Generator().manual_seed(0), torch.device(config.device)
    centres = torch.randn(1000, CHANNELS, generator=generator)
    train_ND, test_TD = (
        F.normalize(centres[torch.arange(count) % 1000] + NOISE * torch.randn(count, CHANNELS, generator=generator), dim=1)
        for count in (config.features, 1_000)
    )

    import faiss  # of which a benchmark on a GPU needs nothing else

    faiss.omp_set_num_threads(1)

    def by_faiss() -> Tensor:
        index = faiss.IndexFlatIP(CHANNELS)
        index.add(train_ND.numpy())
        return torch.from_numpy(index.search(test_TD.numpy(), 200)[1])

    parts = {
        "PatchBench": lambda: find_neighbours(test_TD, train_ND, 200, device).indices_Tk,
        "plain": lambda: (test_TD.to(device) @ train_ND.to(device).T).topk(200).indices.cpu(),
        "faiss, on the CPU": by_faiss,
    }
    seconds, found, memory = rounds(parts, config.rounds, device)
    rows = [
        {
            "": part,
            "s": median(taken),
            FASTER: ratio(seconds["plain"], taken),
            "neighbours that differ from ours": int((found["PatchBench"] != found[part]).sum()),
            **memory[part],
        }
        for part, taken in seconds.items()
    ]
    yield Table(f"200 nearest of {len(train_ND)} x {CHANNELS} for {len(test_TD)}, {config.device}", rows)


def benchmark(config: BenchmarkConfig, folder: Path) -> Iterator[Table]:
    yield from measure_retrieval(config, folder)
    yield from measure_linear_probe(config, folder)
    yield from measure_knn(config, folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run("probes", BenchmarkConfig, benchmark)
