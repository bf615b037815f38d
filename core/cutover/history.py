"""Every change of the active version, as logged by the database's trigger: cutovers, rollbacks, flips from
psql."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from psycopg.rows import class_row

from revector.core.database import Connection


@dataclass(frozen=True)
class CutoverEntry:
    """One change of the active version."""

    id: Annotated[int, "its number"]
    at: Annotated[datetime.datetime, "when"]
    action: Annotated[str, "cutover or rollback, as the database found"]
    from_version: Annotated[str | None, "the version that was active"]
    to_version: Annotated[str, "the one since then"]
    made_by: Annotated[str, "the role of Postgres"]
    reason: Annotated[str, "why"]
    request_id: Annotated[int | None, "the request that it carried out"]
    requested_by: Annotated[str | None, "who asked for it"]
    approved_by: Annotated[list[str], "who approved it"]
    waived: Annotated[
        Mapping[str, str], "guards that did not pass, each with the reason: as approved, else as the program said"
    ]
    watch_until: Annotated[datetime.datetime | None, "null where nothing was watched"]
    watch_ended_at: Annotated[datetime.datetime | None, "when the watch ended before that"]
    watch_ended_why: Annotated[str, "what ended it"]


def history(connection: Connection, *, limit: int = 50) -> list[CutoverEntry]:
    """Changes of the active version, newest first."""
    with connection.cursor(row_factory=class_row(CutoverEntry)) as cursor:
        return cursor.execute(
            """
            SELECT c.id, c.at, c.action, c.from_version, c.to_version, c.made_by, c.reason, c.request_id,
                   r.requested_by,
                   ARRAY(SELECT approved_by FROM cutover_approvals a WHERE a.request_id = c.request_id
                         ORDER BY a.approved_at) AS approved_by,
                   CASE WHEN (c.detail #>> '{approvals,needed}')::numeric > 0
                        THEN coalesce(r.waivers, '{}')  -- the request goes with its version
                        WHEN jsonb_typeof(c.detail #> '{client_says,waived}') = 'object'
                        THEN c.detail #> '{client_says,waived}' ELSE '{}' END AS waived,
                   c.watch_until, c.watch_ended_at, c.watch_ended_why
            FROM cutovers c LEFT JOIN cutover_requests r ON r.id = c.request_id
            ORDER BY c.id DESC LIMIT %s
            """,
            [limit],
        ).fetchall()
