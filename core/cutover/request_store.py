"""Stored requests for a cutover, with their approvals and what made one void."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, LiteralString

from psycopg.rows import dict_row

from revector.core.database import Connection
from revector.core.registry import Version
from revector.core.text import counted

RequestState = Literal["open", "approved", "void", "expired", "withdrawn", "done"]


@dataclass(frozen=True)
class Approval:
    """An approval of a request."""

    approved_by: Annotated[str, "the role of Postgres"]
    approved_at: Annotated[datetime.datetime, "when"]
    client: Annotated[str, "user@host, as the program says"]
    comment: Annotated[str, "what they said"]
    counts: Annotated[bool, "false once the role has lost the right to approve"] = True


@dataclass(frozen=True)
class Request:
    """A request to make a version active."""

    id: Annotated[int, "its number"]
    version_key: Annotated[str, "the version that would become active"]
    requested_by: Annotated[str, "the role of Postgres"]
    client: Annotated[str, "user@host, as the program says"]
    requested_at: Annotated[datetime.datetime, "when"]
    expires_at: Annotated[datetime.datetime, "when it can no longer be carried out"]
    reason: Annotated[str, "why"]
    basis: Annotated[Mapping[str, Any], "what its approvers sign"]
    waivers: Annotated[Mapping[str, str], "guards that need not pass, each with the reason"]
    guards: Annotated[Mapping[str, str], "the figure of each guard at the time of the request"]
    approvals: Annotated[tuple[Approval, ...], "those that were given"]
    needed: Annotated[int, "approvals that the policy asks for"]
    void_because: Annotated[str, "what has changed since; empty when nothing has"]
    expired: Annotated[bool, "whether its time is over"]
    ended: Annotated[str | None, "how it ended; null while it has not"]
    ended_at: Annotated[datetime.datetime | None, "when it ended"]
    ended_why: Annotated[str, "why it ended"]

    @property
    def state(self) -> Annotated[RequestState, "open waits for approvals, approved for the flip; others are over"]:
        """`open` waits for approvals, `approved` for the flip; the other states are final."""
        if self.ended is not None:
            return self.ended  # type: ignore[return-value]  # the table's check constraint
        if self.expired:
            return "expired"
        if self.void_because:
            return "void"
        return "approved" if self.given >= self.needed else "open"

    @property
    def waits_for(self) -> str:
        """What an open request lacks, in words."""
        return counted(max(0, self.needed - self.given), "approval")

    @property
    def given(self) -> int:
        """How many approvals count."""
        return sum(approval.counts for approval in self.approvals)


_SELECT = """
SELECT r.id, v.version_key, r.requested_by, r.client, r.requested_at, r.expires_at, r.reason, r.basis, r.waivers,
       r.guards, cutover_setting('approvals', 0)::int AS needed, r.expires_at <= clock_timestamp() AS expired,
       r.ended, r.ended_at, r.ended_why,
       coalesce(CASE WHEN r.ended IS NULL THEN request_void(r) END, '') AS void_because,
       (SELECT array_agg(ARRAY[a.approved_by, a.client, a.comment] ORDER BY a.approved_at)
        FROM cutover_approvals a WHERE a.request_id = r.id) AS approvers,
       (SELECT array_agg(a.approved_at ORDER BY a.approved_at)
        FROM cutover_approvals a WHERE a.request_id = r.id) AS approved_at,
       (SELECT array_agg(may_approve(a.approved_by, a.approver) ORDER BY a.approved_at)
        FROM cutover_approvals a WHERE a.request_id = r.id) AS counts
FROM cutover_requests r JOIN embedding_versions v ON v.id = r.embedding_version_id
"""
_OPEN = _SELECT + "WHERE r.embedding_version_id = %(id)s AND r.ended IS NULL"
_ONE = _SELECT + "WHERE r.id = %(id)s"
_NEWEST = _SELECT + "ORDER BY r.id DESC LIMIT %(limit)s"


def open_request(connection: Connection, version: Version) -> Request | None:
    """The request for this version that has not ended (it may be void or expired), or None."""
    found = _read(connection, _OPEN, {"id": version.id})
    return found[0] if found else None


def requests(connection: Connection, *, limit: int = 50) -> list[Request]:
    """All requests, newest first, ended ones included."""
    return _read(connection, _NEWEST, {"limit": limit})


def get_request(connection: Connection, request_id: int) -> Request:
    """The request with this number, which must exist."""
    return _read(connection, _ONE, {"id": request_id})[0]


def local_time(moment: datetime.datetime) -> str:
    """A time to the minute, in this machine's time zone."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _read(connection: Connection, query: LiteralString, values: Mapping[str, object]) -> list[Request]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return [_of_row(row) for row in cursor.execute(query, values).fetchall()]


def _of_row(row: dict[str, Any]) -> Request:
    approvers, moments, counts = (row.pop(name) for name in ("approvers", "approved_at", "counts"))
    approvals = tuple(
        Approval(approved_by, at, client, comment, may)
        for (approved_by, client, comment), at, may in zip(
            approvers or (), moments or (), counts or (), strict=True
        )
    )
    return Request(**row, approvals=approvals)
