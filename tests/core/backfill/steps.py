"""What the backfill's tests share: waiting for what the database shows."""

from __future__ import annotations

import time
from collections.abc import Callable

from revector.core.backfill.job.status import JobStatus, status
from revector.core.database import Connection
from revector.core.registry import Version


def job_status(connection: Connection, version: Version) -> JobStatus:
    """The status of a backfill that is there."""
    found = status(connection, version)
    assert found is not None
    return found


def eventually(condition: Callable[[], object], *, seconds: float = 60) -> None:
    """Wait for a condition; fails when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
