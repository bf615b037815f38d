"""Searches counted by version and minute: what a watch after a flip compares with the time before it.

Counting is done in the process and costs a search next to nothing; the pointer's thread writes what was counted every
few seconds. Latencies are a histogram of bounds that never change, eight to each doubling, so that those of all
processes add up; a percentile read from it is off by less than 5 %.
"""

from __future__ import annotations

import bisect
import datetime
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
"""Upper bounds (159,), from 0.109 ms to 96 s; what took longer is in the last bucket."""
RETENTION_DAYS = 14
_MOST_KEPT = 1_440
"""Version-minutes kept while the database is away; older ones are let go."""


@dataclass(frozen=True)
class SearchFigures:
    """Searches of some time: rates from 0 to 1, milliseconds of whole searches. None where nothing was searched."""

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
        # Two retrievers of one process would otherwise be the same row, which is right, but so would two containers.
        self.process = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._lock = threading.Lock()
        self._minutes: dict[tuple[int, int], _Minute] = {}
        self._cleaned = 0.0

    def count(self, version_id: int, seconds: float, *, empty: bool = False, error: bool = False) -> None:
        """Count one search. Of one that failed, the time does not count."""
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
        """Add what was counted to the table; it is kept when that fails. Rows of versions that are gone are not."""
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
    """The figures of all processes' searches by a version, in whole minutes from `since` to before `until`."""
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
    """The middle, by ratio, of the bucket that the percentile falls into."""
    total = sum(latencies)
    if not total:
        return None
    seen = 0
    for number, count in enumerate(latencies):
        seen += count
        if seen >= share * total:
            return float(0.1 * 2 ** ((number + 0.5) / 8))
    return None
