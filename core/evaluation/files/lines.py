"""Lines of text files from outside: bounded, in UTF-8, and numbered for error messages."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from revector.core.documents.opened import open_file
from revector.core.errors import UsageError

MAX_LINE_BYTES = 1024 * 1024
"""No query or judgement needs more: the longest query takes 120,000 bytes in JSON escapes."""

BLANKS = " \t\v\f\r"
"""What separates columns by C's isspace(), as trec_eval reads them. Unicode's other spaces are part of an id."""

QUERY_ID_NAMES = frozenset({"id", "qid", "queryid", "num", "number", "topic", "topicid", "topicnumber", "query"})
"""What the column of a query's id is called in a header, without dashes and underscores."""

_BOM = b"\xef\xbb\xbf"

Lines = Iterator[tuple[int, str]]


def read_lines(path: Path) -> Lines:
    """The non-blank lines with their numbers, without line ends (LF or CRLF) and byte order mark.

    Decompresses gzip and zstd. Raises UsageError, with the line if there is one, for a file that cannot be read, a line
    longer than MAX_LINE_BYTES, and text that is not UTF-8.
    """
    number = 0
    try:
        with open_file(path) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise bad_line(path, number, f"is longer than {MAX_LINE_BYTES:,} bytes.")
                if number == 1:
                    line = line.removeprefix(_BOM)
                text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
                if text.strip(BLANKS):
                    yield number, text
    except UnicodeDecodeError as error:
        shown = f"byte 0x{error.object[error.start]:02x} at {error.start:,} cannot be decoded"
        raise bad_line(path, number, f"is not UTF-8: {shown}.", "Save the file as UTF-8.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UsageError(f"{path} cannot be read: {error}") from None


def look_ahead(lines: Lines) -> tuple[str, Lines]:
    """The first line ('' when there is none), and all lines."""
    for first in lines:
        return first[1], itertools.chain([first], lines)
    return "", lines


def bad_line(path: Path, number: int, problem: str, remedy: str = "") -> UsageError:
    """The error for a line: its place, followed by `problem`."""
    return UsageError(f"{path.name}:{number} {problem}", remedy)


def columns(line: str) -> list[str]:
    """The columns of a line, separated by blanks."""
    return re.split(f"[{BLANKS}]+", line.strip(BLANKS))


def comma_columns(line: str) -> list[str]:
    """The columns of a line of CSV; none of what is no CSV."""
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        return []


def header_names(parts: list[str]) -> list[str]:
    """A header's names in one form: `queryid` of `query-id`, `Query_ID` and `_id` alike."""
    return [re.sub("[-_ ]", "", part.strip().strip('"').lower()) for part in parts]
