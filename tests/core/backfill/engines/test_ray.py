"""The Ray engine on a real Ray: the same vectors as elsewhere, whatever is killed, and no secret given to Ray."""

from __future__ import annotations

import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from revector.core.backfill.engines.ray import engine
from revector.core.backfill.engines.ray.driver import check_nodes
from revector.core.backfill.engines.ray.engine import Deaths, Order, RaySettings, run_on_ray
from revector.core.backfill.job.job import request_pause
from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.job.status import JobStatus
from revector.core.backfill.job.status import status as status_of
from revector.core.database import Connection, Database
from revector.core.encoders import PROBE_TEXT, open_encoder
from revector.core.errors import EncoderError, RefusedError, RevectorError, UnreachableError, UsageError
from revector.core.registry import Version, version_statuses
from revector.core.secrets import scrub
from tests.protocol_server import MODELS, ProtocolServer, Request, embed
from tests.ray_cluster import RayCluster, environment
from tests.versions import add, add_chunks, worker_on

pytestmark = pytest.mark.slow

PASSWORD = "sesame-of-the-ray-tests"  # noqa: S105
BATCH = JobSettings(batch_size=4)
PATIENCE_S = 120
"""Against waiting for ever; nothing takes as long."""

# Somebody's process that runs the engine: the connection string is in its command line, as with --dsn.
PROGRAM = """
import json, sys
from revector.core.backfill.engines.ray.engine import RaySettings, run_on_ray
from revector.core.backfill.job.settings import JobSettings
from revector.core.database import Database
from revector.core.registry import get_version

dsn, schema, address, workers = sys.argv[1:]
database = Database(dsn, schema)
with database.session("test") as connection:
    version = get_version(connection, "v1")
status = run_on_ray(
    database, version, settings=RaySettings(address or None, cpus_per_worker=0.5),
    job_settings=JobSettings(batch_size=4), wanted=lambda: int(workers),
    on_note=lambda note: print(note, file=sys.stderr, flush=True),
)
print(json.dumps({"state": status.state, "done": status.done}))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with RayCluster() as found:
        yield found


class Provider(ProtocolServer):
    """A provider that answers a request only when allowed: until then its workers hold a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()
        self.embed = self._embed_later

    def version(self, connection: Connection) -> Version:
        """A version of this provider's; from now on its answers wait."""
        spec = f"openai:text-embedding-3-small?dimensions=64&base_url={self.base_url}&timeout_s=600"
        version = add(connection, "v1", spec)
        self.open.clear()
        self.requests.clear()
        return version

    @property
    def batches(self) -> list[Request]:
        """What was asked for, without the one text by which each worker checks its encoder."""
        return [request for request in self.requests if request.inputs != [PROBE_TEXT]]

    def _embed_later(
        self, text: str, model: str, dimensions: int | None, models: Mapping[str, int]
    ) -> NDArray[np.float32]:
        if text == PROBE_TEXT:
            return embed(text, model, dimensions, models)
        while not self.open.is_set() and not self.permits.acquire(timeout=0.05):
            pass
        return embed(text, model, dimensions, models)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as found:
        yield found
        found.open.set()


class Running:
    """An engine in a thread, with what it says."""

    def __init__(
        self,
        database: Database,
        version: Version,
        address: str,
        *,
        wanted: Callable[[], int] = lambda: 2,
        stop: threading.Event | None = None,
        **settings: Any,
    ) -> None:
        self.notes: queue.Queue[str] = queue.Queue()
        self._ended: queue.Queue[JobStatus | BaseException] = queue.Queue()

        def run() -> None:
            try:
                settings_ = RaySettings(address, **({"cpus_per_worker": 0.5} | settings))
                status = run_on_ray(
                    database, version, settings=settings_, job_settings=BATCH, wanted=wanted,
                    on_note=self.notes.put, stop=stop,
                )  # fmt: skip
                self._ended.put(status)
            except BaseException as error:  # noqa: BLE001  (raised again in the test's thread)
                self._ended.put(error)

        threading.Thread(target=run, daemon=True).start()

    def ended(self) -> JobStatus | None:
        """The result, if it is there by now."""
        try:
            return self.result(0)
        except queue.Empty:
            return None

    def result(self, patience_s: float = PATIENCE_S) -> JobStatus:
        ended = self._ended.get(patience_s > 0, patience_s)
        if isinstance(ended, BaseException):
            raise ended
        return ended

    def note(self) -> str:
        return self.notes.get(timeout=PATIENCE_S)


