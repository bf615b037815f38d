"""Encoders behind HTTP. A provider derives from `RemoteEncoder`, and defines the request and how to read the
answer.

A provider that answers 429 or 5xx, or not at all, is throttling us: the same batch is sent again after the time it
asks for. `pacing` decides when a request may be sent, for all encoding threads together. Some servers answer a text
that they cannot embed with 500, or not: it is the texts that are refused when another one is answered meanwhile.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from revector.core.encoders import kinds, requests
from revector.core.encoders.answers import (
    OtherServerError,
    RefusedTextsError,
    SpoiltAnswerError,
    UnknownServerError,
    check_alike,
    error_of,
    in_short,
    may_be_the_texts,
    message_of,
    read_json,
    read_vector,
    refused_for_good,
    stated_error,
)
from revector.core.encoders.base import scale_to_unit
from revector.core.encoders.channel import Channel, ThrottledError, read_key
from revector.core.encoders.checks import PROBE_TEXT
from revector.core.encoders.headers import retry_after
from revector.core.encoders.local_files import read_tokenizer
from revector.core.encoders.pacing import LONGEST_HOLD_S, HeldError, Pacer, Ticket, backoff
from revector.core.encoders.spec import EncoderSpec
from revector.core.errors import EncoderError, RevectorError, UnreachableError, UsageError
from revector.core.text import counted

log = logging.getLogger(__name__)

Role = Literal["document", "query"]
Meaning = Literal["later", "less", "never"]

_PARALLEL = 4
_PARALLEL_ELSEWHERE = 2  # one request is computed while the next one is on its way
_SOON_S = 1.0
"""For how long a query of somebody who waits is sent again."""
_DOUBTS = 2
"""After so many failures of a batch, another text is tried, to see whether the server or the texts are at fault."""
_MOST_BILLED = 10**9  # for one request: more is implausible
_PER_MINUTE = ("requests_per_minute", "tokens_per_minute")


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

    settings: ClassVar[Mapping[str, kinds.Setting]] = requests.SETTINGS
    server: ClassVar[str] = "an embeddings server"
    path: ClassVar[str]
    public_url: ClassVar[str] = ""
    key_variable: ClassVar[str] = ""

    models: ClassVar[Mapping[str, KnownModel]] = {}
    most_inputs: ClassVar[int] = 2048
    encodings: ClassVar[Sequence[str]] = ("",)
    """How vectors may be asked for: the best way, and the one that each such server knows."""

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
        self._batch_size = int(settings.get("batch_size", min(256, self.most_inputs)))
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
        self.encoding = settings.get("encoding", self.encodings[0])
        self._is_settled = "encoding" in settings or len(self.encodings) == 1
        self._usage = threading.local()
        self._has_answered = False
        self.trouble = ""
        """Why the last request was not answered; '' after an answer."""
        # Another address gets no key but the one that the spec names: the owner allows host and key together.
        own = public or kinds.is_this_machine(urlsplit(self._base_url).hostname or "")
        self._key_env = settings.get("key_env", self.key_variable if own else "")
        self._key = read_key(self._key_env, self.name, needed=public)
        self._tokenizer = read_tokenizer(Path(settings["tokenizer"])) if "tokenizer" in settings else None
        self._key_header = settings.get("key_header", "")
        variables = requests.named(spec, "header_env").items()
        secret = {h: read_key(v, self.name, needed=True, setting=f"header_env.{h}") for h, v in variables}
        self._channel = Channel(
            self.url,
            self.parallel,
            float(settings.get("timeout_s", 60)),
            headers=requests.named(spec, "header") | secret,
            params=requests.named(spec, "param"),
        )

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
        if self._key_header and key:
            return {self._key_header: key}
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
    def learned(self) -> Mapping[str, str]:
        """Settings that the server turned out to need, beside those in the spec."""
        return {"encoding": self.encoding} if self.encoding != self.encodings[0] else {}

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
        return self._encode([self._prefix("document") + text for text in texts], "document")

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """Encode the text as a query."""
        return self._encode([self._prefix("query") + text], "query").reshape(-1)

    def encode_query_soon(self, text: str) -> NDArray[np.float32]:
        """Encode the query of somebody who waits for it: tried again for a second, not for minutes.

        Raises UnreachableError with what the provider answered.
        """
        return self._encode([self._prefix("query") + text], "query", time.monotonic() + _SOON_S).reshape(-1)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Count the tokens of these documents.

        Without a tokenizer it is one for every four bytes of UTF-8: OpenAI's rule of four characters for English,
        and closer than characters for other scripts.
        """
        return sum(self._count([self._prefix("document") + text for text in texts]))

    def close(self) -> None:
        """Close the connections."""
        self._channel.close()

    def _prefix(self, role: Role) -> str:
        return self.spec.document_prefix if role == "document" else self.spec.query_prefix

    # -- requests -----------------------------------------------------------------------------------------

    def _encode(self, texts: list[str], role: Role, until: float = math.inf) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        vectors = [
            vector for some, tokens in self._split(texts) for vector in self._request(some, role, tokens, until)
        ]
        check_alike(self.name, vectors)
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
        asked_for = self.encoding
        try:
            vectors = self._send(texts, role, tokens, until)
            check_alike(self.name, vectors)
            if vectors[0].size == (self._dimensions or vectors[0].size):
                self._is_settled = True
                return vectors
        except (SpoiltAnswerError, RefusedTextsError, UnknownServerError) as error:
            may_pass = isinstance(error, SpoiltAnswerError)
            if not may_pass and (self._is_settled or not getattr(error, "may_want_lists", False)):
                raise
            log.warning("%s: asked once more: %s", self.name, type(error).__name__)
        if not self._is_settled:
            self.encoding = self.encodings[-1]
        try:
            # Dimensions that are wrong again are left to `probe` and the backfill, which say what to do. As an error
            # of these texts, the batch would be split to find the bad text.
            vectors = self._send(texts, role, tokens, until)
        except RevectorError:
            if not self._is_settled:
                self.encoding = asked_for
            raise
        self._is_settled = True
        return vectors

    def _send(self, texts: list[str], role: Role, tokens: int, until: float) -> list[NDArray[np.float32]]:
        """Send one request until it is answered, refused, throttled too often, or would be sent after `until`."""
        tries = doubts = 0
        while tries <= self._max_retries:
            answered = self._pacer.answered
            try:
                with self._pacer.request(tokens, until) as ticket:
                    try:
                        return self._ask(texts, role, ticket)
                    except ThrottledError as error:
                        last = error
                    self.trouble = self._said(last.reason)
                    seconds = backoff(tries, refused=last.refused)
                    if last.asked is not None:
                        seconds = min(last.asked, LONGEST_HOLD_S)
                    kind = last.reason.partition(":")[0]  # a status, or words of ours; the rest is the provider's
                    log.warning(
                        "%s: no answer (%s) to try %d, again in %.1f s", self.name, kind, tries + 1, seconds
                    )
                    log.debug("%s: %s", self.name, last.reason)
                    self._pacer.hold(ticket, seconds, last.reason, asked=last.asked is not None)
            except HeldError as error:
                raise self._unanswered(str(error)) from None
            if time.monotonic() + seconds > until:
                raise self._unanswered(last.reason)
            # Refused while others were answered: too many requests are in flight, and soon fewer will be. Do not
            # give up.
            if not (last.refused and self._pacer.answered > answered):
                tries += 1
            doubts = doubts + 1 if last.is_doubtful else 0
            # Many texts may be halved before all tries are used: nothing is lost if the server was at fault.
            enough = tries > self._max_retries or (doubts == _DOUBTS and len(texts) > 1)
            if last.is_doubtful and enough and self._max_retries and until == math.inf:
                vectors = self._send_between(texts, role, tokens)
                if vectors is not None:
                    return vectors
        raise UnreachableError(
            f"{self.name} at {self._base_url} did not answer in {counted(tries, 'attempt')}; the last: {last.reason}",
            "Try again later, raise max_retries, or lower parallel and batch_size.",
            temporary=self._has_answered,
        )

    def _send_between(self, texts: list[str], role: Role, tokens: int) -> list[NDArray[np.float32]] | None:
        """Send them between two requests for another text; None when the server does not answer.

        Raises EncoderError when it answers for the other one, both before and after, and not for these.
        """
        if not self._answers_other(role):
            return None
        try:
            with self._pacer.request(tokens) as ticket:
                return self._ask(texts, role, ticket)
        except ThrottledError as error:
            if not (error.is_doubtful and self._answers_other(role)):
                return None
            raise EncoderError(
                f"{self.name} answers for another text, and not for {'this' if len(texts) == 1 else 'these'}: "
                f"{error.reason}",
                "Check the text: it may be longer than the model reads, or nothing that the server can read.",
            ) from None

    def _answers_other(self, role: Role) -> bool:
        """Whether the server answers another text now."""
        other = self._prefix(role) + PROBE_TEXT
        try:
            with self._pacer.request(self._count([other])[0]) as ticket:
                self._ask([other], role, ticket)
        except (ThrottledError, EncoderError):
            return False
        return True

    def _ask(self, texts: list[str], role: Role, ticket: Ticket) -> list[NDArray[np.float32]]:
        body, more = self.body(texts, role), requests.fields(self.spec, role)
        if fixed := sorted(body.keys() & more.keys()):
            raise UsageError(f"{self.name} sends {', '.join(fixed)} itself.", "Leave it out of the spec's fields.")
        response = self._channel.post({**body, **more}, self.headers(self._key))
        self._pacer.heed(ticket, response.headers)
        if not response.is_success:
            error = error_of(read_json(response.text) or response.text)
            raise self._refusal(response.status_code, response.headers, error)
        answer: object = None
        if "json" in response.headers.get("content-type", "") or response.content.lstrip()[:1] in (b"{", b"["):
            answer = read_json(response.content)
            if answer is None:
                raise ThrottledError("the answer was not JSON, or not all of it", is_doubtful=True)
        if stated := stated_error(answer):
            raise self._refusal(stated[0] or 200, response.headers, stated[1])
        found = self.rows(answer)
        if found is None:
            if self._has_answered:  # so the address is right, and something in between is at fault
                raise ThrottledError("the answer was not that of an embeddings server")
            kind = OtherServerError if answer is None else UnknownServerError
            raise kind(
                f"{self._base_url} does not answer as {self.server} does.",
                f"Check base_url: requests go to {self.url}",
            )
        self._has_answered, self.trouble = True, ""
        billed = self.billed(answer, response.headers)
        # Servers that do not count say 0, or nothing.
        if type(billed) is not int or not 0 < billed <= _MOST_BILLED:
            billed = None
        self._pacer.succeeded(ticket, billed)
        before = getattr(self._usage, "tokens", 0)
        self._usage.tokens = None if before is None or billed is None else before + billed
        return [read_vector(embedding) for embedding in self.in_order(found, len(texts))]

    # -- errors -------------------------------------------------------------------------------------------

    def _refusal(self, status: int, headers: Mapping[str, str], error: object) -> Exception:
        message = message_of(error)
        reason = in_short(f"{status}: {message}")
        if status == 200:  # with an error in it
            if self._has_answered:
                return ThrottledError(reason, is_doubtful=True)
            return UnknownServerError(
                f"{self.name} at {self._base_url} answered {reason}", "Check the model's name and base_url."
            )
        match self.meaning(status, message, error):
            case "later":
                doubtful = may_be_the_texts(status)
                return ThrottledError(reason, retry_after(headers), refused=status == 429, is_doubtful=doubtful)
            case "less":  # about these texts or settings, not about the server: a smaller batch may pass
                refused = RefusedTextsError(
                    f"{self.name} refused the request with {reason}",
                    "Check the texts and the settings in its spec.",
                )
                refused.may_want_lists = status in (400, 422)
                return refused
        return refused_for_good(self.name, self._base_url, status, reason, self._key_env)

    def _said(self, reason: str) -> str:
        """What the provider answered, or why it did not."""
        answered = "answered " if reason[:3].isdigit() else "gave no vector: "
        return f"{self.name} at {self._base_url} {answered}{reason}"

    def _unanswered(self, reason: str) -> UnreachableError:
        return UnreachableError(self._said(reason), "Try again later.", temporary=self._has_answered)
