"""Encoders behind HTTP. A provider derives from `RemoteEncoder`, and defines the request and how to read the
answer.

A provider that answers 429 or 5xx, or not at all, is throttling us: the same batch is sent again after the time it
asks for. `pacing` decides when a request may be sent, for all encoding threads together.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from revector.core.encoders import kinds
from revector.core.encoders.base import scale_to_unit
from revector.core.encoders.headers import retry_after
from revector.core.encoders.local_files import read_tokenizer
from revector.core.encoders.pacing import LONGEST_HOLD_S, HeldError, Pacer, Ticket, backoff
from revector.core.encoders.spec import EncoderSpec
from revector.core.errors import EncoderError, UnreachableError, UsageError
from revector.core.secrets import hide, scrub
from revector.core.text import counted

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

Role = Literal["document", "query"]
Meaning = Literal["later", "less", "never"]

_PARALLEL = 4
_PARALLEL_ELSEWHERE = 2  # one request is computed while the next one is on its way
_MOST_PARALLEL = 64
_SOON_S = 1.0
"""For how long a query of somebody who waits is sent again."""
_MOST_BILLED = 10**9  # for one request: more is implausible
_PER_MINUTE = ("requests_per_minute", "tokens_per_minute")


class _ThrottledError(Exception):
    """The request may be sent again, after the seconds that the provider asks for, if any.

    `refused` says that the provider works, but refused this request for now.
    """

    def __init__(self, reason: str, asked: float | None = None, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.asked = asked
        self.refused = refused


class SpoiltAnswerError(EncoderError):
    """An answer that does not belong to the texts sent, perhaps because of a gateway; a retry may help."""


class KnownModel(NamedTuple):
    """Defaults for a provider's model: dimensions, limits, and the price in US dollars per million tokens."""

    dimensions: int | None = None
    max_tokens: int | None = None
    price: float | None = None
    max_request_tokens: int | None = None


