"""How warm a version's index is, and loading it into the server's buffers."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from psycopg import sql

from revector.core.database import Connection, Progress, fetch_one
from revector.core.errors import RefusedError
from revector.core.index import DEFAULTS, candidates_query, index_name, inspect
from revector.core.registry import Version

_K = 10
_READING_S = 120.0
_SEARCHES_AT_ONCE = 25
_WARM = 0.98
"""At this share, further searches load almost nothing."""


@dataclass(frozen=True)
class PagesRead:
    """Page accesses of searches: in the server's buffers (`hit`) or not (`read`).

    A search of a small index accesses the same page many times, and reads it once. `median_s` is the median time
    of the searches on the server, in seconds. A `read` page may still come from the operating system's cache,
    which Postgres does not see.
    """

    searches: int
    hit: int
    read: int
    median_s: float

    @property
    def share(self) -> float:
        """The share of accesses found in the buffers, 0 to 1; 1 without accesses."""
        return self.hit / (self.hit + self.read) if self.hit + self.read else 1.0


@dataclass(frozen=True)
class Prewarmed:
    """What a prewarming did."""

    version_key: Annotated[str, "whose table and index"]
    how: Annotated[Literal["pg_prewarm", "reading"], "pg_prewarm or reading"]
    pages: Annotated[int, "that were loaded"]
    seconds: Annotated[float, "that it took"]
    share: Annotated[float, "of page accesses that searches then found in the cache"]
    left_out: Annotated[tuple[str, ...], "relations larger than what shared_buffers has room for"]


def stored_vectors(connection: Connection, version: Version, wanted: int) -> list[tuple[int, str]]:
    """(chunk id, vector as text) of at most that many random chunks of the version.

    Each is the first at or after a random id of the whole span, so that the primary key finds it. A chunk after a
    gap in the ids is sampled more often than others; where large gaps leave few others, fewer may be found.
    """
    span = fetch_one(connection, sql.SQL("SELECT min(chunk_id), max(chunk_id) FROM {}").format(version.table))
    if span[0] is None:
        return []
    ids = range(span[0], span[1] + 1)
    numbers = random.sample(ids, min(4 * wanted, len(ids)))
    query = sql.SQL(
        """
        SELECT DISTINCT ON (e.chunk_id) e.chunk_id, e.embedding::text
        FROM unnest(%s::bigint[]) AS drawn(id) CROSS JOIN LATERAL (
            SELECT chunk_id, embedding FROM {} WHERE chunk_id >= drawn.id ORDER BY chunk_id LIMIT 1) AS e
        """
    ).format(version.table)
    found = connection.execute(query, [numbers]).fetchall()
    return [(row[0], row[1]) for row in random.sample(found, min(wanted, len(found)))]


def pages_of_searches(
    connection: Connection, version: Version, vectors: Sequence[str], *, timeout_s: float = 10.0
) -> PagesRead:
    """Make a top-10 search for each of these vectors, and count their page accesses.

    By EXPLAIN (ANALYZE, BUFFERS): pages of the index and of the version's table; the texts of the hits are not fetched.
    Raises psycopg's QueryCanceled when one search takes longer than the timeout.
    """
    explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {}").format(
        candidates_query(version, _K)
    )
    hit, read, times = 0, 0, []
    ef_search = max(int({**DEFAULTS, **version.index_settings}["ef_search"]), _K)
    with connection.transaction(force_rollback=True):  # which also resets the settings
        connection.execute(
            "SELECT set_config('hnsw.ef_search', %s, true), set_config('statement_timeout', %s, true)",
            [str(ef_search), f"{round(timeout_s * 1000)}ms"],
        )
        for vector in vectors:
            found = fetch_one(connection, explain, {"vector": vector})[0][0]
            hit += found["Plan"]["Shared Hit Blocks"]
            read += found["Plan"]["Shared Read Blocks"]
            times.append(found["Execution Time"] / 1000)
    return PagesRead(len(times), hit, read, sorted(times)[len(times) // 2] if times else 0.0)


def prewarm(connection: Connection, version: Version, on_progress: Progress | None = None) -> Prewarmed:
    """Load the version's table and index into the server's buffers, as far as they fit.

    Uses the extension pg_prewarm where the database has it and this role may call it; else reads the table in key
    order and searches for stored vectors, until their pages are in the buffers or two minutes are over. Raises
    RefusedError when the version has no valid index.
    """
    if not inspect(connection, version).valid:
        raise RefusedError(
            f"Version {version.version_key} has no valid index to warm.",
            f"revector index build {version.version_key}",
        )
    began = time.monotonic()
    relations, left_out = _what_fits(connection, version)
    tell = on_progress or (lambda _step, _done, _total: None)
    if _has_pg_prewarm(connection):
        how: Literal["pg_prewarm", "reading"] = "pg_prewarm"
        pages = 0
        for number, name in enumerate(relations):
            tell(f"prewarm {name}", number, len(relations))
            pages += fetch_one(connection, "SELECT pg_prewarm(to_regclass(%s))", [name])[0]
    else:
        how = "reading"
        pages = _prewarm_by_reading(connection, version, relations, tell)
    vectors = [vector for _, vector in stored_vectors(connection, version, _SEARCHES_AT_ONCE)]
    share = pages_of_searches(connection, version, vectors).share
    return Prewarmed(version.version_key, how, pages, time.monotonic() - began, share, left_out)


def _what_fits(connection: Connection, version: Version) -> tuple[list[str], tuple[str, ...]]:
    """The relations to warm, the index last, since later pages may evict earlier ones; and those that are too
    large."""
    rows = connection.execute(
        """
        SELECT name, pg_relation_size(to_regclass(name)), pg_size_bytes(current_setting('shared_buffers'))
        FROM unnest(%s::text[]) WITH ORDINALITY AS relations(name, number) ORDER BY number
        """,
        [[index_name(version), version.table_name]],
    ).fetchall()
    fitting: list[str] = []
    left_out: list[str] = []
    room = rows[0][2]
    for name, size, _ in rows:
        (fitting if size <= room else left_out).append(name)
        room -= size if size <= room else 0
    return fitting[::-1], tuple(left_out)


def _has_pg_prewarm(connection: Connection) -> bool:
    row = connection.execute(
        """
        SELECT has_function_privilege(p.oid, 'EXECUTE') AND pg_function_is_visible(p.oid)
        FROM pg_extension e JOIN pg_depend d ON d.refobjid = e.oid AND d.classid = 'pg_proc'::regclass
        JOIN pg_proc p ON p.oid = d.objid AND p.proname = 'pg_prewarm'
        WHERE e.extname = 'pg_prewarm'
        """
    ).fetchone()
    return bool(row and row[0])


def _prewarm_by_reading(connection: Connection, version: Version, relations: Sequence[str], tell: Progress) -> int:
    """Warm by reading; returns how many pages were loaded into the buffers."""
    pages = 0
    if version.table_name in relations:
        tell(f"read {version.table_name}", 0, 0)
        # In key order: a sequential scan of a large table uses a small ring of buffers, and warms nothing.
        with connection.transaction(force_rollback=True):
            for name in ("enable_seqscan", "enable_bitmapscan", "enable_indexonlyscan", "jit"):
                connection.execute("SELECT set_config(%s, 'off', true)", [name])
            connection.execute("SELECT set_config('max_parallel_workers_per_gather', '0', true)")
            connection.execute(
                "SELECT set_config('statement_timeout', %s, true)", [f"{round(_READING_S * 1000)}ms"]
            )
            query = sql.SQL(
                """
                EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON)
                SELECT count(vector_dims(embedding)) FROM {} WHERE chunk_id > 0
                """
            ).format(version.table)
            plan = fetch_one(connection, query)[0][0]["Plan"]
            pages += plan["Shared Read Blocks"]
    until = time.monotonic() + _READING_S
    done = 0
    while time.monotonic() < until:
        vectors = [vector for _, vector in stored_vectors(connection, version, _SEARCHES_AT_ONCE)]
        found = pages_of_searches(connection, version, vectors)
        pages += found.read
        done += found.searches
        tell("search stored vectors", done, 0)
        if found.share >= _WARM:
            break
    return pages
