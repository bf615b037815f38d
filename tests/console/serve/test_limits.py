"""Bodies, requests at once, time and connections: what is too much is refused at once, and costs others nothing."""

from __future__ import annotations

import concurrent.futures
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from revector.console.serve.server import listen
from revector.core.database import Database
from tests.console.serve.conftest import TOKEN, Server, StartServer, searches_held

LIMIT = 4096


@pytest.fixture
def small(library: Database, start_server: StartServer) -> Server:
    return start_server("--max-body-bytes", str(LIMIT), on=library)


def body_of(size: int) -> bytes:
    """A request whose document has exactly so many bytes."""
    empty = len(json.dumps({"query": ""}))
    return json.dumps({"query": "x" * (size - empty)}).encode()


def in_parts(body: bytes) -> Iterator[bytes]:
    """Without a length: httpx sends it chunked."""
    yield from (body[at : at + 1000] for at in range(0, len(body), 1000))


def test_bodies_above_the_limit(small: Server) -> None:
    headers = {"content-type": "application/json"}
    for size, status in ((LIMIT, 200), (LIMIT + 1, 413), (50 * LIMIT, 413)):
        for content in (body_of(size), in_parts(body_of(size))):
            found = small.client.post("/search", content=content, headers=headers)
            assert found.status_code == status, (size, found.text)
            if status == 413:
                assert found.json()["type"] == "too_large"
                assert found.headers["connection"] == "close"
    assert small.search().status_code == 200


def test_a_length_that_is_too_much_is_not_read(small: Server) -> None:
    """The answer comes before a byte of the body."""
    with raw(small, f"content-length: {10**15}") as line:
        assert answer_of(line).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_arrive(library: Database, start_server: StartServer) -> None:
    server = start_server("--timeout-s", "0.2", on=library)
    with raw(server, "content-length: 100") as line:
        line.sendall(b'{"query"')
        found = answer_of(line)
    assert found.startswith(b"HTTP/1.1 408 ")
    assert b'"type":"timeout"' in found


def test_what_is_no_http(serving: Server) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET HTTP\r\n\r\n", b"GET /" + b"x" * 100_000):
        with socket.create_connection(serving.url.removeprefix("http://").split(":"), timeout=60) as line:  # type: ignore[arg-type]
            line.sendall(sent)
            found = answer_of(line)
        assert found.startswith(b"HTTP/1.1 400 ")
        assert json.loads(found.partition(b"\r\n\r\n")[2])["type"] == "invalid"


def test_more_at_once_than_the_limit(two_versions: Database, start_server: StartServer) -> None:
    server = start_server("--max-concurrency", "2", "--timeout-s", "60")
    assert server.search().status_code == 200
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        with searches_held(two_versions) as wait:
            held = [threads.submit(server.search) for _ in range(2)]
            wait(2)
            for _ in range(5):  # there is no queue: each is answered at once
                found = server.search()
                assert (found.status_code, found.json()["type"]) == (503, "busy")
                assert int(found.headers["retry-after"]) >= 1
            assert server.client.get("/versions").status_code == 503
            assert server.client.get("/healthz").json() == {"ready": True}
            assert server.figure("revector_requests_in_flight") == 3  # the two, and this one
        assert [one.result().status_code for one in held] == [200, 200]
    assert server.search().status_code == 200
    assert server.figure('revector_errors_total{type="busy"}') == 6


def test_a_search_that_takes_too_long(two_versions: Database, start_server: StartServer) -> None:
    server = start_server("--max-concurrency", "1", "--timeout-s", "3")
    assert server.search().status_code == 200
    with searches_held(two_versions):
        for _ in range(2):  # more than there are slots: each gives its own back
            found = server.search()
            assert (found.status_code, found.json()["type"]) == (504, "timeout"), found.text
    assert server.search().status_code == 200
    assert server.end() == 0


def test_answers_are_sent_at_once() -> None:
    """asyncio turns Nagle's algorithm off, which held every answer back for 40 ms, on sockets that say they are TCP."""
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def raw(server: Server, *headers: str) -> socket.socket:
    """A connection on which the headers of a search were sent, and no body."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    line = socket.create_connection((host, int(port)), timeout=60)
    head = [
        "POST /search HTTP/1.1", "host: x", f"authorization: Bearer {TOKEN}",
        "content-type: application/json", *headers,
    ]  # fmt: skip
    line.sendall("\r\n".join([*head, "", ""]).encode())
    return line


def answer_of(line: socket.socket) -> bytes:
    """Everything until the server hangs up."""
    found = b""
    while part := line.recv(65536):
        found += part
    return found


def test_connections_that_say_nothing_are_bounded(library: Database, start_server: StartServer) -> None:
    server = start_server("--max-concurrency", "1", on=library)  # 104 connections
    host, _, port = server.url.removeprefix("http://").partition(":")
    lines = [socket.create_connection((host, int(port)), timeout=60) for _ in range(104)]
    with socket.create_connection((host, int(port)), timeout=60) as one_more:
        assert answer_of(one_more).startswith(b"HTTP/1.1 503 ")
    for line in lines:
        line.close()
    with httpx.Client(base_url=server.url, transport=httpx.HTTPTransport(retries=5)) as client:
        assert client.get("/healthz").status_code == 200
