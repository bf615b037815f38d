"""Several threads with one encoder, against a server that enforces its limits."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from revector.core.encoders import Metered, Parallel, Throttled, open_encoder
from revector.core.errors import EncoderError, UnreachableError
from tests.protocol_limits import AccountLimits, Clock
from tests.protocol_server import ProtocolServer, embed

MODEL = "text-embedding-3-small"


class StopError(Exception):
    pass


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("revector.core.encoders.pacing.clock", clock)
    return clock


@pytest.fixture
def server():
    with ProtocolServer() as running:
        yield running


@pytest.fixture
def heard():
    """What the encoder told, in order: reasons, and "resumed"."""
    return []


@pytest.fixture
def connect(server, clock, heard):
    """Open an encoder at the server that lets a clock pass instead of waiting."""
    opened = []

    def connect(model=MODEL, **settings):
        query = "&".join(f"{name}={value}" for name, value in {"base_url": server.base_url, **settings}.items())
        encoder = open_encoder(
            f"openai:{model}?dimensions=16&{query}", on_throttle=lambda seconds, reason: heard.append(reason)
        )
        encoder.on_resume = lambda: heard.append("resumed")
        encoder.wait = clock.wait
        opened.append(encoder)
        return encoder

    yield connect
    for encoder in opened:
        encoder.close()


def encode_all(encoder, batches, threads=None):
    """Encode the batches, each in one of the encoder's threads; (batch, result) in order."""
    with ThreadPoolExecutor(threads or encoder.parallel) as pool:
        return list(pool.map(encoder.encode_documents, batches))


def keep_in_step(encoder, server, clock):
    """Let no time pass while a request is on its way: with this clock that might be minutes."""

    def wait(seconds):
        server.limits.wait_for(encoder._pacer._numbers)
        clock.wait(seconds)

    encoder.wait = wait
    return encoder


def numbered(n, words=3):
    return [[" ".join(["text", *[f"w{word}" for word in range(words - 2)], str(number)])] for number in range(n)]


def expected(batches):
    return [np.stack([embed(text, MODEL, 16) for text in batch]) for batch in batches]


def test_what_it_offers_to_whoever_runs_it(connect, monkeypatch):
    encoder = connect(parallel=7)
    assert isinstance(encoder, Throttled)
    assert isinstance(encoder, Parallel)
    assert isinstance(encoder, Metered)
    assert (encoder.parallel, encoder.share) == (7, 1.0)
    assert connect().parallel == 2
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hush")
    public = open_encoder(f"openai:{MODEL}")
    assert public.parallel == 4
    public.close()


def test_requests_overlap(connect, server):
    together = threading.Barrier(4)
    server.meet = lambda: together.wait(60)  # answers only once four requests have arrived
    batches = numbered(8)
    results = encode_all(connect(parallel=4), batches)
    np.testing.assert_allclose(results, expected(batches), atol=1e-6)
    assert server.most_under_way == 4


def test_no_more_than_parallel_go_at_once_whatever_the_threads(connect, server):
    server.latency_s = 0.01
    together = threading.Barrier(3)
    server.meet = lambda: together.wait(60)
    encode_all(connect(parallel=3), numbered(12), threads=8)
    assert server.most_under_way == 3


def test_a_limit_of_requests_is_kept(connect, server, clock, heard):
    server.limits = AccountLimits(clock, requests=30)
    begin = clock()
    batches = numbered(100)
    results = encode_all(keep_in_step(connect(parallel=4, requests_per_minute=30), server, clock), batches)
    np.testing.assert_allclose(results, expected(batches), atol=1e-6)
    assert server.limits.refused == 0
    assert len(server.limits.arrivals) == 100
    assert clock() - begin < 100 / 30 * 62  # and used up
    assert heard == ["the encoder's limit of 30 requests a minute"]


def test_a_limit_of_tokens_is_kept(connect, server, clock, heard):
    server.limits = AccountLimits(clock, tokens=100)
    begin = clock()
    encoder = keep_in_step(connect(parallel=4, tokens_per_minute=100), server, clock)
    encode_all(encoder, numbered(50, words=10))
    assert server.limits.refused == 0
    assert sum(arrival.tokens for arrival in server.limits.arrivals) == 500
    assert clock() - begin < 7 * 62  # 500 words were estimated as 600 tokens before they were billed
    assert heard[0] == "the encoder's limit of 100 tokens a minute"


