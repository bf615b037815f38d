"""One frozen snapshot of a collection: everything that a screen shows, read in one transaction."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from revector.core import audit, cutover, index
from revector.core.audit import AuditEntry
from revector.core.backfill.job import status as backfill
from revector.core.backfill.job.status import JobStatus
from revector.core.database import Connection, ServerInfo, fetch_one, server_info
from revector.core.index import IndexState
from revector.core.registry import VersionStatus, version_statuses
from revector.core.roles.rights import EVERYTHING, Rights, read_rights

_LOG_ENTRIES = 200


@dataclass(frozen=True)
class Overview:
    """The state of a collection at `taken_at`. Mappings are keyed by version key."""

    taken_at: datetime.datetime
    server: ServerInfo
    versions: tuple[VersionStatus, ...]
    jobs: Mapping[str, JobStatus]
    rates: Mapping[str, tuple[float, ...]]
    indexes: Mapping[str, IndexState]
    builds: Mapping[str, tuple[str, int, int]]
    rollback_to: str | None
    log: tuple[AuditEntry, ...]
    rights: Rights = EVERYTHING
    """The rights of the reading role."""


def read_overview(connection: Connection, schema: str) -> Overview:
    """Read the snapshot. The cost of its queries does not depend on the number of chunks."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        (taken_at,) = fetch_one(connection, "SELECT clock_timestamp()")
        statuses = tuple(version_statuses(connection))
        jobs = {}
        rates = {}
        builds = {}
        for status in statuses:
            key = status.version.version_key
            found = backfill.status(connection, status.version)
            if found is not None:
                jobs[key] = found
                rates[key] = tuple(backfill.rates(connection, status.version))
            build = index.progress(connection, status.version)
            if build is not None:
                builds[key] = build
        target = cutover.rollback_target(connection)
        return Overview(
            taken_at,
            server_info(connection, schema),
            statuses,
            jobs,
            rates,
            {s.version.version_key: index.inspect(connection, s.version) for s in statuses},
            builds,
            target.version_key if target else None,
            tuple(audit.entries(connection, limit=_LOG_ENTRIES)),
            read_rights(connection),
        )
