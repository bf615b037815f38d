"""Reading documents: text, Markdown, JSONL and CSV files, folders of them, and collections in the BEIR layout.

What comes in is hostile until it was checked. Every document is checked where it is made (`Document`), so that
a document that exists can be stored; what cannot be taken is reported with file and line, and the rest goes on.
Memory holds one document, and 16 bytes of digest for every id, by which a second one is found.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, BinaryIO

from revector.core.errors import UsageError

MAX_ID_CHARACTERS = 4_096
MAX_METADATA_BYTES = 64 * 1024
"""Of a document's metadata as JSON. It is repeated on each of the document's chunks."""
MAX_METADATA_DEPTH = 100
"""Levels of nesting. Postgres parses JSON by recursion and gives up at some depth of its stack."""

_TEXT = frozenset({".txt", ".rst"})
_MARKDOWN = frozenset({".md", ".markdown"})
_JSON_LINES = frozenset({".jsonl", ".ndjson"})
_CSV = frozenset({".csv"})
_KNOWN = _TEXT | _MARKDOWN | _JSON_LINES | _CSV

# Postgres stores neither: text has no NUL, and a lone surrogate (\ud800 in JSON) has no UTF-8.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

_BOM = b"\xef\xbb\xbf"
_SKIP_BYTES = 64 * 1024


class DocumentError(UsageError):
    """A document that cannot be taken; `problem` says why."""


@dataclass(frozen=True)
class Document:
    """A text under the caller's id. Whatever makes one, it can be stored: it is checked and cleaned here.

    NUL characters and lone surrogates are taken out of id, text and metadata, keys and nested values included,
    and `cleaned` then says so. `markdown` says how the text is to be cut. Do not change the metadata afterwards:
    what is stored is `metadata_json`.

    Raises DocumentError for an id that is empty or longer than MAX_ID_CHARACTERS, and for metadata that JSON
    cannot hold (NaN and infinity, which jsonb refuses, foreign types) or that is too large or nested too deep.
    """

    source_id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    markdown: bool = False
    cleaned: bool = field(default=False, init=False, compare=False)
    metadata_json: str = field(default="{}", init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        source_id, text = _without_unstorable(self.source_id), _without_unstorable(self.text)
        if not source_id.strip():
            raise DocumentError("The id is empty.")
        if len(source_id) > MAX_ID_CHARACTERS:
            raise DocumentError(f"The id has {len(source_id):,} characters, more than {MAX_ID_CHARACTERS:,}.")
        metadata, as_json = _checked_metadata(self.metadata)
        cleaned = len(source_id) < len(self.source_id) or len(text) < len(self.text)
        object.__setattr__(self, "cleaned", cleaned or metadata is not self.metadata)
        object.__setattr__(self, "source_id", source_id)
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "metadata", metadata)
        object.__setattr__(self, "metadata_json", as_json)


@dataclass(frozen=True)
class Rejection:
    """Something that was not taken. `where` is `file:line`, or the file when no line of it is to blame."""

    where: str
    problem: str


class DocumentReader(Iterator[Document]):
    """An iterator over documents that also counts: `rejected`, and `left_out`, the files of unknown kinds."""

    def __init__(self, paths: list[Path], max_bytes: int, on_reject: Callable[[Rejection], None]) -> None:
        self.rejected = 0
        self.left_out = 0
        self._max_bytes = max_bytes
        self._on_reject = on_reject
        self._seen: set[bytes] = set()
        self._documents = self._read(paths)

    def __next__(self) -> Document:
        """The next document; what is rejected on the way goes to on_reject."""
        return next(self._documents)

    def _read(self, paths: list[Path]) -> Iterator[Document]:
        for path in paths:
            if path.is_dir():
                yield from self._folder(path)
            else:
                yield from self._file(path, path.name)

    def _folder(self, given: Path) -> Iterator[Document]:
        """Everything in a folder and those below it, with a stack: a hostile tree is deeper than Python's own."""
        read: set[tuple[int, int]] = set()
        waiting = [(given, "")]
        while waiting:
            path, source_id = waiting.pop()
            try:
                status = path.stat()
                if stat.S_ISDIR(status.st_mode):
                    folder = (status.st_dev, status.st_ino)
                    # A link is followed once: neither round a loop, nor in each way that links can be combined.
                    if not (folder in read and path.is_symlink()):
                        read.add(folder)
                        waiting += _entries(path, source_id)
                    continue
            except OSError as error:
                # A link to nothing too: the documents it stood for are missing, and a prune has to know.
                self._reject(path, None, _unreadable(error))
                continue
            if stat.S_ISREG(status.st_mode) and path.suffix.lower() in _KNOWN:
                yield from self._file(path, source_id)
            else:
                self.left_out += 1

    def _file(self, path: Path, source_id: str) -> Iterator[Document]:
        suffix = path.suffix.lower()
        try:
            with _open(path) as file:
                if suffix in _JSON_LINES:
                    yield from self._json_lines(path, file)
                elif suffix in _CSV:
                    yield from self._csv(path, file)
                else:
                    yield from self._text(path, file, source_id)
        except _UnreadableError as error:
            self._reject(path, None, str(error))

    def _text(self, path: Path, file: BinaryIO, source_id: str) -> Iterator[Document]:
        data = _read(file, self._max_bytes + len(_BOM) + 1).removeprefix(_BOM)
        if len(data) > self._max_bytes:
            self._reject(path, None, _too_large(self._max_bytes))
            return
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            self._reject(path, data.count(b"\n", 0, error.start) + 1, _not_utf8(error))
            return
        markdown = path.suffix.lower() in _MARKDOWN
        yield from self._checked(path, None, Document, source_id, text, {}, markdown)

    def _json_lines(self, path: Path, file: BinaryIO) -> Iterator[Document]:
        for number, line in _lines(file, self._max_bytes):
            if line is None:
                self._reject(path, number, _too_large(self._max_bytes))
            elif line.strip():
                yield from self._checked(path, number, _from_json, line)

    def _csv(self, path: Path, file: BinaryIO) -> Iterator[Document]:
        # A limit of the whole process, 128 KiB at first. Records are cut off at max_bytes before they get there.
        csv.field_size_limit(max(csv.field_size_limit(), self._max_bytes))
        records = _csv_records(file, self._max_bytes)
        try:
            columns = _csv_header(next(records, (1, b""))[1])
        except DocumentError as error:
            self._reject(path, 1, error.problem)
            return
        for number, record in records:
            if record is None:
                self._reject(path, number, _too_large(self._max_bytes))
            elif record.strip():
                yield from self._checked(path, number, _from_csv, columns, record)

    def _checked(
        self, path: Path, line: int | None, make: Callable[..., Document], *parts: object
    ) -> Iterator[Document]:
        """The document made of these parts, unless it cannot be made or its id was there before."""
        try:
            document = make(*parts)
        except DocumentError as error:
            self._reject(path, line, error.problem)
            return
        digest = hashlib.blake2b(document.source_id.encode(), digest_size=16).digest()
        if digest in self._seen:
            self._reject(path, line, f"The id {_shown(document.source_id)} was there before in this run.")
            return
        self._seen.add(digest)
        yield document

    def _reject(self, path: Path, line: int | None, problem: str) -> None:
        self.rejected += 1
        # A file's name need not be UTF-8; the message has to be.
        name = os.fsencode(path).decode(errors="replace")
        self._on_reject(Rejection(name if line is None else f"{name}:{line}", problem))


