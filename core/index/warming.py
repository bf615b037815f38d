"""How warm a version's index is, and loading it into the server's buffers."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from psycopg import sql

from revector.core.database import Connection, Progress, fetch_column, fetch_one
from revector.core.errors import RefusedError
from revector.core.index import DEFAULTS, candidates_query, index_name, inspect
from revector.core.registry import Version, embedded_count

_K = 10
_READING_S = 120.0
_SEARCHES_AT_ONCE = 25
_LOOKUPS = 100_000
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


def stored_vectors(
    connection: Connection, version: Version, wanted: int, *, seed: str | None = None
) -> list[tuple[int, str]]:
    """(chunk id, vector as text) of that many chunks of the version, or of all when it has fewer; in random order.

    A stratified sample of the rows. Random ids, one from each of many equal parts of the id span, find a few times
    as many rows as wanted, each row as likely as another. These are cut, in the order of their ids, into as many
    strata as rows are wanted, and one row of each is taken: so every loaded file and every worker's range is
    represented by its share. Only where ids are so sparse that 100,000 find too few does each stand for the first
    row at or after it, and rows after large gaps are more likely. The same seed and rows give the same sample.
    """
    first, last = fetch_one(
        connection, sql.SQL("SELECT min(chunk_id), max(chunk_id) FROM {}").format(version.table)
    )
    if first is None:
        return []
    draw, span = random.Random(seed), last - first + 1  # noqa: S311
    lookups = min(_LOOKUPS, 4 * wanted * -(-span // max(1, embedded_count(connection, version))))
    if lookups >= span:
        found = fetch_column(connection, sql.SQL("SELECT chunk_id FROM {} ORDER BY 1").format(version.table))
    else:
        ids = [first + draw.choice(part) for part in _strata(range(span), lookups)]
        query = sql.SQL("SELECT chunk_id FROM {} WHERE chunk_id = ANY(%s) ORDER BY 1").format(version.table)
        found = fetch_column(connection, query, [ids])
        if len(found) < wanted:
            query = sql.SQL(
                """
                SELECT DISTINCT e.chunk_id FROM unnest(%s::bigint[]) AS drawn(id) CROSS JOIN LATERAL (
                    SELECT chunk_id FROM {} WHERE chunk_id >= drawn.id ORDER BY chunk_id LIMIT 1) AS e ORDER BY 1
                """
            ).format(version.table)
            found = fetch_column(connection, query, [ids])
    chosen = [draw.choice(part) for part in _strata(found, min(wanted, len(found)))]
    draw.shuffle(chosen)
    vectors = vectors_of(connection, version, chosen)
    return [(chunk_id, vectors[chunk_id]) for chunk_id in chosen if chunk_id in vectors]


def vectors_of(connection: Connection, version: Version, chunk_ids: Sequence[int]) -> dict[int, str]:
    """The stored vectors of these chunks, as text, by chunk id."""
    query = sql.SQL("SELECT chunk_id, embedding::text FROM {} WHERE chunk_id = ANY(%s)").format(version.table)
    return dict(connection.execute(query, [list(chunk_ids)]).fetchall())


def _strata(ids: Sequence[int], number: int) -> Iterator[Sequence[int]]:
    """The ids in that many consecutive parts of equal size; none is empty."""
    return (ids[len(ids) * n // number : len(ids) * (n + 1) // number] for n in range(number))


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
