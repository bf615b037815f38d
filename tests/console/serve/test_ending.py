"""The end of a server, and of its database: what was begun is finished, and what cannot be answered fails at once."""

from __future__ import annotations

import concurrent.futures
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from revector.core.database import Database
from tests.console.serve.conftest import DEADLINE_S, TOKEN, Server, StartServer, searches_held
from tests.faults.proxy import Proxy


def test_sigterm_in_the_middle_of_requests(two_versions: Database, start_server: StartServer) -> None:
    server = start_server("--timeout-s", "60")
    assert server.search().status_code == 200  # on a connection that stays open
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        with searches_held(two_versions) as wait:
            held = [threads.submit(server.search) for _ in range(3)]
            wait(3)
            server.process.send_signal(signal.SIGTERM)
            refused = wait_until_refused(server)
            assert refused
            assert server.process.poll() is None
            assert not any(one.done() for one in held)
        answers = [one.result() for one in held]
    assert [one.status_code for one in answers] == [200] * 3
    assert all(one.json()["hits"] for one in answers)
    assert server.process.wait(DEADLINE_S) == 0
    assert server.said.splitlines()[-1] == "ended"


def wait_until_refused(server: Server) -> bool:
    """Whether new requests come to be refused: by a closed port, or by 503 on a connection that was open."""
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        try:
            found = httpx.get(f"{server.url}/healthz", timeout=DEADLINE_S)
        except httpx.TransportError:
            return True
        if found.status_code == 503:
            return True
    return False


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_an_idle_server_ends_at_once(
    library: Database, start_server: StartServer, tmp_path: Path, how: signal.Signals, status: int
) -> None:
    server = start_server(on=library, REVECTOR_HOME=str(tmp_path), REVECTOR_LOG_LEVEL="debug")
    assert server.search().status_code == 200
    assert server.end(how) == status
    log = (tmp_path / "logs" / "cli.log").read_text()
    for line in (f"serving on {server.url}", "serve serves v1", "serving ended, 0 searches unfinished"):
        assert [event for event in log.splitlines() if " INFO " in event and event.endswith(line)], log
    assert TOKEN not in log


@pytest.fixture
def proxy(two_versions: Database) -> Iterator[Proxy]:
    proxy = Proxy(two_versions.dsn)
    yield proxy
    proxy.close()


def test_a_database_that_is_gone_and_comes_back(
    two_versions: Database, proxy: Proxy, start_server: StartServer
) -> None:
    server = start_server("--timeout-s", "30", on=Database(proxy.dsn, two_versions.schema))
    assert server.search().status_code == 200
    assert server.client.get("/versions").status_code == 200
    proxy.refuse()
    proxy.cut_all()
    began = time.monotonic()
    for _ in range(5):
        found = server.search()
        assert (found.status_code, found.json()["type"]) == (503, "unreachable"), found.text
        assert found.headers["retry-after"]
        assert server.client.get("/versions").status_code == 503
    assert time.monotonic() - began < 30  # ten requests in the time limit of one: they do not wait for it
    server.wait_for_health(503)
    assert server.figure('revector_errors_total{type="unreachable"}') == 10
    proxy.accept()
    server.wait_for_health(200)
    until = time.monotonic() + DEADLINE_S
    while server.search().status_code != 200:
        assert time.monotonic() < until
    assert server.client.get("/versions").json()["active"] == "v1"
    assert server.end() == 0


def test_a_server_that_starts_without_its_database(
    two_versions: Database, proxy: Proxy, start_server: StartServer
) -> None:
    proxy.refuse()
    server = start_server(on=Database(proxy.dsn, two_versions.schema))
    assert server.client.get("/healthz").json() == {"ready": False}
    assert server.search().status_code == 503
    proxy.accept()
    server.wait_for_health(200)
    assert server.search().json()["version_key"] == "v1"
    assert server.end() == 0