def until(found: Callable[[], Any]) -> Any:
    """Look until there is something: what other processes do to the database and to Ray has no event here."""
    patience = time.monotonic() + PATIENCE_S
    while not (result := found()):
        assert time.monotonic() < patience
        time.sleep(0.02)
    return result


def spread_chunks(connection: Connection, ranges: int, chunks: int) -> dict[int, str]:
    """Chunks with ids so far apart that each group is a separate range, for a separate worker."""
    texts = {}
    for place in range(ranges):
        connection.execute("SELECT setval('document_chunks_id_seq', %s)", [place * 20_000 + 1])
        group = [f"text number {n} of group {place}" for n in range(chunks)]
        texts.update(zip(add_chunks(connection, group), group, strict=True))
    return texts


def workers(connection: Connection, version: Version) -> int:
    connection.execute("SELECT pg_stat_clear_snapshot()")
    status = status_of(connection, version)
    return status.workers if status else 0


def state(connection: Connection, version: Version) -> tuple[str, int]:
    status = status_of(connection, version)
    assert status is not None
    return status.state, status.done


def check_vectors(connection: Connection, version: Version, texts: Mapping[int, str]) -> None:
    """Each chunk has exactly one vector, and it is what a fresh encode of its own text gives."""
    query = f"SELECT chunk_id, embedding::float4[] FROM {version.table_name} ORDER BY 1"  # noqa: S608
    rows = connection.execute(query).fetchall()  # type: ignore[arg-type]
    assert [row[0] for row in rows] == sorted(texts)
    if version.encoder_name.startswith("openai"):
        fresh = np.stack([embed(texts[row[0]], "text-embedding-3-small", 64, MODELS) for row in rows])
    else:
        fresh = open_encoder(version.encoder_spec).encode_documents([texts[row[0]] for row in rows])
    np.testing.assert_allclose(np.array([row[1] for row in rows]), fresh, atol=1e-6)
    assert [(s.embedded, s.missing) for s in version_statuses(connection)] == [(len(texts), 0)]


def finish(database: Database, version: Version) -> None:
    """What an engine leaves is anyone's to go on with."""
    assert worker_on(database, version, open_encoder(version.encoder_spec), BATCH).join().state == "done"


def program(database: Database, address: str, count: int, folder: Path) -> subprocess.Popen[str]:
    # A process started while SIGINT is ignored (tests run in the background) would ignore it too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, secret(database).dsn, database.schema, address, str(count)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment(),
            start_new_session=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)


def secret(database: Database) -> Database:
    """The same database by a connection string with a password, which the embedded server does not ask for."""
    return replace(database, dsn=f"{database.dsn}&password={PASSWORD}")


def driver_of(process: psutil.Process) -> psutil.Process:
    name = "revector.core.backfill.engines.ray.driver"
    return until(lambda: next((c for c in process.children() if name in c.cmdline()), None))


def end(process: int) -> None:
    os.kill(process, signal.SIGKILL)


# -- the work ----------------------------------------------------------------------------------------------


def test_actors_make_what_a_worker_makes_and_leave_the_cluster_alone(
    database: Database, connection: Connection, cluster: RayCluster
) -> None:
    texts = spread_chunks(connection, 4, 100)
    version = add(connection, "v1")
    status = Running(database, version, cluster.address).result()
    assert (status.state, status.done, status.failed) == ("done", 400, 0)
    check_vectors(connection, version, texts)
    assert cluster.workers() == []
    assert cluster.ask("nodes")[0]["Alive"]
    names = [actor["Name"].rpartition(" ")[0] for actor in cluster.ask("actors")]
    assert {"revector v1 1", "revector v1 2"} <= set(names)
    assert {"job_name": "revector backfill v1"} in cluster.ask("metadata")


