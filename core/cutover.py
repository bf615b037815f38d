"""Cutover and rollback: the guards before a flip, and the flip as one transaction.

The flip itself is the one UPDATE that anybody could type; the database's own triggers refuse a mistyped key and
a version that was never complete, log the change and notify every process (core/migrations/versions).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import sql

from core import audit, index
from core.database import SOUND_PGVECTOR, Connection, fetch_one, version_tuple
from core.errors import RefusedError
from core.registry import Version, active_version, embedded_count, get_version

Verdict = Literal["pass", "fail", "inconclusive"]

_FLIP_LOCK = sql.SQL("SELECT pg_advisory_xact_lock(hashtext('flip ' || current_schema()), 0)")

FLIP = """UPDATE embedding_versions
SET active = CASE WHEN version_key = %(key)s THEN true ELSE false END"""

_SMALL_TABLE_ROWS = 10_000
"""Below this a scan of the table takes milliseconds and is exact, so that the planner may rightly prefer it."""


@dataclass(frozen=True)
class Guard:
    """A check before a flip: its verdict, the figure behind it, and what to do when it does not pass."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """All guards of a version. It is ready when each one passes."""

    version_key: str
    guards: tuple[Guard, ...]

    @property
    def ready(self) -> bool:
        """Whether every guard passes."""
        return all(guard.verdict == "pass" for guard in self.guards)


@dataclass(frozen=True)
class Flip:
    """A flip that happened: from which version, to which, and how long its transaction took."""

    action: str
    version_key: str
    previous: str | None
    seconds: float
    missing: int


def check(connection: Connection, key: str) -> Check:
    """Run every guard for a version. Raises UsageError for a key nobody has."""
    version = get_version(connection, key)
    return Check(key, tuple(guard(connection, version) for guard in GUARDS))


def run(connection: Connection, key: str, *, confirm: str, reason: str = "") -> Flip:
    """Make the version active when all its guards pass and `confirm` repeats its key.

    Completeness and the index are checked once more inside the flip's own transaction. Raises UsageError for an
    unknown key, RefusedError when the key typed differs, the version is active already, or a guard does not
    pass; nothing is changed then, and the refusal is in the log.
    """
    version = get_version(connection, key)
    _require_typed(connection, "cutover", version, confirm)
    result = check(connection, key)
    if not result.ready:
        raise _refused(connection, "cutover", result)
    with _flip_transaction(connection):
        again = Check(key, tuple(guard(connection, version) for guard in _CHANGING_GUARDS))
        if not again.ready:
            raise _GuardFailedError(again)
        detail = {"guards": {guard.name: guard.detail for guard in result.guards}}
        return _flip(connection, "cutover", version, reason, detail)


def rollback_target(connection: Connection) -> Version | None:
    """The version that was active before this one and is still there, or None."""
    row = connection.execute(
        """
        SELECT version_key FROM embedding_versions
        WHERE NOT active AND state = 'previous' AND deactivated_at IS NOT NULL
        ORDER BY deactivated_at DESC LIMIT 1
        """
    ).fetchone()
    return get_version(connection, row[0]) if row else None


def missing_chunks(connection: Connection, version: Version) -> int:
    """How many chunks searches by this version would not find, by the kept counts: a rollback cannot wait."""
    (missing,) = fetch_one(
        connection,
        """
        SELECT coalesce(sum(CASE WHEN scope = 0 THEN delta ELSE -delta END), 0)::bigint
        FROM row_counts WHERE scope IN (0, %s)
        """,
        [version.id],
    )
    return max(0, int(missing))


def rollback(connection: Connection, *, confirm: str, reason: str = "", key: str | None = None) -> Flip:
    """Make the version that was active before active again; never refused for a guard.

    `key` names another version that was complete once. The chunks that it lacks are counted in `Flip.missing`.
    Raises RefusedError when there is none to go back to or the key typed differs.
    """
    version = get_version(connection, key) if key else rollback_target(connection)
    if version is None:
        raise RefusedError("There is no version to roll back to.", "A rollback needs an earlier cutover.")
    _require_typed(connection, "rollback", version, confirm)
    missing = missing_chunks(connection, version)
    with _flip_transaction(connection):
        return _flip(connection, "rollback", version, reason, {"missing": missing}, missing)


# -- the flip ----------------------------------------------------------------------------------------------


class _GuardFailedError(Exception):
    """A guard failed inside the flip's transaction, which this rolls back."""

    def __init__(self, result: Check) -> None:
        super().__init__(result.version_key)
        self.result = result


