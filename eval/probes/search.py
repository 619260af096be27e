"""The nearest rows of a memory that is read block by block, exactly, by any engine and on any device the same.

A fast product finds which rows of a block can be among the nearest; these alone are compared in float64. `slack` bounds the error of
the fast product, so no row is missed, and what comes out does not depend on block sizes, on the device or on the engine.

Shapes: T queries, M rows of a block, D channels, k neighbours, P pairs of a query and a row.
"""

import importlib.util
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.distributed import full_float32

Engine = Literal["torch", "faiss"]

MOST_ROWS = 2**24
# A score is compared as a whole number of steps, far larger than float64's error: equal rows are equally near, and of these the lower
# is the nearer. Together with the row's number it fits into 64 bits.
_STEPS = 2**38
_LOWEST = -(2**63)
_PAIRS_AT_ONCE = {"cpu": 2**12, "cuda": 2**16}  # compared in float64; on a CPU so few that a core's cache holds them


class Neighbours(NamedTuple):
    """The nearest rows of some queries, of equally near ones the lower first."""

    scores_Tk: Tensor  # inner products: float64, falling, rounded to about 4e-12
    indices_Tk: Tensor  # row numbers: int64


def unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1 in float32, whose inner product is the cosine; all but equal on all devices, since float64 is rounded."""
    return F.normalize(vectors.double(), dim=-1).float()


def by_distance(vectors: Tensor, largest: float, are_queries: bool) -> Tensor:
    """Vectors [.., D + 1] whose inner product is the larger, the smaller the Euclidean distance of query and row is.

    No vector is longer than `largest`; so none of these is longer than 1.
    """
    scaled = vectors.double() / largest
    last = torch.ones_like(scaled[..., :1]) if are_queries else -scaled.square().sum(-1, keepdim=True) / 2
    return (torch.cat([scaled, last], dim=-1) / 2**0.5).float()


def block_sizes(device: torch.device) -> tuple[int, int]:
    """How many queries and rows are compared at once: 64 MB of products in float32 on a CPU, 256 MB in float16 on a GPU."""
    return (4096, 32768) if device.type == "cuda" else (1024, 16384)


def memory_bytes(device: torch.device) -> int:
    """How much a search holds at most besides its queries, on a device or here."""
    queries, rows = block_sizes(device)
    return 24 * queries * rows + (1 << 29)  # products, pairs of them at worst, and the block itself in several types


def require_engine(engine: Engine) -> None:
    if engine == "faiss" and importlib.util.find_spec("faiss") is None:
        raise ValueError("faiss is not installed; pip install faiss-cpu, or let torch search")


@torch.no_grad()
@full_float32()
def nearest_rows(
    queries_TD: Tensor, blocks: Iterable[Tensor], k: int, device: torch.device, engine: Engine = "torch"
) -> Neighbours:
    """Find the k rows with the largest inner products for every query, in one pass over the blocks [M, D]; on the CPU.

    No vector is longer than 1. There are k to 2^24 rows.
    """
    queries_at_once, rows_at_once = block_sizes(device)
    parts = [part.to(device) for part in queries_TD.split(queries_at_once)]
    found = [torch.full((len(part), k), _LOWEST, device=device) for part in parts]
    first = 0
    for rows_MD in (piece for block in blocks for piece in block.split(rows_at_once)):
        if first + len(rows_MD) > MOST_ROWS:
            raise ValueError(f"neighbours are sought among at most {MOST_ROWS:,} patches; choose a smaller memory")
        rows_MD = rows_MD.to(device)
        candidates = Candidates(rows_MD, k, engine)
        for number, part in enumerate(parts):
            queries_P, rows_P = candidates(part, _scores(found[number][:, -1])).nonzero(as_tuple=True)
            keys_P = torch.cat(list(_keys(part, rows_MD, queries_P, rows_P, first)))
            found[number] = _merged(found[number], queries_P, keys_P)
        first += len(rows_MD)
    assert first >= k, "the memory has fewer rows"
    keys_Tk = torch.cat(found).cpu()
    return Neighbours(_scores(keys_Tk), MOST_ROWS - 1 - keys_Tk % MOST_ROWS)


def _scores(keys: Tensor) -> Tensor:
    return keys.div(MOST_ROWS, rounding_mode="floor").double() / _STEPS


class Candidates:
    """Which rows of a block [T, M] can be among the k nearest of queries whose k-th score so far is given: none is missed."""

    def __init__(self, rows_MD: Tensor, k: int, engine: Engine) -> None:
        self.k, self.engine = min(k, len(rows_MD)), engine
        # In float16, each factor and the product are rounded to 11 bits, and a GPU may add up parts of a product in float16.
        half = rows_MD.device.type == "cuda" and engine == "torch"
        self.slack = 2**-8 if half else rows_MD.shape[1] * 2**-22
        self.dtype = torch.float16 if half else torch.float32
        self.rows = rows_MD.to(self.dtype)
        if engine == "faiss":
            import faiss  # not everyone who evaluates has it

            self.index = faiss.IndexFlatIP(rows_MD.shape[1])
            self.index.add(self.rows.cpu().numpy())

    def __call__(self, queries_TD: Tensor, kth_T: Tensor) -> Tensor:
        return self._by_faiss(queries_TD, kth_T) if self.engine == "faiss" else self._by_torch(queries_TD, kth_T)

    def _by_torch(self, queries_TD: Tensor, kth_T: Tensor) -> Tensor:
        products_TM = queries_TD.to(self.dtype) @ self.rows.T
        if bool((kth_T < -1.5).any()):  # nothing is known yet of what is near
            kth_T = torch.maximum(kth_T, products_TM.topk(self.k).values[:, -1] - self.slack)
        # In the products' type, whose rounding `slack` allows for: otherwise all products would be copied into float64.
        return products_TM >= (kth_T - self.slack).to(self.dtype)[:, None]

    def _by_faiss(self, queries_TD: Tensor, kth_T: Tensor) -> Tensor:
        """Of queries that may have more candidates than were asked for, every row is one."""
        asked = min(2 * self.k + 16, len(self.rows))
        products, places = self.index.search(queries_TD.cpu().numpy(), asked)
        products_Tc, places_Tc = (torch.from_numpy(each).to(kth_T.device) for each in (products, places))
        least_T1 = torch.maximum(kth_T, products_Tc[:, self.k - 1] - self.slack)[:, None] - self.slack
        near_TM = torch.zeros(len(queries_TD), len(self.rows), dtype=torch.bool, device=kth_T.device)
        near_TM.scatter_(1, places_Tc, products_Tc >= least_T1)
        if asked < len(self.rows):
            near_TM |= products_Tc[:, -1:] >= least_T1
        return near_TM


def _keys(queries_TD: Tensor, rows_MD: Tensor, queries_P: Tensor, rows_P: Tensor, first: int) -> Iterator[Tensor]:
    """Score and number of the row in one number, the larger the nearer, for each pair."""
    at_once = _PAIRS_AT_ONCE[rows_MD.device.type]
    for queries, rows in zip(queries_P.split(at_once), rows_P.split(at_once), strict=True):
        scores = (queries_TD[queries].double() * rows_MD[rows].double()).sum(1)
        yield scores.mul_(_STEPS).round_().long().mul_(MOST_ROWS).add_(MOST_ROWS - 1 - first).sub_(rows)


def _merged(keys_Tk: Tensor, queries_P: Tensor, keys_P: Tensor) -> Tensor:
    """The k largest of the keys so far and of the new ones; the queries of the pairs ascend."""
    counts_T = queries_P.bincount(minlength=len(keys_Tk))
    starts_T = counts_T.cumsum(0) - counts_T
    new = torch.full((len(keys_Tk), int(counts_T.max())), _LOWEST, device=keys_Tk.device)
    new[queries_P, torch.arange(len(queries_P), device=keys_Tk.device) - starts_T[queries_P]] = keys_P
    return torch.cat([keys_Tk, new], dim=1).topk(keys_Tk.shape[1], dim=1).values
