"""How large a batch is, and how soon the next one may begin."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_FIRST = 256
_SMALLEST, _LARGEST = 16, 8192
_WEIGHT = 0.3
"""Weight of the newest batch in the moving average: the size follows a change within three or four batches."""


class BatchSize:
    """The size of the next batch, from an exponential moving average of the time a chunk takes.

    A size at most doubles or halves at a time, and stays between 16 and 8,192 rows.
    """

    def __init__(self, most: int = _LARGEST) -> None:
        self._most = max(1, min(_LARGEST, most))
        self.size = min(_FIRST, self._most)
        self._seconds = self._rows = 0.0
        self._lock = threading.Lock()

    def next(self, fixed: int | None, *, rate: float | None = None) -> int:
        """Rows of the next batch: `fixed` when set, and no more than the rate allows in a second."""
        size = min(fixed, self._most) if fixed is not None else self.size
        return min(size, max(1, int(rate))) if rate is not None else size

    def took(self, rows: int, seconds: float, target_s: float) -> None:
        """Record how long a batch took in its slowest stage."""
        if rows == 0 or seconds <= 0:
            return
        with self._lock:
            self._seconds += _WEIGHT * (seconds - self._seconds)
            self._rows += _WEIGHT * (rows - self._rows)
            wanted = target_s * self._rows / self._seconds
            low, high = max(min(_SMALLEST, self._most), self.size // 2), min(self._most, self.size * 2)
            self.size = int(min(high, max(low, wanted)))


class BatchPacer:
    """Spaces batches so that at most `rate` chunks a second begin; a changed rate applies at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began, self._chunks = clock(), 0

    def delay(self, rate: float | None) -> float:
        """Seconds until the next batch may begin at this rate; 0 when it may now."""
        if rate is None:
            return 0.0
        return max(0.0, self._began + self._chunks / rate - self._clock())

    def begin(self, chunks: int) -> None:
        """Record that a batch of that many chunks begins now."""
        self._began, self._chunks = self._clock(), chunks
