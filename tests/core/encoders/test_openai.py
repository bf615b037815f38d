from __future__ import annotations

import socket
import traceback

import numpy as np
import pytest

from revector.core.encoders import check_vectors, open_encoder, probe
from revector.core.encoders.static import _file
from revector.core.errors import EncoderError, RevectorError, UnreachableError
from tests.protocol_server import ProtocolServer, embed

KEY = "sk-hush-4711"
TEXTS = ["How do I rotate an API key?", "Rotating credentials", "Bread needs flour and water"]


@pytest.fixture
def server():
    with ProtocolServer(api_key=KEY) as running:
        yield running


@pytest.fixture
def waits():
    """What the encoder reported and would have slept: (seconds, reason) and seconds, in order."""
    return []


@pytest.fixture
def connect(server, waits, monkeypatch):
    """Open an encoder at the server, with a key, that notes its waits and does not sleep: time stands still else."""
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setattr("revector.core.encoders.pacing.clock", lambda: 0.0)
    opened = []

    def connect(model="text-embedding-3-small", at=server, **settings):
        settings = {"base_url": at.base_url, "key_env": "TEST_KEY", **settings}
        query = "&".join(f"{name}={value}" for name, value in settings.items())
        encoder = open_encoder(
            f"openai:{model}?{query}", on_throttle=lambda seconds, reason: waits.append((seconds, reason))
        )
        encoder.wait = waits.append
        opened.append(encoder)
        return encoder

    yield connect
    for encoder in opened:
        encoder.close()


def test_vectors_arrive_as_the_server_made_them(connect, server):
    encoder = connect()
    vectors = encoder.encode_documents(TEXTS)
    check_vectors(vectors, 3, 1536)
    np.testing.assert_allclose(vectors, [embed(text) for text in TEXTS], atol=1e-7)
    query = encoder.encode_query("rotating")
    assert (query.shape, query.dtype) == ((1536,), np.float32)
    assert int(np.argmax(vectors @ query)) == 1
    assert server.requests[0].body["encoding_format"] == "base64"
    assert "dimensions" not in server.requests[0].body


def test_a_server_that_answers_with_lists_of_floats(connect):
    with ProtocolServer(base64=False) as server:
        vectors = connect(at=server).encode_documents(TEXTS)
    np.testing.assert_allclose(vectors, [embed(text) for text in TEXTS], atol=1e-6)


def test_prefixes_and_batches(connect, server):
    encoder = connect(batch_size=2, document_prefix="passage:+", query_prefix="query:+")
    encoder.encode_documents(["a", "b", "c", "d", "e"])
    encoder.encode_query("f")
    assert [request.inputs for request in server.requests] == [
        ["passage: a", "passage: b"],
        ["passage: c", "passage: d"],
        ["passage: e"],
        ["query: f"],
    ]


def test_no_texts_make_no_request(connect, server):
    assert connect().encode_documents([]).shape == (0, 1536)
    assert server.requests == []


def test_vectors_are_put_in_the_order_of_the_texts(connect, server):
    server.spoil("shuffled")
    np.testing.assert_allclose(connect().encode_documents(TEXTS), [embed(t) for t in TEXTS], atol=1e-7)


def test_vectors_are_scaled_to_one_unless_asked_otherwise(connect, server):
    server.embed = lambda *asked: 3 * embed(*asked)
    assert np.linalg.norm(connect().encode_query("a key")) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(connect(normalise="false").encode_query("a key")) == pytest.approx(3, abs=1e-5)


def test_dimensions_asked_for(connect, server):
    encoder = connect(dimensions=512)
    assert probe(encoder) == encoder.dimensions == 512
    assert server.requests[0].body["dimensions"] == 512


def test_dimensions_known_without_a_request(connect, server):
    known = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
    for model, dimensions in known.items():
        assert connect(model).dimensions == dimensions
    assert server.requests == []
    for model, dimensions in known.items():
        assert probe(connect(model)) == dimensions


def test_dimensions_of_an_unknown_model_come_from_its_first_answer(connect, server):
    assert connect("house-model").dimensions == 96
    del server.requests[:]
    assert probe(connect("house-model")) == 96
    assert len(server.requests) == 2  # the document and the query of the probe, and none besides


