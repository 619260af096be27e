import numpy as np
import pytest
import torch
from torch import Tensor

from common.neighbours import RowsInMemory, find_neighbours

CPU = torch.device("cpu")


def exhaustive(queries_TD: Tensor, bank_ND: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Every cosine in float64, sorted by similarity (to 12 decimals), then by index."""
    queries, bank = queries_TD.double().numpy(), bank_ND.double().numpy()
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    cosines = queries @ bank.T
    order = np.stack([np.lexsort((np.arange(len(bank)), -np.round(row, 12))) for row in cosines])[:, :k]
    return np.take_along_axis(cosines, order, axis=1), order


def random_rows(count: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 24, generator=generator) * scale + 0.5


@pytest.mark.parametrize(
    ("k", "queries_per_block", "rows_per_block"), [(1, 7, 50), (20, 64, 128), (200, 1024, 16384), (700, 5, 33)]
)
def test_equals_an_exhaustive_search_in_float64(k: int, queries_per_block: int, rows_per_block: int) -> None:
    bank, queries = random_rows(700, 0), random_rows(23, 1, scale=3.0)
    found = find_neighbours(queries, RowsInMemory(bank), k, CPU, queries_per_block, rows_per_block)
    similarities, order = exhaustive(queries, bank, k)
    np.testing.assert_array_equal(found.indices_Tk, order)
    np.testing.assert_allclose(found.similarities_Tk, similarities, rtol=0, atol=1e-12)


def test_of_equally_near_rows_the_lower_index_comes_first_wherever_the_blocks_end() -> None:
    bank = random_rows(60, 0).repeat(5, 1)[torch.randperm(300, generator=torch.Generator().manual_seed(2))]
    queries = bank[:40]
    _, order = exhaustive(queries, bank, 33)
    for rows_per_block in (7, 64, 300):
        np.testing.assert_array_equal(
            find_neighbours(queries, RowsInMemory(bank), 33, CPU, 16, rows_per_block).indices_Tk, order
        )


def test_collapsed_features() -> None:
    bank = torch.ones(500, 24)
    found = find_neighbours(torch.ones(3, 24), RowsInMemory(bank), 20, CPU, rows_per_block=64)
    assert found.indices_Tk.tolist() == [list(range(20))] * 3
    assert (found.similarities_Tk == 1).all()


def test_rows_that_float32_cannot_tell_apart() -> None:
    # Cosines with the query differ by about 1e-10: the float32 product orders these rows by chance.
    rng = np.random.default_rng(0)
    bank = torch.ones(400, 24)
    bank[:, 0] += torch.from_numpy(rng.permutation(400) * 2e-6).float()
    bank = torch.cat([bank, random_rows(400, 3)])
    queries = torch.ones(2, 24)
    similarities, order = exhaustive(queries, bank, 50)
    found = find_neighbours(queries, RowsInMemory(bank), 50, CPU, rows_per_block=128)
    np.testing.assert_allclose(found.similarities_Tk, similarities, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found.indices_Tk, order)
