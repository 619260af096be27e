"""The nearest rows of a memory: the same as by a full comparison in float64, for every engine and block size."""

import numpy as np
import pytest
import torch
from torch import Tensor

from eval.probes import search
from eval.probes.search import Engine, by_distance, nearest_rows, unit

CPU = torch.device("cpu")
ENGINES: list[Engine] = ["torch", "faiss"]


def everything(queries_TD: Tensor, rows_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest by a stable sort of all products."""
    products_TN = (queries_TD.double() @ rows_ND.double().T).mul(2**38).round()
    order = torch.argsort(products_TN, dim=1, descending=True, stable=True)[:, :k]
    return products_TN.gather(1, order) / 2**38, order


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sizes", [(7, 13), (64, 1000)])
def test_equal_to_a_full_comparison_for_every_engine_and_block_size(
    engine: Engine, sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "block_sizes", lambda device: sizes)
    generator = torch.Generator().manual_seed(0)
    rows = unit(torch.randn(300, 16, generator=generator))
    rows[200:240] = rows[100]  # more equal rows than neighbours
    rows[250] = rows[3] + 1e-7  # closer than float32 tells
    queries = torch.cat([unit(torch.randn(20, 16, generator=generator)), rows[[100, 3]]])
    found = nearest_rows(queries, rows.split(90), 9, CPU, engine)
    scores, indices = everything(queries, rows, 9)
    assert torch.equal(found.indices_Tk, indices)
    torch.testing.assert_close(found.scores_Tk, scores, rtol=0, atol=1e-11)


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_that_are_all_equal_are_taken_in_their_order(engine: Engine) -> None:
    """A collapsed backbone gives one vector for every patch."""
    rows = unit(torch.ones(500, 8))
    assert torch.equal(nearest_rows(rows[:3], [rows], 5, CPU, engine).indices_Tk, torch.arange(5).expand(3, 5))


def test_the_product_of_distances_orders_rows_as_the_distances_do() -> None:
    generator = torch.Generator().manual_seed(1)
    queries, rows = 3 * torch.randn(10, 6, generator=generator), 5 * torch.randn(80, 6, generator=generator)
    largest = float(torch.cat([queries, rows]).norm(dim=1).max())
    found = nearest_rows(by_distance(queries, largest, True), [by_distance(rows, largest, False)], 80, CPU)
    assert torch.equal(found.indices_Tk, torch.cdist(queries.double(), rows.double()).argsort(dim=1))
    assert float(by_distance(rows, largest, False).norm(dim=1).max()) <= 1


def test_a_fast_product_with_errors_within_its_bound_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As float16 on a GPU: with a wide bound, rows are ordered by the products in float64 all the same."""
    rows, queries = (unit(torch.from_numpy(np.random.default_rng(seed).normal(size=(400, 12)))) for seed in (0, 1))
    expected = everything(queries, rows, 5)[1]
    init = search.Candidates.__init__

    def in_half(self: search.Candidates, rows_MD: Tensor, k: int, engine: Engine) -> None:
        init(self, rows_MD, k, engine)
        self.dtype, self.slack = torch.float16, 2**-8
        self.rows = rows_MD.half()

    monkeypatch.setattr(search.Candidates, "__init__", in_half)
    assert torch.equal(nearest_rows(queries, rows.split(50), 5, CPU).indices_Tk, expected)


def test_more_rows_than_the_numbers_of_rows_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_ROWS", 32)
    with pytest.raises(ValueError, match="at most 32 patches; choose a smaller memory"):
        nearest_rows(torch.ones(1, 2), [torch.ones(40, 2)], 1, CPU)
