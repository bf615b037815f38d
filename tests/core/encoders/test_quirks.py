"""Servers that are nearly OpenAI's, each with quirks of its own: tests/protocol_modes.py is the table of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.worker.encoding import BatchEncoder
from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.errors import EncoderError, RefusedError, UnreachableError, UsageError, unknown_name
from revector.core.registry import adopt_version, change_encoder
from tests.protocol_modes import MODES, POISON, Mode
from tests.protocol_server import ProtocolServer, embed
from tests.versions import NUMBERS, add, add_chunks, worker_on

TEXTS = ["How do I rotate an API key?", "Rotating credentials", "Bread needs flour and water", "one more"]


@pytest.fixture
def provider() -> Iterator[ProtocolServer]:
    with ProtocolServer() as running:
        yield running


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between tries."""
    monkeypatch.setattr("revector.core.encoders.remote.backoff", lambda *_, **__: 0.0)


@pytest.fixture
def connect(provider: ProtocolServer) -> Iterator[Callable[..., Any]]:
    """Open an encoder at the provider."""
    opened = []

    def connect(**settings: object) -> Any:
        given = {"base_url": provider.base_url, **settings}
        query = "&".join(f"{name}={value}" for name, value in given.items())
        encoder: Any = open_encoder(f"openai:house-model?{query}")
        opened.append(encoder)
        return encoder

    yield connect
    for encoder in opened:
        encoder.close()


def vectors_of(texts: list[str]) -> np.ndarray:
    return np.stack([embed(text, "house-model") for text in texts])


@pytest.mark.parametrize("mode", ["llama.cpp, too long", "ollama, NaN", "a text refused"])
def test_a_text_that_the_server_cannot_embed_is_refused_alone(
    connect: Callable[..., Any], provider: ProtocolServer, mode: str
) -> None:
    provider.mode = MODES[mode]
    encoder = connect(max_retries=2)
    with pytest.raises(EncoderError, match=r"and not for these: 500|refused the request with 400"):
        encoder.encode_documents([*TEXTS, POISON])
    with pytest.raises(EncoderError, match=r"and not for this: 500|refused the request with 400"):
        encoder.encode_documents([POISON])
    with pytest.raises(EncoderError):
        encoder.encode_query(POISON)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), vectors_of(TEXTS), atol=1e-6)


def test_a_single_text_is_refused_only_after_all_tries(
    connect: Callable[..., Any], provider: ProtocolServer
) -> None:
    provider.mode = MODES["ollama, NaN"]
    with pytest.raises(EncoderError):
        connect(max_retries=4).encode_documents([POISON])
    asked = [POISON in request.inputs for request in provider.requests]
    assert asked == [True] * 5 + [False, True, False]
    del provider.requests[:]
    with pytest.raises(EncoderError):
        connect(max_retries=4).encode_documents([POISON, "more"])
    assert [POISON in request.inputs for request in provider.requests] == [True, True, False, True, False]


@pytest.mark.parametrize("texts", [[POISON], [*TEXTS, POISON]])
def test_a_server_that_is_down_for_all_refuses_no_text(
    connect: Callable[..., Any], provider: ProtocolServer, texts: list[str]
) -> None:
    encoder = connect(max_retries=2)
    encoder.encode_query("it works")
    provider.fail(500, times=20)
    with pytest.raises(UnreachableError, match="did not answer in 3 attempts") as caught:
        encoder.encode_documents(texts)
    assert caught.value.temporary


def test_a_server_that_comes_back_after_the_last_try_refuses_no_text(
    connect: Callable[..., Any], provider: ProtocolServer
) -> None:
    for texts, failures in ((TEXTS[:1], 3), (TEXTS, 2)):
        provider.fail(500, times=failures)
        np.testing.assert_allclose(connect(max_retries=2).encode_documents(texts), vectors_of(texts), atol=1e-6)
    assert [len(request.inputs) for request in provider.requests] == [1] * 5 + [4, 4, 1, 4]


