"""The report of a shadow: overlap and latency of both versions, and where they disagree most.

Figures cover the newest queries of the shadow (10,000 by default), so that a report costs the same after an hour
and after a month; counts cover everything that every process saw. After a flip swapped the direction of the
shadow, only queries in the current direction are used.
"""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from psycopg import sql

from revector.core.database import Connection, fetch_one
from revector.core.errors import RefusedError
from revector.core.shadow.runs import ShadowRun, get_run, latest

NEWEST = 10_000
"""How many queries the figures cover."""
BINS = 11
"""The bins of the overlap histogram: the nearest of 0, 0.1 … 1."""
_ERRORS_TOLD = 3


@dataclass(frozen=True)
class Latency:
    """Percentiles of whole searches in milliseconds, encoding included; None without a search."""

    p50: Annotated[float | None, "the median"]
    p95: Annotated[float | None, "95 % took no longer"]
    p99: Annotated[float | None, "99 % took no longer"]


@dataclass(frozen=True)
class SegmentFigures:
    """The queries of one segment ("" for queries without one) that both versions answered."""

    segment: Annotated[str, "empty for queries of none"]
    queries: Annotated[int, "answered by both versions"]
    overlap: Annotated[float, "the mean"]
    rbo: Annotated[float, "the mean"]
    primary_ms: Annotated[Latency, "whole searches of the active version"]
    candidate_ms: Annotated[Latency, "whole searches of the candidate"]


@dataclass(frozen=True)
class OpenBreaker:
    """A process whose breaker is open."""

    process: Annotated[str, "which leaves the candidate alone for now"]
    since: Annotated[datetime.datetime, "since when"]
    why: Annotated[str, "the error behind it"]


@dataclass(frozen=True)
class Disagreement:
    """A query on which the versions disagree."""

    id: Annotated[int, "its number"]
    at: Annotated[datetime.datetime, "when it was asked"]
    query: Annotated[str | None, "its text; null where that is not kept"]
    sha256: Annotated[str | None, "its keyed hash (HMAC-SHA-256); null where that is not kept"]
    segment: Annotated[str, "empty for none"]
    k: Annotated[int, "the depth"]
    primary_version: Annotated[str, "which answered the user"]
    overlap: Annotated[float, "of both answers"]
    rbo: Annotated[float, "of both answers"]
    primary_keys: Annotated[tuple[str, ...], "semantic keys that the user got"]
    candidate_keys: Annotated[tuple[str, ...], "semantic keys that the candidate found"]

    @property
    def name(self) -> str:
        """The query's text, else its short hash, else its number."""
        return self.query or (f"hash {self.sha256[:16]}…" if self.sha256 else f"query {self.id}")


@dataclass(frozen=True)
class ShadowCounts:
    """The counts of all processes together."""

    run: ShadowRun
    seen: Annotated[int, "queries that went by"]
    drawn: Annotated[int, "queries that were sampled"]
    done: Annotated[int, "of them, searched by the candidate"]
    dropped: Annotated[int, "of them, dropped by a full queue or an open breaker"]
    failed: Annotated[int, "of them, failed or timed out"]
    breaker: Annotated[tuple[OpenBreaker, ...], "open breakers"]


@dataclass(frozen=True)
class ShadowReport(ShadowCounts):
    """Counts of all processes, and figures of the queries that both versions answered.

    `histogram` counts queries by overlap, in equal bins from 0 to 1; `errors` counts each error's text.
    """

    queries: Annotated[int, "answered by both versions"]
    first_at: Annotated[datetime.datetime | None, "the first of them"]
    last_at: Annotated[datetime.datetime | None, "the last of them"]
    overlap: Annotated[float | None, "the mean"]
    jaccard: Annotated[float | None, "the mean"]
    rbo: Annotated[float | None, "the mean"]
    kendall_tau: Annotated[float | None, "the mean"]
    histogram: tuple[int, ...]
    primary_ms: Annotated[Latency, "whole searches of the active version"]
    candidate_ms: Annotated[Latency, "whole searches of the candidate"]
    segments: Annotated[tuple[SegmentFigures, ...], "those that disagree most first"]
    worst: Annotated[tuple[Disagreement, ...], "the queries that disagree most"]
    failures: Annotated[int, "failures that are kept"]
    errors: tuple[tuple[str, int], ...]


