"""A worker agrees with the job's others, or stores nothing: same release, same vector of one text."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from revector.core.backfill.job.job import find_job, open_job
from revector.core.backfill.worker.agreement import release
from revector.core.database import Connection, Database, fetch_one
from revector.core.encoders import PROBE_TEXT
from revector.core.errors import MisfitError
from revector.core.registry import Version, embedded_count
from tests.core.backfill.steps import job_status, living_worker
from tests.encoders import Stub
from tests.versions import NUMBERS, add, add_chunks, worker_on

HERE = socket.gethostname()


class OtherModel(Stub):
    """Another model file under the same name: vectors of the right size."""

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = super().encode_documents(texts)
        vectors[:, ::2] *= -1
        return vectors


@pytest.fixture
def version(connection: Connection) -> Version:
    add_chunks(connection, NUMBERS)
    return add(connection, "v1")


def begun(connection: Connection, version: Version) -> int:
    """A job whose first worker, which lives, is on another machine and has this encoder."""
    job = open_job(connection, version)
    probe = Stub().encode_documents([PROBE_TEXT])[0]
    connection.execute(
        "UPDATE backfill_jobs SET probe_vector = %s, probe_by = 'node-7', run_release = %s WHERE id = %s",
        [probe.tolist(), release(), job.id],
    )
    return job.id


def test_a_worker_with_another_model_under_the_same_name_stores_nothing(
    database: Database, connection: Connection, version: Version
) -> None:
    begun(connection, version)
    with pytest.raises(MisfitError) as caught:
        worker_on(database, version, OtherModel(), check=True).join()
    assert f"The worker on {HERE} stored nothing in v1" in caught.value.problem
    assert "than that on node-7: their cosine is " in caught.value.problem
    assert embedded_count(connection, version) == 0
    assert job_status(connection, version).state == "interrupted"
    assert worker_on(database, version, Stub(), check=True).join().done == len(NUMBERS)


def test_a_worker_of_another_release_stores_nothing(
    database: Database, connection: Connection, version: Version
) -> None:
    begun(connection, version)
    job = find_job(connection, version)
    assert job is not None
    with living_worker(connection, job):  # the run goes on: a new one is of the release that begins it
        connection.execute("UPDATE backfill_jobs SET run_release = '0.0.1'")
        with pytest.raises(
            MisfitError, match=f"has revector {release()}, and the run was begun by revector 0.0.1"
        ):
            worker_on(database, version, Stub(), check=True).join()
    assert embedded_count(connection, version) == 0
    assert worker_on(database, version, Stub(), check=True).join().state == "done"  # after the upgrade


def test_the_first_worker_says_what_the_others_must_make(
    database: Database, connection: Connection, version: Version
) -> None:
    worker_on(database, version, Stub(), check=True).join()
    by, runs, vector = fetch_one(connection, "SELECT probe_by, run_release, probe_vector FROM backfill_jobs")
    assert (by, runs) == (HERE, release())
    assert vector == [1.0] * 64
