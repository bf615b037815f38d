"""Searches two versions on a connection that stays open, so that the times shown are those of the search.

What judges say of the hits, and why a version ranks them so, is read on the same connection afterwards.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from revector.core.database import Connection
from revector.core.errors import UnreachableError
from revector.core.evaluation.judged_sets.judged_hits import JudgedHits, QrelsCache, judge_comparison
from revector.core.explain import ChunkFacts, Explanation, chunk_facts, explain
from revector.core.registry import Version
from revector.core.retrieval import Comparison, EncoderCache, VersionSearcher
from revector.screens.connections import Connections

T = TypeVar("T")


class Searcher:
    """One search at a time, from any thread."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._encoders = EncoderCache()
        self._lock = threading.Lock()
        self._open = contextlib.ExitStack()
        self._connection: Connection | None = None
        self._warm: set[int] = set()
        self._qrels = QrelsCache()

    def compare(self, query: str, primary: Version, candidate: Version, k: int) -> Comparison:
        """The top-k of both versions. Raises what `VersionSearcher.compare` does."""

        def work(connection: Connection) -> Comparison:
            searcher = VersionSearcher(connection, self._encoders)
            for version in (primary, candidate):
                if version.id not in self._warm:
                    # Opens the encoder, and lets this session read its catalogue and the index's first pages:
                    # whichever version comes first would look the slower one otherwise.
                    searcher.search_version(query, version, k)
                    self._warm.add(version.id)
            return searcher.compare(query, primary, candidate, k)

        return self._on_connection(work)

    def judge(
        self, found: Comparison, primary: Version, candidate: Version, query_set: str | None
    ) -> JudgedHits | None:
        """What judges said of these hits; None when the query is in no set."""

        def work(connection: Connection) -> JudgedHits | None:
            searcher = VersionSearcher(connection, self._encoders)
            return judge_comparison(
                connection, searcher, found, primary, candidate, qrels=self._qrels, prefer=query_set
            )

        return self._on_connection(work)

    def explain(self, query: str, version: Version, chunk_id: int, k: int) -> Explanation:
        """Why the version ranks the chunk where it does."""
        return self._on_connection(
            lambda connection: explain(connection, self._encoders, query, version, chunk_id, k)
        )

    def facts(self, chunk_id: int) -> ChunkFacts | None:
        """What else is known of a chunk."""
        return self._on_connection(lambda connection: chunk_facts(connection, chunk_id))

    def _on_connection(self, work: Callable[[Connection], T]) -> T:
        with self._lock:
            kept = self._connection is not None
            try:
                return self._do(work)
            except UnreachableError:
                self._close()
                if not kept:
                    raise
            return self._do(work)  # the connection was an old one: a new one may do

    def _do(self, work: Callable[[Connection], T]) -> T:
        with self._connections.readable_errors():
            return work(self._connected())

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
