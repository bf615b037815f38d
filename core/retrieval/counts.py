"""Counts searches by version and minute: the watch after a flip compares them with those before it.

Counting happens in the process and costs a search almost nothing; the pointer's thread writes the counts every few
seconds. Latencies are a histogram with fixed bounds, eight to each doubling, so that the histograms of all
processes can be added; a percentile from it is off by less than 5 %.
"""

from __future__ import annotations

import bisect
import datetime
import itertools
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Annotated

from revector.core.database import Connection

BUCKETS = 160
BOUNDS_MS = tuple(0.1 * 2 ** (number / 8) for number in range(1, BUCKETS))
"""Upper bounds (159,), from 0.109 ms to 96 s; slower searches are in the last bucket."""
RETENTION_DAYS = 14
_MOST_KEPT = 1_440
"""How many version-minutes are kept while the database is unreachable; older ones are dropped."""


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
class _Minute:
    searches: int = 0
    empty: int = 0
    errors: int = 0
    latencies: list[int] = field(default_factory=lambda: [0] * BUCKETS)


class Counter:
    """Counts the searches of this process."""

    def __init__(self) -> None:
        # Without it two containers with the same process id would share a row.
        self.process = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._lock = threading.Lock()
        self._minutes: dict[tuple[int, int], _Minute] = {}
        self._cleaned = 0.0

    def count(self, version_id: int, seconds: float, *, empty: bool = False, error: bool = False) -> None:
        """Count one search. The time of a failed search is not counted."""
        key = (version_id, int(time.time()) // 60)
        with self._lock:
            minute = self._minutes.get(key)
            if minute is None:
                minute = self._minutes[key] = _Minute()
                if len(self._minutes) > _MOST_KEPT:
                    self._minutes.pop(next(iter(self._minutes)))
            minute.searches += 1
            if error:
                minute.errors += 1
            else:
                minute.empty += empty
                minute.latencies[bisect.bisect_left(BOUNDS_MS, seconds * 1000)] += 1

    def flush(self, connection: Connection) -> None:
        """Add the counts to the table; they are kept if that fails, except for versions that are gone."""
        with self._lock:
            counted, self._minutes = self._minutes, {}
        if not counted:
            return
        try:
            with connection.transaction():
                for (version_id, minute), one in counted.items():
                    connection.execute(
                        """
                        INSERT INTO search_counts AS kept
                            (embedding_version_id, minute, process, searches, empty, errors, latencies)
                        SELECT id, to_timestamp(%s), %s, %s, %s, %s, %s FROM embedding_versions WHERE id = %s
                        ON CONFLICT (embedding_version_id, minute, process) DO UPDATE
                        SET searches = kept.searches + excluded.searches, empty = kept.empty + excluded.empty,
                            errors = kept.errors + excluded.errors,
                            latencies = ARRAY(SELECT a + b FROM unnest(kept.latencies, excluded.latencies) AS t (a, b))
                        """,
                        [
                            minute * 60, self.process, one.searches, one.empty, one.errors, one.latencies, version_id,
                        ],
                    )  # fmt: skip
                if time.monotonic() - self._cleaned > 3_600 or not self._cleaned:
                    connection.execute(
                        "DELETE FROM search_counts WHERE minute < now() - %s * interval '1 day'", [RETENTION_DAYS]
                    )
                    self._cleaned = time.monotonic()
        except BaseException:
            self._put_back(counted)
            raise

    def _put_back(self, counted: dict[tuple[int, int], _Minute]) -> None:
        with self._lock:
            for key, minute in self._minutes.items():
                if (before := counted.get(key)) is None:
                    counted[key] = minute
                    continue
                before.searches += minute.searches
                before.empty += minute.empty
                before.errors += minute.errors
                before.latencies = [a + b for a, b in zip(before.latencies, minute.latencies, strict=True)]
            self._minutes = counted


def read_counts(
    connection: Connection, version_id: int, since: datetime.datetime, until: datetime.datetime | None = None
) -> SearchFigures:
    """The figures of all processes' searches by a version, in whole minutes from `since` until before `until`."""
    rows = connection.execute(
        """
        SELECT searches, empty, errors, latencies FROM search_counts
        WHERE embedding_version_id = %(version)s AND minute >= date_trunc('minute', %(since)s::timestamptz)
          AND minute < coalesce(%(until)s::timestamptz, 'infinity')
        """,
        {"version": version_id, "since": since, "until": until},
    ).fetchall()
    searches = sum(row[0] for row in rows)
    if not searches:
        return SearchFigures(0, None, None, None, None, None)
    errors = sum(row[2] for row in rows)
    answered = searches - errors
    latencies = [sum(counts) for counts in zip(*(row[3] for row in rows), strict=True)]
    return SearchFigures(
        searches,
        sum(row[1] for row in rows) / answered if answered else None,
        errors / searches,
        *(_percentile(latencies, share) for share in (0.5, 0.95, 0.99)),
    )


def _percentile(latencies: list[int], share: float) -> float | None:
    """The geometric middle of the percentile's bucket."""
    so_far = list(itertools.accumulate(latencies))
    return 0.1 * 2 ** ((bisect.bisect_left(so_far, share * so_far[-1]) + 0.5) / 8) if so_far[-1] else None
