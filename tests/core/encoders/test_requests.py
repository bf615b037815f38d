"""What a spec adds to requests: fields, for documents and queries apart, headers, URL parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from revector.core import hosts
from revector.core.database import Connection
from revector.core.encoders import open_encoder, parse_spec, probe
from revector.core.errors import RefusedError, UnreachableError, UsageError
from revector.core.registry import change_encoder
from tests.protocol_server import ProtocolServer, embed
from tests.versions import add

KEY, OTHER = "sk-hush-4711", "cf-hush-4712"


@pytest.fixture
def provider() -> Iterator[ProtocolServer]:
    with ProtocolServer() as running:
        yield running


@pytest.fixture
def connect(provider: ProtocolServer) -> Iterator[Callable[[str], Any]]:
    opened = []

    def connect(settings: str, head: str = "openai:house-model") -> Any:
        opened.append(open_encoder(f"{head}?base_url={provider.base_url}&{settings}"))
        return opened[-1]

    yield connect
    for encoder in opened:
        encoder.close()


def test_fields_for_documents_and_queries_apart(connect: Callable[[str], Any], provider: ProtocolServer) -> None:
    """NVIDIA's NIM, and Jina."""
    encoder = connect(
        "document.input_type=passage&query.input_type=query&query.task=retrieval.query"
        "&field.truncate=END&field.late_chunking=true&field.n=3&field.user=%223%22&field.options=%7B%22a%22:1%7D"
        "&field.odd=NaN"
    )
    encoder.encode_documents(["one", "two"])
    encoder.encode_query("three")
    both = {"truncate": "END", "late_chunking": True, "n": 3, "user": "3", "options": {"a": 1}, "odd": "NaN"}
    first, second = (request.body for request in provider.requests)
    assert first == {
        "model": "house-model", "input": ["one", "two"], "encoding_format": "base64", "input_type": "passage", **both,
    }  # fmt: skip
    assert second == {
        "model": "house-model", "input": ["three"], "encoding_format": "base64", "input_type": "query",
        "task": "retrieval.query", **both,
    }  # fmt: skip