@contextmanager
def _flip_transaction(connection: Connection) -> Iterator[None]:
    """One short transaction, for which two operators queue; what it refuses is in the log afterwards."""
    try:
        with connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '5s'")
            connection.execute(_FLIP_LOCK)
            yield
    except _GuardFailedError as refusal:
        raise _refused(connection, "cutover", refusal.result) from None
    except psycopg.errors.LockNotAvailable:
        raise RefusedError(
            "Another operator is flipping at this moment: nothing was changed.",
            "Look which version is active now.",
        ) from None


def _flip(
    connection: Connection,
    action: str,
    version: Version,
    reason: str,
    detail: Mapping[str, object],
    missing: int = 0,
) -> Flip:
    before = active_version(connection)
    started = time.perf_counter()
    connection.execute(
        """
        SELECT set_config('revector.action', %s, true), set_config('revector.reason', %s, true),
               set_config('revector.detail', %s, true)
        """,
        [action, reason, json.dumps(dict(detail))],
    )
    connection.execute(FLIP, {"key": version.version_key})
    seconds = time.perf_counter() - started
    return Flip(action, version.version_key, before.version_key if before else None, seconds, missing)


def _require_typed(connection: Connection, action: str, version: Version, confirm: str) -> None:
    key = version.version_key
    if confirm != key:
        audit.record(connection, action, key, "refused", detail={"typed": confirm[:100]})
        raise RefusedError(
            f"The key typed is {confirm!r}, not {key!r}: nothing was changed.", "Type the version key exactly."
        )
    if version.active:
        raise RefusedError(f"Version {key} is active already.")


def _refused(connection: Connection, action: str, result: Check) -> RefusedError:
    failed = [guard for guard in result.guards if guard.verdict != "pass"]
    audit.record(
        connection,
        action,
        result.version_key,
        "refused",
        detail={"guards": {guard.name: f"{guard.verdict}: {guard.detail}" for guard in failed}},
    )
    lines = [f"{guard.name}: {guard.detail}. {guard.remedy}".strip() for guard in failed]
    return RefusedError(f"Version {result.version_key} is not ready; nothing was changed.", "\n".join(lines))


# -- the guards --------------------------------------------------------------------------------------------


def _complete(connection: Connection, version: Version) -> Guard:
    """No chunk is missing, nothing waits in the outbox, no chunk was given up on without a waiver."""
    row = fetch_one(
        connection,
        """
        SELECT (SELECT coalesce(sum(delta), 0)::bigint FROM row_counts WHERE scope = 0),
               (SELECT coalesce(sum(delta), 0)::bigint FROM row_counts WHERE scope = %(id)s),
               (SELECT count(*) FROM chunk_outbox WHERE embedding_version_id = %(id)s),
               (SELECT count(*) FILTER (WHERE waived_reason IS NULL) FROM dead_letters
                WHERE embedding_version_id = %(id)s),
               (SELECT count(*) FILTER (WHERE waived_reason IS NOT NULL) FROM dead_letters
                WHERE embedding_version_id = %(id)s)
        """,
        {"id": version.id},
    )
    chunks, embedded, waiting, failed, waived = row
    missing = chunks - embedded - waived
    figures = f"{embedded:,} of {chunks:,} chunks embedded" + (f", {waived} waived" if waived else "")
    run_it = f"revector backfill run {version.version_key}"
    if version.completed_at is None:
        return Guard("complete", "fail", f"{figures}; no backfill has finished yet", run_it)
    if failed:
        return Guard(
            "complete", "fail", f"chunks that could not be embedded: {failed:,}",
            f"revector backfill failures {version.version_key}",
        )  # fmt: skip
    if missing > 0 or waiting:
        return Guard("complete", "fail", f"{figures}; {max(missing, waiting)} missing", run_it)
    if chunks == 0:
        return Guard("complete", "fail", "the collection has no chunks", "revector ingest PATH")
    proven = f"{version.proven_at:%Y-%m-%d %H:%M}" if version.proven_at else "never"
    return Guard("complete", "pass", f"{figures}, proven {proven}")


