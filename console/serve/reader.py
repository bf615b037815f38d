"""One connection for everything but searches: the list of versions, and the health check."""

from __future__ import annotations

import threading

import psycopg

from revector.core.database import Connection, Database, readable_errors, require_schema
from revector.core.errors import RevectorError
from revector.core.registry import Version, versions

_CLOSE_S = 1.0


class Reader:
    """Reads the versions, one caller at a time, on a connection that is reopened when lost."""

    def __init__(self, database: Database, timeout_s: float) -> None:
        self._database = database
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def read(self) -> list[Version]:
        """The versions, oldest first. Raises UnreachableError for a database that is not reached or not set up."""
        with self._lock:
            if self._connection is not None:
                try:
                    return versions(self._connection)
                except psycopg.OperationalError:  # lost since it was last used
                    self._drop()
            try:
                with readable_errors(self._database):
                    self._connection = self._database.connect("serve", statement_timeout_s=self._timeout_s)
                    require_schema(self._connection, self._database.schema)
                    return versions(self._connection)
            except (psycopg.Error, RevectorError):
                self._drop()
                raise

    def close(self) -> None:
        """Close the connection, unless a read is hanging on it."""
        if self._lock.acquire(timeout=_CLOSE_S):
            self._drop()
            self._lock.release()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
