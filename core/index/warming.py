"""How warm a version's index is, and loading it into the server's buffers."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from psycopg import sql

from revector.core.database import Connection, Progress, fetch_column, fetch_one
from revector.core.errors import RefusedError
from revector.core.index import DEFAULTS, candidates_query, index_name, inspect
from revector.core.registry import PLAIN_DIMENSIONS, Version

_K = 10
_READING_S = 120.0
_SEARCHES_AT_ONCE = 25
_FEWEST_PAGES = 100
_PAGES_PER_ROW = 4
"""Enough random pages for each row wanted, also where pages hold a quarter of the rows that fit."""
_MORE_PAGES = 16
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


@dataclass(frozen=True)
class Drawn:
    """Random rows of a version: their vectors, as text, by chunk id, in random order.

    `rows` is how many rows with a chunk the version's table has: counted when it is `whole`, that is when all ids
    were read, and else estimated from the pages that were.
    """

    vectors: dict[int, str]
    rows: int
    whole: bool

    @property
    def of(self) -> str:
        """`1,216`, or `about 1,003,000` where that is an estimate."""
        return f"{self.rows:,}" if self.whole else f"about {round(self.rows, 3 - len(str(self.rows))):,}"

    def has(self, wanted: int) -> bool:
        """Whether so many came back, or all that there are; but for some whose chunk was deleted meanwhile."""
        due = min(wanted, self.rows) if self.whole else wanted
        return bool(self.vectors) and len(self.vectors) >= 0.98 * due


def stored_vectors(connection: Connection, version: Version, wanted: int, *, seed: str | None = None) -> Drawn:
    """The vectors of that many chunks of the version, or of all when it has fewer.

    Each row that has a chunk is as likely as another, whatever its id and wherever it was written: of a small table
    all ids are read; of a large one those on random pages, and from each page one row, which counts with a
    probability that grows with the page's rows. All that are found are cut, in the order of their ids, into as many
    strata as rows are wanted, and one row of each is taken: so every loaded file and every worker's range is
    represented by its share. Fewer come back than wanted where most pages hold far fewer rows than the fullest. The
    same seed and table give the same sample.
    """
    draw = random.Random(seed)  # noqa: S311
    pages = max(_FEWEST_PAGES, _PAGES_PER_ROW * wanted)
    found, rows, whole = _chunks_on_pages(connection, version, pages, draw)
    if len(found) < wanted and not whole:
        found, rows, whole = _chunks_on_pages(connection, version, pages * _MORE_PAGES, draw)
    # Turned, since strata of unequal size in fixed places would make some rows more likely.
    turn, number = draw.randrange(max(1, len(found))), min(wanted, len(found))
    found = found[turn:] + found[:turn]
    strata = (found[len(found) * n // number : len(found) * (n + 1) // number] for n in range(number))
    chosen = [draw.choice(stratum) for stratum in strata]
    draw.shuffle(chosen)
    vectors = vectors_of(connection, version, chosen)
    return Drawn({chunk_id: vectors[chunk_id] for chunk_id in chosen if chunk_id in vectors}, rows, whole)


def _chunks_on_pages(
    connection: Connection, version: Version, pages: int, draw: random.Random
) -> tuple[list[int], int, bool]:
    """Chunk ids, ascending, all equally likely; how many rows the table has; and whether these are all of them."""
    sample, share = page_sample(connection, version.table_name, pages, draw)
    known = sql.SQL("EXISTS (SELECT FROM document_chunks c WHERE c.id = e.chunk_id)")
    if share == 1:
        query = sql.SQL("SELECT chunk_id FROM {} e WHERE {} ORDER BY 1").format(version.table, known)
        found = fetch_column(connection, query)
        return found, len(found), True
    by_page: dict[str, list[int]] = {}
    query = sql.SQL("SELECT split_part(ctid::text, ',', 1), chunk_id FROM {} {}").format(version.table, sample)
    for page, chunk_id in connection.execute(query):
        by_page.setdefault(page, []).append(chunk_id)
    # What a page can hold at most, and not what the fullest of these does: pages of many rows may be rare.
    stored = version.dimensions * (2 if version.storage == "halfvec" else 4) + 8
    bytes_of_row = 32 + (stored if version.dimensions <= PLAIN_DIMENSIONS[version.storage] else 18)
    most = 8_168 // (-(-bytes_of_row // 8) * 8 + 4)
    places = ((ids, draw.randrange(most)) for ids in by_page.values())
    drawn = [ids[place] for ids, place in places if place < len(ids)]
    query = sql.SQL("SELECT e.chunk_id FROM unnest(%s::bigint[]) AS e(chunk_id) WHERE {} ORDER BY 1").format(known)
    found = fetch_column(connection, query, [drawn])
    rows = sum(map(len, by_page.values())) / share * len(found) / max(1, len(drawn))
    return found, round(rows), False


def page_sample(
    connection: Connection, table: str, pages: int, draw: random.Random
) -> tuple[sql.Composed | sql.SQL, float]:
    """A TABLESAMPLE clause for some that many random pages of the table, and their share of all; none, and 1, for all.

    Postgres draws by the pages' numbers alone, so nothing that a row holds makes it more or less likely.
    """
    (of,) = fetch_one(
        connection,
        "SELECT pg_relation_size(to_regclass(%s)) / current_setting('block_size')::bigint",
        [table],
    )
    if of <= pages:
        return sql.SQL(""), 1.0
    clause = sql.SQL("TABLESAMPLE SYSTEM ({}) REPEATABLE ({})")
    return clause.format(sql.Literal(100 * pages / of), sql.Literal(draw.random())), pages / of


def vectors_of(connection: Connection, version: Version, chunk_ids: Sequence[int]) -> dict[int, str]:
    """The stored vectors of these chunks, as text, by chunk id."""
    query = sql.SQL("SELECT chunk_id, embedding::text FROM {} WHERE chunk_id = ANY(%s)").format(version.table)
    return dict(connection.execute(query, [list(chunk_ids)]).fetchall())


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
    vectors = list(stored_vectors(connection, version, _SEARCHES_AT_ONCE).vectors.values())
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
        vectors = list(stored_vectors(connection, version, _SEARCHES_AT_ONCE).vectors.values())
        found = pages_of_searches(connection, version, vectors)
        pages += found.read
        done += found.searches
        tell("search stored vectors", done, 0)
        if found.share >= _WARM:
            break
    return pages
