"""Requests for a cutover, and their approvals: another person agrees to what is written down here.

Who asks and who approves is the role that has logged in to the database (session_user): triggers write it, whatever
the statement says, and refuse an approval of one's own request (core/migrations/sql/cutover.sql). The `basis`
of a request is what was signed: once anything of it differs, the request is void. With `approvals` in the policy, the
database refuses every other flip than to an approved version or back to one that was active before.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, LiteralString

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from revector.core import audit
from revector.core.cutover.guard import Check, Guard, Subject
from revector.core.database import Connection
from revector.core.errors import RefusedError, UsageError
from revector.core.registry import Version, get_version

RequestState = Literal["open", "approved", "void", "expired", "withdrawn", "done"]


@dataclass(frozen=True)
class Approval:
    """Who approved a request, when, and what they said. `approved_by` is the database role, `client` user@host."""

    approved_by: str
    approved_at: datetime.datetime
    client: str
    comment: str


@dataclass(frozen=True)
class Request:
    """A request to make a version active.

    `basis` is what its approvers sign, `waivers` are the guards that need not pass, each with the reason, and `guards`
    the figures at the time of the request. `needed` is how many approvals the policy asks for now. `void_because` says
    what has changed since, '' when nothing has. `ended` is None while the request could still be carried out.
    """

    id: int
    version_key: str
    requested_by: str
    client: str
    requested_at: datetime.datetime
    expires_at: datetime.datetime
    reason: str
    basis: Mapping[str, Any]
    waivers: Mapping[str, str]
    guards: Mapping[str, str]
    approvals: tuple[Approval, ...]
    needed: int
    void_because: str
    expired: bool
    ended: str | None
    ended_at: datetime.datetime | None
    ended_why: str

    @property
    def state(self) -> RequestState:
        """Where it stands: `open` waits for approvals, `approved` for the flip; the others are over."""
        if self.ended is not None:
            return self.ended  # type: ignore[return-value]  # the table's check constraint
        if self.expired:
            return "expired"
        if self.void_because:
            return "void"
        return "approved" if len(self.approvals) >= self.needed else "open"


def request(connection: Connection, key: str, *, reason: str, waivers: Mapping[str, str] | None = None) -> Request:
    """Ask for a cutover to this version, with the figures of its guards as they are now.

    An earlier request for it that is void or has expired is ended. Raises UsageError for an unknown key or waiver and
    without a reason; RefusedError when a request is open already, or the version is active or was never complete.
    """
    from revector.core.cutover.guards import check, checked_waivers

    version = get_version(connection, key)
    if not reason.strip():
        raise UsageError("A request for a cutover needs a reason.", "It is what the approvers read: --reason TEXT")
    waived = checked_waivers(waivers or {})
    found = check(connection, key, waivers=waived)
    with _refusals(connection, "cutover request", key), connection.transaction():
        before = open_request(connection, version)
        if before is not None:
            if before.state in ("open", "approved"):
                raise RefusedError(
                    f"{before.requested_by} has requested a cutover to {key} already, "
                    f"until {_when(before.expires_at)}.",
                    f"Have it approved (revector cutover approve {key}) or withdraw it "
                    f"(revector cutover withdraw {key}).",
                )
            _end(connection, before, before.state, before.void_because)
        # The triggers fill in who, when, until when and on what basis.
        connection.execute(
            """
            INSERT INTO cutover_requests (embedding_version_id, reason, expires_at, basis, waivers, guards)
            VALUES (%s, %s, now(), '{}', %s, %s)
            """,
            [version.id, reason.strip(), Jsonb(waived), Jsonb(figures(found))],
        )
        made = open_request(connection, version)
        assert made is not None  # noqa: S101  (inserted above, in this transaction)
        audit.record(
            connection, "cutover request", key, reason=made.reason, detail={"request": made.id, "waived": waived}
        )
    return made


def approve(connection: Connection, key: str, *, comment: str = "", request_id: int | None = None) -> Request:
    """Approve the open request for this version, as the role that has logged in.

    `request_id` is the request that was looked at, if it has to be that one. Raises RefusedError when there is none
    or another one, when it is one's own, void or expired, and when this role has approved it before.
    """
    version = get_version(connection, key)
    found = open_request(connection, version)
    if found is None or request_id not in (None, found.id):
        problem = f"There is no open request for a cutover to {key}."
        if found is not None:
            problem = f"Request {request_id} is over; {found.requested_by} has made another one, {found.id}."
        raise RefusedError(problem, f"See revector cutover requests, or ask: revector cutover request {key}")
    try:
        with _refusals(connection, "cutover approve", key), connection.transaction():
            connection.execute(
                "INSERT INTO cutover_approvals (request_id, comment) VALUES (%s, %s)", [found.id, comment.strip()]
            )
            audit.record(connection, "cutover approve", key, reason=comment, detail={"request": found.id})
    except psycopg.errors.UniqueViolation:
        raise RefusedError(f"This role has approved the request for {key} already.") from None
    return _required(connection, found.id)


def withdraw(connection: Connection, key: str, *, reason: str = "") -> Request:
    """End the open request for this version: by who made it, or by somebody who does not agree; the log says who.

    Raises RefusedError when there is none.
    """
    version = get_version(connection, key)
    with connection.transaction():
        found = open_request(connection, version)
        if found is None:
            raise RefusedError(
                f"There is no open request for a cutover to {key}.", "See revector cutover requests."
            )
        _end(connection, found, "withdrawn", reason.strip())
        audit.record(connection, "cutover withdraw", key, reason=reason, detail={"request": found.id})
    return _required(connection, found.id)


def open_request(connection: Connection, version: Version) -> Request | None:
    """The request for this version that has not ended; it may be void or expired. None when there is none."""
    found = _read(connection, _OPEN, {"id": version.id})
    return found[0] if found else None


def requests(connection: Connection, *, limit: int = 50) -> list[Request]:
    """The newest requests first, those that are over too."""
    return _read(connection, _NEWEST, {"limit": limit})


def approvals_guard(subject: Subject) -> Guard:
    """As many others as the policy asks for have approved this cutover, as it stands now.

    A cutover back to a version that was active before needs them too; a rollback does not.
    """
    needed = subject.policy.approvals
    key = subject.version.version_key
    found = open_request(subject.connection, subject.version)
    if needed == 0:
        return Guard("approvals", "pass", "none required" + (f"; {_approvals(found)}" if found else ""))
    ask = f"revector cutover request {key} --reason TEXT"
    if found is None:
        return Guard("approvals", "fail", f"nobody has requested it; {needed} required", ask)
    asked = f"asked for by {found.requested_by} on {_when(found.requested_at)}"
    match found.state:
        case "void":
            return Guard("approvals", "fail", f"void, {asked}: {found.void_because}", ask)
        case "expired":
            return Guard("approvals", "fail", f"expired on {_when(found.expires_at)}, {asked}", ask)
        case "approved":
            return Guard("approvals", "pass", f"{_approvals(found)}, {asked}, until {_when(found.expires_at)}")
        case _:
            return Guard(
                "approvals", "fail", f"{_approvals(found)}, {asked}",
                f"Another role has to approve it: revector cutover approve {key}",
            )  # fmt: skip


def figures(found: Check) -> dict[str, str]:
    """What the guards said, a line each, as requests and the log keep it."""
    lines = {}
    for guard in found.guards:
        text = guard.detail if guard.verdict == "pass" else f"{guard.verdict}: {guard.detail}"
        lines[guard.name] = f"{text} (waived: {guard.waived})" if guard.waived else text
    return lines


# -- rows --------------------------------------------------------------------------------------------------

_SELECT = """
SELECT r.id, v.version_key, r.requested_by, r.client, r.requested_at, r.expires_at, r.reason, r.basis, r.waivers,
       r.guards, cutover_setting('approvals', 0)::int AS needed, r.expires_at <= clock_timestamp() AS expired,
       r.ended, r.ended_at, r.ended_why, CASE WHEN r.ended IS NULL THEN cutover_basis(v.id) END AS basis_now,
       (SELECT array_agg(ARRAY[a.approved_by, a.client, a.comment] ORDER BY a.approved_at)
        FROM cutover_approvals a WHERE a.request_id = r.id) AS approvers,
       (SELECT array_agg(a.approved_at ORDER BY a.approved_at)
        FROM cutover_approvals a WHERE a.request_id = r.id) AS approved_at
