"""What a worker reads and writes: leases of ranges and of the outbox, and a batch that is stored once."""

from __future__ import annotations

import numpy as np
import pytest
from psycopg import sql

from revector.core.backfill.job.job import open_job, require_job
from revector.core.backfill.worker.batches import (
    Encoded,
    LostLeaseError,
    commit,
    lease_range,
    read_outbox,
    read_range,
)
from revector.core.database import Connection, Database
from tests.core.backfill.steps import job_status, living_worker
from tests.versions import add, add_chunks, backfill


def test_a_batch_that_is_stored_already_is_not_stored_again(connection: Connection) -> None:
    """The answer to its commit was lost, and it is retried."""
    ids = add_chunks(connection, ["one", "two", "three"])
    version = add(connection, "v1")
    found = open_job(connection, version)
    with living_worker(connection, found) as worker:
        lease = lease_range(connection, found.id, worker, 60)
        assert lease is not None
        batch = read_range(connection, version, lease, lease.cursor, 2, most_bytes=1_000)
        done = Encoded(batch, np.array(batch.ids), np.ones((2, 64), np.float32), spent_usd=1.5)
        assert commit(connection, version, found.id, done, 60) == 2
        with pytest.raises(LostLeaseError):
            commit(connection, version, found.id, done, 60)
    now = job_status(connection, version)
    assert (now.done, now.spent_usd) == (2, 1.5)
    query = sql.SQL("SELECT chunk_id FROM {} ORDER BY 1").format(version.table)
    assert [row[0] for row in connection.execute(query).fetchall()] == ids[:2]


def test_a_range_is_free_once_its_worker_is_gone_or_silent(connection: Connection) -> None:
    add_chunks(connection, ["one"])
    found = open_job(connection, add(connection, "v1"))
    with living_worker(connection, found) as second:
        with living_worker(connection, found) as first:
            lease = lease_range(connection, found.id, first, 60)
            assert lease is not None
            assert lease_range(connection, found.id, second, 60) is None
        taken = lease_range(connection, found.id, second, 60)  # it is gone, however long its lease would last
        assert taken is not None
        assert (taken.range_id, taken.token) == (lease.range_id, lease.token + 1)
        with living_worker(connection, found) as third:
            assert lease_range(connection, found.id, third, 60) is None
            connection.execute("UPDATE backfill_ranges SET lease_until = now() - interval '1 second'")
            assert lease_range(connection, found.id, third, 60) is not None


def test_two_workers_do_not_take_the_same_chunks_out_of_the_outbox(
    database: Database, connection: Connection
) -> None:
    version = add(connection, "v1")
    backfill(database, version)
    ids = add_chunks(connection, ["one", "two", "three"])
    found = require_job(connection, version)

    def take(worker: int, size: int) -> list[int]:
        batch = read_outbox(connection, version, worker, size, 60, most_bytes=1_000)
        return batch.ids if batch else []

    with living_worker(connection, found) as second:
        with living_worker(connection, found) as first:
            assert (take(first, 2), take(second, 3), take(first, 3)) == (ids[:2], ids[2:], [])
        assert take(second, 3) == ids[:2]  # the first one is gone, and what it had is free
