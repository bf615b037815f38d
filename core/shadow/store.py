"""Stores mirrored queries in batches, counts of each process, and deletes expired rows."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from revector.core.database import Connection, fetch_column, fetch_one
from revector.core.errors import RevectorError
from revector.core.overlap import Overlap

_FORGET_AT_ONCE = 10_000
_LONGEST_TEXT = 10_000
_LONGEST_SEGMENT = 100
_LONGEST_ERROR = 300


@dataclass(frozen=True)
class MirroredQuery:
    """One mirrored query as stored. Latencies are of whole searches, encoding included.

    Without an answer of the candidate there is an `error` and no overlap.
    """

    shadow_id: int
    at: datetime.datetime
    primary_version: str
    query: str | None
    query_sha256: bytes | None
    segment: str
    k: int
    primary_keys: list[str]
    candidate_keys: list[str]
    overlap: Overlap | None
    primary_ms: float
    candidate_ms: float | None
    error: str = ""


@dataclass
class Counts:
    """The counts of one process since it follows the shadow; `open` says why the breaker is open."""

    shadow_id: int
    process: str
    seen: int = 0
    drawn: int = 0
    done: int = 0
    dropped: int = 0
    failed: int = 0
    open: tuple[datetime.datetime, str] | None = None


def kept_of(text: str, query_text: str) -> tuple[str | None, bytes | None]:
    """What is stored of a query: the text (at most 10,000 characters), and the SHA-256 of its UTF-8.

    The database keys the hash with what only the owner of the collection reads: see hash_query in shadow.sql.
    """
    if query_text == "omitted":
        return None, None
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return (clean(text, _LONGEST_TEXT) if query_text == "stored" else None), digest


def clean(text: str, longest: int) -> str:
    """A text that Postgres can store: without NUL bytes and lone surrogates, cut to a maximum length."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")[:longest]


def segment_of(text: str) -> str:
    """A segment as stored: at most 100 characters."""
    return clean(text, _LONGEST_SEGMENT)


def error_of(error: Exception, text: str) -> str:
    """An error in one line, without the query's text, which a provider may quote and which may not be stored."""
    if isinstance(error, RevectorError):
        problem = error.problem
    elif isinstance(error, psycopg.Error):
        problem = f"Postgres: {error.diag.message_primary or type(error).__name__}"
    else:
        problem = f"{type(error).__name__}: {error}"
    line = " ".join(problem.replace(text, "…").split())
    return clean(line, _LONGEST_ERROR)


def write(connection: Connection, queries: Sequence[MirroredQuery], counts: Sequence[Counts]) -> None:
    """Store rows and counts in one transaction, except for shadows that are gone."""
    try:
        _write(connection, queries, counts)
    except psycopg.errors.ForeignKeyViolation:
        _write(connection, queries, counts)  # the shadow was deleted meanwhile, and is now seen to be gone


def _write(connection: Connection, queries: Sequence[MirroredQuery], counts: Sequence[Counts]) -> None:
    wanted = {one.shadow_id for one in queries} | {one.shadow_id for one in counts}
    with connection.transaction():
        there = set(fetch_column(connection, "SELECT id FROM shadows WHERE id = ANY(%s)", [list(wanted)]))
        with connection.cursor() as cursor:
            cursor.executemany(
                """
                INSERT INTO shadow_queries (shadow_id, at, primary_version, query, query_sha256, segment, k,
                                            primary_keys, candidate_keys, overlap, jaccard, rbo, kendall_tau,
                                            primary_ms, candidate_ms, error)
                VALUES (%s, %s, %s, %s, hash_query(%s), %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
                """,
                [_row(query) for query in queries if query.shadow_id in there],
            )
            cursor.executemany(
                """
                INSERT INTO shadow_counts (shadow_id, process, seen, drawn, done, dropped, failed, open_since, error,
                                           updated_at)
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp())
                ON CONFLICT (shadow_id, process) DO UPDATE SET
                    seen = EXCLUDED.seen, drawn = EXCLUDED.drawn, done = EXCLUDED.done, dropped = EXCLUDED.dropped,
                    failed = EXCLUDED.failed, open_since = EXCLUDED.open_since, error = EXCLUDED.error,
                    updated_at = EXCLUDED.updated_at
                """,
                [_count_row(one) for one in counts if one.shadow_id in there],
            )


def _row(query: MirroredQuery) -> tuple[object, ...]:
    found = query.overlap
    measures = (found.overlap, found.jaccard, found.rbo, found.kendall_tau) if found else (None,) * 4
    return (
        query.shadow_id, query.at, query.primary_version, query.query, query.query_sha256, query.segment, query.k,
        query.primary_keys, query.candidate_keys, *measures, query.primary_ms, query.candidate_ms, query.error,
    )  # fmt: skip


def _count_row(one: Counts) -> tuple[object, ...]:
    since, why = one.open or (None, "")
    return one.shadow_id, one.process, one.seen, one.drawn, one.done, one.dropped, one.failed, since, why


def forget_expired(connection: Connection) -> int:
    """Delete queries past their shadow's retention, at most 10,000 of each shadow; returns how many."""
    return int(fetch_one(connection, "SELECT forget_shadow_queries(%s)", [_FORGET_AT_ONCE])[0])