FROM cutover_requests r JOIN embedding_versions v ON v.id = r.embedding_version_id
"""
_OPEN = _SELECT + "WHERE r.embedding_version_id = %(id)s AND r.ended IS NULL"
_ONE = _SELECT + "WHERE r.id = %(id)s"
_NEWEST = _SELECT + "ORDER BY r.id DESC LIMIT %(limit)s"


def _read(connection: Connection, query: LiteralString, values: Mapping[str, object]) -> list[Request]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return [_of_row(row) for row in cursor.execute(query, values).fetchall()]


def _of_row(row: dict[str, Any]) -> Request:
    now, approvers, moments = (row.pop(name) for name in ("basis_now", "approvers", "approved_at"))
    approvals = tuple(
        Approval(approved_by, at, client, comment)
        for (approved_by, client, comment), at in zip(approvers or (), moments or (), strict=True)
    )
    void = "" if now is None else _differences(row["basis"], now)
    return Request(**row, approvals=approvals, void_because=void)


def _differences(signed: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What has changed since, with both values, in the words of `cutover_basis`."""
    names = sorted(name for name in {*signed, *now} if signed.get(name) != now.get(name))
    return "; ".join(
        f"{name} changed from {_shown(signed.get(name))} to {_shown(now.get(name))}" for name in names
    )


def _shown(value: object) -> str:
    return "none" if value in (None, "", {}) else value if isinstance(value, str) else json.dumps(value)


def _required(connection: Connection, request_id: int) -> Request:
    return _read(connection, _ONE, {"id": request_id})[0]


def _end(connection: Connection, found: Request, how: str, why: str) -> None:
    connection.execute(
        "UPDATE cutover_requests SET ended = %s, ended_why = %s WHERE id = %s", [how, why, found.id]
    )


@contextmanager
def _refusals(connection: Connection, action: str, key: str) -> Iterator[None]:
    """What the database's triggers refuse is in the log, as every attempt is."""
    try:
        yield
    except psycopg.errors.RaiseException as error:
        problem = error.diag.message_primary or str(error)
        audit.record(connection, action, key, "refused", detail={"problem": problem})
        raise RefusedError(problem, error.diag.message_hint or "") from None


def _approvals(found: Request) -> str:
    names = ", ".join(approval.approved_by for approval in found.approvals)
    given = f"{len(found.approvals)} of {found.needed} approvals" if found.needed else "approved"
    return f"{given} ({names})" if names else given if found.needed else "requested"


def _when(moment: datetime.datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