def test_an_actor_that_is_killed_is_replaced(
    database: Database, connection: Connection, cluster: RayCluster, provider: Provider
) -> None:
    texts = spread_chunks(connection, 3, 20)
    version = provider.version(connection)
    running = Running(database, version, cluster.address)
    until(lambda: workers(connection, version) == 2 and len(provider.batches) >= 2)
    before = cluster.workers()
    end(before[0])
    assert "died and is replaced" in running.note()
    until(lambda: len(set(cluster.workers()) - set(before)) == 1)
    until(lambda: workers(connection, version) == 2)
    provider.open.set()
    assert running.result().state == "done"
    check_vectors(connection, version, texts)


def test_a_worker_that_dies_again_and_again_ends_the_run_with_the_reason(
    database: Database, connection: Connection, cluster: RayCluster, provider: Provider
) -> None:
    add_chunks(connection, ["one"])
    version = provider.version(connection)
    running = Running(database, version, cluster.address, wanted=lambda: 1, max_restarts=1)
    (first,) = until(cluster.workers)
    end(first)
    assert "died and is replaced" in running.note()
    (second,) = until(lambda: set(cluster.workers()) - {first})
    end(second)
    with pytest.raises(UnreachableError, match=r"died 2 times in a row.*was killed"):
        running.result()
    assert workers(connection, version) == 0


def asked_for(provider: Provider, group: str) -> bool:
    return any(text.endswith(group) for request in provider.batches for text in request.inputs)


def test_a_pause_ends_the_run_and_a_dead_worker_does_not_undo_it(
    database: Database, connection: Connection, cluster: RayCluster, provider: Provider
) -> None:
    texts = spread_chunks(connection, 2, 20)
    version = provider.version(connection)
    running = Running(database, version, cluster.address)
    until(lambda: all(asked_for(provider, group) for group in ("group 0", "group 1")))  # a range of each worker
    request_pause(connection, version)
    end(cluster.workers()[0])  # a new worker would take the job up again
    until(lambda: workers(connection, version) == 1)
    provider.open.set()
    status = running.result()
    assert status.state == "paused"
    assert 0 < status.done < len(texts)
    finish(database, version)
    check_vectors(connection, version, texts)


def test_workers_come_and_go_with_what_is_wanted(
    database: Database, connection: Connection, cluster: RayCluster, provider: Provider
) -> None:
    texts = spread_chunks(connection, 3, 160)
    version = provider.version(connection)
    wanted = [1]
    running = Running(database, version, cluster.address, wanted=lambda: wanted[0])
    until(lambda: workers(connection, version) == 1)
    wanted[0] = 3
    until(lambda: workers(connection, version) == 3 and len(provider.batches) >= 3)
    wanted[0] = 1

    def one_text_more() -> bool:  # those that leave finish their batch first
        provider.permits.release()
        return workers(connection, version) == 1

    until(one_text_more)
    assert state(connection, version)[0] == "running"
    assert running.notes.empty()
    held = connection.execute("SELECT count(*) FROM backfill_ranges WHERE state = 'leased'").fetchone()
    assert held == (1,)  # what the others had is free for anyone
    provider.open.set()
    assert running.result().state == "done"
    check_vectors(connection, version, texts)


def test_two_engines_work_on_one_job(
    database: Database, connection: Connection, cluster: RayCluster, provider: Provider
) -> None:
    texts = spread_chunks(connection, 3, 20)
    version = provider.version(connection)
    engines = [Running(database, version, cluster.address, wanted=lambda: 1) for _ in range(2)]
    until(lambda: workers(connection, version) == 2)
    provider.open.set()
    assert [engine.result().state for engine in engines] == ["done", "done"]
    check_vectors(connection, version, texts)


