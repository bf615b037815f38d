"""Cutover and rollback: one short transaction each.

The flip itself is one UPDATE that anybody could type. Triggers refuse a mistyped key and a version that was never
complete or is not approved, log the change and notify every process (core/migrations/sql).
"""

from __future__ import annotations

import datetime
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import psycopg
from psycopg import sql

from revector.core import audit
from revector.core.cutover.commit_outcome import Address, how_it_ended
from revector.core.cutover.guard import Check, Guard, Subject
from revector.core.cutover.guards import GUARDS, check, check_in_flip, checked_waivers
from revector.core.cutover.history import CutoverEntry, history
from revector.core.cutover.policy import Policy, read_policy
from revector.core.cutover.requests import approved_waivers, figures
from revector.core.database import Connection, fetch_one
from revector.core.errors import RefusedError, RevectorError, UnreachableError
from revector.core.locks import name_holders
from revector.core.registry import Version, active_version, get_version
from revector.core.retrieval import EncoderCache

log = logging.getLogger(__name__)

Action = Literal["cutover", "rollback"]
_Statement = sql.SQL | sql.Composed

FLIP = """UPDATE embedding_versions
SET active = CASE WHEN version_key = %(key)s THEN true ELSE false END"""

_BUSY = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)
_ROWS_OF_A_FLIP = {
    **dict.fromkeys(("locks", "embedding_versions", "cutover_requests", "cutovers", "shadows"), "RowShareLock"),
    **dict.fromkeys(("audit_log", "row_counts"), "ShareLock"),
}
"""The tables that a flip locks or writes, each with the weakest lock that may be in its way."""
_GONE = (
    psycopg.errors.AdminShutdown,
    psycopg.errors.CrashShutdown,
    psycopg.errors.IdleInTransactionSessionTimeout,
)


@dataclass(frozen=True)
class Flip:
    """A committed flip."""

    action: Annotated[str, "cutover or rollback, as the database found"]
    version_key: Annotated[str, "the version that is active now"]
    previous: Annotated[str | None, "the one that was"]
    seconds: Annotated[float, "that the transaction took once it had its locks"]
    missing: Annotated[int, "chunks that the version lacks"]
    waited: Annotated[float, "seconds that it waited for its locks"] = 0.0
    at: Annotated[datetime.datetime | None, "when; null when the connection was lost over it"] = None
    made_by: Annotated[str, "the role of Postgres"] = ""
    changed: Annotated[bool, "false when the rollback was done before"] = True


@dataclass(frozen=True)
class DryRun:
    """What a cutover would do: the guards now, and every statement of the flip, ready for psql."""

    version_key: str
    previous: Annotated[str | None, "the version that is active"]
    statements: Annotated[tuple[str, ...], "the SQL of the flip; with --dry-run"]
    check: Check
    dry_run: Annotated[bool, "true: nothing was changed; with --dry-run"] = True


def run(
    connection: Connection,
    key: str,
    *,
    confirm: str,
    reason: str = "",
    waivers: Mapping[str, str] | None = None,
    encoders: EncoderCache | None = None,
    on_guard: Callable[[Guard], None] | None = None,
) -> Flip:
    """Make the version active if all its guards pass or are waived and `confirm` equals its key.

    `waivers` maps guards that need not pass to reasons, which are logged; where the policy requires approvals,
    only those of the approved request count. Guards that may have changed are checked again inside the flip's
    transaction, under the lock for which operators queue.

    Raises UsageError for an unknown key or guard; RefusedError when the typed key differs, the version is already
    active, a guard fails, or another version became active meanwhile: nothing is changed then, and the refusal is
    logged. Raises UnreachableError when the connection is lost, saying whether that was before the commit; if the
    flip turns out to be committed, it is returned.
    """
    version = get_version(connection, key)
    _require_typed(connection, "cutover", version, confirm)
    if version.active:
        raise audit.refused(connection, "cutover", key, f"Version {key} is already active.")
    before = active_version(connection)
    waived = _waivers(connection, version, waivers)
    result = check(connection, key, waivers=waived, encoders=encoders, on_guard=on_guard)
    if not result.ready:
        raise _not_ready(connection, result)

    def once_more() -> None:
        active = active_version(connection)
        if (active and active.id) != (before and before.id):
            raise _RefusedInFlipError(
                f"{active.version_key if active else 'No version'} became active while the guards of {key} were "
                "checked: nothing was changed.",
                "Check it, then decide again.",
            )
        policy = read_policy(connection)
        if approved_waivers(connection, version, policy) not in (None, waived):
            raise _RefusedInFlipError(f"The request for {key} has changed: nothing was changed.", "Run it again.")
        subject = Subject(connection, get_version(connection, key), policy, EncoderCache(), in_flip=True)
        again = check_in_flip(subject, waived)
        if not again.ready:
            raise _NotReadyInFlipError(again)

    detail: dict[str, object] = {"guards": figures(result)}
    if waived_now := {guard.name: guard.waived for guard in result.guards if guard.waived}:
        detail["waived"] = waived_now
    timeout = read_policy(connection).lock_timeout_s
    return _Transaction(connection, "cutover", version, reason, detail, timeout).run(once_more)


