"""Who holds the locks that a statement waited for until it gave up."""

from __future__ import annotations

from collections.abc import Mapping

from revector.core.database import Connection

_MODES = [
    "AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock",
    "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock",
]  # fmt: skip
_MOST_NAMED = 3


def name_holders(connection: Connection, modes: Mapping[str, str]) -> tuple[str, str]:
    """Who holds a lock of that mode or a stronger one on one of the tables, in words; and what to do about it.

    To be called right after the wait: Postgres does not tell afterwards what a statement waited for. Without more
    rights, a role does not see since when other roles' transactions run.
    """
    rows = connection.execute(
        """
            SELECT a.pid, coalesce(a.usename, a.backend_type), a.application_name,
                   to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS TZ')
            FROM pg_stat_activity a
            WHERE a.pid <> pg_backend_pid() AND EXISTS (
                SELECT FROM pg_locks l
                JOIN unnest(%(tables)s::text[], %(modes)s::text[]) AS w (name, mode)
                     ON l.relation = to_regclass(w.name)
                WHERE l.pid = a.pid AND l.granted
                  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND array_position(%(order)s, l.mode) >= array_position(%(order)s, w.mode))
            ORDER BY a.xact_start, a.pid LIMIT %(most)s
        """,
        {"tables": list(modes), "modes": list(modes.values()), "order": _MODES, "most": _MOST_NAMED},
    ).fetchall()
    if not rows:
        return "which no session holds any more", "Try again, or look into pg_prepared_xacts."
    sessions = (
        f"process {pid} of {role} ({program or 'a program without a name'}{f', since {since}' if since else ''})"
        for pid, role, program, since in rows
    )
    ends = "; ".join(f"SELECT pg_terminate_backend({row[0]})" for row in rows)
    return (
        f"held by {', '.join(sessions)}",
        f"If that does not end by itself, the owner or a superuser ends it: {ends}",
    )
