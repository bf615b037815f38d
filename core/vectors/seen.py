"""Which chunks earlier rows of a file named: one bit for each chunk id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_IDS = 2**30
"""128 MiB of address space; a page takes memory only once one of its bits is set."""


class Seen:
    """Chunk ids from `first` to `last`; others, and those beyond 2**30 of them, never count as seen.

    `rows` is how many rows, from the file's start, have been added.
    """

    def __init__(self, first: int, last: int) -> None:
        self.rows = 0
        self._first = first
        self._last = min(last, first + _MOST_IDS - 1)
        self._bits = np.zeros((self._last - first) // 8 + 1, np.uint8)

    def add(self, chunk_ids: NDArray[np.int64], rows: int) -> None:
        """Add the chunks of the next `rows` rows."""
        places = chunk_ids[self._inside(chunk_ids)] - self._first
        np.bitwise_or.at(self._bits, places >> 3, np.left_shift(1, places & 7).astype(np.uint8))
        self.rows += rows

    def has(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these chunks were added."""
        inside = self._inside(chunk_ids)
        places = np.where(inside, chunk_ids - self._first, 0)
        found: NDArray[np.bool_] = inside & ((self._bits[places >> 3] >> (places & 7).astype(np.uint8)) & 1 == 1)
        return found

    def _inside(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (chunk_ids >= self._first) & (chunk_ids <= self._last)
