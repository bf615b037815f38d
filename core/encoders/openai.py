"""OpenAI's embeddings, and any server that speaks the same protocol (vLLM, Ollama, TEI, a gateway).

A provider that answers 429 or 5xx, or not at all, is throttling us: the same batch is sent again after the
time it asks for. The official client would do so too, but it sleeps where nothing can wake it, tells nobody
why, and gives up at once when asked to wait longer than it likes; so its own retries are off. When a request
may go is decided in `pacing`, for all threads that encode at once.
"""

from __future__ import annotations

import base64
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from revector.core.encoders.base import scale_to_unit
from revector.core.encoders.headers import retry_after
from revector.core.encoders.kinds import (
    AMOUNT,
    ENVIRONMENT_NAME,
    SECONDS,
    SERVICE_URL,
    TEXT,
    Setting,
    whole_number,
)
from revector.core.encoders.pacing import LONGEST_HOLD_S, Pacer, Ticket, backoff
from revector.core.encoders.spec import EncoderSpec
from revector.core.errors import EncoderError, RevectorError, UnreachableError

if TYPE_CHECKING:
    import openai
    from openai import OpenAI
    from tokenizers import Tokenizer

PUBLIC_API = "https://api.openai.com/v1"

# Native dimensions, longest text in tokens, and US dollars per million tokens as OpenAI listed them in
# July 2026. A model that is not here has its price in the spec, and its dimensions from the first answer.
KNOWN_MODELS = {
    "text-embedding-3-small": (1536, 8192, 0.02),
    "text-embedding-3-large": (3072, 8192, 0.13),
    "text-embedding-ada-002": (1536, 8192, 0.10),
}

# In one request, by OpenAI's reference. The tokens are those of all inputs, and hold for its own models.
MOST_INPUTS = 2048
MOST_REQUEST_TOKENS = 300_000

MOST_PARALLEL = 64
PARALLEL = 4
PARALLEL_ELSEWHERE = 2  # one request is computed while the next one is on its way

_MOST_BILLED = 10**9  # for one request: more is nonsense


_PER_MINUTE = ("requests_per_minute", "tokens_per_minute")


