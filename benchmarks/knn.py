"""k-NN classification: PatchBench beside the exact index of faiss and lightly's formula, on the same features.

    python -m benchmarks.knn [--train 100000 --test 2000 --features 384]

The features are drawn: as many Gaussian clusters as classes, of unit length. Each is a process of its own; they take turns. faiss
(`IndexFlatIP`) and lightly's `knn_predict` (lightly 1.6, `lightly/utils/benchmarking/knn.py`; its steps in plain torch: one
similarity matrix, top-k, exponential weights, one-hot sum, sort) get everything in memory; PatchBench reads a memory-mapped file.
The votes on the neighbours that faiss finds are PatchBench's.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.turns import MEBIBYTE, Turns, ratio, table, take_turns
from common.cli import parse, run_command
from common.knn import Neighbours, classify, find_neighbours

CPU = torch.device("cpu")
_SPREAD = 4.0


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure weighted k-NN."""

    train: int = 100_000
    """Labelled features."""
    test: int = 2_000
    """Features to classify."""
    features: int = 384
    """Channels."""
    classes: int = 1000
    """Classes."""
    k: int = 200
    """Neighbours that vote."""
    temperature: float = 0.07
    """Of the votes."""
    threads: int = 1
    """Threads of torch and faiss."""
    rounds: int = 2
    """How often each classifies."""


@dataclass(frozen=True)
class Problem:
    """What every implementation gets."""

    config: BenchmarkConfig
    train_ND: Tensor
    """Memory-mapped."""
    train_labels_N: Tensor
    test_TD: Tensor
    test_labels_T: Tensor

    def ranks(self, neighbours: Neighbours) -> Tensor:
        """Ranks of the right classes by PatchBench's votes."""
        config, labels = self.config, (self.train_labels_N, self.test_labels_T)
        return classify(neighbours, *labels, [config.k], config.temperature, config.classes)[config.k]


def draw(config: BenchmarkConfig, folder: Path) -> None:
    """Write clusters of features, piece by piece."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(config.classes, config.features, generator=generator)
    for name, count in (("train", config.train), ("test", config.test)):
        labels = torch.randint(config.classes, (count,), generator=generator)
        np.save(folder / f"{name}_labels.npy", labels.numpy())
        rows = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (count, config.features))
        for piece in torch.arange(count).split(16384):
            noise = torch.randn(len(piece), config.features, generator=generator)
            rows[piece[0] : piece[-1] + 1] = F.normalize(centres[labels[piece]] + _SPREAD * noise, dim=1).numpy()


def read(config: BenchmarkConfig, folder: Path) -> Problem:
    tensors = [torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in ("train", "train_labels")]
    return Problem(config, *tensors, *(torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("test", "test_labels")))


def patchbench(problem: Problem) -> Tensor:
    return problem.ranks(find_neighbours(problem.test_TD, problem.train_ND, problem.config.k, CPU))


def faiss_flat(problem: Problem) -> Tensor:
    index = faiss.IndexFlatIP(problem.config.features)
    index.add(problem.train_ND.numpy())
    similarities, indices = index.search(problem.test_TD.numpy(), problem.config.k)
    return problem.ranks(Neighbours(torch.from_numpy(similarities).double(), torch.from_numpy(indices)))


def lightly_formula(problem: Problem) -> Tensor:
    """In batches of 256 test images, as lightly's benchmarks use."""
    bank_DN, config = problem.train_ND.t().contiguous(), problem.config
    parts = []
    for test, labels in zip(problem.test_TD.split(256), problem.test_labels_T.split(256), strict=True):
        weights, indices = (test @ bank_DN).topk(config.k, dim=-1)
        neighbours = problem.train_labels_N[indices]
        one_hot = torch.zeros(neighbours.numel(), config.classes).scatter_(1, neighbours.reshape(-1, 1), 1.0)
        votes = (one_hot.view(len(test), config.k, config.classes) * (weights / config.temperature).exp()[:, :, None]).sum(1)
        parts.append((votes.argsort(dim=-1, descending=True) == labels[:, None]).float().argmax(1))
    return torch.cat(parts)


RUNS: dict[str, Callable[[Problem], Tensor]] = {
    "PatchBench": patchbench,
    "faiss IndexFlatIP": faiss_flat,
    "lightly's formula": lightly_formula,
}


def work(turns: Turns, part: str, config: BenchmarkConfig, folder: Path) -> torch.device:
    torch.set_num_threads(config.threads)
    faiss.omp_set_num_threads(config.threads)
    problem = read(config, folder)
    for _ in range(config.rounds):
        turns.begin()
        ranks = RUNS[part](problem)
        turns.end(100 * float((ranks == 0).double().mean()))
    torch.save(ranks, folder / f"{part}.pt")
    return CPU


def benchmark(config: BenchmarkConfig) -> None:
    """Print a Markdown table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(config, folder)
        steps, memory = take_turns(work, list(RUNS), config.rounds, config, folder)
        ranks = {part: torch.load(folder / f"{part}.pt") for part in RUNS}
    print(f"{config.train} x {config.features}, {config.test} queries, k {config.k}, {config.threads} threads")
    print(f"torch {torch.__version__}, faiss {faiss.__version__}\n")
    rows = []
    for part, taken in steps.items():
        cpu, ours = [step.cpu for step in taken], [step.cpu for step in steps["PatchBench"]]
        differing = int((ranks[part] != ranks["PatchBench"]).sum())
        rows.append(
            [part, f"{min(cpu):.2f}", f"{ratio(cpu, ours):.2f}", memory[part] // MEBIBYTE, f"{taken[-1].value:.2f}", differing]
        )
    table(" | CPU s | times ours | peak MiB | top-1 | ranks that differ from ours", rows)


def main(argv: Sequence[str]) -> int:
    benchmark(parse(BenchmarkConfig, argv, "python -m benchmarks.knn"))
    return 0


if __name__ == "__main__":
    run_command(main)