def test_stop_ends_the_run_in_order(
    database: Database, connection: Connection, cluster: RayCluster, provider: Provider
) -> None:
    add_chunks(connection, [f"text {n}" for n in range(400)])
    version, stop = provider.version(connection), threading.Event()
    running = Running(database, version, cluster.address, stop=stop, wanted=lambda: 1)
    until(lambda: provider.batches)
    stop.set()
    status = until(lambda: provider.permits.release() or running.ended())
    assert status.state == "interrupted"
    # The current batch was finished: what was requested from the provider is stored.
    assert 0 < status.done == sum(len(request.inputs) for request in provider.batches) < 400
    assert cluster.workers() == []


# -- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [UnreachableError, EncoderError])
def test_an_error_of_the_encoder_is_the_same_as_without_ray(
    database: Database, connection: Connection, cluster: RayCluster, provider: Provider, error: type[RevectorError]
) -> None:
    add_chunks(connection, ["one", "two", "three"])
    version = provider.version(connection)
    provider.open.set()
    provider.fail(401 if error is UnreachableError else 400, times=100, message="No.")
    with pytest.raises(error) as here:
        worker_on(database, version, open_encoder(version.encoder_spec), BATCH, check=True).join()
    with pytest.raises(error) as there:
        Running(database, version, cluster.address).result()
    assert (there.value.problem, there.value.remedy) == (here.value.problem, here.value.remedy)
    assert type(there.value) is error
    assert there.value.remedy


@pytest.mark.parametrize("kind", [RevectorError, UsageError, RefusedError, UnreachableError, EncoderError])
def test_errors_keep_problem_and_remedy_between_processes(kind: type[RevectorError]) -> None:
    error = pickle.loads(pickle.dumps(kind("A problem.", "A remedy.")))  # noqa: S301
    assert type(error) is kind
    assert (error.problem, error.remedy, str(error)) == ("A problem.", "A remedy.", "A problem.\nA remedy.")


@pytest.mark.parametrize("temporary", [True, False])
def test_a_temporary_error_stays_temporary_between_processes(temporary: bool) -> None:
    error = pickle.loads(pickle.dumps(UnreachableError("A problem.", temporary=temporary)))  # noqa: S301
    assert error.temporary is temporary


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "ray://127.0.0.1:1", "nowhere"])
def test_no_cluster_at_the_address_is_said(database: Database, connection: Connection, address: str) -> None:
    version = add(connection, "v1")
    with pytest.raises(UnreachableError, match=f"No Ray cluster at {address}: ."):
        Running(database, version, address).result()
    assert status_of(connection, version) is None


def test_without_ray_it_is_said_how_to_get_it(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"revector\[ray\]"):
        Running(database, add(connection, "v1"), "auto").result()


@pytest.mark.parametrize(
    "settings",
    [
        {"cpus_per_worker": -1},
        {"cpus_per_worker": float("nan")},
        {"gpus_per_worker": float("inf")},
        {"gpus_per_worker": 1.5},
        {"gpus_per_worker": 0.00001},
        {"max_restarts": -1},
        {"address": " "},
    ],
)
def test_amounts_that_ray_cannot_place_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RaySettings(**settings)


def test_deaths_count_in_a_row_only() -> None:
    deaths = Deaths(1)
    assert [deaths.one_more(progress) for progress in (0, 5, 9, 9)] == [True, True, True, False]


# -- placing -----------------------------------------------------------------------------------------------


def test_four_workers_share_a_gpu_and_a_fifth_has_no_room(
    database: Database, connection: Connection, cluster: RayCluster, provider: Provider
) -> None:
    texts = spread_chunks(connection, 4, 4)
    version = provider.version(connection)
    running = Running(
        database, version, cluster.address, wanted=lambda: 5, cpus_per_worker=0.1, gpus_per_worker=0.25
    )
    assert running.note() == (
        "4 of 5 workers run: the cluster has no room for another, which needs 0.1 CPUs and 0.25 GPUs "
        "(free: 3.6 CPUs and 0 GPUs of 4 CPUs and 1 GPU)"
    )
    assert until(lambda: workers(connection, version) == 4)
    assert len(cluster.workers()) == 4
    provider.open.set()
    assert running.result().state == "done"
    check_vectors(connection, version, texts)
    assert running.notes.empty()


