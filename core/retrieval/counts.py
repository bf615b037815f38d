"""Counts searches by version and time: the watch after a flip compares them with those before it.

Counting happens in the process and costs a search almost nothing; the pointer's thread writes the counts. Latencies
are a histogram with fixed bounds, eight to each doubling, so that the histograms of all processes can be added; a
percentile from it is off by less than 5 %. Searches whose query vector was cached have a histogram of their own:
after a flip nothing is cached, which says nothing of the version.

A row covers a second right after its version became active, then ten, then a minute: a watch has to see what
happens within seconds at first, and the table stays small.
"""

from __future__ import annotations

import bisect
import datetime
import itertools
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from revector.core.database import Connection

BUCKETS = 160
BOUNDS_MS = tuple(0.1 * 2 ** (number / 8) for number in range(1, BUCKETS))
"""Upper bounds (159,), from 0.109 ms to 96 s; slower searches are in the last bucket."""
FRESH_S = 1_200.0
"""Since a version became active: until then its counts are written every second."""
_MOST_KEPT = 1_440
"""How many seconds with searches are kept while the database is unreachable; older ones are dropped."""


@dataclass(frozen=True)
class SearchFigures:
    """Searches in a period: rates from 0 to 1, milliseconds of whole searches. None without searches."""

    searches: Annotated[int, "how many"]
    empty_rate: Annotated[float | None, "the share that found nothing"]
    error_rate: Annotated[float | None, "the share that failed"]
    median_ms: Annotated[float | None, "the median time"]
    p95_ms: Annotated[float | None, "95 % took no longer"]
    p99_ms: Annotated[float | None, "99 % took no longer"]


@dataclass
class _Second:
    searches: int = 0
    empty: int = 0
    errors: int = 0
    latencies: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    cached: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    first_error: float | None = None
    last_error: float | None = None

    def add(self, other: _Second) -> None:
        self.searches += other.searches
        self.empty += other.empty
        self.errors += other.errors
        self.latencies = added([self.latencies, other.latencies])
        self.cached = added([self.cached, other.cached])
        errors = [at for one in (self, other) for at in (one.first_error, one.last_error) if at is not None]
        self.first_error, self.last_error = min(errors, default=None), max(errors, default=None)


