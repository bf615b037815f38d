"""Steering a backfill from another session, while it works, waits and is held."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from revector.core.backfill.job.dead_letters import failures
from revector.core.backfill.job.job import (
    change_settings,
    find_job,
    open_job,
    request_cancel,
    request_pause,
)
from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.job.spending import Purse, record_spent
from revector.core.backfill.job.status import job_detail, status
from revector.core.backfill.worker.worker import Worker
from revector.core.database import Connection, Database
from revector.core.errors import EncoderError, RefusedError, UnreachableError
from revector.core.registry import Version
from tests.core.backfill.steps import eventually, job_status, living_worker
from tests.encoders import Steps
from tests.versions import add, add_chunks, worker_on

TEXTS = [f"text number {n}" for n in range(60)]


@contextmanager
def working(
    database: Database, connection: Connection, version: Version, encoder: Steps, **settings: object
) -> Iterator[Worker]:
    """A worker in a thread, which is there when the block begins and has ended when it is left."""
    worker = worker_on(database, version, encoder, JobSettings(**settings))
    thread = threading.Thread(target=worker.join)
    thread.start()
    try:
        eventually(lambda: (found := status(connection, version)) and found.workers == 1)
        yield worker
    finally:
        encoder.open()
        worker.leave("the test is over")
        thread.join()


def ended(connection: Connection, version: Version, state: str) -> None:
    eventually(lambda: job_status(connection, version).state == state)


@pytest.mark.parametrize(
    "held", [{"throttle_query": "SELECT 1"}, {"max_rate": 0.01}, {"working_hours": "off"}, {"max_spend_usd": 1.0}]
)
def test_pause_and_cancel_reach_a_job_that_is_held(
    database: Database, connection: Connection, held: dict[str, object]
) -> None:
    add_chunks(connection, TEXTS)
    version, encoder = add(connection, "v1"), Steps(opened=True, price=1_000_000.0)
    with working(database, connection, version, encoder, batch_size=2, **held):
        eventually(lambda: job_status(connection, version).throttle)
        request_pause(connection, version)
        ended(connection, version, "paused")
    assert job_status(connection, version).throttle is None
    with working(database, connection, version, encoder):
        eventually(lambda: job_status(connection, version).throttle)
        request_cancel(connection, version)
        ended(connection, version, "cancelled")


def test_a_batch_in_hand_is_finished_by_a_pause(database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    version, encoder = add(connection, "v1"), Steps()
    with working(database, connection, version, encoder, batch_size=5):
        encoder.began.acquire()
        request_pause(connection, version)
        with pytest.raises(RefusedError, match="pausing"):
            request_pause(connection, version)
        eventually(lambda: _sessions(connection) <= 2)  # it has stopped reading
        assert job_status(connection, version).state == "pausing"
        encoder.step()
        ended(connection, version, "paused")
    assert job_status(connection, version).done == len(encoder.seen) == 5


def _sessions(connection: Connection) -> int:
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'revector backfill'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_pausing_what_nobody_works_on_is_a_pause_at_once(database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    version = add(connection, "v1")

    class Gone(Steps):
        def encode_documents(self, texts: object) -> object:  # type: ignore[override]
            raise UnreachableError("The provider was deleted.")

    with pytest.raises(UnreachableError):
        worker_on(database, version, Gone()).join()
    assert job_status(connection, version).state == "interrupted"
    request_pause(connection, version)
    assert job_status(connection, version).state == "paused"


def test_batch_size_and_rate_change_while_it_runs(database: Database, connection: Connection) -> None:
    texts = [f"text number {n}" for n in range(2_000)]  # enough to be still at work at the next heartbeat
    add_chunks(connection, texts)
    version, encoder = add(connection, "v1"), Steps()
    sizes: list[int] = []
    encode = encoder.encode_documents
    encoder.encode_documents = lambda texts: (sizes.append(len(texts)), encode(texts))[1]  # type: ignore[method-assign]
    with working(database, connection, version, encoder, batch_size=2):
        encoder.step(2)
        eventually(lambda: job_status(connection, version).done >= 4)
        change_settings(connection, version, {"batch_size": 7})
        eventually(lambda: (found := job_detail(connection, version)) and found.workers[0].batch_size == 7)
        eventually(lambda: (encoder.step(), 7 in sizes)[1])
        change_settings(connection, version, {"max_rate": 0.001})
        eventually(
            lambda: (encoder.step(), job_status(connection, version).throttle == "max_rate 0.001 chunks/s")[1]
        )
        assert job_status(connection, version).pending > 0
        encoder.open()
        change_settings(connection, version, {"max_rate": "none"})
        ended(connection, version, "done")
    assert sizes[0] == 2
    assert len(set(encoder.seen)) == len(encoder.seen) == len(texts)


def test_the_spend_cap_is_never_overrun(database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    version = add(connection, "v1")
    # a thousand tokens a text at a million dollars per million tokens: $1,000 a text
    encoders = [Steps(opened=True, price=1_000_000.0, parallel=3) for _ in range(2)]
    settings = {"batch_size": 3, "max_spend_usd": 20_500.0}
    with (
        working(database, connection, version, encoders[0], **settings),
    ):
        other = worker_on(database, version, encoders[1], JobSettings())
        thread = threading.Thread(target=other.join)
        thread.start()
        try:
            eventually(lambda: "spend cap" in (job_status(connection, version).throttle or ""))
            eventually(lambda: job_status(connection, version).spent_usd == 18_000)
            assert sum(len(encoder.seen) for encoder in encoders) == 18
            change_settings(connection, version, {"max_spend_usd": 100_000})
            ended(connection, version, "done")
        finally:
            other.leave("the test is over")
            thread.join()
    assert job_status(connection, version).spent_usd == 60_000


def test_what_another_worker_has_reserved_is_not_there_to_spend(connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    job = open_job(connection, add(connection, "v1"))
    with living_worker(connection, job) as own:
        purse = Purse(job, own)
        with living_worker(connection, job) as other:
            assert Purse(job, other).reserve(connection, 6.0, cap=10.0) is None
            assert purse.reserve(connection, 6.0, cap=10.0) == (
                "spend cap of $10.00: $0.0000 spent, $6.0000 reserved, the next batch costs $6.0000"
            )
            assert purse.reserve(connection, 4.0, cap=10.0) is None
            assert purse.reserve(connection, 0.5, cap=10.0) is not None
        assert (
            purse.reserve(connection, 6.0, cap=10.0) is None
        )  # the other one is gone, and so is what it reserved
        assert purse.reserve(connection, 0.5, cap=10.0) is not None
        purse.release(10.0)
        record_spent(connection, job, 9.75)
        assert purse.reserve(connection, 0.5, cap=10.0) is not None
        assert purse.reserve(connection, 0.25, cap=10.0) is None


def test_a_rate_is_shared_by_all_workers(database: Database, connection: Connection) -> None:
    """No batch has more chunks than this worker's share of a second."""
    add_chunks(connection, TEXTS)
    version, encoder = add(connection, "v1"), Steps()
    job = open_job(connection, version, JobSettings(batch_size=50, max_rate=12))
    with living_worker(connection, job), living_worker(connection, job):
        worker = worker_on(database, version, encoder)
        thread = threading.Thread(target=worker.join)
        thread.start()
        try:
            encoder.step()
            eventually(lambda: job_status(connection, version).done)
            assert job_status(connection, version).done == 4
        finally:
            worker.leave("the test is over")
            encoder.open()
            thread.join()


