"""A real HTTP server on this machine that speaks the OpenAI embeddings protocol.

It stands for the paid API in tests: nothing about the client is replaced, only the address. Vectors are
deterministic and mean something: each word adds fixed random signs at a few places, so texts that share words
are near each other, and text-embedding-3-large, which weighs and stems its words, ranks better than -small
(nDCG@10 on Cranfield 0.29 and 0.21). It can be told to answer badly, in all the ways that servers do.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import re
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

# Native dimensions. The house model stands for one that no table of known models has.
MODELS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
    "house-model": 96,
}
SHORTENED = "text-embedding-3"  # only these take `dimensions`
PLACES = 8

Spoilt = Literal[
    "truncated",
    "nested",
    "cut off",
    "html",
    "one short",
    "other dimensions",
    "ragged",
    "nan",
    "zero",
    "shuffled",
    "close",
    "one twice",
    "not a vector",
]


@dataclass(frozen=True)
class Request:
    """One request as it arrived; header names in lower case."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    at: float
    path: str = ""

    @property
    def inputs(self) -> list[str]:
        """The texts, a single one too."""
        given = self.body["input"]
        return [given] if isinstance(given, str) else list(given)


@dataclass(frozen=True)
class Failure:
    """An answer that is an HTTP error."""

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None


class Limits(Protocol):
    """What refuses requests: `AccountLimits` in tests/protocol_limits.py."""

    def enter(self, tokens: int, under_way: int) -> tuple[Failure | None, dict[str, str]]:
        """The refusal of a request of that many tokens, if it is one, and the headers of its answer."""


class Mode(Protocol):
    """A server that differs from OpenAI's: tests/protocol_modes.py has them."""

    @property
    def refuses(self) -> Callable[[Request], Failure | None]:
        """The error that a request gets, if it does."""

    @property
    def writes(self) -> Callable[[dict[str, Any]], object]:
        """The answer as this server writes it."""

    @property
    def writes_base64(self) -> Callable[[dict[str, Any]], object] | None:
        """The same where base64 was asked for, if that is another; the answer has lists all the same."""