def test_a_limit_is_kept_when_the_estimate_is_too_low(connect, server, clock):
    server.bill = lambda texts: 5 * sum(len(text) // 4 for text in texts)
    server.limits = AccountLimits(clock, tokens=1000)
    encoder = keep_in_step(connect(parallel=2, tokens_per_minute=1000), server, clock)
    encoder.encode_documents(["one to learn from"])
    encode_all(encoder, numbered(100, words=6))
    assert server.limits.refused == 0


def test_workers_that_share_a_limit_keep_it_together(connect, server, clock):
    server.limits = AccountLimits(clock, requests=40)
    encoders = [connect(parallel=1, requests_per_minute=40) for _ in range(4)]
    for encoder in encoders:
        encoder.share = 0.25
    for batch in numbered(25):
        for encoder in encoders:
            encoder.encode_documents(batch)
    assert len(server.limits.arrivals) == 100
    assert server.limits.refused == 0


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan")])
def test_a_share_that_is_none(connect, share):
    encoder = connect()
    with pytest.raises(ValueError, match="a share of"):
        encoder.share = share
    assert encoder.share == 1.0


@pytest.mark.parametrize("limits", [{"requests": 10}, {"tokens": 60}])
def test_a_limit_that_nobody_stated_is_learnt_from_the_headers(connect, server, clock, heard, limits):
    server.limits = AccountLimits(clock, tells=True, **limits)
    batches = numbered(50)
    results = encode_all(connect(parallel=1), batches)
    np.testing.assert_allclose(results, expected(batches), atol=1e-6)
    assert server.limits.refused == 0
    assert "too few" in heard[0]


def test_a_limit_that_nobody_tells_of_is_found_by_refusals(connect, server, clock, heard):
    server.limits = AccountLimits(clock, requests=10)
    batches = numbered(40)
    results = encode_all(connect(parallel=4), batches)
    np.testing.assert_allclose(results, expected(batches), atol=1e-6)
    assert len(server.limits.arrivals) == 40
    assert "429: Rate limit reached for requests." in heard


@pytest.mark.parametrize("at_once", [1, 2])
def test_it_finds_out_how_many_at_once_a_server_takes(connect, server, clock, at_once):
    server.limits = AccountLimits(clock, at_once=at_once)
    server.latency_s = 0.002
    batches = numbered(200)
    results = encode_all(connect(parallel=16), batches)
    np.testing.assert_allclose(results, expected(batches), atol=1e-6)
    assert server.limits.refused < 120


def test_a_request_that_alone_is_refused_is_given_up(connect, server):
    encoder = connect(parallel=2)
    encoder.encode_documents(["others are answered, though before"])
    server.fail(429, times=99)
    with pytest.raises(UnreachableError, match="7 attempts; the last: 429"):
        encoder.encode_documents(["refused"])
    assert len(server.requests) == 1 + 7


def test_a_request_that_is_refused_while_others_are_answered_is_not_given_up(connect, server):
    encoder = connect(parallel=2, max_retries=0)
    here, answered = threading.Event(), threading.Event()

    def meet():
        if server.requests[-1].inputs == ["refused"] and not answered.is_set():
            here.set()
            assert answered.wait(60)
            server.fail(429)

    server.meet = meet
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(encoder.encode_documents, ["refused"])
        assert here.wait(60)
        encoder.encode_documents(["answered"])
        answered.set()
        assert refused.result(60).any()
    assert [request.inputs for request in server.requests] == [["refused"], ["answered"], ["refused"]]


def test_a_refusal_holds_every_thread(connect, server, clock, heard):
    encoder = connect(parallel=4)
    server.fail(429, retry_after=30)
    begin, at = clock(), []
    server.meet = lambda: at.append(clock() - begin)
    others = []

    def wait(seconds):
        if not others:  # the first wait is that of the refused one: now the others come
            others.extend(pool.submit(encoder.encode_documents, [f"other {n}"]) for n in range(3))
            for other in others:
                # One-sided: were they not held, they would be done by now.
                with pytest.raises(TimeoutError):
                    other.result(0.1)
        clock.wait(seconds)

    encoder.wait = wait
    with ThreadPoolExecutor(4) as pool:
        pool.submit(encoder.encode_documents, ["refused"]).result(60)
        for other in others:
            other.result(60)
    assert at[0] == 0
    assert len(at) == 5
    assert all(30 <= moment <= 31 for moment in at[1:])
    assert heard == ["429: Rate limit reached for requests per minute.", "resumed"]


def test_a_stop_ends_every_thread(connect, server, heard):
    server.fail(429, times=9, retry_after=60)
    encoder = connect(parallel=4)
    stopped, waiting = threading.Event(), threading.Event()

    def wait(seconds):
        waiting.set()
        assert stopped.wait(60)
        raise StopError

    encoder.wait = wait
    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(encoder.encode_documents, [f"text {n}"]) for n in range(4)]
        assert waiting.wait(60)
        stopped.set()
        for thread in threads:
            with pytest.raises(StopError):
                thread.result(60)
    assert len(heard) == 1
    del server.requests[:]
    server._next.clear()
    encoder.wait = lambda seconds: None
    assert encoder.encode_documents(["afterwards"]).any()