def test_a_worker_that_joins_while_another_measures_is_held_from_its_first_batch(
    database: Database, connection: Connection
) -> None:
    add_chunks(connection, TEXTS)
    version, encoder = add(connection, "v1"), Steps(opened=True)
    job = open_job(connection, version, JobSettings(throttle_query="SELECT 'held'"))
    connection.execute("UPDATE backfill_jobs SET checked_at = now() + interval '1 hour'")
    with living_worker(connection, job), working(database, connection, version, encoder):
        eventually(lambda: job_status(connection, version).throttle)
    assert encoder.seen == []


def test_a_worker_that_leaves_does_not_interrupt_the_others(database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    version = add(connection, "v1")
    staying, leaving = Steps(), Steps()
    with working(database, connection, version, staying, batch_size=2):
        staying.began.acquire()
        worker = worker_on(database, version, leaving)
        thread = threading.Thread(target=worker.join)
        thread.start()
        eventually(lambda: job_status(connection, version).workers == 2)
        worker.leave("enough")
        thread.join()
        assert job_status(connection, version).state == "running"
        staying.open()
        ended(connection, version, "done")
    assert (leaving.seen, len(staying.seen)) == ([], len(TEXTS))


def test_the_time_that_is_left_is_what_is_left_by_the_rate(connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    version = add(connection, "v1")
    job = open_job(connection, version)
    with living_worker(connection, job), connection.transaction():  # in which now() stands still
        assert job_status(connection, version).eta_s is None
        connection.execute("INSERT INTO backfill_samples (job_id, done, seconds) VALUES (%s, 40, 8)", [job.id])
        # Two minutes at half the time two and half the time four chunks a second.
        connection.execute("UPDATE backfill_jobs SET run_started_at = now() - interval '120 seconds'")
        connection.execute(
            """
            INSERT INTO backfill_samples (job_id, at, done, seconds)
            SELECT %s, now() - n * interval '10 seconds' - interval '9 seconds', 20 + n %% 2 * 20, 10
            FROM generate_series(1, 11) n
            """,
            [job.id],
        )
        found = job_status(connection, version)
    assert (found.pending, found.rate, found.eta_s) == (60, 5.0, 12.0)
    assert (found.eta_low_s, found.eta_high_s) == (15.0, 30.0)


def test_it_stops_by_itself_when_too_many_fail(database: Database, connection: Connection) -> None:
    texts = [f"good {n}" if n % 3 else f"bad {n}" for n in range(90)]
    add_chunks(connection, texts)
    version = add(connection, "v1")

    model = Steps(opened=True)

    class Picky(Steps):
        def encode_documents(self, texts: list[str]) -> object:  # type: ignore[override]
            self.began.release()
            if not self._opened.is_set():
                self._steps.acquire()
            if any(text.startswith("bad") for text in texts):
                raise EncoderError("bad text")
            self.seen += texts
            return model.encode_documents(texts)

    encoder = Picky()
    with working(database, connection, version, encoder, batch_size=3, max_failed_share=0.2):
        eventually(lambda: (encoder.step(), job_status(connection, version).state == "failed")[1])
    found = job_status(connection, version)
    assert found.failed >= 10
    assert found.pending > 0
    assert found.error is not None
    assert "of this run failed: 33 %, over the limit of 20 % (max_failed_share)" in found.error
    assert len(failures(connection, version)) == found.failed

    # A higher share lets it go on from where it stood.
    change_settings(connection, version, {"max_failed_share": 0.5})
    with working(database, connection, version, encoder):
        encoder.open()
        eventually(lambda: job_status(connection, version).pending == 0)
    assert (job_status(connection, version).done, job_status(connection, version).failed) == (60, 30)


def test_several_requests_are_under_way_at_once_and_are_stored_in_order(
    database: Database, connection: Connection
) -> None:
    ids = add_chunks(connection, TEXTS)
    version, encoder = add(connection, "v1"), Steps(parallel=4)
    together = threading.Barrier(4)
    encode = encoder.encode_documents

    def encode_together(texts: list[str]) -> object:
        together.wait(60)  # breaks unless four batches are being encoded at the same time
        return encode(texts)

    encoder.encode_documents = encode_together  # type: ignore[method-assign, assignment]
    encoder.open()
    with working(database, connection, version, encoder, batch_size=5):
        ended(connection, version, "done")
    rows = connection.execute(f"SELECT chunk_id FROM {version.table_name} ORDER BY ctid").fetchall()  # type: ignore[arg-type]  # noqa: S608
    assert [row[0] for row in rows] == ids


def test_what_a_lost_database_left_unsaved_is_not_encoded_again(
    database: Database, connection: Connection, logged: list[str]
) -> None:
    add_chunks(connection, TEXTS)
    version, encoder = add(connection, "v1"), Steps(price=1_000_000.0)
    with working(database, connection, version, encoder, batch_size=10):
        for _ in range(3):
            encoder.began.acquire()
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'revector backfill'"
            )
            encoder.step()
        encoder.open()
        ended(connection, version, "done")
    assert [line for line in logged if line.startswith("WARNING v1: lost the database")]
    assert [line for line in logged if line.endswith("joins the backfill of v1, job 1")][1:]
    assert sorted(encoder.seen) == sorted(TEXTS)
    assert job_status(connection, version).spent_usd == 60_000
    job = find_job(connection, version)
    assert job is not None


def test_the_detail_shows_workers_ranges_proofs_and_transitions(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("revector.core.backfill.job.job._RANGE_CHUNKS", 6)
    ids = add_chunks(connection, TEXTS)
    version, encoder = add(connection, "v1"), Steps()
    with working(database, connection, version, encoder, batch_size=3):
        encoder.step(3)
        eventually(lambda: job_status(connection, version).done == 9)
        eventually(lambda: (found := job_detail(connection, version)) and found.workers[0].done == 9)
        connection.execute(
            "INSERT INTO dead_letters (embedding_version_id, chunk_id, error) VALUES (%s, %s, 'x')",
            [version.id, ids[40]],
        )
        detail = job_detail(connection, version, cells=5)
        assert detail is not None
        assert [cell.ranges for cell in detail.cells] == [2] * 5
        assert [cell.finished for cell in detail.cells] == [1, 0, 0, 0, 0]
        assert [cell.failed for cell in detail.cells] == [0, 0, 0, 1, 0]
        assert detail.cells[0].running == 1
        few = job_detail(connection, version, cells=24)
        assert few is not None
        assert [cell.ranges for cell in few.cells] == [1] * 20  # two parts of each of the ten ranges
        assert [cell.finished for cell in few.cells] == [1, 1, 1] + [0] * 17
        assert few.cells[3].running == 1
        (worker,) = detail.workers
        assert (worker.alive, worker.engine) == (True, "local")
        assert detail.proofs == ()
        connection.execute("DELETE FROM dead_letters")
        encoder.open()
        ended(connection, version, "done")
    detail = job_detail(connection, version)
    assert detail is not None
    assert [(t.from_state, t.to_state) for t in detail.transitions][::-1] == [
        (None, "running"), ("running", "proving"), ("proving", "done"),
    ]  # fmt: skip
    (proof,) = detail.proofs
    assert (proof.missing, proof.embedded, proof.dead_letters) == (0, 60, 0)
    assert [worker.alive for worker in detail.workers] == [False]
