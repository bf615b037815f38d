"""What a provider's answer holds: vectors as they may be written, and the message of an error."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from revector.core.errors import EncoderError
from revector.core.secrets import scrub


class SpoiltAnswerError(EncoderError):
    """An answer that does not belong to the texts sent, perhaps because of a gateway; a retry may help."""


def read_json(content: str | bytes) -> object:
    """The document, or None for what is no JSON: incomplete, nested without end, not even UTF-8."""
    try:
        document: object = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document


def error_of(document: object) -> object:
    """The part of an answer that says what went wrong: an object or a text; None when nothing does."""
    if not isinstance(document, dict):
        return document
    return document.get("error") or document.get("errors") or document


def message_of(error: object) -> str:
    """What the error says. Servers put the message in different places."""
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return str(error) or "no reason given"


def in_short(text: str) -> str:
    """On one line, without secrets."""
    return " ".join(scrub(text).split())[:400]


def check_alike(name: str, vectors: Sequence[NDArray[np.float32]]) -> None:
    """Raise SpoiltAnswerError unless all vectors have the same dimensions."""
    for row, vector in enumerate(vectors):
        if vector.size != vectors[0].size:
            raise SpoiltAnswerError(
                f"{name} returned {vectors[0].size} dimensions for text 1, and for text {row + 1} {vector.size}."
            )


def read_vector(embedding: object) -> NDArray[np.float32]:
    """One vector, from base64 or from a list of numbers. Raises SpoiltAnswerError for anything else."""
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
