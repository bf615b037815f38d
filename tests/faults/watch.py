"""Observes a backfill from outside, and waits for conditions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg

from revector.core.backfill.job.status import JobStatus, status
from revector.core.database import Connection, Database
from revector.core.errors import UnreachableError
from revector.core.registry import Version, get_version
from tests.faults.numbers import NUMBERS

if TYPE_CHECKING:
    from tests.faults.workers import Process


def wait_until(what: str, seen: Callable[[], Any], *, seconds: float = NUMBERS.patience_s) -> Any:
    """Look until the answer is true, and return it; fails with `what` when that does not come."""
    end = time.monotonic() + seconds
    while not (found := seen()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}; seen last: {found!r}")
        time.sleep(0.005)
    return found


class Watch:
    """A connection of the test's own, straight to the server, which is opened again when it is lost."""

    def __init__(self, database: Database, version_key: str = "v1") -> None:
        self.database, self.version_key = database, version_key
        self._connection: Connection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @property
    def connection(self) -> Connection:
        """Lost ones are only noticed by using them: see `ask`."""
        if self._connection is None or self._connection.closed:
            self._connection = self.database.connect("watch")
        return self._connection

    def ask(self, query: str, *values: object) -> list[Any]:
        """All rows; while the server is away it is asked again."""

        def answered() -> list[list[Any]] | None:
            try:
                return [self.connection.execute(query, values).fetchall()]  # type: ignore[arg-type]
            except (psycopg.OperationalError, UnreachableError):
                self.close()
                return None

        rows: list[Any] = wait_until("the server answers", answered)[0]
        return rows

    def number(self, query: str, *values: object) -> int:
        """The one number of a query; 0 for NULL."""
        return int(self.ask(query, *values)[0][0] or 0)

    def version(self) -> Version:
        return get_version(self.connection, self.version_key)

    def status(self) -> JobStatus | None:
        """The job's status, or None while the server is away or before the job is planned."""
        try:
            return status(self.connection, self.version())
        except (psycopg.OperationalError, UnreachableError):
            self.close()
            return None

    def state(self) -> str:
        status = self.status()
        return status.state if status else ""

    def done(self) -> int:
        """Chunks stored by the job, by its ranges and the outbox."""
        return self.number(
            "SELECT coalesce((SELECT sum(done) FROM backfill_ranges), 0) "
            "+ coalesce((SELECT sum(outbox_done) FROM backfill_jobs), 0)"
        )

    def past(self, done: int, *processes: Process) -> None:
        """Wait until the job has stored as many chunks; fails at once when all these processes have ended before."""

        def stored() -> bool:
            working = not processes or any(process.alive for process in processes)
            enough = self.done() >= done
            assert enough or working, [process.text() for process in processes]
            return enough

        wait_until(f"{done} chunks stored", stored)

    def workers(self, number: int) -> None:
        """Wait until as many workers are alive."""

        def alive() -> bool:
            status = self.status()
            assert status is None or status.state != "done", (
                "the run is over: its corpus is too small for this test"
            )
            return status is not None and status.workers == number

        wait_until(f"{number} workers at work", alive)
