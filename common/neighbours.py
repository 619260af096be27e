# shim: remove
from torch import Tensor

from common.knn import Neighbours, find_neighbours


def RowsInMemory(rows_ND: Tensor) -> Tensor:  # noqa: N802
    """`find_neighbours` takes a tensor itself."""
    return rows_ND


__all__ = ["Neighbours", "RowsInMemory", "find_neighbours"]