def read_documents(
    paths: Iterable[Path | str], *, max_bytes: int, on_reject: Callable[[Rejection], None]
) -> DocumentReader:
    """The documents in files and folders, one at a time, in a fixed order.

    - Text (`.txt`, `.rst`, and whatever else is named itself) and Markdown (`.md`, `.markdown`) files are one
      document each. Its id is the path below the given folder, with forward slashes, or the name of a file
      that is named itself; of files with the same one, the first is taken and the others are duplicates.
    - JSONL (`.jsonl`, `.ndjson`): an object a line, with `id` (or BEIR's `_id`) and `text`. A `title` goes before
      the text on a line of its own, and into the metadata, as do all other members. The members of an object
      `metadata` are merged with them; where names are the same, the outer one counts.
    - CSV (`.csv`, commas, quotes doubled, first line the header): columns `id` (or `_id`) and `text`; the other
      ones are metadata, as strings.
    - Folders are read recursively, sorted by name, without hidden files and folders and without files of other
      kinds, which `left_out` counts. Links are followed, but not round a loop. Beside a `corpus.jsonl` (the
      BEIR layout), `queries.jsonl` and `qrels` are no documents.

    Rejected, through on_reject, and the rest goes on: what cannot be parsed, is not UTF-8, is larger than
    max_bytes, has no id or no text, or an id that was there before in this run; and what a `Document` refuses.
    A byte order mark is dropped.

    Raises UsageError, before anything is read, for a path that does not exist or is neither file nor folder.
    """
    found = [Path(path) for path in paths]
    for path in found:
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            raise UsageError(f"There is no file or folder {str(path)!r}.", "Nothing was read.") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise UsageError(f"{str(path)!r} cannot be read: {error}.", "Nothing was read.") from None
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UsageError(f"{str(path)!r} is neither a file nor a folder.", "Nothing was read.")
    return DocumentReader(found, max_bytes, on_reject)


