"""Reads one backfill in detail, for as long as somebody looks at it, on a connection that stays open."""

from __future__ import annotations

from revector.core.backfill.job.dead_letters import Failure, failures
from revector.core.backfill.job.status import JobDetail, job_detail
from revector.core.database import Connection
from revector.core.registry import Version
from revector.screens.connections import KeptConnection

MOST_FAILURES = 100
"""Dead letters that are listed: the newest."""

Found = tuple[JobDetail | None, tuple[Failure, ...] | None]


class JobReader(KeptConnection):
    """Reads one backfill."""

    def read(self, version: Version, cells: int, *, dead_letters: bool) -> Found:
        """The job's detail with so many cells of the map, and its dead letters where they are asked for."""

        def work(connection: Connection) -> Found:
            found = tuple(failures(connection, version, limit=MOST_FAILURES)) if dead_letters else None
            return job_detail(connection, version, cells=cells), found

        return self.do(work)
