"""k-NN classification: PatchBench beside the exact index of faiss, on the same features.

The features are drawn: as many Gaussian clusters as classes, of unit length. faiss (`IndexFlatIP`) gets everything in memory;
PatchBench reads a memory-mapped file, and votes on the neighbours that faiss finds, too.
"""

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.turns import MEBIBYTE, Turns, print_table, ratio, run, take_turns
from common.knn import Neighbours, classify, find_neighbours

CPU = torch.device("cpu")
PARTS = ("PatchBench", "faiss IndexFlatIP")
CHANNELS, CLASSES, K, TEMPERATURE, ROUNDS = 384, 1000, 200, 0.07, 2
_SPREAD = 4.0


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure weighted k-NN."""

    train: int = 100_000  # Labelled features.
    test: int = 2_000  # Features to classify.


def draw(config: BenchmarkConfig, folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, CHANNELS, generator=generator)
    for name, count in (("train", config.train), ("test", config.test)):
        labels = torch.randint(CLASSES, (count,), generator=generator)
        np.save(folder / f"{name}_labels.npy", labels.numpy())
        rows = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (count, CHANNELS))
        for piece in torch.arange(count).split(16384):
            noise = torch.randn(len(piece), CHANNELS, generator=generator)
            rows[piece[0] : piece[-1] + 1] = F.normalize(centres[labels[piece]] + _SPREAD * noise, dim=1).numpy()


def work(turns: Turns, part: str, folder: Path) -> torch.device:
    faiss.omp_set_num_threads(1)
    arrays = (np.load(folder / f"{name}.npy", mmap_mode="c") for name in ("train", "train_labels", "test", "test_labels"))
    train_ND, train_labels_N, test_TD, test_labels_T = map(torch.from_numpy, arrays)
    for _ in range(ROUNDS):
        turns.begin()
        if part == "PatchBench":
            neighbours = find_neighbours(test_TD, train_ND, K, CPU)
        else:
            index = faiss.IndexFlatIP(CHANNELS)
            index.add(train_ND.numpy())
            similarities, indices = index.search(test_TD.numpy(), K)
            neighbours = Neighbours(torch.from_numpy(similarities).double(), torch.from_numpy(indices))
        ranks = classify(neighbours, train_labels_N, test_labels_T, [K], TEMPERATURE, CLASSES)[K]
        turns.end(100 * float((ranks == 0).double().mean()))
    torch.save(ranks, folder / f"{part}.pt")
    return CPU


def benchmark(config: BenchmarkConfig, folder: Path) -> None:
    draw(config, folder)
    steps, memory = take_turns(work, PARTS, ROUNDS, folder, threads=1)
    ranks = {part: torch.load(folder / f"{part}.pt") for part in PARTS}
    print(f"{config.train} x {CHANNELS}, {config.test} queries, k {K}, one thread")
    print(f"torch {torch.__version__}, faiss {faiss.__version__}\n")
    rows = []
    for part in PARTS:
        cpu, ours = ([step.cpu for step in steps[each]] for each in (part, PARTS[0]))
        differing = int((ranks[part] != ranks[PARTS[0]]).sum())
        top1 = f"{steps[part][-1].value:.2f}"
        rows.append([part, f"{min(cpu):.2f}", f"{ratio(cpu, ours):.2f}", memory[part] // MEBIBYTE, top1, differing])
    print_table(("", "CPU s", "times ours", "peak MiB", "top-1", "ranks that differ from ours"), rows)


if __name__ == "__main__":
    run("knn", BenchmarkConfig, benchmark)
