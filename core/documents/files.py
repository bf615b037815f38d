"""Lines and CSV records of a file as bytes; those larger than a document may be are never held in memory."""

from __future__ import annotations

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
