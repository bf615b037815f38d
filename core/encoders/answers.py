"""What a provider's answer holds: vectors as they may be written, and the message of an error."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from revector.core.errors import EncoderError, UnreachableError
from revector.core.secrets import scrub

_ERROR_KEYS = ("error", "errors", "detail", "message")


class SpoiltAnswerError(EncoderError):
    """An answer that does not belong to the texts sent, perhaps because of a gateway; a retry may help."""


class RefusedTextsError(EncoderError):
    """The server refuses these texts or settings; fewer texts, or others, may pass."""

    may_want_lists = False
    """Whether the server may have refused base64, and may take lists."""


class UnknownServerError(UnreachableError):
    """The first answer is not one of such a server."""

    may_want_lists = True


class OtherServerError(UnknownServerError):
    """It is not even JSON."""

    may_want_lists = False


def may_be_the_texts(status: int) -> bool:
    """Whether a failure of the server may come from the texts: not when it says that it has too much to do."""
    return status >= 424 and status not in (503, 504, 529)


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


def stated_error(document: object) -> tuple[int | None, object] | None:
    """The error in an answer whose status is 200, with the status that it should have had if it says so; None when
    there is no error in it."""
    if not isinstance(document, dict) or not any(document.get(name) for name in _ERROR_KEYS):
        return None
    error = error_of(document)
    code = error.get("code") or error.get("status") if isinstance(error, dict) else None
    number = _number(code)
    return (number if number is not None and 400 <= number < 600 else None), error


def message_of(error: object) -> str:
    """What the error says. Servers put the message in different places."""
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error.get("error") or error
    return str(error) or "no reason given"


def in_short(text: str) -> str:
    """On one line, without secrets."""
    return " ".join(scrub(text).split())[:400]


def read_order(indices: Sequence[object]) -> list[int] | None:
    """The place of each row among the texts, by its `index` as servers write it; None when that contradicts itself.

    A permutation is obeyed: from 0, from 1, as text, or with 0 left out. Rows that are all absent or alike, or that
    start again at 0 for each part of the batch, say nothing: then the rows are in the order of the texts.
    """
    numbers = [_number(index) for index in indices]
    if numbers.count(None) == 1:
        numbers[numbers.index(None)] = 0  # Gemini's server leaves out what is 0
    given = {number for number in numbers if number is not None}
    for first in (0, 1):
        if given == set(range(first, first + len(numbers))):
            return [number - first for number in numbers if number is not None]
    restarts = all(
        now == 0 or (now is not None and before is not None and now == before + 1)
        for before, now in zip([-1, *numbers], numbers, strict=False)
    )
    return list(range(len(numbers))) if len(set(numbers)) == 1 or restarts else None


def _number(index: object) -> int | None:
    if isinstance(index, str) and index.isascii() and index.isdigit() and len(index) < 10:
        return int(index)
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def refused_for_good(name: str, at: str, status: int, reason: str, key_env: str) -> UnreachableError:
    """The error for a status that no retry and no other text changes."""
    if status in (401, 403) and not key_env:
        remedy = "No key was sent. Name the environment variable that holds it: key_env=…"
    else:
        remedy = {
            401: f"Check the key in the environment variable {key_env}.",
            403: f"The key in {key_env} may not use this model.",
            404: "Check the model's name and base_url.",
            429: f"Check plan and billing of the account of {key_env or 'this server'}.",
        }.get(status, "Check base_url.")
    return UnreachableError(f"{name} at {at} answered {reason}", remedy)


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
        if vector.ndim != 1 or not vector.size:
            raise ValueError("lists in a list" if vector.size else "an empty list")
        return vector
    except (TypeError, ValueError, OverflowError) as error:
        raise SpoiltAnswerError(f"The answer contains something that is not a vector: {error}") from None