# What a document is made of ------------------------------------------------------------------------------


def _without_unstorable(text: str) -> str:
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub("", text)


def _checked_metadata(metadata: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The metadata, the same object when it was clean, and its JSON."""
    if _deeper_than(metadata, MAX_METADATA_DEPTH):
        raise DocumentError(f"The metadata is nested deeper than {MAX_METADATA_DEPTH} levels.")
    as_json = _to_json(metadata)
    # json writes NUL as \u0000, and a surrogate as itself. An escaped backslash before u0000 costs only time.
    if "\\u0000" in as_json or _UNSTORABLE.search(as_json):
        clean = _clean_json(metadata)
        if (clean_json := _to_json(clean)) != as_json:
            metadata, as_json = clean, clean_json
    if (size := len(as_json.encode())) > MAX_METADATA_BYTES:
        raise DocumentError(f"The metadata has {size:,} bytes as JSON, more than {MAX_METADATA_BYTES:,}.")
    return metadata, as_json


def _to_json(metadata: dict[str, Any]) -> str:
    try:
        return json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DocumentError(f"The metadata is no JSON: {error}.") from None


def _deeper_than(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_deeper_than(inner, levels - 1) for inner in value.values())
    if isinstance(value, list | tuple):
        return levels == 0 or any(_deeper_than(inner, levels - 1) for inner in value)
    return False


def _clean_json(value: Any) -> Any:
    if isinstance(value, str):
        return _without_unstorable(value)
    if isinstance(value, dict):
        return {_clean_json(key): _clean_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean_json(inner) for inner in value]
    return value


def _from_json(line: bytes) -> Document:
    try:
        row = json.loads(_decoded(line))
    except json.JSONDecodeError as error:
        raise DocumentError(f"This is no JSON: {error.msg} at character {error.pos + 1}.") from None
    except RecursionError:
        raise DocumentError("This JSON is nested too deep.") from None
    except ValueError as error:  # a number of more digits than Python converts
        raise DocumentError(f"This is no JSON: {error}.") from None
    if not isinstance(row, dict):
        raise DocumentError(f"Expected an object with id and text, not {_kind(row)}.")
    source_id, text = _take_id(row), _take_text(row)
    title = row.get("title")
    if title is not None and not isinstance(title, str):
        raise DocumentError(f"The title is {_kind(title)}, not a string.")
    if title is None or not title.strip():
        row.pop("title", None)
    else:
        text = f"{title}\n{text}"
    inner = row.pop("metadata", None)
    if isinstance(inner, dict):
        row = {**inner, **row}
    elif inner is not None:
        row["metadata"] = inner
    return Document(source_id, text, row)


def _csv_header(record: bytes | None) -> list[str]:
    if record is None:
        raise DocumentError("The header is larger than a document may be; the file was not read.")
    columns = [name.strip() for name in _csv_row(record)]
    named = [name for name in columns if name]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise DocumentError(f"The header has the column {_shown(twice[0])} twice; the file was not read.")
    for name in ("id", "text"):
        if name not in columns and not (name == "id" and "_id" in columns):
            raise DocumentError(
                f"The header has no column {name!r}, only {_shown(', '.join(named))}; the file was not read."
            )
    return columns


def _from_csv(columns: list[str], record: bytes) -> Document:
    values = _csv_row(record)
    if len(values) != len(columns):
        raise DocumentError(f"The record has {len(values)} fields, the header {len(columns)}.")
    # A column without a name is what data frames write their row numbers to.
    row = {name: value for name, value in zip(columns, values, strict=True) if name}
    return Document(_take_id(row), _take_text(row), row)


def _csv_row(record: bytes) -> list[str]:
    try:
        return next(csv.reader([_decoded(record)], strict=True), [])
    except csv.Error as error:
        raise DocumentError(f"This is no CSV: {error}.") from None


def _take_id(row: dict[str, Any]) -> str:
    name = "id" if "id" in row else "_id"
    if name not in row:
        raise DocumentError("There is no id.")
    value = row.pop(name)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DocumentError(f"The id is {_kind(value)}, not a string or a whole number.")
    return str(value)


def _take_text(row: dict[str, Any]) -> str:
    if "text" not in row:
        raise DocumentError("There is no text.")
    value = row.pop("text")
    if not isinstance(value, str):
        raise DocumentError(f"The text is {_kind(value)}, not a string.")
    return value


def _kind(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "no finite number"
    kinds = {
        type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "a string",
        list: "a list", dict: "an object",
    }  # fmt: skip
    return kinds[type(value)]


# Bytes -----------------------------------------------------------------------------------------------------


def _entries(folder: Path, source_id: str) -> list[tuple[Path, str]]:
    """What is in a folder, last name first, with the ids of files in it."""
    names = sorted(os.listdir(folder), reverse=True)  # noqa: PTH208 (names are all that is needed)
    left_out = {"queries.jsonl", "qrels"} if "corpus.jsonl" in names else set()
    inside = f"{source_id}/" if source_id else ""
    return [
        (folder / name, f"{inside}{name}") for name in names if not name.startswith(".") and name not in left_out
    ]


class _UnreadableError(Exception):
    """A file that the system does not let us read. An OSError of on_reject or of the caller is not one."""


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise _UnreadableError(_unreadable(error)) from None


def _read(file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise _UnreadableError(_unreadable(error)) from None


def _read_line(file: BinaryIO, size: int) -> bytes:
    try:
        return file.readline(size)
    except OSError as error:
        raise _UnreadableError(_unreadable(error)) from None


def _lines(file: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Line numbers and lines without their ends; None for one that is too large, which is not kept in memory."""
    number = 0
    while line := _read_line(file, max_bytes + len(_BOM) + len(b"\r\n")):
        number += 1
        content = line.removeprefix(_BOM if number == 1 else b"").rstrip(b"\r\n")
        too_large = len(content) > max_bytes
        while line and not line.endswith(b"\n"):
            line = _read_line(file, _SKIP_BYTES)
            too_large = too_large or bool(line.strip(b"\r\n"))
        yield number, None if too_large else content


class _Csv(Enum):
    """Where in a CSV record we are."""

    FIELD_START = auto()
    PLAIN = auto()
    QUOTED = auto()
    AFTER_QUOTE = auto()
    """A quote inside a quoted field: its end, or the first of two that stand for one."""


def _csv_records(file: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """The number of each record's first line, and its bytes; None for one that is too large.

    csv.reader cannot do this: it takes a quoted field to its end into memory, and after a field beyond its
    limit reads the rest of that field as records.
    """
    number, first, record, size = 0, 1, bytearray(), 0
    state, line_starts = _Csv.FIELD_START, True
    while part := _read_line(file, _SKIP_BYTES):
        if number == 0:
            part = part.removeprefix(_BOM)
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
    # A quoted field that is never closed keeps its line ends: csv has to see that it is open.
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


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DocumentError(_not_utf8(error)) from None


# Messages --------------------------------------------------------------------------------------------------


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"This is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start:,} cannot be decoded."


def _too_large(max_bytes: int) -> str:
    return f"This is larger than {max_bytes:,} bytes (max_document_bytes)."


def _unreadable(error: OSError) -> str:
    return f"This cannot be read: {error.strerror or error}."


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")