def plan(
    connection: Connection,
    key: str,
    *,
    reason: str = "",
    waivers: Mapping[str, str] | None = None,
    encoders: EncoderCache | None = None,
) -> DryRun:
    """What `run` would do, without doing it. Raises what `run` raises before it checks the guards."""
    version = get_version(connection, key)
    if version.active:
        raise RefusedError(f"Version {key} is already active.")
    before = active_version(connection)
    result = check(connection, key, waivers=_waivers(connection, version, waivers), encoders=encoders)
    (path,) = fetch_one(connection, "SELECT current_setting('search_path')")
    again = ", ".join(rule.name for rule in GUARDS if rule.in_flip)
    flip = _Transaction(connection, "cutover", version, reason, {}, read_policy(connection).lock_timeout_s)
    isolation, *locks = flip.locks()
    statements = [
        sql.SQL("BEGIN"),
        isolation,
        sql.SQL("SELECT set_config('search_path', {}, true)").format(path),
        *locks,
        # Guard names come from the program, not from outside.
        sql.SQL("-- Here revector looks once more, and rolls back in doubt: the active version, " + again + "\n")
        + flip.says(),
        flip.flips(),
        sql.SQL("COMMIT"),
    ]
    return DryRun(
        key,
        before.version_key if before else None,
        tuple(statement.as_string(connection) + ";" for statement in statements),
        result,
    )


def rollback_target(connection: Connection) -> Version | None:
    """The version that was active before the newest flip; None after a rollback, or when it is retired or
    dropped."""
    row = connection.execute("SELECT version_key FROM embedding_versions WHERE id = rollback_target()").fetchone()
    return get_version(connection, row[0]) if row else None


def nothing_to_roll_back() -> RefusedError:
    """The error when no version was active before, or it is retired."""
    return RefusedError(
        "There is no version to roll back to.",
        "A rollback needs an earlier cutover from a version that is not retired.",
    )


def missing_chunks(connection: Connection, version: Version) -> int:
    """How many chunks searches by this version would miss, from stored counts: a rollback cannot wait."""
    (missing,) = fetch_one(
        connection,
        """
        SELECT coalesce(sum(CASE WHEN scope = 0 THEN delta ELSE -delta END), 0)::bigint
        FROM row_counts WHERE scope IN (0, %s)
        """,
        [version.id],
    )
    return max(0, int(missing))


