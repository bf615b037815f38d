"""Every change of the active version, as the database's trigger wrote it down: cutovers, rollbacks, flips from psql."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg.rows import class_row

from revector.core.database import Connection


@dataclass(frozen=True)
class CutoverEntry:
    """One change. `action` is cutover, rollback, or flip for an UPDATE that somebody typed.

    `approved_by` are the roles that approved its request, `waived` the guards that did not pass, with the reasons.
    `watch_until` is None where nothing was watched; `watch_ended_at` when the watch ended before that.
    """

    id: int
    at: datetime.datetime
    action: str
    from_version: str | None
    to_version: str
    made_by: str
    reason: str
    request_id: int | None
    requested_by: str | None
    approved_by: list[str]
    waived: Mapping[str, str]
    watch_until: datetime.datetime | None
    watch_ended_at: datetime.datetime | None
    watch_ended_why: str


def history(connection: Connection, *, limit: int = 50) -> list[CutoverEntry]:
    """The newest changes first."""
    with connection.cursor(row_factory=class_row(CutoverEntry)) as cursor:
        return cursor.execute(
            """
            SELECT c.id, c.at, c.action, c.from_version, c.to_version, c.made_by, c.reason, c.request_id,
                   r.requested_by,
                   ARRAY(SELECT approved_by FROM cutover_approvals a WHERE a.request_id = c.request_id
                         ORDER BY a.approved_at) AS approved_by,
                   coalesce(c.detail -> 'waived', '{}') AS waived,
                   c.watch_until, c.watch_ended_at, c.watch_ended_why
            FROM cutovers c LEFT JOIN cutover_requests r ON r.id = c.request_id
            ORDER BY c.id DESC LIMIT %s
            """,
            [limit],
        ).fetchall()
