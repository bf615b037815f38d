"""Searches two versions on an open connection, so that the shown times are those of the search.

Judgements and explanations of the hits are read on the same connection afterwards.
"""

from __future__ import annotations

from revector.core.database import Connection
from revector.core.evaluation.judged_sets.judged_hits import JudgedHits, QrelsCache, judge_comparison
from revector.core.explain import ChunkFacts, Explanation, chunk_facts, explain
from revector.core.registry import Version
from revector.core.retrieval import Comparison, EncoderCache, VersionSearcher
from revector.screens.connections import Connections, KeptConnection


class Searcher(KeptConnection):
    """One search at a time, from any thread."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self._encoders = EncoderCache()
        self._warm: set[int] = set()
        self._qrels = QrelsCache()

    def compare(self, query: str, primary: Version, candidate: Version, k: int) -> Comparison:
        """The top-k of both versions. Raises what `VersionSearcher.compare` does."""

        def work(connection: Connection) -> Comparison:
            searcher = VersionSearcher(connection, self._encoders)
            for version in (primary, candidate):
                if version.id not in self._warm:
                    # Opens the encoder, and warms this session's catalogue cache and the index's first pages:
                    # otherwise the version searched first would look slower.
                    searcher.search(query, k, version=version)
                    self._warm.add(version.id)
            return searcher.compare(query, primary, candidate, k)

        return self.do(work)

    def judge(
        self, found: Comparison, primary: Version, candidate: Version, query_set: str | None
    ) -> JudgedHits | None:
        """The judgements on these hits; None when the query is in no set."""

        def work(connection: Connection) -> JudgedHits | None:
            searcher = VersionSearcher(connection, self._encoders)
            return judge_comparison(
                connection, searcher, found, primary, candidate, qrels=self._qrels, prefer=query_set
            )

        return self.do(work)

    def explain(self, query: str, version: Version, chunk_id: int, k: int) -> Explanation:
        return self.do(lambda connection: explain(connection, self._encoders, query, version, chunk_id, k))

    def facts(self, chunk_id: int) -> ChunkFacts | None:
        return self.do(lambda connection: chunk_facts(connection, chunk_id))

    def _close(self) -> None:
        self._warm.clear()
        super()._close()
