"""Guards on the servers and processes that take part in a flip: standbys and searching processes."""

from __future__ import annotations

import time

from revector.core.cutover.guard import Found, GuardRule, Subject, fails, passes, unsure
from revector.core.database import Connection, fetch_column, fetch_one
from revector.core.serving import serving

_LOOK_EVERY_S = 0.05
_SHOWN = 5


def _replicas(subject: Subject) -> Found:
    """replay_lag in pg_stat_replication does not grow while a standby replays nothing, so the guard waits until
    the current position is replayed, up to a limit. Logical subscribers and mere receivers of WAL (pg_receivewal)
    are left out.
    """
    connection, limit = subject.connection, subject.policy.replica_lag_s
    if fetch_one(connection, "SELECT pg_is_in_recovery()")[0]:
        return unsure(
            "this server is itself a standby",
            "Check on the primary, where the flip happens.",
        )
    # What is inserted and not only what is written, as commits of a load do not wait for that.
    (here,) = fetch_one(connection, "SELECT pg_current_wal_insert_lsn()::text")
    began = time.monotonic()
    while True:
        late = _standbys(connection, here)
        seconds = time.monotonic() - began
        if not any(behind is not None and behind > 0 for _, behind in late) or seconds >= limit:
            break
        time.sleep(_LOOK_EVERY_S)
    if unseen := sum(behind is None for _, behind in late):
        return unsure(
            f"this role cannot see how far {unseen} of {len(late)} standbys have replayed",
            "Grant it: GRANT pg_monitor TO role, or check as a role that has it.",
        )
    if behind := [f"{name} by {missing / 1e6:,.1f} MB" for name, missing in late if missing]:
        return fails(
            f"behind after {limit:g} s: {', '.join(behind)}",
            "Wait until they catch up: searches there would use an incomplete version.",
        )
    absent = fetch_column(
        connection,
        "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active ORDER BY 1",
    )
    if absent:
        return unsure(
            f"no standby is connected to the replication slot {', '.join(absent)}",
            "Bring the standby back, or drop its slot: SELECT pg_drop_replication_slot('…')",
        )
    if not late:
        return passes("no standby is connected")
    names = ", ".join(name for name, _ in late)
    return passes(f"{names} caught up within {seconds:.1f} s (at most {limit:g} s allowed)")


def _standbys(connection: Connection, here: str) -> list[tuple[str, int | None]]:
    """By name, the bytes that each standby still has to replay up to that position; None where it cannot be
    seen."""
    rows = connection.execute(
        """
        SELECT coalesce(nullif(r.application_name, ''), r.client_addr::text, r.pid::text),
               r.state IS NOT NULL, greatest(0, pg_wal_lsn_diff(%s::pg_lsn, r.replay_lsn))::bigint
        FROM pg_stat_replication r
        WHERE r.state IS DISTINCT FROM 'backup' AND (r.write_lsn IS NULL OR r.replay_lsn IS NOT NULL)
          AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
        ORDER BY 1
        """,
        [here],
    ).fetchall()
    # A standby that has just connected has no position yet, so count it as behind.
    return [(name, (1 if missing is None else missing) if seen else None) for name, seen, missing in rows]


def _pinned(subject: Subject) -> Found:
    key = subject.version.version_key
    processes = serving(subject.connection)
    held = [one for one in processes if one.pinned and one.version_key != key]
    if held:
        shown = ", ".join(
            f"{one.program} {one.host}:{one.pid} ({one.version_key or one.pinned_to or 'a version that is gone'})"
            for one in held[:_SHOWN]
        )
        more = f" and {len(held) - _SHOWN} more" if len(held) > _SHOWN else ""
        return fails(
            f"{len(held)} of {len(processes)} search services would not switch: {shown}{more}",
            "Restart them without RETRIEVAL_ROLLBACK_VERSION or `pinned`.",
        )
    if not processes:
        return passes("no search service is connected")
    return passes(f"none of {len(processes)} search services is pinned to another version")


RULES = (
    GuardRule(
        "replicas", "Every connected standby replays in time what the primary has written.",
        _replicas, settings=("replica_lag_s",), looks_at=(), each_minute=True,
    ),
    GuardRule(
        "pinned", "No search service is pinned to another version.",
        _pinned, looks_at=("version",), each_minute=True,
    ),
)  # fmt: skip