# The newest rows in the shadow's current direction, within their retention.
_WINDOW = sql.SQL(
    """
    WITH newest AS MATERIALIZED (
        SELECT q.id, q.at, q.query_sha256, q.segment, q.overlap, q.jaccard, q.rbo, q.kendall_tau, q.primary_ms,
               q.candidate_ms, q.error
        FROM shadow_queries q
        WHERE q.shadow_id = %(shadow)s AND q.primary_version <> %(candidate)s
          AND q.at >= clock_timestamp() - make_interval(secs => %(retention_s)s)
        ORDER BY q.at DESC LIMIT %(newest)s),
    answered AS (SELECT * FROM newest WHERE overlap IS NOT NULL AND rbo IS NOT NULL)
    """
)


def report(connection: Connection, *, shadow_id: int | None = None, limit: int = 20) -> ShadowReport:
    """The report of the named shadow, else of the running or last one, with the `limit` worst queries.

    Raises RefusedError when there never was a shadow, UsageError for an unknown number.
    """
    run = get_run(connection, shadow_id) if shadow_id is not None else latest(connection)
    if run is None:
        raise RefusedError("There is no shadow to report on.", "Start one: revector shadow start KEY")
    parameters = {
        "shadow": run.id,
        "candidate": run.candidate,
        "retention_s": run.retention_days * 86_400,
        "newest": NEWEST,
        "limit": limit,
        "bins": BINS,
    }
    with connection.transaction():
        counts = connection.execute(
            """
            SELECT seen, drawn, done, dropped, failed, process, open_since, error
            FROM shadow_counts WHERE shadow_id = %s ORDER BY open_since
            """,
            [run.id],
        ).fetchall()
        seen, drawn, done, dropped, failed = (sum(row[place] for row in counts) for place in range(5))
        breakers = tuple(OpenBreaker(*row[5:]) for row in counts if row[6] is not None)
        figures = fetch_one(connection, _WINDOW + _FIGURES, parameters)
        queries, first_at, last_at, overlap, jaccard, rbo, kendall_tau, places, primary, candidate = figures
        segments = connection.execute(_WINDOW + _SEGMENTS, parameters).fetchall()
        worst = connection.execute(_WINDOW + _WORST, parameters).fetchall()
        errors = connection.execute(_WINDOW + _ERRORS, parameters).fetchall()
        in_bin = Counter(places or ())
        histogram = tuple(in_bin[place] for place in range(BINS))
        return ShadowReport(
            run, seen, drawn, done, dropped, failed, breakers, queries, first_at, last_at,
            overlap, jaccard, rbo, kendall_tau, histogram, _latency(primary), _latency(candidate),
            tuple(SegmentFigures(*row[:4], _latency(row[4]), _latency(row[5])) for row in segments),  # type: ignore[call-arg]
            tuple(Disagreement(*row[:9], tuple(row[9]), tuple(row[10])) for row in worst),  # type: ignore[call-arg]
            sum(row[1] for row in errors),
            tuple((row[0], row[1]) for row in errors[:_ERRORS_TOLD]),
        )  # fmt: skip


_PERCENTILES = sql.SQL(
    """
    percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY primary_ms),
    percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY candidate_ms)
    """
)

_FIGURES = sql.SQL(
    """
    SELECT count(*), min(at), max(at), avg(overlap)::float, avg(jaccard)::float, avg(rbo)::float,
           avg(kendall_tau)::float,
           array_agg(round(overlap::float * (%(bins)s - 1))::int),
           {}
    FROM answered
    """
).format(_PERCENTILES)

_SEGMENTS = sql.SQL(
    """
    SELECT segment, count(*), avg(overlap)::float, avg(rbo)::float, {}
    FROM answered GROUP BY segment ORDER BY 3, segment LIMIT 100
    """
).format(_PERCENTILES)

_ERRORS = sql.SQL(
    "SELECT error, count(*) FROM newest WHERE error <> '' GROUP BY error ORDER BY max(at) DESC, error"
)

# A frequent query is listed once. Only the shown rows are read in full: rankings are wide.
_WORST = sql.SQL(
    """
    , once AS (
        SELECT DISTINCT ON (coalesce(query_sha256, int8send(id))) id, overlap, rbo, at FROM answered
        WHERE rbo < 1 OR overlap < 1
        ORDER BY coalesce(query_sha256, int8send(id)), overlap, rbo, at DESC),
    worst AS (SELECT id FROM once ORDER BY overlap, rbo, at DESC, id LIMIT %(limit)s)
    SELECT id, at, query, encode(query_sha256, 'hex'), segment, k, primary_version, overlap, rbo, primary_keys,
           candidate_keys
    FROM shadow_queries WHERE id IN (SELECT id FROM worst) ORDER BY overlap, rbo, at DESC, id
    """
)


def _latency(percentiles: list[float] | None) -> Latency:
    return Latency(*percentiles) if percentiles else Latency(None, None, None)
