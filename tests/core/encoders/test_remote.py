"""A provider with another protocol, as another package would add it, against a server that speaks it."""

from __future__ import annotations

import json
import sys
import textwrap
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from revector.core.backfill.worker.encoding import BatchEncoder
from revector.core.database import Connection
from revector.core.encoders import Encoder, Metered, Parallel, Throttled, open_encoder, parse_spec, probe
from revector.core.errors import EncoderError, UnreachableError, UsageError
from tests.protocol_server import embed
from tests.versions import add

KEY = "hf_hush4711"

PROVIDER = '''
"""Hugging Face's text-embeddings-inference, by its own protocol."""

from revector.core.encoders.kinds import FLAG
from revector.core.encoders.remote import RemoteEncoder


class TextEmbeddingsInference(RemoteEncoder):
    """`tei:MODEL?base_url=…`, where MODEL is only a name: the server has one."""

    settings = {**RemoteEncoder.settings, "truncate": FLAG}
    server = "text-embeddings-inference"
    path = "/embed"
    key_variable = "HF_TOKEN"

    def body(self, texts, role):
        truncate = self.spec.settings.get("truncate") == "true"
        return {"inputs": texts, "normalize": False, "truncate": truncate}

    def rows(self, answer):
        return answer if isinstance(answer, list) else None

    def billed(self, answer, headers):
        return int(headers.get("x-compute-tokens", 0))

    def meaning(self, status, message, error):
        # "Failed dependency": the model did not answer the server in front of it.
        return "later" if status == 424 else super().meaning(status, message, error)
'''


class EmbedServer:
    """text-embeddings-inference as a client sees it: at most `most_inputs` texts, each of at most `longest` words."""

    def __init__(self, most_inputs: int = 4, longest: int = 14) -> None:
        self.most_inputs, self.longest = most_inputs, longest
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.next: deque[tuple[int, dict[str, Any], dict[str, str]]] = deque()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> EmbedServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fail(self, status: int, error: str, kind: str, **headers: str) -> None:
        """Answer the next request with this error."""
        self.next.append((status, {"error": error, "error_type": kind}, headers))

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, object, dict[str, str]]:
        """Status, document and headers of an answer."""
        if self.next:
            return self.next.popleft()
        texts = body["inputs"]
        if path != "/embed":
            return 404, "", {}
        if len(texts) > self.most_inputs:
            problem = f"batch size {len(texts)} > maximum allowed batch size {self.most_inputs}"
            return 413, {"error": problem, "error_type": "Validation"}, {}
        if (longest := max(len(text.split()) for text in texts)) > self.longest:
            problem = f"`inputs` must have less than {self.longest} tokens. Given: {longest}"
            return 422, {"error": problem, "error_type": "Tokenizer"}, {}
        tokens = str(sum(map(len, map(str.split, texts))))
        return 200, [embed(text, "house-model").tolist() for text in texts], {"x-compute-tokens": tokens}


def _handler(server: EmbedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.requests.append(body)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            status, document, headers = server.answer(self.path, body)
            content = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep the test output clean."""

    return Handler


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The provider's package, as pip would leave it."""
    (tmp_path / "tei_encoders.py").write_text(textwrap.dedent(PROVIDER))
    info = tmp_path / "tei_encoders-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tei-encoders\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[revector.encoders]\ntei = tei_encoders:TextEmbeddingsInference\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield
    sys.modules.pop("tei_encoders", None)


@pytest.fixture
def tei() -> Iterator[EmbedServer]:
    with EmbedServer() as running:
        yield running


@pytest.fixture
def waits() -> list[object]:
    """What the encoder reported and would have slept: (seconds, reason) and seconds, in order."""
    return []


@pytest.fixture
def connect(
    tei: EmbedServer, waits: list[object], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Encoder]]:
    """Open an encoder at the server that does not sleep: time stands still else."""
    monkeypatch.setattr("revector.core.encoders.pacing.clock", lambda: 0.0)
    opened = []

    def connect(settings: str = "") -> Encoder:
        encoder: Any = open_encoder(
            spec(tei, settings), on_throttle=lambda seconds, reason: waits.append((seconds, reason))
        )
        encoder.wait = waits.append
        opened.append(encoder)
        return encoder

    yield connect
    for encoder in opened:
        encoder.close()


def spec(tei: EmbedServer, settings: str = "") -> str:
    return f"tei:bge-small?base_url={tei.url}{settings}"


def vectors_of(texts: list[str]) -> np.ndarray:
    return np.stack([embed(text, "house-model") for text in texts])


