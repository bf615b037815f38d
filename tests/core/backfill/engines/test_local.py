"""The local engine: worker processes that are replaced when they die, and that steer with the job's settings."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from revector.core.backfill.engines.local import LocalEngine
from revector.core.backfill.job.job import change_settings, engine_stays, find_job, request_pause, request_resume
from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.job.status import JobStatus, job_detail, status
from revector.core.database import Connection, Database
from revector.core.errors import EncoderError, RevectorError, UnreachableError
from revector.core.registry import Version, get_version, version_statuses
from tests.core.backfill.steps import eventually, job_status
from tests.protocol_server import Gate, ProtocolServer
from tests.versions import add, add_chunks

TEXTS = [f"text number {n}" for n in range(40)]


class Running:
    """An engine in a thread, and its result."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.result: JobStatus | BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self.engine.run()
        except BaseException as error:  # noqa: BLE001  (the test looks at it)
            self.result = error


@pytest.fixture
def provider() -> Iterator[ProtocolServer]:
    with ProtocolServer() as server:
        yield server


@pytest.fixture
def version(connection: Connection, provider: ProtocolServer) -> Version:
    add_chunks(connection, TEXTS)
    return add(connection, "v1", f"openai:house-model?price=0&base_url={provider.base_url}")


@contextmanager
def engine(
    database: Database, version: Version, gate: Gate | None = None, *, stay: bool = False, **settings: object
) -> Iterator[Running]:
    notes: list[str] = []
    own = LocalEngine(
        database, version, JobSettings(**{"batch_size": 2, **settings}), stay=stay, on_note=notes.append,  # type: ignore[arg-type]
    )  # fmt: skip
    own.notes = notes  # type: ignore[attr-defined]
    running = Running(own)
    try:
        yield running
    finally:
        if gate is not None:
            gate.open()
        own.leave("the test is over")
        running.thread.join()


def pids(connection: Connection, version: Version) -> list[int]:
    detail = job_detail(connection, version)
    return [worker.pid for worker in detail.workers if worker.alive and worker.pid] if detail else []


_of_other_files: set[psutil.Process] = set()


@pytest.fixture(scope="module", autouse=True)
def _children_of_other_files() -> None:
    """A server that is kept for the tests of another file may still run."""
    _of_other_files.update(psutil.Process().children())


def children() -> list[psutil.Process]:
    """What this file's tests started, and what still runs."""
    return [child for child in psutil.Process().children() if child not in _of_other_files]


def test_a_killed_worker_is_replaced_and_nothing_is_lost_or_done_twice(
    database: Database, connection: Connection, provider: ProtocolServer, version: Version
) -> None:
    gate = Gate.after(provider, len(provider.requests) + 5)
    with engine(database, version, gate) as running:
        assert gate.reached.wait(60)
        (pid,) = pids(connection, version)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pids(connection, version) not in ([], [pid]))
        gate.open()
        running.thread.join()
    assert isinstance(running.result, JobStatus)
    assert (running.result.state, running.result.done) == ("done", len(TEXTS))
    assert running.engine.notes == ["a worker was killed by SIGKILL; starting another"]  # type: ignore[attr-defined]
    assert [s.missing for s in version_statuses(connection)] == [0]
    assert children() == []


def test_the_number_of_workers_follows_the_settings(
    database: Database, connection: Connection, provider: ProtocolServer, version: Version
) -> None:
    gate = Gate.after(provider, len(provider.requests))
    with engine(database, version, gate, workers=2) as running:
        eventually(lambda: len(pids(connection, version)) == 2)
        change_settings(connection, version, {"workers": 3})
        eventually(lambda: len(pids(connection, version)) == 3)
        change_settings(connection, version, {"workers": 1})
        gate.open()
        running.thread.join()
        assert isinstance(running.result, JobStatus)
        assert running.result.state == "done"


def test_fewer_workers_go_while_the_rest_works_on(
    database: Database, connection: Connection, provider: ProtocolServer, version: Version
) -> None:
    with engine(database, version, workers=3, throttle_query="SELECT 'held'"):
        eventually(lambda: len(pids(connection, version)) == 3)
        change_settings(connection, version, {"workers": 1})
        eventually(lambda: len(pids(connection, version)) == 1)
        assert job_status(connection, version).state == "running"


