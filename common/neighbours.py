"""Nearest neighbours by cosine similarity, exact and in one pass over a bank that need not fit in memory.

Shapes: N rows of the bank, M of one of its blocks, T queries, D channels, K candidates, k neighbours.

A float32 product gives a few more candidates than wanted; their similarities are then computed in float64, and these decide. A bound
on float32's error proves that no other row of the bank can belong to the nearest; the queries for which it does not (ties, collapsed
features) are searched in float64 exhaustively. So the outcome depends neither on the order of floating-point sums, nor on blocks, nor
on the device.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

SPARE_CANDIDATES = 32
"""Candidates beyond k."""

_QUERIES_PER_RERANKING = 64

# Similarities are compared after rounding to this step, far above float64's error and far below any that matters, so that equal
# rows are equally near.
_STEP = 2.0**-40

_LEAST_NORM = 1e-12

_UNIT_ROUNDOFF = 2.0**-24


class Neighbours(NamedTuple):
    """The nearest rows of some queries."""

    similarities_Tk: Tensor
    """Cosines, float64, falling; a multiple of 2^-40."""
    indices_Tk: Tensor
    """Rows of the bank, int64; of equally near ones the lower comes first."""


class Bank(Protocol):
    """The rows among which neighbours are sought; `FeatureStore` is one."""

    @property
    def num_rows(self) -> int:
        """N."""
        ...

    def blocks(self, rows_per_block: int) -> Iterator[tuple[int, Tensor]]:
        """First row and rows [M, D], float32, on the CPU, of consecutive blocks."""
        ...

    def rows(self, indices: Tensor) -> Tensor:
        """Rows [R, D] by index [R], on the CPU."""
        ...


@dataclass(frozen=True)
class RowsInMemory:
    """A bank that fits in memory."""

    rows_ND: Tensor
    """float32, on the CPU."""

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.rows_ND)

    def blocks(self, rows_per_block: int) -> Iterator[tuple[int, Tensor]]:
        """See `Bank`."""
        for first in range(0, self.num_rows, rows_per_block):
            yield first, self.rows_ND[first : first + rows_per_block]

    def rows(self, indices: Tensor) -> Tensor:
        """See `Bank`."""
        return self.rows_ND[indices]


def find_neighbours(
    queries_TD: Tensor, bank: Bank, k: int, device: torch.device, queries_per_block: int = 1024, rows_per_block: int = 16384
) -> Neighbours:
    """Find the k nearest rows of a bank for every query.

    Args:
        queries_TD: float32 of any length, on the CPU.
        bank: Rows of any length.
        k: At most the bank's rows.
        device: Where to compute.
        queries_per_block: How many queries are compared at once.
        rows_per_block: With how many rows, at least.

    Returns:
        On the CPU.
    """
    assert 0 < k <= bank.num_rows
    queries = [part.to(device) for part in queries_TD.split(queries_per_block)]
    candidates = [_Candidates(len(part), min(k + SPARE_CANDIDATES, bank.num_rows), device) for part in queries]
    units = [F.normalize(part, dim=1) for part in queries]
    for first, rows_MD in bank.blocks(rows_per_block):
        rows_MD = F.normalize(rows_MD.to(device), dim=1)
        for unit, found in zip(units, candidates, strict=True):
            found.add(unit @ rows_MD.T, first)
    outcomes = [_rerank(part, found, bank, k) for part, found in zip(queries, candidates, strict=True)]
    similarities_Tk, indices_Tk = (torch.cat(parts) for parts in zip(*(outcome[0] for outcome in outcomes), strict=True))
    unproven_T = torch.cat([outcome[1] for outcome in outcomes])
    if unproven_T.any():
        places = unproven_T.nonzero()[:, 0]
        for some in places.split(_QUERIES_PER_RERANKING):
            similarities_Tk[some], indices_Tk[some] = _search_exhaustively(queries_TD[some], bank, k, device, rows_per_block)
    return Neighbours(similarities_Tk, indices_Tk)


class _Candidates:
    """The K highest float32 similarities so far of a block of queries."""

    def __init__(self, num_queries: int, number: int, device: torch.device) -> None:
        self.values_TK = torch.full((num_queries, number), -torch.inf, device=device)
        self.indices_TK = torch.zeros((num_queries, number), dtype=torch.int64, device=device)
        self.least_T = self.values_TK[:, -1]
        self.full = False

    def add(self, similarities_TM: Tensor, first: int) -> None:
        """Take note of a block of the bank that begins at row `first`."""
        number = self.values_TK.shape[1]
        if not self.full:
            values, indices = similarities_TM.topk(min(number, similarities_TM.shape[1]), dim=1, sorted=False)
        else:
            # Few can enter: these are gathered to [T, most] instead of sorting everything.
            rows, columns = (similarities_TM > self.least_T[:, None]).nonzero(as_tuple=True)
            counts_T = rows.bincount(minlength=len(similarities_TM))
            most = int(counts_T.max())
            if most == 0:
                return
            places = torch.arange(len(rows), device=rows.device) - (counts_T.cumsum(0) - counts_T)[rows]
            values = torch.full((len(counts_T), most), -torch.inf, device=rows.device)
            indices = torch.zeros((len(counts_T), most), dtype=torch.int64, device=rows.device)
            values[rows, places] = similarities_TM[rows, columns]
            indices[rows, places] = columns
        values = torch.cat([self.values_TK, values], dim=1)
        indices = torch.cat([self.indices_TK, indices + first], dim=1)
        self.values_TK, chosen = values.topk(number, dim=1)
        self.indices_TK = indices.gather(1, chosen)
        self.least_T = self.values_TK[:, -1]
        self.full = self.full or bool((self.least_T > -torch.inf).all())


def _rerank(queries_TD: Tensor, candidates: _Candidates, bank: Bank, k: int) -> tuple[Neighbours, Tensor]:
    """The k nearest of the candidates by float64, and [T] whether a row outside of the candidates might be as near."""
    parts = []
    for queries_tD, indices_tK in zip(
        queries_TD.split(_QUERIES_PER_RERANKING), candidates.indices_TK.split(_QUERIES_PER_RERANKING), strict=True
    ):
        indices_tK = indices_tK.sort(dim=1).values  # so that the stable sort below puts the lower of equally near ones first
        rows_tKD = bank.rows(indices_tK.flatten().cpu()).to(queries_tD.device).unflatten(0, indices_tK.shape)
        similarities_tK = _rounded(_cosines(rows_tKD, queries_tD))
        similarities_tK, order = similarities_tK.sort(dim=1, descending=True, stable=True)
        parts.append((similarities_tK[:, :k].cpu(), indices_tK.gather(1, order)[:, :k].cpu()))
    similarities_Tk, indices_Tk = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    if candidates.values_TK.shape[1] == bank.num_rows:
        return Neighbours(similarities_Tk, indices_Tk), torch.zeros(len(similarities_Tk), dtype=torch.bool)
    # A sum of D products of float32 numbers errs by at most D roundoffs of the sum of their magnitudes, here at most 1; the
    # normalisation of either vector adds less than D / 2 + 2.
    error = 2 * (queries_TD.shape[1] + 4) * _UNIT_ROUNDOFF
    unproven_T = similarities_Tk[:, -1] <= candidates.least_T.double().cpu() + error
    return Neighbours(similarities_Tk, indices_Tk), unproven_T


def _search_exhaustively(queries_TD: Tensor, bank: Bank, k: int, device: torch.device, rows_per_block: int) -> Neighbours:
    units_TD = _unit(queries_TD.to(device))
    similarities_Tk = torch.empty((len(units_TD), 0), dtype=torch.float64, device=device)
    indices_Tk = torch.empty((len(units_TD), 0), dtype=torch.int64, device=device)
    for first, rows_MD in bank.blocks(rows_per_block):
        similarities_TM = _rounded(units_TD @ _unit(rows_MD.to(device)).T)
        indices_TM = torch.arange(first, first + len(rows_MD), device=device).expand_as(similarities_TM)
        # Those found before have the lower indices: the stable sort leaves them in front.
        similarities_Tk, order = torch.cat([similarities_Tk, similarities_TM], dim=1).sort(dim=1, descending=True, stable=True)
        indices_Tk = torch.cat([indices_Tk, indices_TM], dim=1).gather(1, order)[:, :k]
        similarities_Tk = similarities_Tk[:, :k]
    return Neighbours(similarities_Tk.cpu(), indices_Tk.cpu())


def _cosines(rows_tKD: Tensor, queries_tD: Tensor) -> Tensor:
    """[t, K] in float64, as the product of `_unit` vectors up to rounding, without making these."""
    rows_tKD = rows_tKD.double()
    products_tK = (rows_tKD @ _unit(queries_tD)[:, :, None])[:, :, 0]
    return products_tK / torch.linalg.vector_norm(rows_tKD, dim=2).clamp_min(_LEAST_NORM)


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.double(), dim=-1, eps=_LEAST_NORM)


def _rounded(similarities: Tensor) -> Tensor:
    return (similarities / _STEP).round() * _STEP