def rollback(connection: Connection, *, confirm: str, reason: str = "", only_from: str | None = None) -> Flip:
    """Make the version active that was before the newest cutover; never refused for a guard or an approval.

    It goes one way: after a rollback nothing is changed, and `Flip.changed` is false. With `only_from` the rollback
    happens only while that version is still active. `Flip.missing` counts the chunks that the version lacks. Raises
    RefusedError when there is no version to roll back to, the typed key differs, or another version became active
    meanwhile; UnreachableError as `run` does.
    """

    def require_active() -> None:
        active = active_version(connection)
        if only_from is not None and (active is None or active.version_key != only_from):
            raise _RefusedInFlipError(
                f"{only_from} is no longer active: nothing was changed.", "Check which version is active."
            )

    version = rollback_target(connection)
    try:
        require_active()
    except _RefusedInFlipError as refusal:
        raise audit.refused(connection, "rollback", only_from or "", refusal.problem, refusal.remedy) from None
    if version is None:
        version, done = active_version(connection), next(iter(history(connection, limit=1)), None)
        if version is None or done is None or done.action != "rollback":
            raise nothing_to_roll_back()
        _require_typed(connection, "rollback", version, confirm)
        return done_before(done, missing_chunks(connection, version))
    _require_typed(connection, "rollback", version, confirm)
    missing = missing_chunks(connection, version)

    def once_more() -> None:
        require_active()
        target = rollback_target(connection)
        if target is None or target.id != version.id:
            raise _RefusedInFlipError(
                f"Another version became active, or {version.version_key} was retired: nothing was changed.",
                "Check which version is active.",
            )

    # Not the policy's timeout: a stored setting must not block a rollback.
    timeout = Policy().lock_timeout_s
    return _Transaction(connection, "rollback", version, reason, {}, timeout).run(once_more, missing=missing)


def done_before(entry: CutoverEntry, missing: int) -> Flip:
    """A flip that was there already; `missing` counts the chunks that its version lacks now."""
    return Flip(
        entry.action,
        entry.to_version,
        entry.from_version,
        0.0,
        missing,
        0.0,
        entry.at,
        entry.made_by,
        changed=False,
    )


# -- the transaction ---------------------------------------------------------------------------------------


class _RefusedInFlipError(RevectorError):
    """Rolls back the flip's transaction, for this reason."""


class _NotReadyInFlipError(Exception):
    """A guard fails inside the flip's transaction, which this rolls back."""

    def __init__(self, result: Check) -> None:
        super().__init__(result.version_key)
        self.result = result