def test_a_text_that_ends_the_connection_is_refused_as_well(
    connect: Callable[..., Any], provider: ProtocolServer
) -> None:
    encoder = connect(max_retries=1)
    encoder.encode_query("it works")
    ask = provider.next_answer

    def close(*asked: Any) -> Any:
        if POISON in provider.requests[-1].inputs:
            return "close"
        return ask()

    provider.next_answer = close  # type: ignore[method-assign]
    with pytest.raises(EncoderError, match="and not for this: Connection error"):
        encoder.encode_documents([POISON])


def test_a_backfill_names_the_chunk_and_continues(
    database: Database, connection: Connection, provider: ProtocolServer
) -> None:
    provider.mode = MODES["ollama, NaN"]
    ids = add_chunks(connection, [POISON, *NUMBERS])
    version = add(connection, "v1", f"openai:house-model?max_retries=1&price=0&base_url={provider.base_url}")
    encoder = open_encoder(version.encoder_spec)
    status = worker_on(database, version, encoder, JobSettings(batch_size=8)).join()
    assert (status.state, status.done, status.failed) == ("failed", len(NUMBERS), 1)
    ((chunk, error),) = connection.execute("SELECT chunk_id, error FROM dead_letters").fetchall()
    assert chunk == ids[0]
    assert "not for this: 500: failed to encode response" in error


def test_a_batch_is_split_until_the_text_is_alone(
    connection: Connection, connect: Callable[..., Any], provider: ProtocolServer
) -> None:
    provider.mode = MODES["llama.cpp, too long"]
    version = add(connection, "v1", f"openai:house-model?base_url={provider.base_url}")
    batch = BatchEncoder(connect(max_retries=1), version)
    texts = [*NUMBERS[:5], POISON, *NUMBERS[5:]]
    batch.encode(texts)
    ((row, reason),) = batch.failures
    assert (row, sorted(batch.good.tolist())) == (5, [row for row in range(len(texts)) if row != 5])
    assert "increase the physical batch size" in reason


@pytest.mark.parametrize(
    "mode",
    [
        "gemini",
        "gemini, shuffled",
        "no index",
        "index null",
        "index as text",
        "index from 1",
        "index from 1, shuffled",
        "index all 0",
        "index again from 0",
    ],
)
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:2], TEXTS[:1]])
def test_vectors_belong_to_their_texts_however_the_rows_are_numbered(
    connect: Callable[..., Any], provider: ProtocolServer, mode: str, texts: list[str]
) -> None:
    provider.mode = MODES[mode]
    np.testing.assert_allclose(connect().encode_documents(texts), vectors_of(texts), atol=1e-6)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("indices", [[0, 2, 2, 3], [0, 0, 1, 1], [1, 2, 3, 5], [None, 1, None, 3], [3, 2, 1, 1]])
def test_rows_whose_numbers_contradict_each_other_are_asked_for_again(
    connect: Callable[..., Any], provider: ProtocolServer, indices: list[int | None]
) -> None:
    provider.mode = Mode(
        writes=lambda answer: {
            "data": [row | {"index": index} for row, index in zip(answer["data"], indices, strict=True)]
        }
    )
    with pytest.raises(EncoderError, match="asked for 4 vectors and returned 4 for"):
        connect().encode_documents(TEXTS)
    assert len(provider.requests) == 2


REFUSES_BASE64 = [name for name in MODES if name.startswith("base64: ") and name != "base64: lists"]


@pytest.mark.parametrize("mode", REFUSES_BASE64)
def test_a_server_without_base64_is_asked_for_lists_from_then_on(
    connect: Callable[..., Any], provider: ProtocolServer, mode: str
) -> None:
    provider.mode = MODES[mode]
    encoder = connect()
    for _ in range(2):
        np.testing.assert_allclose(encoder.encode_documents(TEXTS), vectors_of(TEXTS), atol=1e-6)
    encoder.encode_query("and a query")
    formats = [request.body["encoding_format"] for request in provider.requests]
    assert formats == ["base64", "float", "float", "float"]