def test_a_worker_that_no_node_can_hold_is_refused_at_once(
    database: Database, connection: Connection, cluster: RayCluster
) -> None:
    version = add(connection, "v1")
    with pytest.raises(RefusedError, match=r"each needs 0\.5 CPUs and 2 GPUs; .* has 4 CPUs and 1 GPU"):
        Running(database, version, cluster.address, gpus_per_worker=2.0).result()


def order(database: Database, version: Version, **settings: float) -> Order:
    return Order(database, version, BATCH, RaySettings("auto", **settings), 1)  # type: ignore[arg-type]


def test_a_cluster_without_gpus_is_refused(
    database: Database, connection: Connection, cluster: RayCluster
) -> None:
    nodes = cluster.ask("nodes")
    del nodes[0]["Resources"]["GPU"]
    with pytest.raises(RefusedError, match=r"No node .* has a GPU"):
        check_nodes(nodes, order(database, add(connection, "v1"), gpus_per_worker=0.25), "here")


def test_other_machines_cannot_reach_a_socket_of_this_one(
    database: Database, connection: Connection, cluster: RayCluster
) -> None:
    here, version = cluster.ask("nodes"), add(connection, "v1")
    name = here[0]["NodeManagerHostname"]
    two = [*here, {**here[0], "NodeManagerHostname": "gpu-7"}]
    gone = [*here, {**here[0], "NodeManagerHostname": "gpu-7", "Alive": False}]
    for local in (database, replace(database, dsn="dbname=x", embedded=True)):
        with pytest.raises(RefusedError, match="gpu-7"):
            check_nodes(two, order(local, version), name)
        assert check_nodes(gone, order(local, version), name) == []
    assert check_nodes(two, order(Database("host=db.example", "x"), version), name) == []
    assert "localhost" in check_nodes(two, order(Database("host=localhost", "x"), version), name)[0]


# -- whoever is killed, and secrets ------------------------------------------------------------------------


@pytest.mark.parametrize("killed", ["with its driver", "alone"])
def test_actors_end_with_whoever_started_them(
    database: Database,
    connection: Connection,
    cluster: RayCluster,
    provider: Provider,
    tmp_path: Path,
    killed: str,
) -> None:
    texts = spread_chunks(connection, 2, 200)
    version = provider.version(connection)
    with program(database, cluster.address, 2, tmp_path) as started:
        until(lambda: workers(connection, version) == 2 and len(provider.batches) >= 2)
        if killed == "with its driver":
            driver_of(psutil.Process(started.pid)).kill()
        started.kill()
        if killed == "alone":  # its driver lets the workers finish their current batch
            until(lambda: provider.permits.release() or workers(connection, version) == 0)
        until(lambda: workers(connection, version) == 0 and cluster.workers() == [])
    assert state(connection, version)[0] == "interrupted"
    provider.open.set()
    finish(database, version)
    check_vectors(connection, version, texts)


def test_a_driver_that_is_killed_is_started_again(
    database: Database, connection: Connection, cluster: RayCluster, provider: Provider
) -> None:
    texts = spread_chunks(connection, 2, 20)
    version = provider.version(connection)
    running = Running(database, version, cluster.address)
    until(lambda: workers(connection, version) == 2)
    driver_of(psutil.Process()).kill()
    assert "signal 9" in running.note()
    provider.open.set()
    assert running.result().state == "done"
    check_vectors(connection, version, texts)


def test_ctrl_c_ends_all_in_order(
    database: Database, connection: Connection, cluster: RayCluster, provider: Provider, tmp_path: Path
) -> None:
    spread_chunks(connection, 2, 200)
    version = provider.version(connection)
    with program(database, cluster.address, 2, tmp_path) as started:
        until(lambda: workers(connection, version) == 2 and len(provider.batches) >= 2)
        os.killpg(started.pid, signal.SIGINT)  # as a terminal does: the whole group
        assert until(lambda: provider.permits.release() or started.poll()) == -signal.SIGINT
    # The current batches were finished: what was requested from the provider is stored.
    asked = sum(len(request.inputs) for request in provider.batches)
    assert state(connection, version) == ("interrupted", asked)
    assert asked < 400
    assert cluster.workers() == []


