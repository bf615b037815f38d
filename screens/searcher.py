"""Searches two versions on a connection that stays open, so that the times shown are those of the search."""

from __future__ import annotations

import contextlib
import threading

from core.database import Connection
from core.errors import UnreachableError
from core.registry import Version
from core.retrieval import Comparison, EncoderCache, Retriever
from screens.connections import Connections


class Searcher:
    """One search at a time, from any thread."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._encoders = EncoderCache()
        self._lock = threading.Lock()
        self._open = contextlib.ExitStack()
        self._connection: Connection | None = None
        self._warm: set[int] = set()

    def compare(self, query: str, primary: Version, candidate: Version, k: int) -> Comparison:
        """The top-k of both versions. Raises what `Retriever.compare` does."""
        with self._lock:
            kept = self._connection is not None
            try:
                return self._compare(query, primary, candidate, k)
            except UnreachableError:
                self._close()
                if not kept:
                    raise
            return self._compare(query, primary, candidate, k)  # the connection was an old one: a new one may do

    def _compare(self, query: str, primary: Version, candidate: Version, k: int) -> Comparison:
        with self._connections.readable_errors():
            retriever = Retriever(self._connected(), self._encoders)
            for version in (primary, candidate):
                if version.id not in self._warm:
                    # Opens the encoder, and lets this session read its catalogue and the index's first pages:
                    # whichever version comes first would look the slower one otherwise.
                    retriever.search_version(query, version, k)
                    self._warm.add(version.id)
            return retriever.compare(query, primary, candidate, k)

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._open.enter_context(self._connections.reading())
        return self._connection

    def _close(self) -> None:
        self._connection = None
        self._warm.clear()
        self._open.close()

    def close(self) -> None:
        """Let go of the connection, unless a search has it, which ends by itself."""
        if self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()
