"""The flip and the way back: one short transaction each.

The flip itself is the one UPDATE that anybody could type; the database's own triggers refuse a mistyped key and
a version that was never complete, log the change and notify every process (core/migrations/versions).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from core import audit
from core.cutover.guard import Check, Subject
from core.cutover.guards import check, check_in_flip
from core.cutover.policy import read_policy
from core.database import Connection, fetch_one
from core.errors import RefusedError
from core.registry import Version, active_version, get_version
from core.retrieval import EncoderCache

_FLIP_LOCK = sql.SQL("SELECT pg_advisory_xact_lock(hashtext('flip ' || current_schema()), 0)")

FLIP = """UPDATE embedding_versions
SET active = CASE WHEN version_key = %(key)s THEN true ELSE false END"""


@dataclass(frozen=True)
class Flip:
    """A flip that happened: from which version, to which, and how long its transaction took."""

    action: str
    version_key: str
    previous: str | None
    seconds: float
    missing: int


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
        again = check_in_flip(Subject(connection, version, read_policy(connection), EncoderCache()), {})
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
    failed = [guard for guard in result.guards if not guard.clear]
    audit.record(
        connection,
        action,
        result.version_key,
        "refused",
        detail={"guards": {guard.name: f"{guard.verdict}: {guard.detail}" for guard in failed}},
    )
    lines = [f"{guard.name}: {guard.detail}. {guard.remedy}".strip() for guard in failed]
    return RefusedError(f"Version {result.version_key} is not ready; nothing was changed.", "\n".join(lines))