class ProtocolServer:
    """`with ProtocolServer() as server:` serves at `server.base_url` until the block ends.

    With `api_key` it refuses other keys. With `base64=False` it does not know that encoding and answers
    with lists of floats, as some servers do. `latency_s` is waited before each answer; it and `embed`, which
    makes the vectors, may be changed at any time, and so may `limits`, which refuse requests, `meet`, which every
    request calls while it is under way, and `bill`, which says what one costs in tokens: None says nothing. With a
    `mode` it has the quirks of another server, with a `certificate` it speaks TLS.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base64: bool = True,
        latency_s: float = 0.0,
        models: Mapping[str, int] = MODELS,
        mode: Mode | None = None,
        certificate: Path | None = None,
    ) -> None:
        self.api_key = api_key
        self.mode = mode
        self.base64 = base64
        self.latency_s = latency_s
        self.models = dict(models)
        self.requests: list[Request] = []
        self.embed: Callable[[str, str, int | None, Mapping[str, int]], NDArray[np.float32]] = embed
        self.limits: Limits | None = None
        self.meet: Callable[[], object] = lambda: None
        self.bill: Callable[[list[str]], int | None] = lambda texts: sum(len(text.split()) for text in texts)
        self.under_way = 0
        self.most_under_way = 0
        self._counting = threading.Lock()
        self._next: deque[Failure | Spoilt] = deque()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.serve_tls(context)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        """What a client calls base_url."""
        return f"{self._scheme}://127.0.0.1:{self._http.server_port}/v1"

    def serve_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS; a handshake that fails ends its connection only."""
        self._scheme = "https"
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fail(
        self,
        status: int,
        times: int = 1,
        *,
        retry_after: float | str | None = None,
        as_date: bool = False,
        message: str = "",
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next requests with an error, and Retry-After in seconds or as a date from now."""
        headers = dict(headers or {})
        if retry_after is not None and as_date:
            moment = datetime.now(UTC) + timedelta(seconds=float(retry_after))
            headers["Retry-After"] = format_datetime(moment, usegmt=True)
        elif retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        text = message or {429: "Rate limit reached for requests per minute."}.get(status, f"Failure {status}.")
        self._next.extend([Failure(status, text, headers, code)] * times)

    def spoil(self, how: Spoilt, times: int = 1) -> None:
        """Answer the next requests with something wrong."""
        self._next.extend([how] * times)

    @contextlib.contextmanager
    def counted(self) -> Iterator[int]:
        """A request is under way; how many are, it included."""
        with self._counting:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            under_way = self.under_way
        try:
            yield under_way
        finally:
            with self._counting:
                self.under_way -= 1

    def next_answer(self) -> Failure | Spoilt | None:
        """How the next request is to be answered, if not properly."""
        try:
            return self._next.popleft()
        except IndexError:
            return None


def embed(
    text: str,
    model: str = "text-embedding-3-small",
    dimensions: int | None = None,
    models: Mapping[str, int] = MODELS,
) -> NDArray[np.float32]:
    """The vector the server gives to a text: what a test may compare with."""
    words = [word for word in re.findall(r"[^\W_]+", text.lower()) if len(word) > 3] or [text.lower()]
    if "large" in model:
        # Beginnings of words, so that inflections meet; long and repeated ones tell more.
        counts = Counter(word[:6] for word in words)
        weights = {stem: len(stem) * (1 + math.log(count)) for stem, count in counts.items()}
    else:
        weights = dict.fromkeys(words, 1.0)
    native = models[model]
    places, signs = zip(*(_places(feature, native) for feature in weights), strict=True)
    amounts = np.concatenate(signs) * np.repeat(list(weights.values()), PLACES)
    vector = np.bincount(np.concatenate(places), amounts, native)[:dimensions]
    length = np.linalg.norm(vector)
    # The API gives no zero vector, whatever the text.
    unit = vector / length if length else np.full(len(vector), len(vector) ** -0.5)
    return unit.astype(np.float32)


@lru_cache(maxsize=200_000)
def _places(feature: str, dimensions: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    drawn = np.frombuffer(blake2b(feature.encode(), digest_size=4 * PLACES).digest(), dtype="<u4")
    return (drawn >> 1) % dimensions, (drawn & 1) * 2.0 - 1.0


class Gate:
    """Holds the requests of a server that carry certain texts, until it is opened, or holds others."""

    def __init__(self, server: ProtocolServer, holds: Callable[[str], bool]) -> None:
        self.reached = threading.Event()
        self._holds = holds
        self._changed = threading.Condition()
        server.embed = self._embed

    @classmethod
    def after(cls, server: ProtocolServer, requests: int) -> Gate:
        """Lets the server's first requests through, as many as that in all, and holds the next ones."""
        return cls(server, lambda _text: len(server.requests) > requests)

    def change(self, holds: Callable[[str], bool]) -> None:
        """Hold these from now on."""
        with self._changed:
            self._holds = holds
            self._changed.notify_all()

    def open(self) -> None:
        """Stop holding requests."""
        self.change(lambda _text: False)

    def _embed(self, text: str, *arguments: Any) -> NDArray[np.float32]:
        with self._changed:
            if self._holds(text):
                self.reached.set()
                self._changed.wait_for(lambda: not self._holds(text), 60)
        return embed(text, *arguments)


class RequestRefusedError(Exception):
    """What `embed` may raise too: the answer is this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _check(server: ProtocolServer, path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> None:
    """Refuse what the API refuses, with the status it gives."""
    key = headers.get("authorization", "").removeprefix("Bearer ")
    if server.api_key is not None and key != server.api_key:
        raise RequestRefusedError(401, f"Incorrect API key provided: {key}.")
    if path.partition("?")[0] != "/v1/embeddings":
        raise RequestRefusedError(404, f"Invalid URL (POST {path})")
    model, inputs, dimensions = body.get("model"), body.get("input"), body.get("dimensions")
    if model not in server.models:
        raise RequestRefusedError(404, f"The model `{model}` does not exist or you do not have access to it.")
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t for t in texts):
        raise RequestRefusedError(
            400, "'$.input' is invalid: expected a string, or a list of strings, none empty."
        )
    if len(texts) > 2048:
        raise RequestRefusedError(400, "'$.input' is invalid: expected at most 2048 inputs.")
    if dimensions is not None:
        if not model.startswith(SHORTENED):
            raise RequestRefusedError(400, "This model does not support specifying dimensions.")
        if not 1 <= dimensions <= server.models[model]:
            raise RequestRefusedError(400, f"Invalid value for 'dimensions': at most {server.models[model]}.")


def _answer(server: ProtocolServer, request: Request, spoilt: str | None) -> dict[str, Any]:
    model, texts = request.body["model"], request.inputs
    vectors = [server.embed(text, model, request.body.get("dimensions"), server.models) for text in texts]
    if spoilt == "one short":
        vectors.pop()
    elif spoilt == "other dimensions":
        vectors = [vector[:-1] for vector in vectors]
    elif spoilt == "ragged":
        vectors[-1] = vectors[-1][:-1]
    elif spoilt == "nan":
        vectors[-1][1] = np.nan
    elif spoilt == "zero":
        vectors[-1][:] = 0
    as_base64 = server.base64 and asks_base64(request) and not (server.mode and server.mode.writes_base64)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.tobytes()).decode() if as_base64 else vector.tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    if spoilt == "shuffled":
        data.reverse()
    elif spoilt == "one twice":
        data[-1]["index"] = len(data) - 2
    elif spoilt == "not a vector":
        data[-1]["embedding"] = "?"
    answer = {"object": "list", "model": model, "data": data}
    if (tokens := server.bill(texts)) is not None:
        answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return answer


def asks_base64(request: Request) -> bool:
    """Whether the request asks for vectors as base64."""
    return request.body.get("encoding_format") == "base64"


def _written(server: ProtocolServer, request: Request, answer: dict[str, Any]) -> object:
    if server.mode is None:
        return answer
    return ((asks_base64(request) and server.mode.writes_base64) or server.mode.writes)(answer)


def _error(message: str, code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": "error", "param": None, "code": code}}).encode()


def _handler(server: ProtocolServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body leave together, or delayed acknowledgements cost 40 ms

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.counted() as under_way:
                planned, status, content, headers = self._work(body, under_way)
            # The client may send its next request as soon as it has read this: the request is not counted any more.
            if planned == "close":
                self.close_connection = True
            elif planned == "html":
                self._send(200, b"<html>Under maintenance</html>", "text/html")
            elif planned == "truncated":  # a whole HTTP answer around half a document
                self._send(200, content[: len(content) // 2])
            elif planned == "nested":
                self._send(200, b"[" * 100_000)
            elif planned == "cut off":  # less than Content-Length promised
                self._send(200, content, sent=content[: len(content) // 2])
                self.close_connection = True
            else:
                self._send(status, content, headers=headers)

        def _work(self, body: dict[str, Any], under_way: int) -> tuple[str | None, int, bytes, Mapping[str, str]]:
            request = Request(body, {n.lower(): v for n, v in self.headers.items()}, time.monotonic(), self.path)
            server.requests.append(request)
            time.sleep(server.latency_s)
            server.meet()
            planned, headers = server.next_answer(), dict[str, str]()
            if planned is None and server.limits is not None:
                planned, headers = server.limits.enter(server.bill(request.inputs) or 0, under_way)
            if planned is None and server.mode is not None:
                planned = server.mode.refuses(request)
            if isinstance(planned, Failure):
                return None, planned.status, _error(planned.message, planned.code), planned.headers
            if planned == "close":
                return planned, 0, b"", {}
            try:
                _check(server, self.path, request.headers, body)
                answer = _answer(server, request, planned)
                return planned, 200, json.dumps(_written(server, request, answer)).encode(), headers
            except RequestRefusedError as refused:
                return None, refused.status, _error(str(refused)), {}

        def _send(
            self,
            status: int,
            content: bytes,
            kind: str = "application/json",
            *,
            headers: Mapping[str, str] | None = None,
            sent: bytes | None = None,
        ) -> None:
            self.send_response(status)
            for name, value in {
                "Content-Type": kind,
                "Content-Length": str(len(content)),
                **(headers or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content if sent is None else sent)

        def handle(self) -> None:
            with contextlib.suppress(ssl.SSLError):  # the client does not like the certificate
                super().handle()

        def log_message(self, *_: object) -> None:
            """Keep the test output clean."""

    return Handler