def test_a_password_is_nowhere_in_ray(
    database: Database, connection: Connection, cluster: RayCluster, provider: Provider, tmp_path: Path
) -> None:
    texts = spread_chunks(connection, 2, 20)
    version = provider.version(connection)
    with program(database, cluster.address, 2, tmp_path) as started:
        until(lambda: workers(connection, version) == 2 and len(provider.batches) >= 2)
        killed = cluster.workers()[0]
        end(killed)
        until(lambda: killed not in cluster.workers() and workers(connection, version) == 2)
        driver = driver_of(psutil.Process(started.pid))
        processes = [driver, *(psutil.Process(pid) for pid in cluster.workers())]
        shown = [str([p.cmdline(), p.environ()]) for p in processes]
        provider.open.set()
        out, errors = started.communicate(timeout=PATIENCE_S)
    assert json.loads(out) == {"state": "done", "done": len(texts)}  # and nothing of Ray's beside it
    assert errors.count("\n") == 1
    assert "died and is replaced" in errors
    shown += [out, errors, *(json.dumps(cluster.ask(what)) for what in ("actors", "jobs", "nodes"))]
    assert "BackfillWorker" in shown[-3]
    assert (
        "revector.core.backfill.engines.ray.driver" in shown[-2]
    )  # the driver's command line is what Ray shows of it
    logs = [path.read_bytes() for path in cluster.files()]
    assert sum(map(len, logs)) > 10_000
    assert not any(PASSWORD in text for text in shown)
    assert not any(PASSWORD.encode() in log for log in logs)


def test_what_an_actor_is_given_shows_no_password(database: Database) -> None:
    assert PASSWORD not in repr(secret(database))
    assert PASSWORD not in str([secret(database)])
    secret(database).connect_options("test")
    assert scrub(f"{PASSWORD} is wrong") == "[secret] is wrong"
    assert PASSWORD not in repr(Order(secret(database), None, BATCH, RaySettings(), 1))  # type: ignore[arg-type]


def test_what_libpq_takes_from_the_environment_goes_along(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.connect("test") as connection:
        info = connection.info
        host = info.host
        given = {
            "HOST": host,
            "PORT": str(info.port),
            "USER": info.user,
            "PASSWORD": PASSWORD,
            "DATABASE": info.dbname,
        }
    with monkeypatch.context() as environment:
        for name, text in given.items():
            environment.setenv(f"PG{name}", text)
        complete = engine._complete(Database("", database.schema))
    with complete.connect("test") as connection:
        assert connection.info.host == host
        assert connection.info.password == PASSWORD


def test_a_ray_of_our_own_ends_with_the_run(
    database: Database, connection: Connection, provider: Provider, tmp_path: Path
) -> None:
    # A folder of that name in the working directory must not be imported, neither here nor in Ray's workers.
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "__init__.py").write_text("raise RuntimeError('not ours')")
    texts = spread_chunks(connection, 2, 20)
    version = provider.version(connection)
    with program(database, "", 3, tmp_path) as started:
        until(lambda: workers(connection, version) == 3)
        driver = driver_of(psutil.Process(started.pid))
        rays = driver.children(recursive=True)
        folder = next(Path(part.partition("=")[2]) for p in rays for part in p.cmdline() if "--log_dir=" in part)
        assert folder.is_dir()
        actor = next(p for p in rays if "BackfillWorker" in p.cmdline()[0])
        actor.kill()
        provider.open.set()
        out, errors = started.communicate(timeout=PATIENCE_S)
    assert json.loads(out) == {"state": "done", "done": len(texts)}
    assert errors.count("\n") == errors.count("died and is replaced")
    check_vectors(connection, version, texts)
    assert psutil.wait_procs(rays, timeout=PATIENCE_S)[1] == []
    assert not folder.parents[2].exists()
