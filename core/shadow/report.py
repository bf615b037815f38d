"""What a shadow found: how alike both versions answer, how long they take, and where they disagree most.

Figures are of the newest queries of the shadow, 10,000 unless told otherwise, so that a report costs the same after an
hour and after a month; the counts are of all that every process saw. Of a shadow that was turned round by a flip, only
queries that its present candidate did not itself answer are counted.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from psycopg import sql

from revector.core.database import Connection, fetch_one
from revector.core.errors import RefusedError
from revector.core.shadow.runs import ShadowRun, get_run, latest

NEWEST = 10_000
"""Queries that the figures are of."""
BINS = 11
"""Of the histogram of overlap: the nearest of 0, 0.1 … 1."""
_ERRORS_TOLD = 3


@dataclass(frozen=True)
class Latency:
    """Percentiles of whole searches in milliseconds, encoding included; None without a search."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True)
class SegmentFigures:
    """The queries of one segment ("" for those of none) that both versions answered."""

    segment: str
    queries: int
    overlap: float
    rbo: float
    primary: Latency
    candidate: Latency


@dataclass(frozen=True)
class OpenBreaker:
    """A process that leaves the candidate alone for the time being, and why."""

    process: str
    since: datetime.datetime
    why: str


@dataclass(frozen=True)
class Disagreement:
    """A query on which the versions disagree. `query` is None where its text is not kept; then there may be a hash."""

    id: int
    at: datetime.datetime
    query: str | None
    sha256: str | None
    segment: str
    k: int
    primary_version: str
    overlap: float
    rbo: float
    primary_keys: tuple[str, ...]
    candidate_keys: tuple[str, ...]

    @property
    def name(self) -> str:
        """The query's text, else its hash in short, else its number."""
        return self.query or (f"sha256 {self.sha256[:16]}…" if self.sha256 else f"query {self.id}")


@dataclass(frozen=True)
class ShadowReport:
    """Counts of all processes, and figures of the queries that both versions answered.

    `seen` queries went by, `drawn` of them were sampled; of these, `done` were searched by the candidate, `dropped`
    by a full queue or an open breaker, and `failed` with an error or a timeout. `errors` are the newest texts of
    failures with how often each came, of `failures` stored.
    """

    run: ShadowRun
    seen: int
    drawn: int
    done: int
    dropped: int
    failed: int
    breaker: tuple[OpenBreaker, ...]
    queries: int
    first_at: datetime.datetime | None
    last_at: datetime.datetime | None
    overlap: float | None
    jaccard: float | None
    rbo: float | None
    kendall_tau: float | None
    histogram: tuple[int, ...]
    primary: Latency
    candidate: Latency
    segments: tuple[SegmentFigures, ...]
    worst: tuple[Disagreement, ...]
    failures: int
    errors: tuple[tuple[str, int], ...]


# The newest rows in the direction that the shadow has now, within their retention.
_WINDOW = sql.SQL(
    """
    WITH newest AS MATERIALIZED (
        SELECT q.id, q.at, q.query_sha256, q.segment, q.overlap, q.jaccard, q.rbo, q.kendall_tau, q.primary_ms,
               q.candidate_ms, q.error
        FROM shadow_queries q
        WHERE q.shadow_id = %(shadow)s AND q.primary_version <> %(candidate)s
          AND q.at >= clock_timestamp() - make_interval(secs => %(retention_s)s)
          AND (%(since)s::timestamptz IS NULL OR q.at >= %(since)s)
        ORDER BY q.at DESC LIMIT %(newest)s),
    answered AS (SELECT * FROM newest WHERE overlap IS NOT NULL)
    """
)


def report(
    connection: Connection,
    *,
    shadow_id: int | None = None,
    since: datetime.datetime | None = None,
    limit: int = 20,
    newest: int = NEWEST,
) -> ShadowReport:
    """The report of the shadow that runs, or else of the last one, or of the one named; the `limit` worst queries.

    Raises RefusedError when there never was a shadow, UsageError for a number that none has.
    """
    run = get_run(connection, shadow_id) if shadow_id is not None else latest(connection)
    if run is None:
        raise RefusedError("There is no shadow to report on.", "Start one: revector shadow start KEY")
    parameters = {
        "shadow": run.id,
        "candidate": run.candidate,
        "retention_s": run.retention_days * 86_400,
        "since": since,
        "newest": newest,
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
        return ShadowReport(
            run, seen, drawn, done, dropped, failed, breakers, queries, first_at, last_at,
            overlap, jaccard, rbo, kendall_tau, _histogram(places), _latency(primary), _latency(candidate),
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

# A query that came often stands there once. Only what is shown is read whole: rankings are wide.
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


def _histogram(places: list[int] | None) -> tuple[int, ...]:
    found = [0] * BINS
    for place in places or ():
        found[place] += 1
    return tuple(found)


def _latency(percentiles: list[float] | None) -> Latency:
    return Latency(*percentiles) if percentiles else Latency(None, None, None)