class _Transaction:
    """The transaction of a flip: locks, last checks, the UPDATE. On any error nothing is changed."""

    def __init__(
        self,
        connection: Connection,
        action: Action,
        version: Version,
        reason: str,
        detail: Mapping[str, object],
        lock_timeout_s: float,
    ) -> None:
        self._connection, self._action, self._version = connection, action, version
        # The token identifies the flip when the answer to the commit was lost.
        self._token = uuid.uuid4().hex
        self._reason, self._detail = reason, {**detail, "flip": self._token}
        self._timeout_s = lock_timeout_s
        self._committing = False
        self._before: str | None = None
        self._at: datetime.datetime | None = None
        self._made_by = ""

    def locks(self) -> list[_Statement]:
        """Locks what others must not change from here on, with a timeout."""
        return [
            # Must see what others committed while this one queued.
            sql.SQL("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"),
            sql.SQL("SET LOCAL lock_timeout = {}").format(f"{round(self._timeout_s * 1000)}ms"),
            # Others queue behind this transaction, so a process that hangs must not block them for long.
            sql.SQL("SET LOCAL idle_in_transaction_session_timeout = '30s'"),
            sql.SQL("SELECT lock_flip()"),
            sql.SQL("SELECT version_key FROM embedding_versions ORDER BY id FOR NO KEY UPDATE"),
            sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(self._version.table),
        ]

    def says(self) -> _Statement:
        """What the triggers log in addition to who and when."""
        return sql.SQL(
            "SELECT set_config('revector.action', {}, true), set_config('revector.reason', {}, true), "
            "set_config('revector.detail', {}, true)"
        ).format(self._action, self._reason, json.dumps(self._detail))

    def flips(self) -> _Statement:
        """The flip itself, as anybody could type it."""
        return sql.SQL(FLIP.replace("%(key)s", "{key}")).format(key=self._version.version_key)

    def run(self, once_more: Callable[[], None], *, missing: int = 0) -> Flip:
        """Flip. `once_more` checks again under the locks, and raises to prevent the flip."""
        address = Address.of(self._connection)
        try:
            return self._run(once_more, missing)
        except _NotReadyInFlipError as refusal:
            raise _not_ready(self._connection, refusal.result) from None
        except _RefusedInFlipError as refusal:
            raise self._refused(refusal.problem, refusal.remedy) from None
        except _BUSY:
            modes = {**_ROWS_OF_A_FLIP, self._version.table_name: "AccessExclusiveLock"}
            held, remedy = name_holders(self._connection, modes)
            raise self._refused(
                f"The {self._action} timed out waiting {self._timeout_s:g} s for a lock, {held}: nothing was changed.",
                f"Check which version is active. {remedy}",
            ) from None
        except psycopg.errors.RaiseException as error:
            raise self._refused(error.diag.message_primary or str(error), error.diag.message_hint or "") from None
        except psycopg.OperationalError as error:
            if not (self._connection.closed or isinstance(error, _GONE)):
                raise
            return self._after_loss(address, missing)

    def _run(self, once_more: Callable[[], None], missing: int) -> Flip:
        began = time.perf_counter()
        with self._connection.transaction():
            for statement in self.locks():
                self._connection.execute(statement)
            locked = time.perf_counter()
            before = active_version(self._connection)
            self._before = before.version_key if before else None
            if before is not None and before.id == self._version.id:
                raise _RefusedInFlipError(f"Version {self._version.version_key} is already active.")
            once_more()
            self._connection.execute(self.says())
            self._connection.execute(self.flips())
            # What it was is for the database to say.
            found = "SELECT action, at, made_by FROM cutovers ORDER BY id DESC LIMIT 1"
            self._action, self._at, self._made_by = fetch_one(self._connection, found)
            self._committing = True
        return self._flip(missing, time.perf_counter() - locked, locked - began)

    def _flip(self, missing: int, seconds: float, waited: float) -> Flip:
        log.info("%s to %s, was %s", self._action, self._version.version_key, self._before or "none")
        return Flip(
            self._action,
            self._version.version_key,
            self._before,
            seconds,
            missing,
            waited,
            self._at,
            self._made_by,
        )

    def _after_loss(self, address: Address, missing: int) -> Flip:
        """The connection is lost. If the COMMIT was not sent, nothing was committed; otherwise ask the
        database."""
        key = self._version.version_key
        log.warning("the connection was lost in the %s to %s", self._action, key)
        began = time.perf_counter()
        done = how_it_ended(
            address, self._action, key, self._token, sent=self._committing, patience_s=self._timeout_s
        )
        if done:
            return self._flip(missing, time.perf_counter() - began, 0.0)
        if done is None:
            raise UnreachableError(
                f"The connection was lost while the {self._action} to {key} was being committed, and the database "
                "cannot be reached, so it is unknown whether it happened.",
                "First check which version is active: revector versions list",
            )
        raise UnreachableError(
            f"The connection was lost before the {self._action} to {key} was committed: nothing was changed.",
            "Check the server and run it again.",
        )

    def _refused(self, problem: str, remedy: str) -> RefusedError:
        return audit.refused(self._connection, self._action, self._version.version_key, problem, remedy)


# -- refusals ----------------------------------------------------------------------------------------------


def _waivers(connection: Connection, version: Version, given: Mapping[str, str] | None) -> dict[str, str]:
    """The waivers that count: where approvals are required, only approved ones."""
    waivers = checked_waivers(given or {})
    approved = approved_waivers(connection, version, read_policy(connection))
    if approved is None:
        return waivers
    if alone := sorted(waivers.keys() - approved.keys()):
        raise audit.refused(
            connection, "cutover", version.version_key,
            f"The request for {version.version_key} does not waive {', '.join(alone)}. Where approvals are required, "
            "waivers need approval too.",
            f"Request it with the waiver: revector cutover request {version.version_key} --waive '{alone[0]}=REASON'",
        )  # fmt: skip
    return approved


def _require_typed(connection: Connection, action: Action, version: Version, confirm: str) -> None:
    key = version.version_key
    if confirm != key:
        raise audit.refused(
            connection, action, key,
            f"The typed key is {confirm[:100]!r}, not {key!r}: nothing was changed.", "Type the version key exactly.",
        )  # fmt: skip


def _not_ready(connection: Connection, result: Check) -> RefusedError:
    failed = Check(result.version_key, tuple(guard for guard in result.guards if not guard.clear))
    lines = [f"{guard.name}: {guard.detail}. {guard.remedy}".strip() for guard in failed.guards]
    return audit.refused(
        connection, "cutover", result.version_key,
        f"Version {result.version_key} is not ready; nothing was changed.", "\n".join(lines),
        detail={"guards": figures(failed)},
    )  # fmt: skip
