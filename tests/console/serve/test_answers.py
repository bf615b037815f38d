"""What is asked over HTTP, and what is answered: the same as the command line's, and one shape for every error."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from revector.core import shadow
from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.serving import serving as processes_of
from tests.console.cli.conftest import TEXTS, on
from tests.console.cli.program import SECRET
from tests.console.serve.conftest import DEADLINE_S, Server, StartServer
from tests.versions import ready_version

DEEP = b'{"query": "x", "filters": ' + b'{"a":' * 500 + b"1" + b"}" * 501


def test_search_is_the_command_lines(serving: Server, library: Database, tmp_path: Path) -> None:
    known = on(library, tmp_path).call("search", "rotate an api key", "-k", "5", "--json").document
    for found in (serving.search(k=5), serving.client.get("/search", params={"q": "rotate an api key", "k": 5})):
        assert found.status_code == 200
        answer = found.json()
        assert (answer["version_key"], answer["active"]) == ("v1", True)
        assert answer["encode_ms"] >= 0
        assert answer["search_ms"] > 0
        assert [hit["chunk_id"] for hit in answer["hits"]] == [hit["chunk_id"] for hit in known["hits"]]
        assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4, 5]
        assert answer["hits"][0]["content"] == TEXTS[0]


def test_filters_hybrid_and_settings(serving: Server) -> None:
    english = serving.search(k=12, filters={"language": "en"}).json()["hits"]
    assert {hit["metadata"]["language"] for hit in english} == {"en"}
    assert [hit["content"] in TEXTS[::2] for hit in english] == [True] * 6
    by_url = serving.client.get("/search", params={"q": "rotate", "k": 12, "filter": "language=en"}).json()["hits"]
    assert {hit["chunk_id"] for hit in by_url} == {hit["chunk_id"] for hit in english}
    assert serving.search(filters={"language": "fr"}).json()["hits"] == []
    hybrid = serving.search("revoke", k=3, hybrid=True, ef_search=200, segment="how-to").json()["hits"]
    assert hybrid[0]["content"] == TEXTS[0]  # the one with the word
    refused = serving.search(rerank=True)
    assert refused.status_code == 409
    assert "--rerank" in refused.json()["remedy"]


def test_a_vector_of_the_callers_own(serving: Server) -> None:
    for key, spec, active in (("v1", "static:wordllama-64", True), ("v2", "static:wordllama-256", False)):
        vector = open_encoder(spec).encode_query("rotate an api key").tolist()
        found = serving.client.post("/search/vector", json={"vector": vector, "version": key, "k": 3})
        assert found.status_code == 200
        assert (found.json()["version_key"], found.json()["active"]) == (key, active)
        assert found.json()["hits"][0]["content"] == TEXTS[0]
        assert found.json()["encode_ms"] == 0


@pytest.mark.parametrize(
    ("vector", "version", "status", "said"),
    [
        ([0.5] * 256, "v1", 409, "64"),
        ([0.5] * 64, "v9", 404, "v9"),
        ([0.5] * 64, "x'; DROP TABLE embedding_versions; --", 404, "DROP"),
        ([], "v1", 422, "vector"),
        (["0.5"] * 64, "v1", 422, "vector"),
        ([1e39] * 64, "v1", 422, "vector"),
    ],
)
def test_a_vector_that_does_not_fit(
    serving: Server, vector: list[Any], version: str, status: int, said: str
) -> None:
    found = serving.client.post("/search/vector", json={"vector": vector, "version": version})
    assert found.status_code == status
    assert said in found.json()["detail"]


def test_vectors_that_no_cosine_is_of(serving: Server) -> None:
    """A distance that is no number is null: JSON has no NaN."""
    for vector in ([0.0] * 64, [1e-30] * 64, [1e15] * 64):
        found = serving.client.post("/search/vector", json={"vector": vector, "version": "v1"})
        assert found.status_code in (200, 409, 422)
        json.loads(found.text, parse_constant=lambda name: pytest.fail(name))


def test_versions(serving: Server) -> None:
    found = serving.client.get("/versions").json()
    assert (found["active"], found["serving"]) == ("v1", "v1")
    assert [(one["version_key"], one["active"], one["dimensions"]) for one in found["versions"]] == [
        ("v1", True, 64), ("v2", False, 256),
    ]  # fmt: skip
    assert found["versions"][0].items() >= {
        "encoder_name": "static:wordllama-64", "distance_metric": "cosine", "provider": "static",
        "model": "wordllama-64", "base_url": None, "query_prefix": "", "normalise": True, "max_tokens": None,
    }.items()  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", "/search", b"{", 422, "invalid"),
        ("POST", "/search", b"", 422, "invalid"),
        ("POST", "/search", b"[]", 422, "invalid"),
        ("POST", "/search", b"\xff\xfe", 422, "invalid"),
        ("POST", "/search", b'{"query": ""}', 422, "invalid"),
        ("POST", "/search", b'{"query": " \\u0000 "}', 422, "invalid"),
        ("POST", "/search", b'{"query": "\\ud800"}', 422, "invalid"),
        ("POST", "/search", b'{"query": "x", "k": 0}', 422, "invalid"),
        ("POST", "/search", b'{"query": "x", "k": "5"}', 422, "invalid"),
        ("POST", "/search", b'{"query": "x", "k": 1e999}', 422, "invalid"),
        ("POST", "/search", b'{"query": "x", "limit": 5}', 422, "invalid"),
        ("POST", "/search", b'{"query": "x", "\\ud800": 5}', 422, "invalid"),
        ("POST", "/search", b'{"query": "x", "filters": {"a": NaN}}', 422, "invalid"),
        ("POST", "/search", b'{"query": "x", "filters": {"a": "\\u0000"}}', 422, "invalid"),
        ("POST", "/search", b'{"query": "x", "filters": {"a": "\\ud800"}}', 422, "invalid"),
        pytest.param("POST", "/search", DEEP, 422, "invalid", id="deep filters"),
        ("POST", "/search", b'{"query": "x", "filters": {"a": {"$like": "x"}}}', 422, "invalid"),
        pytest.param("POST", "/search", b"[" * 100_000, 422, "invalid", id="deep body"),
        pytest.param(
            "POST", "/search", b'{"query": "x", "k": ' + b"9" * 5_000 + b"}", 422, "invalid", id="digits"
        ),
        ("GET", "/search", b"", 422, "invalid"),
        ("GET", "/search?q=x&filter=language", b"", 422, "invalid"),
        ("GET", "/search?q=x&limit=5", b"", 422, "invalid"),
        ("GET", "/search?q=%00", b"", 422, "invalid"),
        ("GET", "/nothing", b"", 404, "not_found"),
        ("GET", "/docs", b"", 404, "not_found"),
        ("DELETE", "/search", b"", 405, "method_not_allowed"),
        ("POST", "/healthz", b"", 405, "method_not_allowed"),
        ("POST", "/versions", b"", 405, "method_not_allowed"),
    ],
)
def test_errors_have_one_shape(
    serving: Server, method: str, path: str, body: bytes, status: int, kind: str
) -> None:
    headers = {"content-type": "application/json"}
    found = serving.client.request(method, path, content=body or None, headers=headers)
    assert (found.status_code, found.headers["content-type"]) == (status, "application/json")
    problem = found.json()
    assert problem.keys() == {"type", "detail", "remedy"}
    assert problem["type"] == kind
    assert problem["detail"]
    if status == 405:
        assert found.headers["allow"] == ("GET, POST" if path == "/search" else "GET")


def test_a_collection_before_its_first_cutover(
    database: Database, connection: Connection, start_server: StartServer
) -> None:
    server = start_server()
    assert server.client.get("/healthz").status_code == 503
    assert server.client.get("/versions").json() == {"active": None, "serving": None, "versions": []}
    found = server.search()
    assert (found.status_code, found.json()["type"]) == (409, "refused")
    assert "cutover run" in found.json()["remedy"]
    ready_version(database, connection, "v1")
    assert server.search().status_code == 409
    connection.execute("UPDATE embedding_versions SET active = true")
    assert server.search().json().items() >= {"version_key": "v1", "active": True, "hits": []}.items()
    assert server.figure('revector_empty_results_total{version="v1"}') == 1


def test_metrics(library: Database, start_server: StartServer) -> None:
    server = start_server(on=library)
    for _ in range(3):
        assert server.search().status_code == 200
    assert server.search(k=0).status_code == 422
    assert server.client.get("/no/such/path").status_code == 404
    text = server.client.get("/metrics").text
    names = {family.name for family in text_string_to_metric_families(text)}
    assert names >= {
        "revector_requests", "revector_request_seconds", "revector_requests_in_flight", "revector_errors",
        "revector_search_seconds", "revector_empty_results", "revector_served_version_info", "process_open_fds",
        "revector_pool_connections", "revector_pool_free", "revector_pool_waiting",
    }  # fmt: skip
    assert 'revector_requests_total{method="POST",route="/search",status="200"} 3.0' in text
    assert 'revector_requests_total{method="GET",route="other",status="404"} 1.0' in text
    assert 'revector_search_seconds_count{step="database",version="v1"} 3.0' in text
    assert 'revector_errors_total{type="invalid"} 1.0' in text
    assert 'version="v1"' in next(line for line in text.splitlines() if "served_version_info{" in line)
    assert "/no/such/path" not in text
    assert SECRET not in text
    assert server.end() == 0


def test_others_see_it_and_the_shadow_gets_its_queries(
    two_versions: Database, connection: Connection, start_server: StartServer
) -> None:
    shadow.start(connection, "v2", sample=1.0, reason="test")
    server = start_server()
    until = time.monotonic() + DEADLINE_S
    while shadow.report(connection).done == 0:  # a mirror learns of its shadow by and by
        assert server.search(k=3, segment="how-to").status_code == 200
        assert time.monotonic() < until
    assert [one.segment for one in shadow.report(connection).segments] == ["how-to"]
    assert [(one.program, one.version_key, one.pinned) for one in processes_of(connection)] == [
        ("serve", "v1", False)
    ]
    assert server.end() == 0


def test_a_pinned_server(two_versions: Database, start_server: StartServer) -> None:
    server = start_server(RETRIEVAL_ROLLBACK_VERSION="v2")
    found = server.search().json()
    assert (found["version_key"], found["active"]) == ("v2", False)
    versions = server.client.get("/versions").json()
    assert (versions["active"], versions["serving"]) == ("v1", "v2")
    assert 'pinned="true",version="v2"' in server.client.get("/metrics").text