def _dimensions(connection: Connection, version: Version) -> Guard:
    """The table's vectors have the version's dimensions and type, and its encoder can be named."""
    row = connection.execute(
        """
        SELECT format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = to_regclass(%s) AND attname = 'embedding' AND NOT attisdropped
        """,
        [version.table_name],
    ).fetchone()
    found = row[0].rpartition(".")[2] if row else "no table"
    expected = f"{version.storage}({version.dimensions})"
    if found != expected:
        return Guard(
            "dimensions", "fail", f"the table holds {found}, the version says {expected}",
            "Register the version again under another key.",
        )  # fmt: skip
    if not version.encoder_spec:
        return Guard(
            "dimensions", "fail", "the version names no encoder, so that no query could be encoded",
            f"revector versions adopt {version.version_key} --encoder SPEC",
        )  # fmt: skip
    return Guard("dimensions", "pass", f"{expected}, encoder {version.encoder_spec}")


def _index_valid(connection: Connection, version: Version) -> Guard:
    """The index is there and its build was not cut off."""
    state = index.inspect(connection, version)
    remedy = f"revector index build {version.version_key}"
    if not state.exists:
        return Guard("index valid", "fail", "there is no index", remedy)
    if not state.valid:
        return Guard("index valid", "fail", f"{state.name} is invalid: its build was cut off", remedy)
    return Guard("index valid", "pass", f"{state.name}, {state.bytes / 1e6:,.1f} MB")


def _index_used(connection: Connection, version: Version) -> Guard:
    """The planner answers a top-10 search from the index."""
    if not index.inspect(connection, version).exists:
        return Guard("index used", "fail", "there is no index", f"revector index build {version.version_key}")
    found = index.use(connection, version)
    if found.used:
        return Guard("index used", "pass", found.node)
    rows = embedded_count(connection, version)
    if rows <= _SMALL_TABLE_ROWS:
        return Guard(
            "index used", "pass", f"{found.node}: with {rows:,} rows the planner prefers to scan them all"
        )
    return Guard(
        "index used", "fail", f"the planner takes a {found.node} over {rows:,} rows",
        f"ANALYZE {version.table_name}, and look at random_page_cost and effective_cache_size.",
    )  # fmt: skip


def _pgvector_sound(connection: Connection, _version: Version) -> Guard:
    """The server's pgvector has no known fault in vacuuming HNSW indexes."""
    (found,) = fetch_one(connection, "SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    if version_tuple(found) < SOUND_PGVECTOR:
        sound = ".".join(map(str, SOUND_PGVECTOR))
        return Guard(
            "pgvector", "pass", f"warning: {found}, whose vacuum can damage HNSW indexes; mended in {sound}",
            "Update pgvector: ALTER EXTENSION vector UPDATE",
        )  # fmt: skip
    return Guard("pgvector", "pass", found)


GUARDS: tuple[Callable[[Connection, Version], Guard], ...] = (
    _complete,
    _dimensions,
    _index_valid,
    _index_used,
    _pgvector_sound,
)

_CHANGING_GUARDS = (_complete, _index_valid)
"""Cheap, and liable to change between the check and the flip."""