def test_headers_parameters_and_a_key_in_a_header_of_its_own(
    connect: Callable[[str], Any], provider: ProtocolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Azure, and a gateway that wants a second secret."""
    monkeypatch.setenv("AZURE_KEY", KEY)
    monkeypatch.setenv("GATEWAY_SECRET", f"{OTHER}\n")
    encoder = connect(
        "param.api-version=2024-10-21&key_env=AZURE_KEY&key_header=api-key"
        "&header.x-tenant=search&header_env.x-gateway-secret=GATEWAY_SECRET"
    )
    encoder.encode_query("a key")
    (request,) = provider.requests
    assert request.path == "/v1/embeddings?api-version=2024-10-21"
    assert request.headers["api-key"] == KEY
    assert request.headers["x-tenant"] == "search"
    assert request.headers["x-gateway-secret"] == OTHER
    assert "authorization" not in request.headers
    provider.fail(401, message=f"{KEY} or {OTHER} is wrong")
    with pytest.raises(UnreachableError, match=r"\[secret\] or \[secret\] is wrong"):
        encoder.encode_query("a key")


def test_a_variable_that_is_not_set_is_named(
    connect: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GATEWAY_SECRET", raising=False)
    with pytest.raises(UnreachableError, match="GATEWAY_SECRET is not set") as caught:
        connect("header_env.x-gateway=GATEWAY_SECRET")
    assert "header_env.x-gateway=" in caught.value.remedy


@pytest.mark.parametrize(
    "setting",
    [
        "header.host=evil.example",
        "header.Host=evil.example",
        "header.x-forwarded-host=evil.example",
        "header.content-length=3",
        "header_env.host=PATH",
        "key_header=host",
        "header.x%20y=1",
        "header.x=a%0d%0ab",
        "header.x=%C3%BC",
        "header_env.x=lower",
        "field.=1",
        "header.api-key=hush",
        "header.authorization=hush",
        "header_env.api-key=hush",
        "param.key=hush",
        "field.token=hush",
    ],
)
def test_what_could_go_elsewhere_or_is_a_secret_is_refused(setting: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(f"openai:m?{setting}")
    assert "hush" not in str(caught.value)


def test_a_field_that_the_provider_sets_itself_is_refused(connect: Callable[[str], Any]) -> None:
    with pytest.raises(UsageError, match="openai:house-model sends input, model itself"):
        connect("field.input=x&document.model=y").encode_documents(["a"])


def test_each_secret_needs_the_owners_leave(
    connection: Connection, provider: ProtocolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVECTOR_SERVE_TOKEN", KEY)
    spec = f"openai:house-model?base_url={provider.base_url}&header_env.x-secret=REVECTOR_SERVE_TOKEN"
    with pytest.raises(RefusedError, match="with the key in REVECTOR_SERVE_TOKEN: it is not on the owner's list"):
        add(connection, "v1", spec)
    assert provider.requests == []
    assert hosts.missing_entry("openai:m?header_env.x-secret=OTHER", []) == ("openai", "OTHER")
    hosts.allow(connection, "127.0.0.1", "REVECTOR_SERVE_TOKEN")
    assert add(connection, "v1", spec).dimensions == 96


@pytest.mark.parametrize("spec", ["openai:m", "cohere:m", "voyage:m"])
def test_a_providers_own_host_needs_no_entry(spec: str) -> None:
    own = {
        "openai": "https://api.openai.com/v1",
        "cohere": "https://api.cohere.com/v2",
        "voyage": "https://api.voyageai.com/v1",
    }[spec.partition(":")[0]]
    assert hosts.missing_entry(spec, []) is None
    assert hosts.missing_entry(f"{spec}?base_url={own}", []) is None
    assert hosts.missing_entry(f"{spec}?base_url={own}/other", []) is not None


def test_the_way_may_change_and_what_is_asked_for_may_not(
    connection: Connection, provider: ProtocolServer
) -> None:
    at = f"openai:house-model?base_url={provider.base_url}"
    add(connection, "v1", f"{at}&document.task=a&param.api-version=1")
    moved = f"{at}&document.task=a&header.x-tenant=b&key_header=api-key&param.api-version=2"
    assert change_encoder(connection, "v1", moved).encoder_spec == moved
    for other in ("document.task=b", "field.task=a&document.task=a", "query.task=a&document.task=a"):
        with pytest.raises(RefusedError, match="its encoder cannot change"):
            change_encoder(connection, "v1", f"{at}&{other}&param.api-version=2")
    with pytest.raises(RefusedError, match="No encoder can be opened"):
        change_encoder(connection, "v1", f"{at}&document.task=a&header.host=b")


def test_cohere(connect: Callable[..., Any], provider: ProtocolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_server: object, request: Any, _spoilt: object) -> dict[str, Any]:
        lists = [embed(text, "m", None, {"m": 1024}).tolist() for text in request.body["texts"]]
        return {"embeddings": {"float": lists}, "meta": {"billed_units": {"input_tokens": 7}}}

    monkeypatch.setenv("CO_API_KEY", KEY)
    monkeypatch.setattr("tests.protocol_server._answer", answer)
    monkeypatch.setattr("tests.protocol_server._check", lambda *_: None)
    encoder = connect("max_retries=0", "cohere:embed-english-v3.0")
    texts = [f"text {n}" for n in range(100)]
    np.testing.assert_allclose(
        encoder.encode_documents(texts), [embed(text, "m", None, {"m": 1024}) for text in texts], atol=1e-6
    )
    encoder.encode_query("a key")
    first, second, query = provider.requests
    assert (len(first.body["texts"]), len(second.body["texts"])) == (96, 4)
    assert (first.body["input_type"], query.body["input_type"]) == ("search_document", "search_query")
    assert query.body == {
        "model": "embed-english-v3.0", "texts": ["a key"], "input_type": "search_query",
        "embedding_types": ["float"], "truncate": "NONE",
    }  # fmt: skip
    assert (query.path, query.headers["authorization"]) == ("/v1/embed", f"Bearer {KEY}")
    assert (encoder.take_usage(), encoder.price) == (21, 0.10)
    assert encoder.url == f"{provider.base_url}/embed"


def test_voyage(connect: Callable[..., Any], provider: ProtocolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOYAGE_API_KEY", KEY)
    provider.models["voyage-3.5"] = 1024
    encoder = connect("dimensions=256", "voyage:voyage-3.5")
    provider.embed = lambda text, model, *_: embed(text, model, 256, provider.models)
    assert probe(encoder) == 256
    document, query = provider.requests
    assert (document.body["input_type"], query.body["input_type"]) == ("document", "query")
    assert query.body["output_dimension"] == 256
    assert query.body["encoding_format"] == "base64"
    assert json.dumps(query.body).count("dimensions") == 0
    with pytest.raises(UsageError, match="from 1 to 1000"):
        parse_spec("voyage:voyage-3.5?batch_size=1001")