class _ThrottledError(Exception):
    """The request may be sent again, after the seconds that the provider asks for, if it does.

    `refused` says that it is there and works, but not for us now.
    """

    def __init__(self, reason: str, asked: float | None = None, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.asked = asked
        self.refused = refused


class _SpoiltAnswerError(EncoderError):
    """An answer that is none to the texts sent. A gateway may have done it, and would do better once more."""


class OpenAIEncoder:
    """`openai:MODEL`. What `count_tokens` says is an estimate unless the spec names a tokenizer file."""

    settings: ClassVar[Mapping[str, Setting]] = {
        "base_url": SERVICE_URL,
        "batch_size": whole_number(1, MOST_INPUTS),
        "dimensions": whole_number(),
        "key_env": ENVIRONMENT_NAME,
        "max_request_tokens": whole_number(),
        "max_retries": whole_number(0),
        "parallel": whole_number(1, MOST_PARALLEL),
        "price": AMOUNT,
        "requests_per_minute": whole_number(),
        "revision": TEXT,
        "timeout_s": SECONDS,
        "tokenizer": TEXT,
        "tokens_per_minute": whole_number(),
    }

    def __init__(self, spec: EncoderSpec) -> None:
        settings = spec.settings
        dimensions, max_tokens, price = KNOWN_MODELS.get(spec.model, (None, None, None))
        self.name = spec.name
        # The protocol does not tell one revision of a model from another; whoever runs the server can.
        self.revision = settings.get("revision", spec.model)
        self.max_tokens = spec.max_tokens or max_tokens
        self.price = float(settings["price"]) if "price" in settings else price
        self.on_throttle: Callable[[float, str], None] = lambda seconds, reason: None
        self.on_resume: Callable[[], None] = lambda: None
        self.wait: Callable[[float], None] = time.sleep
        self._spec = spec
        self._asked_dimensions = int(settings["dimensions"]) if "dimensions" in settings else None
        self._dimensions = self._asked_dimensions or dimensions
        self._batch_size = int(settings.get("batch_size", 256))
        self._max_retries = int(settings.get("max_retries", 6))
        self._base_url = settings.get("base_url", PUBLIC_API)
        parallel = PARALLEL if self._base_url == PUBLIC_API else PARALLEL_ELSEWHERE
        self.parallel = int(settings.get("parallel", parallel))
        limit = settings.get("max_request_tokens", MOST_REQUEST_TOKENS if spec.model in KNOWN_MODELS else None)
        self._max_request_tokens = math.inf if limit is None else int(limit)
        self._pacer = Pacer(
            self,
            self.parallel,
            *(int(settings[name]) if name in settings else None for name in _PER_MINUTE),
        )
        self._usage = threading.local()
        self._tokens_used = 0
        self._lock = threading.Lock()
        self._has_answered = False
        self._key_env = settings.get("key_env", "OPENAI_API_KEY")
        # Stripped: a line end in it is refused by the HTTP library with a message that quotes the key.
        self._key = os.environ.get(self._key_env, "").strip()
        self._client = self._open_client()
        self._tokenizer = _read_tokenizer(settings["tokenizer"]) if "tokenizer" in settings else None

    @property
    def dimensions(self) -> int:
        """What the spec asks for, or the model is known to have, or else its first answer shows."""
        if self._dimensions is None:
            self._dimensions = self.encode_query("How many dimensions?").shape[0]
        return self._dimensions

    @property
    def share(self) -> float:
        """This process's part of the limits a minute: above 0, at most 1."""
        return self._pacer.share

    @share.setter
    def share(self, share: float) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"a share of {share} of the limits: expected more than 0 and at most 1")
        self._pacer.share = share

    @property
    def tokens_used(self) -> int:
        """The tokens billed since the encoder was opened, as far as the provider has said."""
        return self._tokens_used

    def take_usage(self) -> int | None:
        """The tokens billed to this thread since it last called this; None when one request came without."""
        tokens: int | None = getattr(self._usage, "tokens", 0)
        self._usage.tokens = 0
        return tokens

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode the texts as documents: `batch_size` in a request, or as many as its most tokens allow."""
        return self._encode(texts, self._spec.document_prefix)

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """Encode the text as a query."""
        return self._encode([text], self._spec.query_prefix).reshape(-1)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Count the tokens of these documents.

        Without a tokenizer it is one for every four bytes of UTF-8: OpenAI's rule of four characters
        for English, and nearer than characters are for other scripts.
        """
        return sum(self._count([self._spec.document_prefix + text for text in texts]))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _open_client(self) -> OpenAI:
        from openai import OpenAI

        if not self._key and self._base_url == PUBLIC_API:
            raise UnreachableError(
                f"{self.name} needs an API key, and the environment variable {self._key_env} is not set.",
                f"Set {self._key_env}, or name another variable with key_env=….",
            )
        return OpenAI(
            # A server of one's own often wants no key, but the client does.
            api_key=self._key or "none",
            # Always ours: the client would also take one from the environment, so that one version
            # had different encoders in different shells.
            base_url=self._base_url,
            timeout=float(self._spec.settings.get("timeout_s", 60)),
            max_retries=0,
        )

    def _encode(self, texts: Sequence[str], prefix: str) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        whole = [prefix + text for text in texts]
        vectors = [vector for some, tokens in self._split(whole) for vector in self._request(some, tokens)]
        _check_alike(self.name, vectors)
        matrix = np.stack(vectors)
        self._dimensions = self._dimensions or matrix.shape[1]
        return scale_to_unit(matrix) if self._spec.normalise else matrix

    def _count(self, whole: list[str]) -> list[int]:
        if self._tokenizer is not None:
            return list(map(len, self._tokenizer.encode_batch_fast(whole)))
        return [-(-len(text.encode()) // 4) for text in whole]

    def _split(self, whole: list[str]) -> Iterator[tuple[list[str], int]]:
        """The texts in the parts that fit into one request each, with their tokens. One too long goes alone."""
        start = total = 0
        for place, tokens in enumerate(self._count(whole)):
            # Looked at anew for each text: both may change while the parts before are sent.
            most = min(self._max_request_tokens, self._pacer.most_tokens) / self._pacer.correction
            if place > start and (place - start == self._batch_size or total + tokens > most):
                yield whole[start:place], total
                start, total = place, 0
            total += tokens
        yield whole[start:], total

    def _request(self, texts: list[str], tokens: int) -> list[NDArray[np.float32]]:
        """The vectors of one request. One that does not answer the texts is sent once more."""
        try:
            vectors = self._send(texts, tokens)
            _check_alike(self.name, vectors)
            if vectors[0].size == (self._dimensions or vectors[0].size):
                return vectors
        except _SpoiltAnswerError:
            pass
        # Dimensions that are wrong again are left to `probe` and the backfill, which say what to do about it:
        # as an error of these texts they would be looked for in each of them.
        return self._send(texts, tokens)

    def _send(self, texts: list[str], tokens: int) -> list[NDArray[np.float32]]:
        """One request, sent whole until it is answered, refused, or throttled too often."""
        tries = 0
        while tries <= self._max_retries:
            answered = self._pacer.answered
            with self._pacer.request(tokens) as ticket:
                try:
                    return self._ask(texts, ticket)
                except _ThrottledError as error:
                    reason, asked, refused = error.reason, error.asked, error.refused
                seconds = backoff(tries, refused=refused) if asked is None else min(asked, LONGEST_HOLD_S)
                self._pacer.hold(ticket, seconds, reason, asked=asked is not None)
            # Refused while others were answered, we are too many, and soon fewer: that is no reason to give up.
            if not (refused and self._pacer.answered > answered):
                tries += 1
        raise UnreachableError(
            f"{self.name} at {self._base_url} did not answer in {tries} tries; the last time: {reason}",
            "Try again later, or be more patient (max_retries) or gentler (parallel, batch_size).",
            temporary=self._has_answered,
        )

    def _ask(self, texts: list[str], ticket: Ticket) -> list[NDArray[np.float32]]:
        import openai

        try:
            raw = self._client.embeddings.with_raw_response.create(
                model=self._spec.model,
                input=texts,
                dimensions=self._asked_dimensions or openai.omit,
                # Said outright, the client leaves the base64 to us and makes no lists of floats.
                encoding_format="base64",
            )
        except openai.APIStatusError as error:
            self._pacer.heed(ticket, error.response.headers)
            reason = self._scrub(f"{error.status_code}: {_message(error)}")
            if _is_throttling(error):
                asked = retry_after(error.response.headers)
                raise _ThrottledError(reason, asked, refused=error.status_code == 429) from None
            # Without its cause, whose message may repeat the key.
            raise self._refusal(error, reason) from None
        except openai.APIConnectionError as error:
            raise _ThrottledError(self._scrub(f"{error} ({error.__cause__})")) from None
        try:
            answer = raw.parse()
        except ValueError:  # not JSON, or not even UTF-8
            raise _ThrottledError("the answer was cut off") from None
        data = getattr(answer, "data", None)
        if not isinstance(data, list):
            if self._has_answered:  # so the address is right, and something stands in between
                raise _ThrottledError("the answer was not that of an embeddings server")
            raise UnreachableError(
                f"{self._base_url} does not answer as an OpenAI-compatible embeddings server does.",
                "Look at base_url: it mostly ends in /v1.",
            )
        self._has_answered = True
        billed = _billed(answer)
        self._pacer.heed(ticket, raw.headers)
        self._pacer.succeeded(ticket, billed)
        self._note_usage(billed)
        return self._read(data, len(texts))

    def _note_usage(self, billed: int | None) -> None:
        before = getattr(self._usage, "tokens", 0)
        self._usage.tokens = None if before is None or billed is None else before + billed
        with self._lock:
            self._tokens_used += billed or 0

    def _read(self, data: list[Any], n: int) -> list[NDArray[np.float32]]:
        """The vectors of an answer in the order of the texts, whatever order they came in."""
        found = {item.index: item for item in data if isinstance(getattr(item, "index", None), int)}
        if len(data) != n or found.keys() != set(range(n)):
            raise _SpoiltAnswerError(
                f"{self.name} was asked for {n} vectors, and answered with {len(data)} "
                f"for {len(found.keys() & set(range(n)))} of the texts.",
                "The server does not keep to the protocol, or batch_size is too large for it.",
            )
        return [_vector(getattr(found[index], "embedding", None)) for index in range(n)]

    def _refusal(self, error: openai.APIStatusError, reason: str) -> RevectorError:
        status = error.status_code
        if status in (400, 413, 422) or _is_too_large(error):
            # About these texts or settings, not about the server: a smaller batch may well pass.
            return EncoderError(
                f"{self.name} refused the request with {reason}",
                "Look at the texts, and at the settings in its spec.",
            )
        remedy = {
            401: f"Look at the key in the environment variable {self._key_env}.",
            403: f"The key in {self._key_env} may not use this model.",
            404: "Look at the model's name and at base_url.",
            429: f"Look at the plan and the billing of the account of {self._key_env}.",
        }.get(status, "Look at base_url.")
        return UnreachableError(f"{self.name} at {self._base_url} answered {reason}", remedy)

    def _scrub(self, text: str) -> str:
        clean = text.replace(self._key, "[key]") if self._key else text
        return " ".join(clean.split())[:400]


def _read_tokenizer(path: str) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(path)
    except Exception as error:
        raise UnreachableError(
            f"The tokenizer file {path} cannot be read: {error}", "Expected a tokenizer.json."
        ) from error


def _check_alike(name: str, vectors: list[NDArray[np.float32]]) -> None:
    for row, vector in enumerate(vectors):
        if vector.size != vectors[0].size:
            raise _SpoiltAnswerError(
                f"{name} answered text 1 with {vectors[0].size} dimensions, and text {row + 1} with {vector.size}."
            )


def _vector(embedding: object) -> NDArray[np.float32]:
    """One vector, from base64 or, where the server does not know that, from a list of floats."""
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
        raise _SpoiltAnswerError(f"The answer holds something that is not a vector: {error}") from None


def _billed(answer: Any) -> int | None:
    """The tokens that an answer says it cost. Servers that do not count say nothing, or 0."""
    usage = getattr(answer, "usage", None)
    for name in ("total_tokens", "prompt_tokens"):
        tokens = getattr(usage, name, None)
        if type(tokens) is int and 0 < tokens <= _MOST_BILLED:
            return tokens
    return None


def _is_throttling(error: openai.APIStatusError) -> bool:
    if error.status_code == 429:
        # Two that no waiting ends: the account has no money left, or the request is larger than the limit.
        return error.code != "insufficient_quota" and not _is_too_large(error)
    return error.status_code in (408, 409) or error.status_code >= 500


def _is_too_large(error: openai.APIStatusError) -> bool:
    return error.status_code == 429 and _message(error).startswith("Request too large")


def _message(error: openai.APIStatusError) -> str:
    """The provider's own words, which servers put in different places."""
    body = error.body
    if isinstance(body, dict):
        return str(body.get("message") or body.get("detail") or body)
    return str(body or error.message)