def test_lists_in_place_of_base64_are_read(connect: Callable[..., Any], provider: ProtocolServer) -> None:
    provider.mode = MODES["base64: lists"]
    encoder = connect()
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), vectors_of(TEXTS), atol=1e-6)
    assert (len(provider.requests), encoder.learned) == (1, {})


def test_a_refusal_of_the_texts_is_not_taken_for_one_of_base64(
    connect: Callable[..., Any], provider: ProtocolServer
) -> None:
    provider.mode = MODES["a text refused"]
    encoder = connect()
    with pytest.raises(EncoderError, match="400: input is too long"):
        encoder.encode_documents([POISON])
    encoder.encode_documents(TEXTS)
    with pytest.raises(EncoderError, match="400: input is too long"):
        encoder.encode_documents([POISON])
    formats = [request.body["encoding_format"] for request in provider.requests]
    assert formats == ["base64", "float", "base64", "base64"]


def test_what_a_version_learns_of_its_server_is_in_its_spec_and_may_change(
    connection: Connection, provider: ProtocolServer
) -> None:
    provider.mode = MODES["base64: 422"]
    asked = f"openai:house-model?base_url={provider.base_url}"
    version = add(connection, "v1", asked)
    assert version.encoder_spec == f"{asked}&encoding=float"
    del provider.requests[:]
    open_encoder(version.encoder_spec).encode_query("a key")
    assert [request.body["encoding_format"] for request in provider.requests] == ["float"]
    assert change_encoder(connection, "v1", f"{asked}&encoding=base64").encoder_spec.endswith("base64")
    with pytest.raises(RefusedError, match="No encoder can be opened"):
        change_encoder(connection, "v1", f"{asked}&encoding=hex")
    connection.execute(
        "INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric) "
        "VALUES ('v2', 'house-model', 'house-model', 96, 'cosine')"
    )
    assert adopt_version(connection, "v2", open_encoder(asked), asked).encoder_spec == f"{asked}&encoding=float"


@pytest.mark.parametrize("mode", [name for name in MODES if name.startswith("200: ")])
def test_an_error_whose_status_is_200_is_shown(
    connect: Callable[..., Any], provider: ProtocolServer, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-hush-4711")
    provider.mode = MODES[mode]
    with pytest.raises(UnreachableError, match=r"answered 200: No models for \[secret\]") as caught:
        connect(key_env="TEST_KEY").encode_documents(TEXTS)
    assert not caught.value.temporary
    provider.mode = None
    encoder = connect(max_retries=1)
    encoder.encode_query("it works")
    provider.mode = MODES[mode]
    with pytest.raises(
        UnreachableError, match=r"did not answer in 2 attempts; the last: 200: No models"
    ) as caught:
        encoder.encode_documents(TEXTS)
    assert caught.value.temporary


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (429, UnreachableError, "the last: 429: busy"),
        ("503", UnreachableError, "the last: 503: busy"),
        (401, UnreachableError, "answered 401: busy"),
        (400, EncoderError, "refused the request with 400: busy"),
        ("invalid", UnreachableError, "answered 200: busy"),
    ],
)
def test_an_error_whose_status_is_200_means_what_its_code_says(
    connect: Callable[..., Any], provider: ProtocolServer, code: object, error: type[Exception], said: str
) -> None:
    provider.mode = Mode(writes=lambda _: {"error": {"message": "busy", "code": code}})
    with pytest.raises(error, match=said):
        connect(max_retries=1).encode_documents(TEXTS)


def test_a_provider_with_many_settings_names_all_of_them() -> None:
    with pytest.raises(UsageError) as caught:
        open_encoder("openai:m?xyz=1")
    named = caught.value.remedy.removeprefix("Known: ").rstrip(".").split(", ")
    assert {"query_prefix", "tokens_per_minute", "encoding", "base_url", "timeout_s"} < set(named)
    assert "more" not in caught.value.remedy


def test_many_names_are_cut_with_how_many_there_are() -> None:
    known = [f"version-{n}" for n in range(12)]
    assert str(unknown_name("query set", "xyz", known).remedy).endswith("version-7, and 2 more.")