def test_workers_that_die_again_and_again_end_the_run_with_the_reason(
    database: Database, connection: Connection, provider: ProtocolServer, version: Version
) -> None:
    seen: set[int] = set()

    def kill() -> bool:
        for child in children():
            if child.pid not in seen and pids(connection, version) == [child.pid]:
                seen.add(child.pid)
                os.kill(child.pid, signal.SIGKILL)
        return not running.thread.is_alive()

    with engine(database, version, throttle_query="SELECT 'held'") as running:
        eventually(kill)
    assert isinstance(running.result, RevectorError)
    assert running.result.problem == (
        "5 workers died in a row without storing a chunk; the last was killed by SIGKILL"
    )
    assert len(seen) == 5
    assert job_status(connection, version).state == "interrupted"


def test_the_errors_of_an_encoder_reach_the_caller(
    database: Database, connection: Connection, provider: ProtocolServer, version: Version
) -> None:
    provider.spoil("other dimensions")
    with engine(database, version) as running:
        running.thread.join()
    assert isinstance(running.result, EncoderError)
    assert "returned 95 dimensions; version v1 was registered with 96" in running.result.problem
    assert "not the encoder the version was registered with" in running.result.remedy
    provider.fail(401, message="no such key")
    with engine(database, version) as running:
        running.thread.join()
    assert isinstance(running.result, UnreachableError)
    assert "401" in running.result.problem
    assert job_status(connection, version).state == "interrupted"
    detail = job_detail(connection, version)
    assert detail is not None
    assert "401" in str(detail.workers[0].error)


def test_an_engine_that_stays_waits_through_a_pause_and_embeds_what_comes(
    database: Database, connection: Connection, provider: ProtocolServer, version: Version
) -> None:
    gate = Gate.after(provider, len(provider.requests) + 3)
    with engine(database, version, gate, stay=True) as running:
        assert gate.reached.wait(60)
        request_pause(connection, version)
        gate.open()
        eventually(lambda: job_status(connection, version).state == "paused")
        eventually(lambda: pids(connection, version) == [])
        assert running.thread.is_alive()
        job = find_job(connection, version)
        assert job is not None
        assert engine_stays(connection, job)
        assert request_resume(connection, version)
        eventually(lambda: job_status(connection, version).state == "done")
        add_chunks(connection, ["new text"])
        eventually(lambda: job_status(connection, version).done == len(TEXTS) + 1)
        eventually(lambda: job_status(connection, version).state == "done")
        assert [s.missing for s in version_statuses(connection)] == [0]
    eventually(lambda: not engine_stays(connection, job))  # the server ends its session a moment later
    assert not request_resume(connection, version)


def test_a_service_that_starts_again_leaves_a_paused_job_paused(
    database: Database, connection: Connection, provider: ProtocolServer, version: Version
) -> None:
    with engine(database, version, throttle_query="SELECT 'held'"):
        eventually(lambda: status(connection, version) and job_status(connection, version).throttle)
        request_pause(connection, version)
        eventually(lambda: job_status(connection, version).state == "paused")
    with engine(database, version, stay=True):
        job = find_job(connection, version)
        assert job is not None
        eventually(lambda: engine_stays(connection, job))
        assert job_status(connection, version).state == "paused"
    assert job_status(connection, version).state == "paused"


def test_leaving_ends_the_workers_in_order(
    database: Database, connection: Connection, provider: ProtocolServer, version: Version
) -> None:
    gate = Gate.after(provider, len(provider.requests) + 3)
    with engine(database, version, gate) as running:
        assert gate.reached.wait(60)
        running.engine.leave("the engineer goes home")
        gate.open()
        running.thread.join()
    found = job_status(connection, version)
    assert found.state == "interrupted"
    assert found.error is not None
    assert found.error.startswith("the engineer goes home by ")
    assert children() == []
    assert get_version(connection, "v1").completed_at is None


CRASHING = """
from revector.core.backfill.engines import local_process
def failing(task):
    dsn = task["database"]["dsn"]
    raise ValueError("a bug, with %r" % task["version_key"].replace("v1", "words of a document"))
local_process.work = failing
"""


def test_a_worker_that_crashes_leaves_a_report_that_is_named(
    database: Database, version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CRASHING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("REVECTOR_HOME", str(tmp_path))
    with engine(database, version) as running:
        running.thread.join()
    reports = sorted((tmp_path / "logs").glob("crash-*.txt"))
    assert len(reports) == 5
    first = "a worker ended with status 1; starting another. The report is in "
    assert running.engine.notes == [f"{first}{path}" for path in reports[:-1]]  # type: ignore[attr-defined]
    assert isinstance(running.result, RevectorError)
    assert running.result.problem.endswith(f"ValueError.\nThe report is in {reports[-1]}")
    for report in reports:
        assert "in failing\n" in report.read_text()
        assert report.name in (tmp_path / "logs" / "worker.log").read_text()
        assert report.read_text().endswith("ValueError: a bug, with …\n")
