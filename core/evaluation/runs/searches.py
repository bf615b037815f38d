"""The searches of a run: one statement and one setting for all its queries, by the index or exactly.

With the index they are the users' searches (core.retrieval), without the texts of the hits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from psycopg import sql

from revector.core.database import Connection
from revector.core.errors import UsageError
from revector.core.index import DEFAULTS, candidates_query, distance_expression, index_name, inspect, kind_of, use
from revector.core.registry import Version
from revector.core.retrieval import MAX_EF_SEARCH, MAX_K, ef_search_for, statements
from revector.core.retrieval.options import SearchOptions
from revector.core.sessions import keep_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Search(Protocol):
    """Takes a query vector (d,), and its text for a hybrid search. Gives the best chunks (n,), best first, and their
    distances (n,); n ≤ k."""

    def __call__(
        self, vector: NDArray[np.float32], text: str = "", /
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Search."""


@dataclass(frozen=True)
class Searches:
    """How every query of a run is searched. `ef_search` is the value used, None without the index. `hybrid` searches
    are the users', with the list by words."""

    version: Version
    k: int
    exact: bool
    ef_search: int | None
    hybrid: bool = False

    @property
    def query(self) -> sql.Composed:
        """SQL of the k nearest chunks: columns chunk_id and distance. The query vector is the parameter `vector`."""
        if not self.exact:
            return candidates_query(self.version, self.k)
        # By the stored vectors, not by what an index would hold of them.
        return sql.SQL(
            "SELECT chunk_id, {distance} AS distance FROM {table} ORDER BY distance, chunk_id LIMIT {k}"
        ).format(distance=distance_expression(self.version), table=self.version.table, k=sql.Literal(self.k))

    def prepare(self, connection: Connection, connections: int) -> Search:
        """Set up a session for these searches, with that many running at once; returns the function that
        searches."""
        from pgvector import Vector
        from pgvector.psycopg import register_vector

        register_vector(connection)
        if self.hybrid:
            return self._prepare_hybrid(connection)
        settings = {"hnsw.ef_search": str(self.ef_search)} if self.ef_search else {}
        if self.exact:
            # "off" only means a high cost, so the one remaining scan must stay on.
            settings |= {"enable_indexscan": "off", "enable_seqscan": "on", "jit": "off"}
        if connections > 1:
            # The searches already share the processors.
            settings["max_parallel_workers_per_gather"] = "0"
        keep_settings(connection, settings)
        cursor = connection.cursor(binary=True)
        statement = self.query.as_bytes(connection)

        def search(
            vector: NDArray[np.float32], _text: str = "", /
        ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            rows = cursor.execute(statement, {"vector": Vector(vector)}).fetchall()
            ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
            distances = np.fromiter((row[1] for row in rows), np.float64, len(rows))
            # An index on another type than the column's orders by that type, and equal distances have no order.
            order = np.lexsort((ids, distances))
            return ids[order], distances[order].astype(np.float32)

        return search

    def _prepare_hybrid(self, connection: Connection) -> Search:
        options = SearchOptions(self.k, hybrid=True)
        settings = {"hnsw.ef_search": str(self.ef_search), **statements.ITERATIVE_SCAN}
        keep_settings(connection, settings)
        cursor = connection.cursor(binary=True)

        def search(
            vector: NDArray[np.float32], text: str = "", /
        ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            asked = options.of(text)
            query = statements.search_statement(self.version, asked).as_bytes(None)
            rows = cursor.execute(query, statements.parameters(vector, asked, text)).fetchall()
            hits, _ = statements.read_rows(rows)
            ids = np.fromiter((hit.chunk_id for hit in hits), np.int64, len(hits))
            return ids, np.fromiter((hit.distance for hit in hits), np.float32, len(hits))

        return search

    def index_settings(self, connection: Connection) -> dict[str, Any]:
        """How the index was built and whether the planner uses it, as stored with a run; empty when exact."""
        if self.exact:
            return {}
        if not inspect(connection, self.version).valid:
            return {"used": False}
        options = connection.execute(
            """
            SELECT option_name, option_value::int
            FROM pg_class, pg_options_to_table(reloptions) WHERE oid = to_regclass(%s)
            """,
            [index_name(self.version)],
        ).fetchall()
        built = {"m": DEFAULTS["m"], "ef_construction": DEFAULTS["ef_construction"], **dict(options)}
        return {"kind": kind_of(self.version), **built, "used": use(connection, self.version, self.k).used}


def plan_searches(
    version: Version, *, k: int, exact: bool, ef_search: int | None, hybrid: bool = False
) -> Searches:
    """The searches with their ef_search: the given one or the version's, never below k.

    Raises UsageError for k or ef_search outside 1 to 1,000, and for ef_search or hybrid with an exact search.
    """
    if not 1 <= k <= MAX_K:
        raise UsageError(f"k is {k}; expected 1 to {MAX_K:,}.")
    if ef_search is not None and not 1 <= ef_search <= MAX_EF_SEARCH:
        raise UsageError(f"ef_search is {ef_search}; pgvector takes 1 to {MAX_EF_SEARCH:,}.")
    if exact:
        if ef_search is not None:
            raise UsageError("An exact search uses no index, so ef_search has no effect.", "Use one of the two.")
        if hybrid:
            raise UsageError(
                "An exact search is by vectors alone, a hybrid one as users search.", "Use one of the two."
            )
        return Searches(version, k, exact, None)
    depth = SearchOptions(k, hybrid=hybrid).depth
    return Searches(version, k, exact, ef_search_for(version, depth, ef_search), hybrid)