class Counter:
    """Counts the searches of this process."""

    def __init__(self) -> None:
        # Without it two containers with the same process id would share a row.
        self.process = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.failing = False
        """Whether a search has failed since the last flush: a limit may be near."""
        self._lock = threading.Lock()
        self._seconds: dict[tuple[int, int], _Second] = {}
        self._cleaned = 0.0

    def count(
        self, version_id: int, seconds: float, *, empty: bool = False, error: bool = False, cached: bool = False
    ) -> None:
        """Count one search. The time of a failed search is not counted."""
        now = time.time()
        key = (version_id, int(now))
        with self._lock:
            second = self._seconds.get(key)
            if second is None:
                second = self._seconds[key] = _Second()
                if len(self._seconds) > _MOST_KEPT:
                    self._seconds.pop(next(iter(self._seconds)))
            second.searches += 1
            if error:
                second.errors += 1
                second.first_error, second.last_error = second.first_error or now, now
                self.failing = True
            else:
                second.empty += empty
                times = second.cached if cached else second.latencies
                times[bisect.bisect_left(BOUNDS_MS, seconds * 1000)] += 1

    def flush(self, connection: Connection) -> None:
        """Add the counts to the table; they are kept if that fails, except for versions that are gone."""
        with self._lock:
            counted, self._seconds = self._seconds, {}
            self.failing = False
        if not counted:
            return
        try:
            with connection.transaction():
                for (version_id, at), one in self._slots(connection, counted).items():
                    connection.execute(_ADD, [version_id, at, self.process, *_values(one)])
                if time.monotonic() - self._cleaned > 3_600 or not self._cleaned:
                    connection.execute("SELECT forget_search_counts()")
                    self._cleaned = time.monotonic()
        except BaseException:
            self._put_back(counted)
            raise

    def _slots(
        self, connection: Connection, counted: Mapping[tuple[int, int], _Second]
    ) -> dict[tuple[int, float], _Second]:
        """The counts by version and the start of their slot, both on the server's clock."""
        rows = connection.execute(
            """
            SELECT id, extract(epoch FROM activated_at)::float8, extract(epoch FROM clock_timestamp())::float8
            FROM embedding_versions WHERE id = ANY(%s)
            """,
            [list({version_id for version_id, _ in counted})],
        ).fetchall()
        now = time.time()
        known = {version_id: (activated, clock - now) for version_id, activated, clock in rows}
        found: dict[tuple[int, float], _Second] = {}
        for (version_id, second), one in counted.items():
            if version_id in known:
                activated, ahead = known[version_id]
                at = second + ahead
                step = slot_s(at - activated) if activated is not None else 60
                errors = [None if when is None else when + ahead for when in (one.first_error, one.last_error)]
                slot = found.setdefault((version_id, at // step * step), _Second())
                slot.add(_Second(one.searches, one.empty, one.errors, one.latencies, one.cached, *errors))
        return found

    def _put_back(self, counted: dict[tuple[int, int], _Second]) -> None:
        with self._lock:
            for key, second in self._seconds.items():
                if key in counted:
                    counted[key].add(second)
                else:
                    counted[key] = second
            self._seconds = counted
            self.failing = any(second.errors for second in counted.values())


_ADD = """
    INSERT INTO search_counts AS kept
        (embedding_version_id, at, process, searches, empty, errors, latencies, cached_latencies,
         first_error, last_error)
    VALUES (%s, to_timestamp(%s), %s, %s, %s, %s, %s, %s, to_timestamp(%s), to_timestamp(%s))
    ON CONFLICT (embedding_version_id, at, process) DO UPDATE
    SET searches = kept.searches + excluded.searches, empty = kept.empty + excluded.empty,
        errors = kept.errors + excluded.errors,
        latencies = ARRAY(SELECT a + b FROM unnest(kept.latencies, excluded.latencies) AS t (a, b)),
        cached_latencies =
            ARRAY(SELECT a + b FROM unnest(kept.cached_latencies, excluded.cached_latencies) AS t (a, b)),
        first_error = least(kept.first_error, excluded.first_error),
        last_error = greatest(kept.last_error, excluded.last_error)
"""


def _values(one: _Second) -> list[object]:
    return [one.searches, one.empty, one.errors, one.latencies, one.cached, one.first_error, one.last_error]


def slot_s(age_s: float) -> int:
    """The seconds that a row covers, by the time since its version became active."""
    return 1 if age_s < 120 else 10 if age_s < FRESH_S else 60


# -- reading -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slot:
    """Searches of some processes from `at` on; times are seconds after the flip, below 0 before it.

    `latencies` are of searches that encoded their query, `cached` of those that did not; (160,) each.
    """

    at: float
    searches: int = 0
    empty: int = 0
    errors: int = 0
    latencies: Sequence[int] = (0,) * BUCKETS
    cached: Sequence[int] = (0,) * BUCKETS
    first_error: float | None = None
    last_error: float | None = None
    process: str = ""


def read_slots(
    connection: Connection,
    version_id: int,
    flip: datetime.datetime,
    since: datetime.datetime,
    until: datetime.datetime | None = None,
) -> list[Slot]:
    """A version's slots by process, from the second of `since` until before `until`, oldest first."""
    rows: list[Any] = connection.execute(
        """
        SELECT extract(epoch FROM at - %(flip)s)::float8, searches, empty, errors, latencies, cached_latencies,
               extract(epoch FROM first_error - %(flip)s)::float8,
               extract(epoch FROM last_error - %(flip)s)::float8, process
        FROM search_counts
        WHERE embedding_version_id = %(version)s AND at >= date_trunc('second', %(since)s::timestamptz)
          AND at < coalesce(%(until)s::timestamptz, 'infinity')
        ORDER BY at
        """,
        {"version": version_id, "flip": flip, "since": since, "until": until},
    ).fetchall()
    return [Slot(*row) for row in rows]


def read_counts(
    connection: Connection, version_id: int, since: datetime.datetime, until: datetime.datetime | None = None
) -> SearchFigures:
    """The figures of all processes' searches by a version, in slots from `since` until before `until`."""
    return figures_of(read_slots(connection, version_id, since, since, until))


def figures_of(slots: Sequence[Slot]) -> SearchFigures:
    """All these searches together."""
    searches = sum(one.searches for one in slots)
    if not searches:
        return SearchFigures(0, None, None, None, None, None)
    errors = sum(one.errors for one in slots)
    answered = searches - errors
    latencies = added([times for one in slots for times in (one.latencies, one.cached)])
    return SearchFigures(
        searches,
        sum(one.empty for one in slots) / answered if answered else None,
        errors / searches,
        *(percentile(latencies, share) for share in (0.5, 0.95, 0.99)),
    )


def added(histograms: Sequence[Sequence[int]]) -> list[int]:
    """The sum of histograms."""
    return list(map(sum, zip(*histograms, strict=True))) if histograms else [0] * BUCKETS


def percentile(latencies: Sequence[int], share: float) -> float | None:
    """The geometric middle of the percentile's bucket, in milliseconds; None without latencies."""
    so_far = list(itertools.accumulate(latencies))
    return in_bucket_ms(bisect.bisect_left(so_far, share * so_far[-1]), 0.5) if so_far[-1] else None


def in_bucket_ms(bucket: int, share: float) -> float:
    """The time at a share of the bucket's width, on its logarithmic scale."""
    return float(0.1 * 2 ** ((bucket + share) / 8))


def bucket_of(ms: float) -> tuple[int, float]:
    """The bucket of a time, and the share of its width below it."""
    place = min(max(0.0, 8 * math.log2(ms / 0.1)), BUCKETS - 1e-9)
    return int(place), place % 1
