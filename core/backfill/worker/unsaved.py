"""Vectors that could not be stored because the database was lost, so that they are not paid for twice.

A chunk never changes, so its vector stays right; it is used when the chunk is read again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from revector.core.backfill.worker.batches import Batch, Encoded


class UnsavedVectors:
    """What one worker keeps across a lost connection: at most the batches it was working on."""

    def __init__(self) -> None:
        self._vectors: dict[int, NDArray[np.float32]] = {}
        self._spent_usd = 0.0
        self._lock = threading.Lock()

    def keep(self, encoded: Encoded) -> None:
        """Keep the vectors of a batch that could not be stored, and their cost."""
        with self._lock:
            self._vectors.update(zip(encoded.chunk_ids.tolist(), encoded.vectors, strict=True))
            self._spent_usd += encoded.spent_usd

    def take(
        self, batch: Batch, rows: Sequence[int]
    ) -> tuple[list[int], list[NDArray[np.float32]], list[int], float]:
        """The kept chunk ids and vectors for a batch, the rows without one, and the cost not yet recorded."""
        with self._lock:
            spent, self._spent_usd = self._spent_usd, 0.0
            if not self._vectors:
                return [], [], list(rows), spent
            known = [row for row in rows if batch.ids[row] in self._vectors]
            ids = [batch.ids[row] for row in known]
            vectors = [self._vectors.pop(chunk_id) for chunk_id in ids]
            left = set(known)
            return ids, vectors, [row for row in rows if row not in left], spent
