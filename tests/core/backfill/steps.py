"""What the backfill's tests share: waiting for what the database shows, and a worker that only seems to work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from psycopg import sql

from revector.core.backfill.job.job import WORKER_LOCK, Job
from revector.core.backfill.job.status import JobStatus, status
from revector.core.database import Connection, fetch_one
from revector.core.registry import Version


def job_status(connection: Connection, version: Version) -> JobStatus:
    """The status of a backfill that is there."""
    found = status(connection, version)
    assert found is not None
    return found


@contextmanager
def living_worker(connection: Connection, job: Job) -> Iterator[int]:
    """A worker that lives, as far as the database shows, and does nothing: its number."""
    register = "INSERT INTO backfill_workers (job_id, client) VALUES (%s, 'elsewhere') RETURNING id"
    (worker_id,) = fetch_one(connection, register, [job.id])
    connection.execute(sql.SQL("SELECT pg_advisory_lock({})").format(WORKER_LOCK), [worker_id])
    try:
        yield worker_id
    finally:
        connection.execute(sql.SQL("SELECT pg_advisory_unlock({})").format(WORKER_LOCK), [worker_id])


def eventually(condition: Callable[[], object], *, seconds: float = 60) -> None:
    """Wait for a condition; fails when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