class RemoteEncoder(ABC):
    """Splits texts into requests, paces and retries them, counts billed tokens, and keeps the key out of every
    error.

    A provider must define `path`, `body` and `rows`. `public_url` is the default address, and needs the key in
    `key_variable`; `models` are the models known without asking. `count_tokens` is an estimate unless the spec
    names a tokenizer.
    """

    settings: ClassVar[Mapping[str, kinds.Setting]] = {
        "base_url": kinds.SERVICE_URL,
        "batch_size": kinds.whole_number(),
        "dimensions": kinds.whole_number(),
        "key_env": kinds.ENVIRONMENT_NAME,
        "max_request_tokens": kinds.whole_number(),
        "max_retries": kinds.whole_number(0),
        "parallel": kinds.whole_number(1, _MOST_PARALLEL),
        "price": kinds.AMOUNT,
        "requests_per_minute": kinds.whole_number(),
        "revision": kinds.TEXT,
        "timeout_s": kinds.SECONDS,
        "tokenizer": kinds.TEXT,
        "tokens_per_minute": kinds.whole_number(),
    }
    server: ClassVar[str] = "an embeddings server"
    path: ClassVar[str]
    public_url: ClassVar[str] = ""
    key_variable: ClassVar[str] = ""

    models: ClassVar[Mapping[str, KnownModel]] = {}

    def __init__(self, spec: EncoderSpec) -> None:
        settings = spec.settings
        known = self.models.get(spec.model, KnownModel())
        self.spec = spec
        self.name = spec.name
        # No protocol reports a model's revision; the operator of the server can state it in the spec.
        self.revision = settings.get("revision", spec.model)
        self.max_tokens = spec.max_tokens or known.max_tokens
        self.price = float(settings["price"]) if "price" in settings else known.price
        self.on_throttle: Callable[[float, str], None] = lambda seconds, reason: None
        self.on_resume: Callable[[], None] = lambda: None
        self.wait: Callable[[float], None] = time.sleep
        self.asked_dimensions = int(settings["dimensions"]) if "dimensions" in settings else None
        self._dimensions = self.asked_dimensions or known.dimensions
        self._batch_size = int(settings.get("batch_size", 256))
        self._max_retries = int(settings.get("max_retries", 6))
        self._base_url = settings.get("base_url", self.public_url).rstrip("/")
        if not self._base_url:
            raise UsageError(f"{self.name} has no server.", "Name one: base_url=http://HOST:PORT")
        public = self._base_url == self.public_url
        self.parallel = int(settings.get("parallel", _PARALLEL if public else _PARALLEL_ELSEWHERE))
        limit = settings.get("max_request_tokens", known.max_request_tokens)
        self._max_request_tokens = math.inf if limit is None else int(limit)
        self._pacer = Pacer(
            self,
            self.parallel,
            *(int(settings[name]) if name in settings else None for name in _PER_MINUTE),
        )
        self._usage = threading.local()
        self._has_answered = False
        self.trouble = ""
        """Why the last request was not answered; '' after an answer."""
        # Another address gets no key but the one that the spec names: the owner allows host and key together.
        own = public or kinds.is_this_machine(urlsplit(self._base_url).hostname or "")
        self._key_env = settings.get("key_env", self.key_variable if own else "")
        self._key = self._read_key(needed=public)
        self._tokenizer = read_tokenizer(Path(settings["tokenizer"])) if "tokenizer" in settings else None

        import httpx2

        limits = httpx2.Limits(max_connections=self.parallel, max_keepalive_connections=self.parallel)
        self._client = httpx2.Client(timeout=float(settings.get("timeout_s", 60)), limits=limits)

    # -- what a provider says -----------------------------------------------------------------------------

    @abstractmethod
    def body(self, texts: list[str], role: Role) -> dict[str, Any]:
        """The JSON that requests the vectors of these texts, which already have the prefix of their role."""

    @abstractmethod
    def rows(self, answer: Any) -> list[Any] | None:
        """The part of an answer for each text; None when it is not an answer of such a server."""

    def in_order(self, rows: list[Any], n: int) -> Sequence[object]:
        """The vectors of those rows in the order of the n texts, each as base64 or as a list of numbers.

        Raises SpoiltAnswerError when they do not match the texts.
        """
        if len(rows) != n:
            raise self.spoilt(n, len(rows))
        return rows

    def billed(self, answer: Any, headers: Mapping[str, str]) -> object:
        """The tokens billed according to an answer, or None; a value that is not a valid number counts as None."""
        return None

    def spoilt(self, n: int, found: int, texts: int | None = None) -> SpoiltAnswerError:
        """The error for n texts and that many vectors; `texts` is how many texts they belong to, if the answer
        says so."""
        of = "" if texts is None else f" for {texts} of the texts"
        return SpoiltAnswerError(
            f"{self.name} was asked for {n} vectors and returned {found}{of}.",
            "The server does not follow the protocol, or batch_size is too large for it.",
        )

    def headers(self, key: str) -> Mapping[str, str]:
        """The headers of each request; `key` is '' without a key."""
        return {"Authorization": f"Bearer {key}"} if key else {}

    def meaning(self, status: int, message: str, error: object) -> Meaning:
        """How to react to an error: retry `later`, send `less` or other texts, or `never` retry."""
        if status in (408, 409, 429) or status >= 500:
            return "later"
        return "less" if status in (400, 413, 422) else "never"

    # -- the encoder --------------------------------------------------------------------------------------

    @property
    def dimensions(self) -> int:
        """From the spec, or known for the model, or else from its first answer."""
        if self._dimensions is None:
            self._dimensions = self.encode_query("How many dimensions?").shape[0]
        return self._dimensions

    @property
    def url(self) -> str:
        """Where requests go."""
        return self._base_url + self.path

    @property
    def share(self) -> float:
        """This process's part of the limits per minute: above 0, at most 1."""
        return self._pacer.share

    @share.setter
    def share(self, share: float) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"a share of {share} of the limits: expected more than 0 and at most 1")
        self._pacer.share = share

    def take_usage(self) -> int | None:
        """The tokens billed for this thread's requests since its last call of this; None when a request had no
        figure."""
        tokens: int | None = getattr(self._usage, "tokens", 0)
        self._usage.tokens = 0
        return tokens

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode the texts as documents: `batch_size` in a request, or as many as the token limit allows."""
        return self._encode([self.spec.document_prefix + text for text in texts], "document")

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """Encode the text as a query."""
        return self._encode([self.spec.query_prefix + text], "query").reshape(-1)

    def encode_query_soon(self, text: str) -> NDArray[np.float32]:
        """Encode the query of somebody who waits for it: tried again for a second, not for minutes.

        Raises UnreachableError with what the provider answered.
        """
        return self._encode([self.spec.query_prefix + text], "query", time.monotonic() + _SOON_S).reshape(-1)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Count the tokens of these documents.

        Without a tokenizer it is one for every four bytes of UTF-8: OpenAI's rule of four characters for English,
        and closer than characters for other scripts.
        """
        return sum(self._count([self.spec.document_prefix + text for text in texts]))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # -- requests -----------------------------------------------------------------------------------------

    def _encode(self, texts: list[str], role: Role, until: float = math.inf) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        vectors = [
            vector for some, tokens in self._split(texts) for vector in self._request(some, role, tokens, until)
        ]
        _check_alike(self.name, vectors)
        matrix = np.stack(vectors)
        self._dimensions = self._dimensions or matrix.shape[1]
        return scale_to_unit(matrix) if self.spec.normalise else matrix

    def _count(self, texts: list[str]) -> list[int]:
        if self._tokenizer is not None:
            return list(map(len, self._tokenizer.encode_batch_fast(texts)))
        return [-(-len(text.encode()) // 4) for text in texts]

    def _split(self, texts: list[str]) -> Iterator[tuple[list[str], int]]:
        """The texts in parts that fit into one request each, with their tokens. A text that is too long goes
        alone."""
        start = total = 0
        for place, tokens in enumerate(self._count(texts)):
            # Read again for each text: both may change while earlier parts are sent.
            in_a_minute = self._pacer.tokens_per_minute * self._pacer.share
            most = min(self._max_request_tokens, in_a_minute) / self._pacer.correction
            if place > start and (place - start == self._batch_size or total + tokens > most):
                yield texts[start:place], total
                start, total = place, 0
            total += tokens
        yield texts[start:], total

    def _request(self, texts: list[str], role: Role, tokens: int, until: float) -> list[NDArray[np.float32]]:
        """The vectors of one request. When the answer does not match the texts, it is sent once more."""
        try:
            vectors = self._send(texts, role, tokens, until)
            _check_alike(self.name, vectors)
            if vectors[0].size == (self._dimensions or vectors[0].size):
                return vectors
        except SpoiltAnswerError as error:
            log.warning("%s: asked once more: %s", self.name, type(error).__name__)
        # Dimensions that are wrong again are left to `probe` and the backfill, which say what to do. As an error
        # of these texts, the batch would be split to find the bad text.
        return self._send(texts, role, tokens, until)

    def _send(self, texts: list[str], role: Role, tokens: int, until: float) -> list[NDArray[np.float32]]:
        """Send one request until it is answered, refused, throttled too often, or would be sent after `until`."""
        tries = 0
        while tries <= self._max_retries:
            answered = self._pacer.answered
            try:
                with self._pacer.request(tokens, until) as ticket:
                    try:
                        return self._ask(texts, role, ticket)
                    except _ThrottledError as error:
                        reason, asked, refused = error.reason, error.asked, error.refused
                    self.trouble = self._said(reason)
                    seconds = backoff(tries, refused=refused) if asked is None else min(asked, LONGEST_HOLD_S)
                    kind = reason.partition(":")[0]  # a status, or words of ours; the rest is the provider's
                    log.warning(
                        "%s: no answer (%s) to try %d, again in %.1f s", self.name, kind, tries + 1, seconds
                    )
                    log.debug("%s: %s", self.name, reason)
                    self._pacer.hold(ticket, seconds, reason, asked=asked is not None)
            except HeldError as error:
                raise self._unanswered(str(error)) from None
            if time.monotonic() + seconds > until:
                raise self._unanswered(reason)
            # Refused while others were answered: too many requests are in flight, and soon fewer will be. Do not
            # give up.
            if not (refused and self._pacer.answered > answered):
                tries += 1
        raise UnreachableError(
            f"{self.name} at {self._base_url} did not answer in {counted(tries, 'attempt')}; the last: {reason}",
            "Try again later, raise max_retries, or lower parallel and batch_size.",
            temporary=self._has_answered,
        )

    def _ask(self, texts: list[str], role: Role, ticket: Ticket) -> list[NDArray[np.float32]]:
        import httpx2

        try:
            response = self._client.post(self.url, json=self.body(texts, role), headers=self.headers(self._key))
        except httpx2.TransportError as error:  # without the cause, whose message may contain the key
            reason = f"Connection error: {str(error) or type(error).__name__}"
            raise _ThrottledError(_in_short(reason)) from None
        self._pacer.heed(ticket, response.headers)
        if not response.is_success:
            raise self._refusal(response.status_code, response.headers, response.text)
        answer: object = None
        if "json" in response.headers.get("content-type", ""):
            try:
                answer = json.loads(response.content)
            except (ValueError, RecursionError):  # incomplete, nested without end, not even UTF-8
                raise _ThrottledError("the answer was not JSON, or not all of it") from None
        found = self.rows(answer)
        if found is None:
            if self._has_answered:  # so the address is right, and something in between is at fault
                raise _ThrottledError("the answer was not that of an embeddings server")
            raise UnreachableError(
                f"{self._base_url} does not answer as {self.server} does.",
                f"Check base_url: requests go to {self.url}",
            )
        self._has_answered, self.trouble = True, ""
        billed = self.billed(answer, response.headers)
        if (
            type(billed) is not int or not 0 < billed <= _MOST_BILLED
        ):  # servers that do not count say 0, or nothing
            billed = None
        self._pacer.succeeded(ticket, billed)
        before = getattr(self._usage, "tokens", 0)
        self._usage.tokens = None if before is None or billed is None else before + billed
        return [_vector(embedding) for embedding in self.in_order(found, len(texts))]

    # -- errors -------------------------------------------------------------------------------------------

    def _refusal(self, status: int, headers: Mapping[str, str], text: str) -> Exception:
        try:
            error = json.loads(text)
        except (ValueError, RecursionError):
            error = text
        if isinstance(error, dict):
            error = error.get("error") or error
        # Servers put the message in different places.
        said = (error.get("message") or error.get("detail") or error) if isinstance(error, dict) else error
        message = str(said) or "no reason given"
        reason = _in_short(f"{status}: {message}")
        match self.meaning(status, message, error):
            case "later":
                return _ThrottledError(reason, retry_after(headers), refused=status == 429)
            case "less":  # about these texts or settings, not about the server: a smaller batch may pass
                return EncoderError(
                    f"{self.name} refused the request with {reason}",
                    "Check the texts and the settings in its spec.",
                )
        if status in (401, 403) and not self._key_env:
            remedy = "No key was sent. Name the environment variable that holds it: key_env=…"
        else:
            remedy = {
                401: f"Check the key in the environment variable {self._key_env}.",
                403: f"The key in {self._key_env} may not use this model.",
                404: "Check the model's name and base_url.",
                429: f"Check plan and billing of the account of {self._key_env or 'this server'}.",
            }.get(status, "Check base_url.")
        return UnreachableError(f"{self.name} at {self._base_url} answered {reason}", remedy)

    def _said(self, reason: str) -> str:
        """What the provider answered, or why it did not."""
        answered = "answered " if reason[:3].isdigit() else "gave no vector: "
        return f"{self.name} at {self._base_url} {answered}{reason}"

    def _unanswered(self, reason: str) -> UnreachableError:
        return UnreachableError(self._said(reason), "Try again later.", temporary=self._has_answered)

    def _read_key(self, *, needed: bool) -> str:
        """From the environment, stripped: the HTTP library refuses a key with a line end, and quotes it in the
        error."""
        key = os.environ.get(self._key_env, "").strip()
        if not key and needed:
            raise UnreachableError(
                f"{self.name} needs an API key, and the environment variable {self._key_env} is not set.",
                f"Set {self._key_env}, or name another variable with key_env=….",
            )
        if not (key.isascii() and key.isprintable()):
            raise UnreachableError(
                f"The key in the environment variable {self._key_env} has characters that no key has.",
                "Set it again: ASCII letters, digits and punctuation, on one line.",
            )
        hide(key)
        return key


def _in_short(text: str) -> str:
    return " ".join(scrub(text).split())[:400]


def _check_alike(name: str, vectors: list[NDArray[np.float32]]) -> None:
    for row, vector in enumerate(vectors):
        if vector.size != vectors[0].size:
            raise SpoiltAnswerError(
                f"{name} returned {vectors[0].size} dimensions for text 1, and for text {row + 1} {vector.size}."
            )


def _vector(embedding: object) -> NDArray[np.float32]:
    """One vector, from base64 or from a list of numbers."""
    try:
        if isinstance(embedding, str):
            return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
        if not isinstance(embedding, list):
            raise TypeError(f"{type(embedding).__name__} instead of a list")
        vector = np.array(embedding, dtype=np.float32)
        if vector.ndim != 1:
            raise ValueError("lists in a list")
        return vector
    except (TypeError, ValueError, OverflowError) as error:
        raise SpoiltAnswerError(f"The answer contains something that is not a vector: {error}") from None