def test_a_probe_finds_a_server_with_other_dimensions(connect):
    with (
        ProtocolServer(models={"text-embedding-3-small": 768}) as other,
        pytest.raises(EncoderError, match=r"text-embedding-3-small should have 1536 .* returned 768"),
    ):
        probe(connect(at=other))


def test_429_waits_as_long_as_the_provider_asks_and_sends_the_same_batch(connect, server, waits):
    server.fail(429, times=2, retry_after=7)
    check_vectors(connect().encode_documents(TEXTS), 3, 1536)
    reason = "429: Rate limit reached for requests per minute."
    assert waits == [(7, reason), 7, (7, reason), 7]
    assert [request.inputs for request in server.requests] == [TEXTS] * 3


def test_retry_after_as_a_date(connect, server, waits):
    server.fail(503, retry_after=60, as_date=True)
    connect().encode_query("a key")
    assert 50 < waits[1] <= 60


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_has_a_limit(connect, server, waits, as_date):
    server.fail(429, retry_after=86400, as_date=as_date)
    connect().encode_query("a key")
    assert waits[1] == 120


@pytest.mark.parametrize(
    "useless",
    [None, "0", "soon", "nan", "inf", "-3", "Thu, 99 Foo 2026", "Thu, 01 Jan 2026 00:00:00 -0000"],
)
def test_without_a_useful_retry_after_it_backs_off_by_itself(connect, server, waits, useless):
    server.fail(500, times=6, retry_after=useless)
    connect(max_retries=6).encode_query("a key")
    seconds = waits[1::2]
    assert len(seconds) == 6
    assert all(0 <= s <= 0.5 * 2**n for n, s in enumerate(seconds))
    assert len(set(seconds)) == 6  # jitter: no two are alike


def test_a_limit_a_minute_is_outlasted_though_nobody_says_how_long_it_takes(connect, server, waits):
    server.fail(429, times=6)
    connect().encode_query("a key")
    assert waits[1] <= 0.5
    assert 61 < sum(waits[1::2]) < 110


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_these_are_throttling(connect, server, waits, status):
    server.fail(status, message="Not now.")
    connect().encode_query("a key")
    assert waits[0][1] == f"{status}: Not now."


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("close", "Connection error"),
        ("cut off", "Connection error"),
        ("truncated", "the answer was not JSON, or not all of it"),
        ("nested", "the answer was not JSON, or not all of it"),
    ],
)
def test_a_broken_connection_or_answer_is_tried_again(connect, server, waits, how, reason):
    server.spoil(how)
    check_vectors(connect().encode_documents(TEXTS), 3, 1536)
    assert waits[0][1].startswith(reason)


def test_a_server_too_slow_is_tried_again(server, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    reasons = []

    def wait(seconds):
        server.latency_s = 0.0

    encoder = open_encoder(
        f"openai:text-embedding-3-small?base_url={server.base_url}&key_env=TEST_KEY&timeout_s=0.1&max_retries=99",
        on_throttle=lambda seconds, reason: reasons.append(reason),
    )
    encoder.wait = wait
    server.latency_s = 0.5
    assert encoder.encode_query("a key").any()
    assert "timed out" in reasons[0]
    encoder.close()


def test_throttled_too_often_it_gives_up_with_the_providers_words(connect, server, waits):
    server.fail(503, times=9, retry_after=1, message="The engine is overloaded.")
    with pytest.raises(UnreachableError) as caught:
        connect(max_retries=3).encode_query("a key")
    assert len(server.requests) == 4
    assert len(waits[1::2]) == 3  # it does not wait before it gives up
    assert "4 attempts; the last: 503: The engine is overloaded." in caught.value.problem
    assert "max_retries" in caught.value.remedy


def test_nobody_at_the_address(waits, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    encoder = open_encoder(f"openai:m?base_url=http://127.0.0.1:{port}/v1&max_retries=2")
    encoder.wait = waits.append
    with pytest.raises(UnreachableError, match=f"127.0.0.1:{port}/v1 did not answer in 3 attempts"):
        encoder.encode_query("a key")
    assert len(waits) == 2


def test_waiting_can_be_interrupted(server, connect):
    class StopError(Exception):
        pass

    def stop(seconds):
        raise StopError

    server.fail(429, times=9, retry_after=60)
    encoder = connect()
    encoder.wait = stop
    with pytest.raises(StopError):
        encoder.encode_query("a key")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "error", "remedy"),
    [
        (400, EncoderError, ""),
        (413, EncoderError, ""),
        (422, EncoderError, ""),
        (401, UnreachableError, "TEST_KEY"),
        (403, UnreachableError, "TEST_KEY"),
        (404, UnreachableError, "base_url"),
        (418, UnreachableError, "base_url"),
    ],
)
def test_a_refusal_is_not_tried_again(connect, server, waits, status, error, remedy):
    encoder = connect()
    encoder.encode_query("a key")
    server.fail(status, message="No such thing.")
    with pytest.raises(error) as caught:
        encoder.encode_query("a key")
    assert f"{status}: No such thing." in caught.value.problem
    assert remedy in caught.value.remedy
    assert (len(server.requests), waits) == (2, [])


