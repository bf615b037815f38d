"""Encoders for tests; they do not imitate real ones."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Stub:
    """Answers at once, and records what it got: the base of a test's own encoder.

    Vectors are filled with `value`; those of the texts in `bad` have no number at one place. With an `error` it
    raises that.
    """

    name, revision, max_tokens = "stub:test", "1", None
    price: float | None = 0.0

    def __init__(
        self, dimensions: int = 64, *, value: float = 1.0, bad: Sequence[str] = (), error: Exception | None = None
    ) -> None:
        self.dimensions, self.value, self.bad, self.error = dimensions, value, bad, error
        self.seen: list[str] = []

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.seen += texts
        if self.error:
            raise self.error
        vectors = np.full((len(texts), self.dimensions), self.value, np.float32)
        vectors[[text in self.bad for text in texts], 1] = np.nan
        return vectors

    def encode_query(self, _text: str) -> NDArray[np.float32]:
        return np.ones(self.dimensions, np.float32)

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(map(len, texts))

    def close(self) -> None: ...


class Steps(Stub):
    """Encodes a batch for each step it is allowed."""

    def __init__(self, *, opened: bool = False, parallel: int = 1, price: float | None = 0.0) -> None:
        super().__init__()
        self.parallel, self.share, self.price = parallel, 1.0, price
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
        return super().encode_documents(texts)

    def count_tokens(self, texts: Sequence[str]) -> int:
        return 1_000 * len(texts)
