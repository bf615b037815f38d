"""The watch after a cutover: can we still roll back to the previous version, and are users worse off than before?

For the policy's `watch_hours` the previous version is compared with the active one: chunks missing in it, searches
before and since (core.retrieval.counts), and the overlap of both in the shadow, whose roles the flip has swapped.
Only enough data can break a limit of the policy: with too little, the watch says so and does not judge.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Annotated

from revector.core.cutover.flip import Flip, missing_chunks, rollback, rollback_target
from revector.core.cutover.policy import Policy, read_policy
from revector.core.database import Connection, fetch_one
from revector.core.retrieval.counts import SearchFigures, read_counts

FEWEST_SEARCHES = 100
"""Searches needed of each version before their rates and times are compared."""
FEWEST_COMPARED = 20
"""Queries that both versions must have answered before their overlap is judged."""
_BEFORE = datetime.timedelta(hours=24)
"""One day, so that the comparison covers every hour."""
_SETTLED = datetime.timedelta(minutes=2)
"""After the flip: until then processes may still write counts from before it."""
_NEWEST = 10_000


@dataclass(frozen=True)
class Breach:
    """A limit of the policy, and the figures for it."""

    limit: Annotated[str, "the setting of the policy"]
    detail: Annotated[str, "the figures"]


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

    @property
    def way_back(self) -> Annotated[bool, "whether the version before is there to roll back to"]:
        """Whether the previous version can be rolled back to."""
        return self.missing is not None


def observe(connection: Connection, last: Watch | None = None) -> Watch | None:
    """The watch of the newest change of the active version; None when it is not, or no longer, watched.

    `last` is the previous reading: its figures from before the flip are reused once they are final.
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
    previous = rollback_target(connection)
    nothing = SearchFigures(0, None, None, None, None, None)
    before, overlap_before, overlap, compared = nothing, None, None, 0
    since = read_counts(connection, version_id, began)
    if last is not None and last.cutover_id == number and last.read_at > began + _SETTLED:
        before, overlap_before = last.before, last.overlap_before
    elif previous is not None:
        start = max(began - _BEFORE, previous.activated_at or began)
        before = read_counts(connection, previous.id, start, began)
        overlap_before, _ = _overlap(connection, version_id, previous_key, began - _BEFORE, began)
    if previous is not None:
        overlap, compared = _overlap(connection, previous.id, key, began, until)
    breaches, unjudged = _judge(read_policy(connection), before, since, overlap, compared)
    return Watch(
        number, key, previous_key, began, until, read_at,
        missing_chunks(connection, previous) if previous is not None else None,
        before, since, overlap_before, overlap, compared, breaches, unjudged,
    )  # fmt: skip


def roll_back_broken(connection: Connection, watch: Watch) -> Flip | None:
    """Roll back when a limit is broken, with the figures as the reason; None when none is broken or no rollback is
    possible.

    Raises RefusedError when another version has become active since the watch was read, as `rollback` does.
    """
    if not watch.breaches or not watch.way_back:
        return None
    reason = "automatic: " + "; ".join(f"{breach.limit}: {breach.detail}" for breach in watch.breaches)
    return rollback(connection, confirm=watch.previous, reason=reason, only_from=watch.version_key)


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


def _judge(
    policy: Policy, before: SearchFigures, since: SearchFigures, overlap: float | None, compared: int
) -> tuple[tuple[Breach, ...], tuple[Breach, ...]]:
    """The limits that are broken, and those that cannot be judged."""
    found: dict[str, tuple[str, bool] | str] = {}
    if (rise := policy.max_empty_rate_rise) is not None:
        found["max_empty_rate_rise"] = _empty_rate(rise, before, since)
    if (ratio := policy.max_latency_ratio) is not None:
        found["max_latency_ratio"] = _latency(ratio, before, since)
    if (least := policy.min_overlap) is not None:
        found["min_overlap"] = _least_overlap(least, overlap, compared)
    breaches, unjudged = [], []
    for limit, judged in found.items():
        match judged:
            case str(why):
                unjudged.append(Breach(limit, why))
            case (detail, True):
                breaches.append(Breach(limit, detail))
    return tuple(breaches), tuple(unjudged)


def _too_few(before: SearchFigures, since: SearchFigures) -> str:
    for figures, when in ((before, "before the cutover"), (since, "since the cutover")):
        if figures.searches < FEWEST_SEARCHES:
            return f"{figures.searches:,} searches counted {when}, {FEWEST_SEARCHES} needed"
    return ""


def _empty_rate(rise: float, before: SearchFigures, since: SearchFigures) -> tuple[str, bool] | str:
    if few := _too_few(before, since):
        return few
    if before.empty_rate is None or since.empty_rate is None:
        return "no search was answered"
    detail = (
        f"{since.empty_rate:.1%} of searches find nothing, {before.empty_rate:.1%} before; "
        f"at most {rise:.1%} more is allowed"
    )
    return detail, since.empty_rate - before.empty_rate > rise


def _latency(ratio: float, before: SearchFigures, since: SearchFigures) -> tuple[str, bool] | str:
    if few := _too_few(before, since):
        return few
    if before.p95_ms is None or since.p95_ms is None:
        return "no search was answered"
    detail = f"p95 is {since.p95_ms:.1f} ms, {before.p95_ms:.1f} ms before; {ratio:g} times that is the limit"
    return detail, since.p95_ms > ratio * before.p95_ms


def _least_overlap(least: float, overlap: float | None, compared: int) -> tuple[str, bool] | str:
    if overlap is None or compared < FEWEST_COMPARED:
        return f"{compared:,} queries answered by both versions since the cutover, {FEWEST_COMPARED} needed"
    return f"mean overlap is {overlap:.2f} over {compared:,} queries; {least:.2f} is the limit", overlap < least
