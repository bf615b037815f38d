"""Who serves what: searching processes report in application_name which version they follow.

A name is `revector retriever v7@16402 host:4711 pinned`: the program, the version's id, the schema's oid (ids belong to
a schema, and a name has 63 bytes at most), host and process, and whether an override pins it. `v0` serves none yet,
`v0@16402 host:4711 pinned=embed-v2` never will: there is no version of that key.
"""

from __future__ import annotations

import datetime
import os
import re
import socket
from dataclasses import dataclass
from typing import Annotated

from revector.core.database import Connection, fetch_one

BEHIND_S = 5.0
"""A process that has not followed a flip after this time counts as late, and `revector serving` fails."""
_MOST_BYTES = 63
"""Postgres cuts application_name there (NAMEDATALEN − 1)."""
_LEAST_HOST = 8
_NAME = re.compile(r"revector (\S+) v(\d+)@(\d+) (\S*):(\d+)( pinned(?:=(\S+))?)?")


@dataclass(frozen=True)
class Process:
    """A process that searches this collection."""

    pid: Annotated[int, "its process id there"]
    host: Annotated[str, "the machine, as it says"]
    program: Annotated[str, "what it is, as it says"]
    version_key: Annotated[str | None, "the version that it answers by; null when none"]
    pinned: Annotated[bool, "whether it keeps to that one on purpose"]
    since: Annotated[datetime.datetime | None, "when it connected; null where the role may not see that"]
    behind_s: Annotated[float | None, "seconds since the last flip, when it has not followed"]
    pinned_to: Annotated[str | None, "the version that it is pinned to, whether or not that exists"]

    @property
    def late(self) -> Annotated[bool, "whether it should have followed by now"]:
        """Whether it has not followed the last flip in time."""
        return self.behind_s is not None and self.behind_s > BEHIND_S

    @property
    def gone(
        self,
    ) -> Annotated[bool, "whether it is pinned to a version that does not exist: it answers no search"]:
        """Whether it is pinned to a version that does not exist, so that it answers no search."""
        return self.pinned and self.version_key is None


def served_name(program: str, version_id: int, schema_oid: int, *, pinned: bool, missing: str = "") -> str:
    """The application_name of this process; `missing` is the key that it is pinned to, when there is no such version.

    A host name that is too long is cut, and then such a key too.
    """
    start = f"revector {plain_word(program)[:12]} v{version_id}@{schema_oid} "
    end = f":{os.getpid()}" + (" pinned" if pinned else "")
    room = _MOST_BYTES - len(start) - len(end)
    if missing:
        most = room - _LEAST_HOST - 1
        end += f"={missing}" if len(missing) <= most else f"={missing[: most - 1]}~"
        room = _MOST_BYTES - len(start) - len(end)
    return f"{start}{plain_word(socket.gethostname())[: max(0, room)]}{end}"


def plain_word(text: str) -> str:
    """A word of printable ASCII: Postgres turns anything else in the name into question marks."""
    return re.sub(r"[^!-~]+", "-", text)


def serving(connection: Connection) -> list[Process]:
    """The processes that search this collection, by program, host and process id."""
    (schema,) = fetch_one(connection, "SELECT oid::bigint FROM pg_namespace WHERE nspname = current_schema()")
    rows = connection.execute(
        """
        SELECT application_name, backend_start, extract(epoch FROM clock_timestamp() - a.activated_at)::float8,
               a.id, (SELECT jsonb_object_agg(id, version_key) FROM embedding_versions)
        FROM pg_stat_activity LEFT JOIN embedding_versions a ON a.active
        WHERE datname = current_database() AND starts_with(application_name, 'revector ')
        """
    ).fetchall()
    found = []
    for name, since, flipped_s, active, keys in rows:
        parts = _NAME.fullmatch(name)
        if parts is None or int(parts[3]) != schema:
            continue
        pinned = parts[6] is not None
        behind = None if pinned or active in (None, int(parts[2])) else max(0.0, flipped_s)
        key = (keys or {}).get(parts[2])
        pinned_to = key or parts[7] if pinned else None
        found.append(Process(int(parts[5]), parts[4], parts[1], key, pinned, since, behind, pinned_to))
    return sorted(found, key=lambda one: (one.program, one.host, one.pid))
