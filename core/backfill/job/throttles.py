"""The limits that can hold a backfill: each is measured on the server and gives its reason in words.

A limit that is not set is not measured. One that cannot be measured holds the job and says so: a limit that
silently does nothing is worse than none.
"""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from revector.core.backfill.job.disk import data_folder, disks
from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.job.working_hours import closed_until
from revector.core.database import Connection, fetch_one
from revector.core.errors import RefusedError

_GB = 1e9
_MB = 1e6
_TIMEOUT_MS = 2_000
_WAL_SECONDS = 5.0
"""The WAL rate is averaged over about this long: the backfill's own batches come in bursts."""
_SIZE_EVERY_S = 10.0
"""pg_database_size looks at every file."""
_HISTORY = 40


@dataclass(frozen=True)
class Look:
    """Input of a measurement: the job's settings and money, and what the last measurement kept."""

    settings: JobSettings
    spent_usd: float
    kept: Mapping[str, Any]
    now: float


@dataclass(frozen=True)
class Measurement:
    """One figure: `value` to show, `reason` when it holds the job, `keep` for the next measurement."""

    value: float | str | None
    reason: str | None = None
    keep: object = None


def look(
    connection: Connection, settings: JobSettings, spent_usd: float, kept: Mapping[str, Any]
) -> dict[str, Any]:
    """Measure every limit that is set.

    Returns the `kept` of the next look: `value` and `reason` for each setting, and under `held_by` the first
    setting that holds the job, None when none does.
    """
    at = Look(settings, spent_usd, kept, time.time())
    found: dict[str, Any] = {"held_by": None}
    for name, measure in _LIMITS.items():
        if getattr(settings, name) is None:
            continue
        try:
            with connection.transaction():
                connection.execute("SELECT set_config('statement_timeout', %s, true)", [str(_TIMEOUT_MS)])
                connection.execute("SET TRANSACTION READ ONLY")
                reading = measure(connection, at)
        except psycopg.Error as error:
            if connection.broken:
                raise
            text = error.diag.message_primary or type(error).__name__
            reading = Measurement(None, f"{name} cannot be measured: {text}")
        found[name] = {"value": reading.value, "reason": reading.reason, "keep": reading.keep}
        if reading.reason and found["held_by"] is None:
            found["held_by"] = name
    return found


def require_measurable(connection: Connection, settings: JobSettings, names: Iterable[str]) -> None:
    """Raise RefusedError for a limit among `names` that cannot be measured from here or by this role."""
    for name in names:
        if getattr(settings, name) is None:
            continue
        if name in ("max_replication_lag_s", "max_active", "max_transaction_s") and not _sees_all(connection):
            lag = name == "max_replication_lag_s"
            raise RefusedError(
                "This role cannot see the lag of standbys."
                if lag
                else "This role cannot see what other sessions do.",
                "Grant it: GRANT pg_monitor TO role, or use throttle_query.",
            )
        if name == "min_free_gb" and data_folder(connection) is None:
            raise RefusedError(
                "The disk of a server on another machine cannot be measured from here.",
                "Use max_database_gb, or throttle_query with a figure of your monitoring.",
            )


def _hours(_connection: Connection, at: Look) -> Measurement:
    settings = at.settings
    now = datetime.datetime.fromtimestamp(at.now, datetime.UTC)
    until = closed_until(settings.working_hours or "24/7", settings.timezone, now)
    if until is None:
        return Measurement("open")
    when = "never" if until.year == datetime.MAXYEAR else f"until {until:%a %d %b %H:%M} {settings.timezone}"
    return Measurement("closed", f"outside working hours ({settings.working_hours}), {when}")


def _spend(_connection: Connection, at: Look) -> Measurement:
    cap = at.settings.max_spend_usd or 0.0
    reached = at.spent_usd >= cap
    return Measurement(
        at.spent_usd, f"spend cap of ${cap:,.2f} reached (${at.spent_usd:,.4f} spent)" if reached else None
    )


def _free_disk(connection: Connection, at: Look) -> Measurement:
    folder, limit = data_folder(connection), at.settings.min_free_gb or 0.0
    if folder is None:
        return Measurement(None, "min_free_gb cannot be measured: the server's disk cannot be seen from here")
    free = min(shutil.disk_usage(place).free for place in disks(folder)) / _GB
    return Measurement(
        free, f"{free:,.1f} GB free on the server's disk, limit {limit:g} GB" if free < limit else None
    )


def _database_size(connection: Connection, at: Look) -> Measurement:
    limit = at.settings.max_database_gb or 0.0
    size, measured_at = _kept(at, "max_database_gb") or (None, 0.0)
    if size is None or at.now - measured_at > _SIZE_EVERY_S:
        size = fetch_one(connection, "SELECT pg_database_size(current_database())")[0] / _GB
        measured_at = at.now
    reason = f"the database has {size:,.1f} GB, limit {limit:g} GB" if size > limit else None
    return Measurement(size, reason, [size, measured_at])


