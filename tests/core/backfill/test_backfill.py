"""The backfill: nothing lost, nothing done twice, whatever is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from psycopg import sql

from revector.core.backfill.job import job
from revector.core.backfill.job.dead_letters import failures, retry_failures, waive_failure
from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.job.status import JobStatus, job_detail, status
from revector.core.backfill.worker.batches import (
    Batch,
    Encoded,
    commit,
)
from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.errors import EncoderError, RefusedError, UnreachableError, UsageError
from revector.core.registry import Version, get_version, version_statuses
from tests.core.backfill.steps import eventually
from tests.encoders import Stub
from tests.protocol_server import ProtocolServer
from tests.versions import NUMBERS, SPEC, add, add_chunks, backfill, worker_on

ROOT = Path(__file__).resolve().parents[3]

# A worker process that reports each stored batch and then waits for permission to continue.
STEPPING_WORKER = """
import sys
from revector.core.backfill.job.settings import JobSettings
from revector.core.database import Database
from revector.core.encoders import open_encoder
from revector.core.registry import get_version
from tests.versions import worker_on

database = Database(sys.argv[1], sys.argv[2])
with database.session("test") as connection:
    version = get_version(connection, "v1")

def on_batch(stored):
    print("stored", stored, flush=True)
    sys.stdin.readline()

worker_on(database, version, open_encoder(version.encoder_spec), JobSettings(batch_size=10), on_batch=on_batch).join()
print("finished", flush=True)
"""


def run(database: Database, version: Version, encoder: object, **settings: object) -> JobStatus:
    return worker_on(database, version, encoder, JobSettings(**settings)).join()


def vectors_of(connection: Connection, version: Version) -> list[int]:
    query = f"SELECT chunk_id FROM {version.table_name} ORDER BY 1"  # noqa: S608
    return [row[0] for row in connection.execute(query).fetchall()]  # type: ignore[arg-type]


def job_status(connection: Connection, version: Version) -> JobStatus:
    found = status(connection, version)
    assert found is not None
    return found


def test_every_chunk_gets_its_vector_and_the_version_is_proven(database: Database, connection: Connection) -> None:
    ids = add_chunks(connection, NUMBERS)
    version = add(connection, "v1")
    now = run(database, version, open_encoder(SPEC), batch_size=3)
    assert (now.state, now.total, now.done, now.failed, now.pending) == ("done", 16, 16, 0, 0)
    assert vectors_of(connection, version) == ids
    version = get_version(connection, "v1")
    assert version.state == "loaded"
    assert version.completed_at is not None
    key = connection.execute(
        "SELECT convalidated FROM pg_constraint WHERE conrelid = to_regclass(%s) AND contype = 'f'",
        [version.table_name],
    ).fetchall()
    assert key == [(True,)]


def test_an_empty_collection_is_done_at_once(database: Database, connection: Connection) -> None:
    assert run(database, add(connection, "v1"), Stub()).state == "done"


def test_a_worker_killed_at_any_batch_loses_and_repeats_nothing(
    database: Database, connection: Connection
) -> None:
    texts = [f"text number {n}" for n in range(100)]
    ids = add_chunks(connection, texts)
    version = add(connection, "v1")
    for batches in (1, 2, 3):
        worker = subprocess.Popen(
            [sys.executable, "-c", STEPPING_WORKER, database.dsn, database.schema],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert worker.stdout is not None
        assert worker.stdin is not None
        for _ in range(batches):
            assert worker.stdout.readline() == "stored 10\n"
            worker.stdin.write("\n")
            worker.stdin.flush()
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        wait_for_no_workers(connection, version)
        now = job_status(connection, version)
        assert now.state == "interrupted"
        assert now.done == len(vectors_of(connection, version)) >= 10 * batches
    seen = Stub()
    before = vectors_of(connection, version)
    assert run(database, version, seen, batch_size=10).state == "done"
    assert vectors_of(connection, version) == ids
    assert len(seen.seen) == len(ids) - len(before)
    assert [s.missing for s in version_statuses(connection)] == [0]


def wait_for_no_workers(connection: Connection, version: Version) -> None:
    """Until Postgres has noticed that the killed process's sockets are closed."""
    tries = 0
    while job_status(connection, version).workers:
        tries += 1
        assert tries < 100_000
        connection.execute("SELECT pg_stat_clear_snapshot()")


