"""What the backfill's tests share: an encoder that goes step by step, and waiting for what the database shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from revector.core.backfill.job.status import JobStatus, status
from revector.core.database import Connection
from revector.core.registry import Version


class Steps:
    """An encoder that encodes a batch for each step it is allowed; stands for none that exists."""

    name, revision, dimensions, max_tokens = "stub:steps", "1", 64, None

    def __init__(self, *, opened: bool = False, parallel: int = 1, price: float | None = 0.0) -> None:
        self.parallel, self.share, self.price = parallel, 1.0, price
        self.seen: list[str] = []
        self.began = threading.Semaphore(0)
        self._opened = threading.Event()
        self._steps = threading.Semaphore(0)
        if opened:
            self.open()

    def step(self, batches: int = 1) -> None:
        """Let so many batches through."""
        self._steps.release(batches)

    def open(self) -> None:
        """Let everything through."""
        self._opened.set()
        self._steps.release(1_000_000)

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.began.release()
        if not self._opened.is_set():
            self._steps.acquire()
        self.seen += texts
        vectors = np.ones((len(texts), self.dimensions), np.float32)
        vectors[:, 0] = [len(text) for text in texts]
        return vectors

    def encode_query(self, text: str) -> NDArray[np.float32]:
        return np.ones(self.dimensions, np.float32)

    def count_tokens(self, texts: Sequence[str]) -> int:
        return 1_000 * len(texts)

    def close(self) -> None: ...


def job_status(connection: Connection, version: Version) -> JobStatus:
    """The status of a backfill that is there."""
    found = status(connection, version)
    assert found is not None
    return found


def eventually(condition: Callable[[], object], *, seconds: float = 60) -> None:
    """Wait for a condition; fails when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
