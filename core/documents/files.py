"""Lines, CSV records and elements of JSON as bytes; those larger than a document may be are never held in memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import BinaryIO, TypeVar

T = TypeVar("T")

BOM = b"\xef\xbb\xbf"
_SKIP_BYTES = 64 * 1024


class UnreadableError(Exception):
    """A file that the operating system cannot read; kept apart from an OSError of on_reject or of the caller."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"This cannot be read: {error.strerror or error}.")


def attempt(call: Callable[..., T], *given: object) -> T:
    """The result of the call. Raises UnreadableError for an error of the operating system."""
    try:
        return call(*given)
    except OSError as error:
        raise UnreadableError(error) from None


def json_lines(file: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Line numbers and lines without line ends; None for a line that is too large to be held in memory."""
    number = 0
    while line := attempt(file.readline, max_bytes + len(BOM) + len(b"\r\n")):
        number += 1
        content = line.removeprefix(BOM if number == 1 else b"").rstrip(b"\r\n")
        too_large = len(content) > max_bytes
        while line and not line.endswith(b"\n"):
            line = attempt(file.readline, _SKIP_BYTES)
            too_large = too_large or bool(line.strip(b"\r\n"))
        yield number, None if too_large else content


_OUTSIDE = re.compile(rb'["{}\[\],\n]')
_INSIDE = re.compile(rb'\\.|["\n]', re.DOTALL)


class CutOffError(Exception):
    """JSON that ends before it is complete."""


def json_elements(file: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """The elements of a JSON array, or the objects of a file without one; None for an element that is too large.

    Each with the number of its first line. They are cut out by their brackets and quotes, and not checked. Raises
    CutOffError, after the last one, when something is left open.
    """
    line, first, depth, base = 1, 1, 0, -1
    element, size, quoted = bytearray(), 0, False
    block = attempt(file.read, _SKIP_BYTES).removeprefix(BOM)
    while block:
        while block.endswith(b"\\") and (more := attempt(file.read, 1)):
            block += more
        start = 0
        at = 0
        while token := (_INSIDE if quoted else _OUTSIDE).search(block, at):
            at, mark = token.end(), token[0]
            whole = False
            if mark == b"\n":
                line += 1
                if not (quoted or size or block[start:at].strip()):
                    start, first = at, line
            elif mark == b'"':
                quoted = not quoted
            elif mark in b"[{" and not quoted:
                if base < 0:
                    base = int(mark == b"[")
                    start = at if base else start
                depth += 1
            elif mark in b"]}" and not quoted:
                depth -= 1
                whole = depth == 0
            elif mark == b"," and not quoted:
                whole = depth == max(base, 0)
            if not whole:
                continue
            part = block[start : at if mark == b"}" and base == 0 else at - 1]
            element, size = _grown(element, size, part, max_bytes)
            if size > max_bytes or element.strip():
                yield first, None if size > max_bytes else bytes(element)
            element, size, start, first = bytearray(), 0, at, line
            base = -1 if depth == 0 else base
        element, size = _grown(element, size, block[start:], max_bytes)
        block = attempt(file.read, _SKIP_BYTES)
    if depth or quoted:
        raise CutOffError
    if size > max_bytes or element.strip():
        yield first, None if size > max_bytes else bytes(element)


def _grown(element: bytearray, size: int, part: bytes, max_bytes: int) -> tuple[bytearray, int]:
    """An element with some more bytes, without blanks before it; emptied when it is too large."""
    part = part if size else part.lstrip()
    size += len(part)
    if size > max_bytes:
        return bytearray(), size
    element += part
    return element, size


class _Csv(Enum):
    """The position within a CSV record."""

    FIELD_START = auto()
    PLAIN = auto()
    QUOTED = auto()
    AFTER_QUOTE = auto()
    """A quote inside a quoted field: its end, or the first of two that stand for one."""


def csv_records(file: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """The number of each record's first line, and its bytes; None for one that is too large.

    csv.reader cannot do this: it reads a quoted field into memory to its end, and after a field beyond its limit
    it reads the rest of that field as records.
    """
    number, first, record, size = 0, 1, bytearray(), 0
    state, line_starts = _Csv.FIELD_START, True
    while part := attempt(file.readline, _SKIP_BYTES):
        if number == 0:
            part = part.removeprefix(BOM)
        number += line_starts
        if size == 0:
            first = number
        line_starts = part.endswith(b"\n")
        state = _csv_state(state, part)
        size += len(part)
        if size <= max_bytes + len(b"\r\n"):
            record += part
        else:
            record.clear()
        if line_starts and state is not _Csv.QUOTED:
            yield first, _whole(record, size, max_bytes)
            record, size, state = bytearray(), 0, _Csv.FIELD_START
    if size:
        yield first, _whole(record, size, max_bytes)


def _whole(record: bytearray, size: int, max_bytes: int) -> bytes | None:
    if size > len(record):
        return None
    content = bytes(record).rstrip(b"\r\n")
    # An unclosed quoted field keeps its line ends, so that csv sees that it is open.
    return None if len(content) > max_bytes else content


def _csv_state(state: _Csv, part: bytes) -> _Csv:
    """The state after some more bytes, by the rules of the csv module: a quote opens a field at its start only."""
    at = 0
    while at < len(part):
        if state is _Csv.FIELD_START:
            if part[at] == ord('"'):
                state, at = _Csv.QUOTED, at + 1
            else:
                state = _Csv.PLAIN
        elif state is _Csv.PLAIN:
            at = part.find(b',"', at) + 1
            if at == 0:
                return _Csv.FIELD_START if part.endswith(b",") else _Csv.PLAIN
            state = _Csv.FIELD_START
        elif state is _Csv.QUOTED:
            at = part.find(b'"', at) + 1
            if at == 0:
                return _Csv.QUOTED
            state = _Csv.AFTER_QUOTE
        elif part[at] == ord('"'):
            state, at = _Csv.QUOTED, at + 1
        else:
            state = _Csv.PLAIN
    return state