def test_a_lease_taken_over_stores_nothing_for_its_old_holder(database: Database, connection: Connection) -> None:
    from revector.core.backfill.worker import batches

    ids = add_chunks(connection, NUMBERS)
    version = add(connection, "v1")
    opened = job.open_job(connection, version)
    lease = batches.lease_range(connection, opened.id, 1, 60)
    assert lease is not None
    batch = batches.read_range(connection, version, lease, lease.cursor, 10, most_bytes=1 << 20)
    second = batches.lease_range(connection, opened.id, 2, 60)  # no session holds worker 1's lock: it is dead
    assert second is not None
    assert second.token == lease.token + 1
    vectors = np.ones((10, 64), np.float32)
    encoded = batches.Encoded(batch, np.array(batch.ids), vectors)
    with pytest.raises(batches.LostLeaseError):
        batches.commit(connection, version, opened.id, encoded, 60)
    assert vectors_of(connection, version) == []
    assert run(database, version, Stub()).state == "done"
    assert vectors_of(connection, version) == ids


def test_two_workers_share_the_work(database: Database, connection: Connection) -> None:
    ids = add_chunks(connection, [f"text {n}" for n in range(300)])
    version = add(connection, "v1")
    statuses: list[JobStatus] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(run(database, version, Stub(), batch_size=5)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [s.state for s in statuses] == ["done", "done"]
    assert vectors_of(connection, version) == ids
    assert job_status(connection, version).done == len(ids)


def test_a_bad_chunk_becomes_a_dead_letter_and_the_rest_goes_on(
    database: Database, connection: Connection
) -> None:
    ids = add_chunks(connection, NUMBERS)
    version = add(connection, "v1")
    now = run(database, version, Stub(bad=["seven"]), batch_size=5)
    assert (now.state, now.done, now.failed) == ("failed", 15, 1)
    (failure,) = failures(connection, version)
    assert failure.chunk_id == ids[7]
    assert "nan" in failure.error

    assert retry_failures(connection, version) == 1
    assert run(database, version, Stub()).state == "done"
    assert failures(connection, version) == []
    assert vectors_of(connection, version) == ids


def test_a_waived_chunk_needs_a_reason_and_stays_in_the_log(database: Database, connection: Connection) -> None:
    ids = add_chunks(connection, NUMBERS)
    version = add(connection, "v1")
    run(database, version, Stub(bad=["seven"]))
    with pytest.raises(UsageError, match="reason"):
        waive_failure(connection, version, ids[7], " ")
    with pytest.raises(UsageError, match="not a dead letter"):
        waive_failure(connection, version, ids[8], "why not")
    waive_failure(connection, version, ids[7], "a table of numbers")
    assert run(database, version, Stub(bad=["seven"])).state == "done"
    assert connection.execute("SELECT reason FROM audit_log WHERE action = 'backfill waive'").fetchone() == (
        "a table of numbers",
    )


def test_an_encoder_that_refuses_most_texts_stops_the_job(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    version = add(connection, "v1")
    with pytest.raises(EncoderError, match="refused 16 of 16"):
        run(database, version, Stub(bad=NUMBERS))
    now = job_status(connection, version)
    assert now.state == "interrupted"
    assert now.error is not None
    assert vectors_of(connection, version) == []


def test_an_encoder_of_other_dimensions_stores_nothing(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    version = add(connection, "v1")
    with pytest.raises(EncoderError, match="64"):
        run(database, version, open_encoder("static:wordllama-128"))
    assert vectors_of(connection, version) == []


def test_a_lost_encoder_interrupts_and_the_job_goes_on_later(database: Database, connection: Connection) -> None:
    ids = add_chunks(connection, NUMBERS)
    version = add(connection, "v1")
    with pytest.raises(UnreachableError, match="provider was deleted"):
        run(database, version, Stub(error=UnreachableError("The provider was deleted.")))
    assert job_status(connection, version).state == "interrupted"
    assert run(database, version, Stub()).state == "done"
    assert vectors_of(connection, version) == ids


@pytest.mark.parametrize(
    ("chunks", "workers", "ranges"),
    [(400, 2, 1), (10_000, 2, 16), (10_000, 1, 8), (10_000, 8, 20), (400_000, 2, 25)],
)
def test_a_small_job_has_ranges_for_all_its_workers(
    connection: Connection, chunks: int, workers: int, ranges: int
) -> None:
    connection.execute(
        """
        INSERT INTO document_chunks (id, semantic_key, document_id, chunk_no, content, content_sha256)
        SELECT id, 'key ' || id, gen_random_uuid(), 0, 'text ' || id, sha256(('text ' || id)::bytea)
        FROM unnest(ARRAY[1, %s]) AS id
        """,
        [chunks],
    )
    job.open_job(connection, add(connection, "v1"), JobSettings(workers=workers))
    assert connection.execute("SELECT count(*) FROM backfill_ranges").fetchone() == (ranges,)


def test_what_workers_stored_adds_up_and_a_killed_one_is_named(database: Database, connection: Connection) -> None:
    """The counts are moved with the vectors, and not at a heartbeat that may not come."""
    add_chunks(connection, [f"text number {n}" for n in range(60)])
    version = add(connection, "v1")
    worker = subprocess.Popen(
        [sys.executable, "-c", STEPPING_WORKER, database.dsn, database.schema],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert worker.stdout is not None
    assert worker.stdout.readline() == "stored 10\n"
    worker.kill()
    worker.communicate()
    wait_for_no_workers(connection, version)
    found = job_status(connection, version)
    assert found.state == "interrupted"
    assert f", process {worker.pid}, with {found.done} chunks stored" in str(found.error)
    assert run(database, version, Stub()).state == "done"
    rows = connection.execute("SELECT sum(done) FROM backfill_workers").fetchone()
    assert rows == (60,)
    detail = job_detail(connection, version)
    assert detail is not None
    assert "ended without a word" in str([one.reason for one in detail.transitions])


@pytest.mark.parametrize("ended", ["done", "interrupted"])
def test_a_runs_time_and_count_are_its_own_and_not_those_since_the_job_was_first_started(
    database: Database, connection: Connection, ended: str
) -> None:
    add_chunks(connection, NUMBERS)
    version = add(connection, "v1")
    first = run(database, version, Stub())
    assert first.run_done == len(NUMBERS)
    connection.execute(
        """
        UPDATE backfill_jobs SET state = %s, started_at = started_at - interval '32 minutes',
               run_started_at = run_started_at - interval '32 minutes'
        """,
        [ended],
    )
    add_chunks(connection, ["new", "and newer"])
    again = run(database, version, Stub())
    assert (again.state, again.done, again.run_done) == ("done", len(NUMBERS) + 2, 2)
    assert again.took_s is not None
    assert again.took_s < 32 * 60  # a run of seconds


def test_the_same_text_is_encoded_once(database: Database, connection: Connection) -> None:
    ids = add_chunks(connection, ["same", "other", "same", "same"])
    version, encoder = add(connection, "v1"), Stub()
    run(database, version, encoder)
    ids += add_chunks(connection, ["same", "new"])
    run(database, version, encoder)
    assert sorted(encoder.seen) == ["new", "other", "same"]
    assert vectors_of(connection, version) == ids


def test_chunks_of_the_backfills_own_time_are_not_missed(database: Database, connection: Connection) -> None:
    ids = add_chunks(connection, NUMBERS)
    version = add(connection, "v1")

    class Busy(Stub):
        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if len(self.seen) < len(NUMBERS):  # another session writes and deletes meanwhile
                ids.extend(add_chunks(connection, [f"new {len(ids)}"]))
                connection.execute("DELETE FROM document_chunks WHERE id = %s", [ids.pop(0)])
            return super().encode_documents(texts)

    now = run(database, version, Busy(), batch_size=4)
    assert now.state == "done"
    assert vectors_of(connection, version) == ids
    assert [(s.embedded, s.missing) for s in version_statuses(connection)] == [(len(ids), 0)]


def test_what_the_trigger_missed_is_found_by_the_proof(database: Database, connection: Connection) -> None:
    version = add(connection, "v1")
    add_chunks(connection, ["one"])
    backfill(database, version)
    add_chunks(connection, ["two"])
    connection.execute("DELETE FROM chunk_outbox")
    assert run(database, version, Stub()).state == "done"
    assert [(s.embedded, s.missing) for s in version_statuses(connection)] == [(2, 0)]


def test_the_proof_compares_chunks_with_vectors_and_does_not_count_them(
    database: Database, connection: Connection
) -> None:
    """A vector whose chunk is gone makes up for a chunk without one, in whatever is counted."""
    version = add(connection, "v1")
    ids = add_chunks(connection, ["one", "two"])

    class Late(Stub):
        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if "two" in texts:  # a trigger that missed a chunk, and a deletion that missed a vector
                with connection.transaction():
                    ids.extend(add_chunks(connection, ["three"]))
                    connection.execute("DELETE FROM chunk_outbox")
                    stray = "INSERT INTO {} (chunk_id, embedding) VALUES (999, %s)"
                    connection.execute(sql.SQL(stray).format(version.table), [str([1.0] * 64)])
            return super().encode_documents(texts)

    assert run(database, version, Late()).state == "done"
    assert vectors_of(connection, version) == ids
    detail = job_detail(connection, version)
    assert detail is not None
    assert [(proof.missing, proof.embedded) for proof in detail.proofs] == [(0, 3), (1, 3)]


@pytest.mark.parametrize("what", ["copy", "dead letter"])
def test_a_chunk_deleted_while_its_batch_is_stored_is_left_out(
    database: Database, connection: Connection, what: str
) -> None:
    """Of a complete version: its table has its foreign key, and so have dead letters.

    Another chunk of the batch is gone already, so that the batch is being stored a second time.
    """
    version = add(connection, "v1")
    ids = add_chunks(connection, ["one", "two"])
    backfill(database, version)
    late, gone = add_chunks(connection, ["one", "gone"])
    connection.execute("DELETE FROM document_chunks WHERE id = %s", [gone])
    done = Encoded(
        Batch([late, gone], ["one", "gone"], {}),
        np.array([gone]),
        np.ones((1, 64), np.float32),
        copies=[(late, ids[0])] if what == "copy" else [],
        failures=[(late, "bad")] if what == "dead letter" else [],
    )
    job_id = job.require_job(connection, version).id
    with database.connect("test") as other, database.connect("writer") as writer, ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.execute("DELETE FROM document_chunks WHERE id = %s", [late])
            stored = pool.submit(commit, writer, version, job_id, done, 60.0)
            blocked = "SELECT true FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
            eventually(lambda: connection.execute(blocked, [writer.info.backend_pid]).fetchone())
        assert stored.result() == 0
    assert vectors_of(connection, version) == ids
    assert failures(connection, version) == []


def test_a_queued_chunk_that_is_gone_holds_nobody_up(database: Database, connection: Connection) -> None:
    """The proof queued it at the moment at which it was deleted, so that the deletion left its row there."""
    version = add(connection, "v1")
    ids = add_chunks(connection, ["one", "two"])
    backfill(database, version)
    queue = "INSERT INTO chunk_outbox (embedding_version_id, chunk_id) VALUES (%s, %s)"
    connection.execute(queue, [version.id, ids[-1] + 1])
    assert run(database, version, Stub()).state == "done"
    assert connection.execute("SELECT count(*) FROM chunk_outbox").fetchone() == (0,)
    ids += add_chunks(connection, ["three"])
    connection.execute(queue, [version.id, ids[-1] + 1])
    assert run(database, version, Stub()).state == "done"
    assert vectors_of(connection, version) == ids


def test_pause_finishes_the_batch_in_hand_and_run_goes_on(database: Database, connection: Connection) -> None:
    ids = add_chunks(connection, [f"text {n}" for n in range(200)])
    version = add(connection, "v1")
    asked = threading.Event()

    class Paused(Stub):
        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if not asked.is_set():
                job.request_pause(connection, version)
                asked.set()
            return super().encode_documents(texts)

    first = run(database, version, Paused(), batch_size=1)
    assert first.state == "paused"
    assert first.done == len(vectors_of(connection, version))
    with pytest.raises(RefusedError, match="paused"):
        job.request_pause(connection, version)
    assert run(database, version, Stub()).state == "done"
    assert vectors_of(connection, version) == ids


def test_a_cancelled_backfill_keeps_what_it_has(database: Database, connection: Connection) -> None:
    add_chunks(connection, [f"text {n}" for n in range(100)])
    version = add(connection, "v1")

    class Cancelled(Stub):
        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if not self.seen:
                job.request_cancel(connection, version)
            return super().encode_documents(texts)

    now = run(database, version, Cancelled(), batch_size=1)
    assert now.state == "cancelled"
    assert now.done == len(vectors_of(connection, version))
    assert get_version(connection, "v1").completed_at is None


def test_a_throttling_provider_holds_the_job_and_says_so(database: Database, connection: Connection) -> None:
    ids = add_chunks(connection, NUMBERS)
    reasons = []
    with ProtocolServer() as provider:
        version = add(
            connection, "v1", f"openai:text-embedding-3-small?dimensions=64&base_url={provider.base_url}"
        )
        encoder = open_encoder(version.encoder_spec)
        worker = worker_on(database, version, encoder, JobSettings(batch_size=4))
        hold, wait = encoder.on_throttle, encoder.wait  # type: ignore[attr-defined]
        encoder.on_throttle = lambda seconds, reason: (reasons.append(reason), hold(seconds, reason))  # type: ignore[attr-defined]
        encoder.wait = lambda _seconds: wait(0)  # type: ignore[attr-defined]
        provider.fail(429, times=2, retry_after=7)
        assert worker.join().state == "done"
    assert reasons
    assert all("429" in reason for reason in reasons)
    assert vectors_of(connection, version) == ids


def test_every_state_can_be_left_or_is_an_end() -> None:
    assert set(job.MOVES) == set().union(*job.MOVES.values()) | {"running"}
    assert all(targets for targets in job.MOVES.values())


def test_status_does_not_look_at_the_vectors(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    version = add(connection, "v1")
    backfill(database, version)
    with connection.transaction(force_rollback=True):
        connection.execute(f"LOCK TABLE {version.table_name}, document_chunks")  # type: ignore[arg-type]
        with database.session("test", statement_timeout_s=20) as other:  # would wait for the lock if it read them
            assert job_status(other, version).done == len(NUMBERS)
            assert [s.embedded for s in version_statuses(other)] == [len(NUMBERS)]