def test_one_more_provider_is_short_and_does_all_that_an_encoder_may(
    connect: Callable[..., Encoder], tei: EmbedServer
) -> None:
    assert len(PROVIDER.strip().splitlines()) <= 60
    encoder = connect("&document_prefix=passage:+&query_prefix=query:+&truncate=true")
    assert all(isinstance(encoder, kind) for kind in (Throttled, Parallel, Metered))
    assert (encoder.name, probe(encoder), encoder.dimensions) == ("tei:bge-small", 96, 96)
    assert [request["inputs"][0].partition(":")[0] for request in tei.requests] == ["passage", "query"]
    assert tei.requests[0]["truncate"] is True
    assert "authorization" not in tei.headers[0]


def test_its_settings_are_checked_and_it_has_to_be_somewhere(tei: EmbedServer) -> None:
    with pytest.raises(UsageError, match="truncate is 'yes'"):
        parse_spec(spec(tei, "&truncate=yes"))
    with pytest.raises(UsageError, match="tei:bge-small has no server"):
        open_encoder("tei:bge-small")


def test_batches_are_as_large_as_the_spec_says(connect: Callable[..., Encoder], tei: EmbedServer) -> None:
    texts = [f"text number {n}" for n in range(7)]
    np.testing.assert_allclose(connect("&batch_size=3").encode_documents(texts), vectors_of(texts), atol=1e-6)
    assert [len(request["inputs"]) for request in tei.requests] == [3, 3, 1]


def test_what_is_too_large_or_too_long_is_split_off(
    connect: Callable[..., Encoder], tei: EmbedServer, connection: Connection
) -> None:
    texts = [f"text number {n}" for n in range(16)]
    texts[5] = "one text that is a good deal longer than this model reads, which is not very much at all"
    version = add(connection, "tei", spec(tei))
    batch = BatchEncoder(connect(), version)
    with pytest.raises(EncoderError, match="refused the request with 413: batch size 16 > maximum"):
        connect().encode_documents(texts)
    batch.encode(texts)
    good = [row for row in range(16) if row != 5]
    assert sorted(batch.good.tolist()) == good
    order = np.argsort(batch.good)
    np.testing.assert_allclose(batch.vectors[order], vectors_of([texts[row] for row in good]), atol=1e-6)
    ((row, reason),) = batch.failures
    assert row == 5
    assert "refused the request with 422: `inputs` must have less than 14 tokens. Given: 19" in reason


def test_a_provider_that_throttles_is_waited_for(
    connect: Callable[..., Encoder], tei: EmbedServer, waits: list[object]
) -> None:
    tei.fail(429, "Model is overloaded", "Overloaded", **{"Retry-After": "7"})
    tei.fail(424, "the model is gone", "Backend")
    connect().encode_documents(["a", "b"])
    assert waits[:2] == [(7.0, "429: Model is overloaded"), 7.0]
    assert waits[2][1] == "424: the model is gone"  # type: ignore[index]
    assert [request["inputs"] for request in tei.requests] == [["a", "b"]] * 3


def test_the_key_goes_to_the_server_and_nowhere_else(
    connect: Callable[..., Encoder], tei: EmbedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", f" {KEY}\n")
    encoder = connect()
    for status in (401, 422):
        tei.fail(status, f"{KEY} is not known here", "Validation")
        with pytest.raises((UnreachableError, EncoderError)) as caught:
            encoder.encode_query("a key")
        assert f"{status}: [secret] is not known here" in caught.value.problem
        assert "hush" not in "".join(traceback.format_exception(caught.value))
    assert tei.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["hf_hush\x00", "hf_hush\nx-more: 1", "hf_hüsh"])
def test_a_key_that_no_header_can_carry_is_not_repeated(
    connect: Callable[..., Encoder], tei: EmbedServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr("os.environ", {"HF_TOKEN": key})
    with pytest.raises(UnreachableError, match="environment variable HF_TOKEN has characters") as caught:
        connect()
    assert "hf_" not in "".join(traceback.format_exception(caught.value))
    assert tei.requests == []


def test_usage_is_what_the_provider_says(connect: Callable[..., Any], tei: EmbedServer) -> None:
    encoder = connect("&batch_size=2")
    encoder.encode_documents(["one two three", "four five", "six"])
    assert encoder.take_usage() == 6


def test_another_server_at_the_address(connect: Callable[..., Encoder], tei: EmbedServer) -> None:
    tei.next.append((200, {"models": []}, {}))
    with pytest.raises(UnreachableError, match="does not answer as text-embeddings-inference does") as caught:
        connect().encode_query("a key")
    assert f"requests go to {tei.url}/embed" in caught.value.remedy
