"""The watch after a cutover: can we still roll back to the previous version, and are users worse off than before?

For the policy's `watch_hours` the previous version is compared with the active one: chunks missing in it, searches
before and since (core.retrieval.counts), and the overlap of both in the shadow, whose roles the flip has swapped.
What breaks a limit of the policy is in core.cutover.limits.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from revector.core.cutover.flip import Flip, missing_chunks, rollback, rollback_target
from revector.core.cutover.limits import WARM_UP_S, Breach, Seen, judge, merged
from revector.core.cutover.policy import read_policy
from revector.core.database import Connection, fetch_one
from revector.core.registry import Version
from revector.core.retrieval.counts import SearchFigures, Slot, figures_of, read_slots

_BEFORE = datetime.timedelta(hours=24)
"""One day, so that the comparison covers every hour."""
_SETTLED_S = 120.0
"""After the flip: until then processes may still write counts from before it."""
_FINAL_S = 900.0
"""Older counts since the flip are not read again."""
_SLOW_S = 5.0
"""How often the missing chunks are counted and the shadow is read: they cost more than the rest."""
_NEWEST = 10_000


@dataclass(frozen=True)
class _Read:
    """What a look has read, so that the next one need not read all of it again."""

    before: tuple[Slot, ...] = ()
    since: tuple[Slot, ...] = ()
    warm: tuple[Slot, ...] = ()
    """Since the flip without each process's first seconds."""
    began: Mapping[str, float] = field(default_factory=dict)
    """When each process first searched by the version, in seconds after the flip."""
    slow_at: float = -_SLOW_S


@dataclass(frozen=True)
class Watch:
    """A cutover under watch, as it was at `read_at`."""

    cutover_id: Annotated[int, "as of `revector cutover history`"]
    version_key: Annotated[str, "the active version"]
    previous: Annotated[str, "the one before"]
    began: Annotated[datetime.datetime, "when it was flipped"]
    until: Annotated[datetime.datetime, "when the watch ends"]
    read_at: Annotated[datetime.datetime, "when the figures were read"]
    missing: Annotated[int | None, "chunks that the version before lacks; null when it is gone"]
    before: Annotated[SearchFigures, "searches of up to a day before the flip"]
    since: Annotated[SearchFigures, "searches since the flip"]
    overlap_before: Annotated[float | None, "mean overlap of both versions in the shadow before"]
    overlap: Annotated[float | None, "mean overlap of both versions since the flip"]
    compared: Annotated[int, "queries behind that"]
    breaches: Annotated[tuple[Breach, ...], "limits that are broken"]
    unjudged: Annotated[tuple[Breach, ...], "limits that nothing shows yet"]
    read: _Read = field(default_factory=_Read, repr=False, compare=False)

    @property
    def way_back(self) -> Annotated[bool, "whether the version before is there to roll back to"]:
        """Whether the previous version can be rolled back to."""
        return self.missing is not None


def observe(connection: Connection, last: Watch | None = None) -> Watch | None:
    """The watch of the newest change of the active version; None when it is not, or no longer, watched.

    `last` is the previous look: what it read is read again only where it may have changed.
    """
    row = connection.execute(
        """
        SELECT id, embedding_version_id, to_version, from_version, at, watch_until, clock_timestamp()
        FROM (SELECT * FROM cutovers ORDER BY id DESC LIMIT 1) AS newest
        WHERE watch_until > clock_timestamp() AND watch_ended_at IS NULL AND embedding_version_id IS NOT NULL
        """
    ).fetchone()
    if row is None:
        return None
    number, version_id, key, previous_key, began, until, read_at = row
    if last is not None and last.cutover_id != number:
        last = None
    age_s = (read_at - began).total_seconds()
    previous = rollback_target(connection)
    read = _since(connection, version_id, began, age_s, last.read if last is not None else _Read())
    before, slow_at = read.before, read.slow_at
    if last is not None and age_s - slow_at < _SLOW_S and (previous is not None) == last.way_back:
        missing, overlap_before = last.missing, last.overlap_before
        overlap, compared = last.overlap, last.compared
    else:
        missing, overlap_before, overlap, compared, slow_at = None, None, None, 0, age_s
        if previous is not None:
            missing = missing_chunks(connection, previous)
            overlap_before, _ = _overlap(connection, version_id, previous_key, began - _BEFORE, began)
            overlap, compared = _overlap(connection, previous.id, key, began, until)
            if read.slow_at < _SETTLED_S:
                before = _before(connection, previous, began, read.began)
    seen = Seen(age_s, before, read.since, read.warm, overlap, compared)
    breaches, unjudged = judge(read_policy(connection), seen)
    return Watch(
        number, key, previous_key, began, until, read_at, missing, figures_of(before), figures_of(read.since),
        overlap_before, overlap, compared, breaches, unjudged, replace(read, before=before, slow_at=slow_at),
    )  # fmt: skip


def _since(connection: Connection, version_id: int, flip: datetime.datetime, age_s: float, known: _Read) -> _Read:
    """The slots since the flip; of those known, the older ones are not read again."""
    start = (flip + datetime.timedelta(seconds=max(0.0, age_s - _FINAL_S))).replace(microsecond=0)
    final = (start - flip).total_seconds()
    rows = read_slots(connection, version_id, flip, start)
    began = dict(known.began)
    warm = [one for one in rows if one.at - began.setdefault(one.process, one.at) >= WARM_UP_S]
    return replace(
        known,
        since=(*(one for one in known.since if one.at < final), *merged(rows)),
        warm=(*(one for one in known.warm if one.at < final), *merged(warm)),
        began=began,
    )


def _before(
    connection: Connection, previous: Version, flip: datetime.datetime, processes: Collection[str]
) -> tuple[Slot, ...]:
    """The slots before the flip: of the processes that have searched since, if there are any, or else of all."""
    start = max(flip - _BEFORE, previous.activated_at or flip)
    found = read_slots(connection, previous.id, flip, start, flip)
    return tuple(merged([one for one in found if one.process in processes] or found))


def roll_back_broken(connection: Connection, watch: Watch) -> Flip | None:
    """Roll back when a limit is broken, with the figures as the reason; None when none is broken or no rollback is
    possible.

    Raises RefusedError when another version has become active since the watch was read, as `rollback` does.
    """
    if not watch.breaches or not watch.way_back:
        return None
    reason = f"automatic: {reason_of(watch)}"
    return rollback(connection, confirm=watch.previous, reason=reason, only_from=watch.version_key)


def reason_of(watch: Watch) -> str:
    """The limits that are broken, with their figures."""
    return "; ".join(f"{breach.limit}: {breach.detail}" for breach in watch.breaches)


def _overlap(
    connection: Connection, candidate_id: int, primary: str, since: datetime.datetime, until: datetime.datetime
) -> tuple[float | None, int]:
    """Mean overlap of the newest queries answered by both primary and candidate, and their number."""
    mean, queries = fetch_one(
        connection,
        """
        SELECT avg(overlap)::float8, count(*)
        FROM (SELECT q.overlap FROM shadow_queries q JOIN shadows s ON s.id = q.shadow_id
              WHERE s.embedding_version_id = %s AND q.primary_version = %s AND q.at BETWEEN %s AND %s
                AND q.overlap IS NOT NULL
              ORDER BY q.at DESC LIMIT %s) AS newest
        """,
        [candidate_id, primary, since, until, _NEWEST],
    )
    return mean, queries
