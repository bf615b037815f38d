"""Retrievers in real application servers: forked after the application was loaded, and as processes of their own."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from revector.core.database import Connection, Database
from revector.core.retrieval import ROLLBACK_VARIABLE, AsyncRetriever, Retriever
from revector.core.serving import serving
from revector.core.shadow import Mirror, start
from tests.core.retrieval.collections import two_versions
from tests.faults.watch import wait_until
from tests.versions import NUMBERS

TEXTS = [f"{a} and {b}" for a, b in itertools.combinations(NUMBERS, 2)]
PLAIN = """
import os
from urllib.parse import parse_qs
from revector import Database, Retriever

retriever = Retriever(Database.from_env(), timeout_s=60)
retriever.search("one")
loaded_by = os.getpid()

def application(environ, start_response):
    query = parse_qs(environ["QUERY_STRING"])["q"][0]
    hit = retriever.search(query, 3).hits[0]
    start_response("200 OK", [("x-process", f"{os.getpid()}"), ("x-loaded-by", f"{loaded_by}")])
    return [hit.content.encode()]
"""
ON_A_LOOP = """
import os
from fastapi import FastAPI, Response
from revector import AsyncRetriever, Database

retriever = AsyncRetriever(Database.from_env(), timeout_s=60)
loaded_by = os.getpid()
app = FastAPI()

@app.get("/")
async def search(q: str) -> Response:
    hit = (await retriever.search(q, 3)).hits[0]
    return Response(hit.content, headers={"x-process": f"{os.getpid()}", "x-loaded-by": f"{loaded_by}"})
"""
SERVERS = {
    "gunicorn --preload": (
        PLAIN,
        "gunicorn --preload --workers 2 --threads 4 --bind 127.0.0.1:PORT web:application",
    ),
    "gunicorn --preload, on a loop": (
        ON_A_LOOP,
        "gunicorn --preload --workers 2 --worker-class asgi --bind 127.0.0.1:PORT web:app",
    ),
    "uvicorn --workers": (ON_A_LOOP, "uvicorn --workers 2 --log-level warning --port PORT web:app"),
}


@pytest.fixture
def searched(database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.delenv(ROLLBACK_VARIABLE, raising=False)
    two_versions(database, connection, TEXTS)
    return database


@contextmanager
def server(database: Database, folder: Path, program: str, command: str) -> Iterator[httpx.Client]:
    """A client of a server of that program."""
    (folder / "web.py").write_text(program)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {
        **os.environ, "REVECTOR_DSN": database.dsn, "REVECTOR_SCHEMA": database.schema,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command.replace("PORT", port).split()],
            cwd=folder, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            # No connection is kept, so that both workers are asked.
            limits = httpx.Limits(max_keepalive_connections=0)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=60) as client:
                wait_until("it answers", lambda: process.poll() is None and answers(client))
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) in (0, -signal.SIGTERM), (folder / "log").read_text()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/", params={"q": "one"}).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("name", SERVERS)
def test_every_worker_answers_its_own_queries(
    searched: Database, connection: Connection, tmp_path: Path, name: str
) -> None:
    program, command = SERVERS[name]
    with server(searched, tmp_path, program, command) as client, ThreadPoolExecutor(8) as threads:

        def asked(text: str) -> httpx.Response:
            return client.get("/", params={"q": text})

        found = list(threads.map(asked, TEXTS * 3))
        wrong = {text: one.text for text, one in zip(TEXTS * 3, found, strict=True) if one.text != text}
        assert not wrong
        workers = {one.headers["x-process"] for one in found}
        loaders = {one.headers["x-loaded-by"] for one in found}
        assert len(workers) == 2
        assert len(loaders) == (1 if "preload" in name else 2)
        assert {str(one.pid) for one in serving(connection)} >= workers
    wait_until("nothing is left behind", lambda: not serving(connection))


def held(connection: Connection) -> int:
    return connection.execute(  # type: ignore[index, no-any-return]
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' "
        "AND pid <> pg_backend_pid()"
    ).fetchone()[0]


def test_connections_are_as_many_as_the_page_says(searched: Database, connection: Connection) -> None:
    with Retriever(searched) as retriever:
        retriever.search("one")
        wait_until("a retriever is idle", lambda: held(connection) in (2, 3))
        for _ in range(10):
            retriever.search_many(TEXTS)
        assert held(connection) <= 9
    wait_until("it is closed", lambda: held(connection) == 0)
    start(connection, "v2", sample=1)
    with Mirror(searched) as mirror:
        assert mirror.wait(60)
        assert held(connection) == 1
        with Retriever(searched, mirror=mirror) as retriever:
            retriever.search("one")
            assert mirror.flush(60)
            wait_until("retriever and mirror", lambda: held(connection) in (2 + 2, 3 + 2))


async def test_connections_of_the_asynchronous_one(searched: Database, connection: Connection) -> None:
    async with AsyncRetriever(searched) as retriever:
        await retriever.ready()
        wait_until("it is idle", lambda: held(connection) in (2, 3))
        await retriever.search_many(TEXTS)
        assert held(connection) <= 9