def _replication_lag(connection: Connection, at: Look) -> Measurement:
    """The lag of the slowest standby, in seconds.

    replay_lag in pg_stat_replication does not grow while a standby replays nothing. So the WAL positions of
    earlier measurements are kept: a standby lags by the age of the newest one that it has replayed.
    """
    limit = at.settings.max_replication_lag_s or 0.0
    (here,) = fetch_one(connection, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
    standbys = connection.execute(
        """
        SELECT coalesce(nullif(application_name, ''), client_addr::text, pid::text),
               pg_wal_lsn_diff(replay_lsn, '0/0')::bigint, extract(epoch FROM replay_lag)::float8
        FROM pg_stat_replication WHERE replay_lsn IS NOT NULL
        """
    ).fetchall()
    history = [entry for entry in _kept(at, "max_replication_lag_s") or [] if entry[1] <= here]
    worst, slowest = 0.0, ""
    for name, replayed, reported in standbys:
        lag = reported or 0.0
        if replayed < here:
            behind = [when for when, position in history if position > replayed]
            lag = max(lag, at.now - behind[0]) if behind else lag
        else:
            lag = 0.0
        if lag > worst:
            worst, slowest = lag, name
    if not history or at.now - history[-1][0] >= limit / 10:
        history = [*history[-_HISTORY:], [at.now, here]]
    reason = f"standby {slowest} is {worst:,.0f} s behind, limit {limit:g} s" if worst > limit else None
    return Measurement(worst, reason, history)


def _wal_rate(connection: Connection, at: Look) -> Measurement:
    limit = at.settings.max_wal_mb_s or 0.0
    (position,) = fetch_one(connection, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
    before = _kept(at, "max_wal_mb_s")
    if not before or position < before[0] or at.now <= before[1]:
        return Measurement(0.0, None, [position, at.now, 0.0])
    last, when, average = before
    seconds = at.now - when
    weight = min(1.0, seconds / _WAL_SECONDS)
    average += weight * ((position - last) / _MB / seconds - average)
    reason = f"{average:,.1f} MB/s of WAL, limit {limit:g} MB/s" if average > limit else None
    return Measurement(average, reason, [position, at.now, average])


_OTHERS = sql.SQL(
    "pid <> pg_backend_pid() AND backend_type = 'client backend' AND application_name NOT LIKE 'revector backfill%'"
)


def _active(connection: Connection, at: Look) -> Measurement:
    limit = at.settings.max_active or 0
    (active,) = fetch_one(
        connection,
        sql.SQL("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND {}").format(_OTHERS),
    )
    return Measurement(active, f"{active} active sessions, limit {limit}" if active > limit else None)


def _transactions(connection: Connection, at: Look) -> Measurement:
    limit = at.settings.max_transaction_s or 0.0
    pid, name, age = fetch_one(
        connection,
        sql.SQL(
            """
            SELECT max(pid), max(application_name), coalesce(max(age), 0) FROM (
                SELECT pid, application_name, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age
                FROM pg_stat_activity WHERE xact_start IS NOT NULL AND {}
                ORDER BY xact_start LIMIT 1) AS oldest
            """
        ).format(_OTHERS),
    )
    what = f"a transaction of process {pid} ({name or 'no application name'})"
    return Measurement(age, f"{what} is {age:,.0f} s old, limit {limit:g} s" if age > limit else None)


def _query(connection: Connection, at: Look) -> Measurement:
    # Binary allows only one statement, so the query cannot end the read-only transaction around it.
    row = connection.execute(at.settings.throttle_query or "", binary=True).fetchone()
    answer = row[0] if row else None
    if isinstance(answer, str):
        reason = answer.strip() or None
    elif isinstance(answer, bool) or answer is None:
        reason = "throttle_query returned true" if answer else None
    else:
        answer = float(answer)
        reason = f"throttle_query returned {answer:g}" if answer > 0 else None
    return Measurement(answer, reason)


_LIMITS: dict[str, Callable[[Connection, Look], Measurement]] = {
    "working_hours": _hours,
    "max_spend_usd": _spend,
    "min_free_gb": _free_disk,
    "max_database_gb": _database_size,
    "max_replication_lag_s": _replication_lag,
    "max_wal_mb_s": _wal_rate,
    "max_transaction_s": _transactions,
    "max_active": _active,
    "throttle_query": _query,
}
"""The first of them that holds the job is the one shown."""


def _kept(at: Look, name: str) -> Any:
    return (at.kept.get(name) or {}).get("keep")


def _sees_all(connection: Connection) -> bool:
    return bool(fetch_one(connection, "SELECT pg_has_role('pg_read_all_stats', 'USAGE')")[0])
