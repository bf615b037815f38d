"""Without a token nothing is answered but /healthz, and without one no server starts that others could reach."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from revector.core.database import Database
from tests.console.cli.conftest import on
from tests.console.serve.conftest import TOKEN, Server, StartServer

ASKED = [
    ("GET", "/search?q=key"), ("POST", "/search"), ("POST", "/search/vector"), ("GET", "/versions"),
    ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/"), ("GET", "/nothing"),
    ("GET", "/healthz/"), ("GET", "//healthz"), ("GET", "/healthz/../versions"), ("GET", "/%68ealthz/"),
    ("OPTIONS", "/search"), ("TRACE", "/search"), ("GET", "/HEALTHZ"), ("GET", "/healthz;/"),
]  # fmt: skip

WRONG = {
    "none": [],
    "wrong": [("authorization", "Bearer something-else")],
    "longer": [("authorization", f"Bearer {TOKEN}x")],
    "shorter": [("authorization", f"Bearer {TOKEN[:-1]}")],
    "empty": [("authorization", "Bearer")],
    "no scheme": [("authorization", TOKEN)],
    "another scheme": [("authorization", f"Basic {TOKEN}")],
    "twice": [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer x")],
    "another header": [("x-api-key", TOKEN)],
    "not ascii": [("authorization", "Bearer \u00e9")],
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG.keys())
def test_nothing_is_answered_without_the_token(serving: Server, headers: list[tuple[str, str]]) -> None:
    with httpx.Client(base_url=serving.url) as client:
        for method, path in ASKED:
            raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
            found = client.request(method, path, headers=raw)
            assert found.status_code == 401, (method, path)
            assert found.headers["www-authenticate"].startswith("Bearer")
            assert found.json().keys() == {"type", "detail", "remedy"}
            assert found.json()["type"] == "unauthorized"
        assert client.get("/healthz").json() == {"ready": True}


def test_a_token_in_the_url_is_none(serving: Server) -> None:
    assert httpx.get(f"{serving.url}/versions?token={TOKEN}&access_token={TOKEN}").status_code == 401


def test_a_server_without_a_token_does_not_start(library: Database, tmp_path: Path) -> None:
    program = on(library, tmp_path)
    found = program.call("serve", "--port", "0", status=2)
    assert "REVECTOR_SERVE_TOKEN is empty" in found.err
    found = program.call("serve", "--port", "0", "--token-env", "ANOTHER", status=2)
    assert "ANOTHER is empty" in found.err
    for host in ("0.0.0.0", "::", "", "192.0.2.1", "no-such-host.invalid"):  # noqa: S104
        found = program.call("serve", "--port", "0", "--host", host, "--no-token", status=2)
        assert "so a token is required" in found.err
    found = program.call("serve", "--no-token", "--port", "0", "--rerank", "nonsense", status=2)
    assert "nonsense" in found.err
    odd = program.with_options(REVECTOR_SERVE_TOKEN="two words")  # noqa: S106
    assert "no HTTP header can carry" in odd.call("serve", "--port", "0", status=2).err


def test_a_port_that_is_taken(library: Database, tmp_path: Path) -> None:
    program = on(library, tmp_path).with_options(REVECTOR_SERVE_TOKEN=TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}: Address already in use" in program.call("serve", "--port", port, status=2).err


def test_without_a_token_only_names_of_this_machine_count(library: Database, start_server: StartServer) -> None:
    server = start_server("--no-token", on=library, token=None)
    assert server.client.get("/versions").json()["active"] == "v1"
    port = server.url.rpartition(":")[2]
    for host in (f"localhost:{port}", "LOCALHOST", "[::1]:1", "127.0.0.1"):
        assert server.client.get("/versions", headers={"host": host}).status_code == 200
    for host in (f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::2]"):
        assert server.client.get("/versions", headers={"host": host}).status_code == 401
    assert server.end() == 0
