"""Reads one backfill in detail, for as long as somebody looks at it, on a connection that stays open."""

from __future__ import annotations

import contextlib
import threading

from revector.core.backfill.job.dead_letters import Failure, failures
from revector.core.backfill.job.status import JobDetail, job_detail
from revector.core.database import Connection
from revector.core.errors import UnreachableError
from revector.core.registry import Version
from revector.screens.connections import Connections, shut_down

MOST_FAILURES = 100
"""Dead letters that are listed: the newest."""

Found = tuple[JobDetail | None, tuple[Failure, ...] | None]


class JobReader:
    """One read at a time, from any thread."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._open = contextlib.ExitStack()
        self._connection: Connection | None = None

    def read(self, version: Version, cells: int, *, dead_letters: bool) -> Found:
        """The job's detail with so many cells of the map, and its dead letters where they are asked for."""
        with self._lock:
            kept = self._connection is not None
            try:
                return self._read(version, cells, dead_letters)
            except UnreachableError:
                self._close()
                if not kept:
                    raise
            return self._read(version, cells, dead_letters)  # the connection was an old one: a new one may do

    def _read(self, version: Version, cells: int, dead_letters: bool) -> Found:
        with self._connections.readable_errors():
            if self._connection is None:
                self._connection = self._open.enter_context(self._connections.reading())
            connection = self._connection
            found = tuple(failures(connection, version, limit=MOST_FAILURES)) if dead_letters else None
            return job_detail(connection, version, cells=cells), found

    def _close(self) -> None:
        self._connection = None
        self._open.close()

    def hang_up(self) -> None:
        """End a read that does not come back: it fails at once."""
        connection = self._connection
        if connection is not None:
            shut_down(connection)

    def close(self) -> None:
        """Let go of the connection, unless a read has it, which ends by itself."""
        if self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()
