"""Many strings in two arrays."""

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class Names(Sequence[str]):
    """Strings that forked workers share for good.

    Python counts references inside each object, so that a list of a million paths is copied into every worker as soon as it is
    read; two arrays are not.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Store the strings.

        Args:
            names: In their order.
        """
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._text = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        """How many."""
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        """One, or several as a list."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self._text[self._ends[place] : self._ends[place + 1]].tobytes().decode("utf-8", "surrogateescape")