def test_one_that_gives_up_does_not_stop_the_others(connect, server):
    encoder = connect(parallel=2, max_retries=0)
    server.fail(503)
    with pytest.raises(UnreachableError, match="1 attempt;"):
        encoder.encode_documents(["first"])
    assert encoder.encode_documents(["second"]).any()


def test_a_request_holds_no_more_tokens_than_it_may(connect, server):
    encoder = connect(max_request_tokens=10)
    texts = ["x" * 16, "y" * 16, "z" * 12, "w" * 80, "v" * 4]  # 4, 4, 3, 20 and 1 tokens
    vectors = encoder.encode_documents(texts)
    assert [request.inputs for request in server.requests] == [texts[:2], texts[2:3], texts[3:4], texts[4:]]
    np.testing.assert_allclose(vectors, [embed(text, MODEL, 16) for text in texts], atol=1e-6)


def test_a_request_holds_no_more_than_our_share_of_a_minute(connect, server):
    encoder = connect(tokens_per_minute=16)
    encoder.share = 0.5
    encoder.encode_documents(["x" * 16, "y" * 16, "z" * 16])
    assert [len(request.inputs) for request in server.requests] == [2, 1]


def test_the_models_that_are_known_take_300000_tokens_in_a_request(connect, server):
    texts = ["word" * 50_000] * 8  # 50,000 tokens each
    connect().encode_documents(texts)
    connect("text-embedding-3-large", max_request_tokens=100_000).encode_documents(texts)
    assert [len(request.inputs) for request in server.requests] == [6, 2, 2, 2, 2, 2]
    del server.requests[:]
    own = open_encoder(f"openai:house-model?base_url={server.base_url}")
    own.encode_documents(texts)
    own.close()
    assert [len(request.inputs) for request in server.requests] == [8]


def test_usage_is_what_the_provider_bills(connect, server):
    encoder = connect(batch_size=2)
    assert encoder.take_usage() == 0
    encoder.encode_documents(["one two three", "four five", "six"])
    assert encoder.take_usage() == 6
    assert encoder.take_usage() == 0
    encoder.encode_documents(["seven"])
    encoder.encode_query("eight nine")
    assert encoder.take_usage() == 3


def test_usage_is_each_threads_own(connect, server):
    together = threading.Barrier(4)
    server.meet = lambda: together.wait(60)
    encoder = connect(parallel=4)

    def work(n):
        encoder.encode_documents(["word " * n])
        together.wait(60)
        return encoder.take_usage()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, [1, 20, 300, 4000])) == [1, 20, 300, 4000]
    assert encoder.take_usage() == 0  # this thread's


def test_usage_of_what_failed_is_counted_too(connect, server):
    encoder = connect()
    server.spoil("one short", times=2)
    with pytest.raises(EncoderError):
        encoder.encode_documents(["one two", "three"])
    assert encoder.take_usage() == 6  # twice


@pytest.mark.parametrize("said", [None, 0, -3, True, 2.5, "7", 10**12])
def test_a_provider_that_does_not_say_what_it_bills(connect, server, said):
    encoder = connect(batch_size=1)
    encoder.encode_documents(["one two"])
    server.bill = lambda texts: said
    encoder.encode_documents(["three four"])
    assert encoder.take_usage() is None
    assert encoder.take_usage() == 0


def test_many_threads_through_everything_at_once(connect, server, clock):
    """Limits, refusals, cuts and rubbish: every text has its own vector in the end."""
    server.limits = AccountLimits(clock, requests=60, tokens=900, at_once=5, tells=True)
    for how in (
        "truncated",
        "cut off",
        "close",
        "one short",
        "truncated",
        "close",
    ):  # one is spoilt: twice is final
        server.spoil(how)
        server.fail(500)
    batches = [[f"chunk {n} of batch {batch}" for n in range(5)] for batch in range(80)]
    encoder = connect(parallel=8, requests_per_minute=60, batch_size=3, max_retries=30)
    results = encode_all(encoder, batches)
    np.testing.assert_allclose(results, expected(batches), atol=1e-6)
