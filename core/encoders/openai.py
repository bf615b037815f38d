"""OpenAI's embeddings, and any server that speaks the same protocol (vLLM, Ollama, TEI, a gateway).

A provider that answers 429 or 5xx, or not at all, is throttling us: the same batch is sent again after the
time it asks for. The official client would do so too, but it sleeps where nothing can wake it, tells nobody
why, and gives up at once when asked to wait longer than it likes; so its own retries are off.
"""

from __future__ import annotations

import base64
import json
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from core.encoders.base import scale_to_unit
from core.encoders.kinds import AMOUNT, ENVIRONMENT_NAME, SECONDS, SERVICE_URL, TEXT, Setting, whole_number
from core.encoders.spec import EncoderSpec
from core.errors import EncoderError, RevectorError, UnreachableError

if TYPE_CHECKING:
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

MOST_INPUTS = 2048  # in one request, by OpenAI's reference
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
LONGEST_RETRY_AFTER_S = 120.0


class OpenAIEncoder:
    """`openai:MODEL`. What `count_tokens` says is an estimate unless the spec names a tokenizer file."""

    settings: ClassVar[Mapping[str, Setting]] = {
        "base_url": SERVICE_URL,
        "batch_size": whole_number(1, MOST_INPUTS),
        "dimensions": whole_number(),
        "key_env": ENVIRONMENT_NAME,
        "max_retries": whole_number(0),
        "price": AMOUNT,
        "revision": TEXT,
        "timeout_s": SECONDS,
        "tokenizer": TEXT,
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
        self.wait: Callable[[float], None] = time.sleep
        self._spec = spec
        self._asked_dimensions = int(settings["dimensions"]) if "dimensions" in settings else None
        self._dimensions = self._asked_dimensions or dimensions
        self._batch_size = int(settings.get("batch_size", 256))
        self._max_retries = int(settings.get("max_retries", 6))
        self._base_url = settings.get("base_url", PUBLIC_API)
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

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode the texts as documents, `batch_size` in a request."""
        return self._encode(texts, self._spec.document_prefix)

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """Encode the text as a query."""
        return self._encode([text], self._spec.query_prefix).reshape(-1)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Count the tokens of these documents.

        Without a tokenizer it is one for every four bytes of UTF-8: OpenAI's rule of four characters
        for English, and nearer than characters are for other scripts.
        """
        whole = [self._spec.document_prefix + text for text in texts]
        if self._tokenizer is not None:
            return sum(map(len, self._tokenizer.encode_batch_fast(whole)))
        return sum(-(-len(text.encode()) // 4) for text in whole)

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
        vectors = [
            vector
            for start in range(0, len(whole), self._batch_size)
            for vector in self._request(whole[start : start + self._batch_size])
        ]
        for row, vector in enumerate(vectors):
            if vector.shape != vectors[0].shape:
                raise EncoderError(
                    f"{self.name} answered text 1 with {vectors[0].size} dimensions, "
                    f"and text {row + 1} with {vector.size}."
                )
        matrix = np.stack(vectors)
        self._dimensions = self._dimensions or matrix.shape[1]
        return scale_to_unit(matrix) if self._spec.normalise else matrix

    def _request(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """One batch, sent whole until it is answered, refused, or throttled too often."""
        import openai

        for retry in range(self._max_retries + 1):
            try:
                answer = self._client.embeddings.create(
                    model=self._spec.model,
                    input=texts,
                    dimensions=self._asked_dimensions or openai.omit,
                    # Said outright, the client leaves the base64 to us and makes no lists of floats.
                    encoding_format="base64",
                )
                return self._read(answer, len(texts))
            except openai.APIStatusError as error:
                reason = self._scrub(f"{error.status_code}: {_message(error)}")
                if not _is_throttling(error.status_code):
                    # Without its cause, whose message may repeat the key.
                    raise self._refusal(error.status_code, reason) from None
                asked = _retry_after(error.response.headers)
            except openai.APIConnectionError as error:
                reason, asked = self._scrub(f"{error} ({error.__cause__})"), None
            except json.JSONDecodeError:
                reason, asked = "the answer was cut off", None
            if retry < self._max_retries:
                seconds = _backoff(retry) if asked is None else min(asked, LONGEST_RETRY_AFTER_S)
                self.on_throttle(seconds, reason)
                self.wait(seconds)
        raise UnreachableError(
            f"{self.name} at {self._base_url} did not answer in {self._max_retries + 1} tries; "
            f"the last time: {reason}",
            "Try again later, or be more patient (max_retries) or gentler (batch_size).",
        )

    def _read(self, answer: Any, n: int) -> list[NDArray[np.float32]]:
        """The vectors of an answer in the order of the texts, whatever order they came in."""
        data = getattr(answer, "data", None)
        if not isinstance(data, list):
            raise UnreachableError(
                f"{self._base_url} does not answer as an OpenAI-compatible embeddings server does.",
                "Look at base_url: it mostly ends in /v1.",
            )
        if len(data) != n or {item.index for item in data} != set(range(n)):
            raise EncoderError(
                f"{self.name} was asked for {n} vectors, and answered with {len(data)} "
                f"for {len({item.index for item in data})} of the texts.",
                "The server does not keep to the protocol, or batch_size is too large for it.",
            )
        return [_vector(item.embedding) for item in sorted(data, key=lambda item: int(item.index))]

    def _refusal(self, status: int, reason: str) -> RevectorError:
        if status in (400, 413, 422):
            # About these texts or settings, not about the server: a smaller batch may well pass.
            return EncoderError(f"{self.name} refused the request with {reason}")
        remedy = {
            401: f"Look at the key in the environment variable {self._key_env}.",
            403: f"The key in {self._key_env} may not use this model.",
            404: "Look at the model's name and at base_url.",
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


def _vector(embedding: object) -> NDArray[np.float32]:
    """One vector, from base64 or, where the server does not know that, from a list of floats."""
    try:
        if isinstance(embedding, str):
            return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
        return np.array(embedding, dtype=np.float32, ndmin=1)
    except (TypeError, ValueError) as error:
        raise EncoderError(f"The answer holds something that is not a vector: {error}") from None


def _is_throttling(status: int) -> bool:
    return status in (408, 409, 429) or status >= 500


def _message(error: Any) -> str:
    """The provider's own words, which servers put in different places."""
    body = error.body
    if isinstance(body, dict):
        return str(body.get("message") or body.get("detail") or body)
    return str(body or error.message)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds the provider asks for, which it may also write as milliseconds or as a date.

    None when it asks for nothing: "0" is no reason to spend all tries at once.
    """
    milliseconds, seconds = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    for text, unit in ((milliseconds, 0.001), (seconds, 1.0)):
        if AMOUNT.accepts(text):
            return float(text) * unit or None
    try:
        moment = parsedate_to_datetime(seconds).replace(tzinfo=UTC)  # in HTTP it is always GMT
    except ValueError:
        return None
    left = (moment - datetime.now(UTC)).total_seconds()
    return left if left > 0 else None


def _backoff(retry: int) -> float:
    """Exponential, with full jitter: throttled workers must not come back all at once."""
    return random.uniform(0, min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0**retry))  # noqa: S311