def test_what_the_api_really_refuses(connect, server):
    with pytest.raises(EncoderError, match="none empty"):
        connect().encode_documents(["words", ""])
    with pytest.raises(EncoderError, match="does not support specifying dimensions"):
        probe(connect("text-embedding-ada-002", dimensions=3))
    with pytest.raises(UnreachableError, match="model `nobody` does not exist"):
        probe(connect("nobody"))
    with pytest.raises(UnreachableError, match="Invalid URL"):
        probe(connect(base_url=server.base_url + "/v9"))


def test_the_key_goes_to_the_server_and_nowhere_else(connect, server, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-hush-wrong")
    encoder = connect()
    with pytest.raises(UnreachableError) as caught:
        encoder.encode_query("a key")
    assert server.requests[0].headers["authorization"] == "Bearer sk-hush-wrong"
    # The provider's message repeats the key; ours does not, nor does the whole traceback.
    assert "401: Incorrect API key provided: [secret]" in caught.value.problem
    assert "hush" not in "".join(traceback.format_exception(caught.value))
    server.fail(500, times=9, message="Bad request by sk-hush-wrong.")
    with pytest.raises(UnreachableError) as caught:
        encoder.encode_query("a key")
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_a_key_with_a_line_end_is_used_without_it(connect, server, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY + "\n")
    assert connect().encode_query("a key").any()
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_the_public_api_needs_a_key_before_any_request(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UnreachableError, match="environment variable OPENAI_API_KEY is not set"):
        open_encoder("openai:text-embedding-3-small")
    with pytest.raises(UnreachableError, match="environment variable MY_KEY is not set"):
        open_encoder("openai:text-embedding-3-small?key_env=MY_KEY")


def test_a_server_of_ones_own_needs_none(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ProtocolServer() as server:
        encoder = open_encoder(f"openai:house-model?base_url={server.base_url}")
        assert probe(encoder) == 96
        encoder.close()


def test_the_address_is_the_specs_whatever_the_environment_says(connect, server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert probe(connect()) == 1536
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    public = open_encoder("openai:text-embedding-3-small")
    assert public.url == "https://api.openai.com/v1/embeddings"
    public.close()


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("html", UnreachableError, "does not answer as an OpenAI-compatible"),
        ("one short", EncoderError, "asked for 3 vectors and returned 2"),
        ("one twice", EncoderError, "asked for 3 vectors and returned 3 for 2 of the texts"),
        ("ragged", EncoderError, "1536 dimensions for text 1, and for text 3 1535"),
        ("not a vector", EncoderError, "not a vector"),
    ],
)
def test_an_answer_that_is_not_one(connect, server, waits, how, error, message):
    server.spoil(how, times=2)
    with pytest.raises(error, match=message) as caught:
        connect().encode_documents(TEXTS)
    assert isinstance(caught.value, RevectorError)
    assert waits == []


@pytest.mark.parametrize("how", ["one short", "one twice", "ragged", "not a vector", "other dimensions"])
def test_an_answer_that_is_not_one_is_asked_for_once_more(connect, server, waits, how):
    server.spoil(how)
    vectors = connect().encode_documents(TEXTS)
    np.testing.assert_allclose(vectors, [embed(text) for text in TEXTS], atol=1e-7)
    assert [request.inputs for request in server.requests] == [TEXTS] * 2
    assert waits == []


def test_other_dimensions_twice_are_for_the_caller_to_find(connect, server):
    server.spoil("other dimensions", times=2)
    with pytest.raises(EncoderError, match="Expected vectors of 1536 dimensions, got 1535"):
        check_vectors(connect().encode_documents(TEXTS), 3, 1536)
    assert len(server.requests) == 2


def test_a_page_instead_of_an_answer_is_throttling_once_the_address_has_proved_right(connect, server, waits):
    encoder = connect()
    encoder.encode_query("a key")
    server.spoil("html")
    assert encoder.encode_query("a key").any()
    assert waits[0][1] == "the answer was not that of an embeddings server"


@pytest.mark.parametrize("data", [[1, 2, 3], [None] * 3, ["x"] * 3, [{"index": [0]}] * 3, [{"index": 0}] * 3])
def test_an_answer_made_of_rubbish(connect, server, monkeypatch, data):
    monkeypatch.setattr("tests.protocol_server._answer", lambda *_: {"data": data})
    with pytest.raises(EncoderError, match="asked for 3 vectors"):
        connect().encode_documents(TEXTS)


@pytest.mark.parametrize("embedding", [None, 7, {"a": 1}, [[1.0], [2.0]], ["x"], "AAA", "?"])
def test_a_vector_made_of_rubbish(connect, server, monkeypatch, embedding):
    answer = {"data": [{"index": 0, "embedding": embedding}]}
    monkeypatch.setattr("tests.protocol_server._answer", lambda *_: answer)
    with pytest.raises(EncoderError, match="not a vector"):
        connect().encode_query("a key")


def test_an_account_without_money_is_not_waited_for(connect, server, waits):
    server.fail(429, message="You exceeded your current quota.", code="insufficient_quota")
    with pytest.raises(UnreachableError, match="exceeded your current quota") as caught:
        connect().encode_query("a key")
    assert "billing" in caught.value.remedy
    assert waits == []


def test_a_request_larger_than_the_limit_is_refused_so_that_it_can_be_split(connect, server, waits):
    server.fail(429, message="Request too large for text-embedding-3-small on tokens per min (TPM): Limit 9.")
    with pytest.raises(EncoderError, match="Request too large"):
        connect().encode_query("a key")
    assert waits == []


@pytest.mark.parametrize(
    ("how", "message"), [("nan", "text 3 of 3 has nan"), ("zero", "text 3 of 3 is all zeros")]
)
@pytest.mark.parametrize("normalise", ["true", "false"])
def test_what_must_not_be_stored_is_left_for_the_check_to_find(connect, server, how, message, normalise):
    server.spoil(how)
    vectors = connect(normalise=normalise).encode_documents(TEXTS)
    with pytest.raises(EncoderError, match=message):
        check_vectors(vectors, 3, 1536)


def test_prices(connect):
    assert connect("text-embedding-3-small").price == 0.02
    assert connect("text-embedding-3-large").price == 0.13
    assert connect("house-model").price is None
    assert connect("house-model", price="0.5").price == 0.5


def test_revision_and_longest_text(connect):
    assert connect("house-model").revision == "house-model"
    assert connect("house-model", revision="2026-01").revision == "2026-01"
    assert connect("house-model").max_tokens is None
    assert connect("house-model", max_tokens=512).max_tokens == 512
    assert connect("text-embedding-3-small").max_tokens == 8192


def test_tokens_are_estimated(connect):
    assert connect().count_tokens(["twelve bytes", "five!", ""]) == 3 + 2
    assert connect(document_prefix="four").count_tokens(["four"]) == 2


def test_tokens_are_counted_where_a_tokenizer_is_named(connect, tmp_path):
    encoder = connect(tokenizer=_file("tokenizers/l2_supercat_tokenizer_config.json"))
    assert encoder.count_tokens(["hello world"]) == 3  # with the special token
    with pytest.raises(UnreachableError, match="cannot be read"):
        connect(tokenizer=tmp_path / "none.json")
