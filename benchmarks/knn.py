"""k-NN classification: PatchBench beside the exact index of faiss and lightly's formula, on the same features.

    python -m benchmarks.knn [--train 100000 --test 2000 --features 384]

The features are drawn: as many Gaussian clusters as classes, of unit length. Seconds are wall time, the best of some rounds in turns;
peak memory is a process's beyond what it held before; each run has a process of its own. faiss (`IndexFlatIP`) and lightly's
`knn_predict` (lightly 1.6, `lightly/utils/benchmarking/knn.py`; its steps in plain torch: one similarity matrix, top-k, exponential
weights, one-hot sum, sort) get everything in memory; PatchBench reads its memory-mapped files. The votes on the neighbours that faiss
finds are PatchBench's.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from common.command import parse_config, run_command
from common.knn import classify
from common.memory import peak_memory_bytes
from common.neighbours import Neighbours, find_neighbours
from eval.classification.store import FeatureStore

CPU = torch.device("cpu")
_MEBIBYTE = 2**20
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
    """The best of so many."""
    only: str = ""
    """Measure only this one, by its name in the table."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What every implementation gets."""

    store: FeatureStore
    """Training features."""
    train_labels: Tensor
    """[N]"""
    test: Tensor
    """[T, D]"""
    test_labels: Tensor
    """[T]"""
    config: BenchmarkConfig
    """The options."""

    def bank(self) -> Tensor:
        """Training features in memory [N, D]."""
        return torch.cat([rows for _, rows in self.store.blocks(1)])

    def ranks(self, neighbours: Neighbours) -> Tensor:
        """Ranks of the right classes by PatchBench's votes."""
        config = self.config
        return classify(neighbours, self.train_labels, self.test_labels, [config.k], config.temperature, config.classes)[
            config.k
        ]


def draw(config: BenchmarkConfig, folder: Path) -> Problem:
    """Clusters of features, written to a store piece by piece."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(config.classes, config.features, generator=generator)

    def rows(labels: Tensor) -> Tensor:
        noise = torch.randn(len(labels), config.features, generator=generator)
        return F.normalize(centres[labels] + _SPREAD * noise, dim=1)

    store = FeatureStore(folder, {"benchmark": "drawn"}, config.train)
    train_labels = torch.randint(config.classes, (config.train,), generator=generator)
    for number in range(store.num_files):
        span = store.span(number)
        store.write(number, rows(train_labels[span.start : span.stop]).numpy())
    store.finish()
    test_labels = torch.randint(config.classes, (config.test,), generator=generator)
    return Problem(store=store, train_labels=train_labels, test=rows(test_labels), test_labels=test_labels, config=config)


def patchbench(problem: Problem) -> Tensor:
    """Ours, from the files."""
    return problem.ranks(find_neighbours(problem.test, problem.store, problem.config.k, CPU))


def faiss_flat(problem: Problem) -> Tensor:
    """Exact inner products by faiss."""
    index = faiss.IndexFlatIP(problem.config.features)
    index.add(problem.bank().numpy())
    similarities, indices = index.search(problem.test.numpy(), problem.config.k)
    return problem.ranks(Neighbours(torch.from_numpy(similarities).double(), torch.from_numpy(indices)))


def lightly_formula(problem: Problem) -> Tensor:
    """The steps of lightly, in batches of 256 test images as its benchmarks use."""
    bank_DN, config = problem.bank().t().contiguous(), problem.config
    parts = []
    for test, labels in zip(problem.test.split(256), problem.test_labels.split(256), strict=True):
        weights, indices = (test @ bank_DN).topk(config.k, dim=-1)
        neighbours = problem.train_labels[indices]
        one_hot = torch.zeros(neighbours.numel(), config.classes).scatter_(1, neighbours.reshape(-1, 1), 1.0)
        votes = (one_hot.view(len(test), config.k, config.classes) * (weights / config.temperature).exp()[:, :, None]).sum(1)
        parts.append((votes.argsort(dim=-1, descending=True) == labels[:, None]).float().argmax(1))
    return torch.cat(parts)


RUNS: dict[str, Callable[[Problem], Tensor]] = {
    "PatchBench": patchbench,
    "faiss IndexFlatIP": faiss_flat,
    "lightly's formula": lightly_formula,
}


def _measure(name: str, problem: Problem, results: "multiprocessing.Queue[tuple[float, int, npt.NDArray[np.int64]]]") -> None:
    torch.set_num_threads(problem.config.threads)
    faiss.omp_set_num_threads(problem.config.threads)
    before = peak_memory_bytes(CPU)
    start = time.perf_counter()
    ranks = RUNS[name](problem)
    results.put((time.perf_counter() - start, peak_memory_bytes(CPU) - before, ranks.numpy()))


def benchmark(config: BenchmarkConfig) -> None:
    """Print a Markdown table.

    Raises:
        ValueError: If `only` names none of the implementations.
    """
    if config.only and config.only not in RUNS:
        raise ValueError(f"only={config.only!r}; known: {', '.join(RUNS)}")
    names = [name for name in RUNS if config.only in ("", name)]
    context = multiprocessing.get_context("spawn")  # a forked process would count its parent's memory
    with tempfile.TemporaryDirectory() as folder:
        problem = draw(config, Path(folder))
        seconds, memory, ranks = dict.fromkeys(names, float("inf")), dict.fromkeys(names, 0), {}
        for _ in range(config.rounds):
            for name in names:
                results: multiprocessing.Queue[tuple[float, int, npt.NDArray[np.int64]]] = context.Queue()
                process = context.Process(target=_measure, args=(name, problem, results))
                process.start()
                elapsed, peak, ranks[name] = results.get()
                process.join()
                seconds[name], memory[name] = min(seconds[name], elapsed), max(memory[name], peak)
    print(f"{config.train} x {config.features}, {config.test} queries, k {config.k}, {config.threads} threads")
    print(f"torch {torch.__version__}, faiss {faiss.__version__}\n")
    print("| | s | times the first | peak MiB | top-1 | ranks that differ from the first's |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in names:
        top1 = 100 * float((ranks[name] == 0).mean())
        differing = int((ranks[name] != ranks[names[0]]).sum())
        ratio = seconds[name] / seconds[names[0]]
        print(f"| {name} | {seconds[name]:.2f} | {ratio:.2f} | {memory[name] / _MEBIBYTE:.0f} | {top1:.2f} | {differing} |")


def main(argv: Sequence[str]) -> int:
    """Parse, measure."""
    benchmark(parse_config(BenchmarkConfig, "python -m benchmarks.knn", argv))
    return 0


if __name__ == "__main__":
    run_command(main)
