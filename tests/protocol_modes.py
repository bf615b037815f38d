"""The quirks of real servers, a table: `ProtocolServer(mode=MODES["gemini"])` answers as that server does.

Each was seen in the server's source or issues; docs/encoders.md says which server has which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.protocol_server import Failure, Request, asks_base64

Answer = dict[str, Any]

POISON = "poison"
"""A text with this word is one that the server cannot embed."""


@dataclass(frozen=True)
class Mode:
    """How a server differs: what it refuses, and how it writes what it answers to others, and to base64."""

    refuses: Callable[[Request], Failure | None] = lambda request: None
    writes: Callable[[Answer], object] = lambda answer: answer
    writes_base64: Callable[[Answer], object] | None = None


def _numbered(number: Callable[[int], object]) -> Callable[[Answer], Answer]:
    def write(answer: Answer) -> Answer:
        return answer | {"data": [row | {"index": number(row["index"])} for row in answer["data"]]}

    return write


def _first_index_left_out(answer: Answer) -> Answer:
    first, *rest = answer["data"]
    return answer | {"data": [{name: first[name] for name in first if name != "index"}, *rest]}


def _no_index(answer: Answer) -> Answer:
    return answer | {"data": [{"embedding": row["embedding"]} for row in answer["data"]]}


def _shuffled(write: Callable[[Answer], Answer]) -> Mode:
    return Mode(writes=lambda answer: answer | {"data": write(answer)["data"][::-1]})


def _poison(status: int, message: str) -> Mode:
    def refuse(request: Request) -> Failure | None:
        return Failure(status, message) if any(POISON in text for text in request.inputs) else None

    return Mode(refuses=refuse)


def _no_base64(status: int, message: str) -> Mode:
    return Mode(refuses=lambda request: Failure(status, message) if asks_base64(request) else None)


def _with_embedding(embedding: object) -> Callable[[Answer], Answer]:
    return lambda answer: answer | {"data": [row | {"embedding": embedding} for row in answer["data"]]}


MODES: Mapping[str, Mode] = {
    "plain": Mode(),
    # One text that always gets an error, alone or among others.
    "llama.cpp, too long": _poison(500, "input is too large to process. increase the physical batch size"),
    "ollama, NaN": _poison(500, "failed to encode response: json: unsupported value: NaN"),
    "a text refused": _poison(400, "input is too long"),
    # The place of a vector in the answer.
    "gemini": Mode(writes=_first_index_left_out),
    "no index": Mode(writes=_no_index),
    "index null": Mode(writes=_numbered(lambda _: None)),
    "index as text": Mode(writes=_numbered(str)),
    "index from 1": Mode(writes=_numbered(lambda index: index + 1)),
    "index all 0": Mode(writes=_numbered(lambda _: 0)),
    "index from 1, shuffled": _shuffled(_numbered(lambda index: index + 1)),
    "gemini, shuffled": _shuffled(_first_index_left_out),
    "index again from 0": Mode(writes=_numbered(lambda index: index % 2)),
    # Vectors as base64, which is what is asked for first.
    "base64: 400": _no_base64(400, "encoding_format must be float"),
    "base64: 422": _no_base64(422, "Input should be 'float'"),
    "base64: no data": Mode(writes_base64=lambda answer: {"object": "list", "model": answer["model"], "data": []}),
    "base64: data null": Mode(writes_base64=lambda answer: answer | {"data": None}),
    "base64: embedding null": Mode(writes_base64=_with_embedding(None)),
    "base64: embedding empty": Mode(writes_base64=_with_embedding([])),
    "base64: lists": Mode(writes_base64=lambda answer: answer),
    # An error whose status is 200.
    "200: error": Mode(writes=lambda _: {"error": {"message": "No models for sk-hush-4711", "type": "not_found"}}),
    "200: error as text": Mode(writes=lambda _: {"error": "No models for sk-hush-4711"}),
    "200: detail": Mode(writes=lambda _: {"detail": "No models for sk-hush-4711"}),
    "200: error in a list": Mode(writes=lambda _: {"errors": [{"message": "No models for sk-hush-4711"}]}),
    "200: error beside data": Mode(
        writes=lambda _: {"error": {"message": "No models for sk-hush-4711"}, "data": []}
    ),
}
