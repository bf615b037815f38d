"""Reads documents from files and folders."""

from __future__ import annotations

import csv
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from revector.core.documents.document import Document, DocumentError, Origin
from revector.core.documents.files import BOM, UnreadableError, attempt, csv_records, json_lines
from revector.core.documents.records import Naming, csv_header, from_csv, from_json, not_utf8
from revector.core.errors import UsageError
from revector.core.text import quote

_TEXT = frozenset({".txt", ".rst"})
_MARKDOWN = frozenset({".md", ".markdown"})
_JSON_LINES = frozenset({".jsonl", ".ndjson"})
_CSV = frozenset({".csv"})
KINDS = _TEXT | _MARKDOWN | _JSON_LINES | _CSV


@dataclass(frozen=True)
class Rejection:
    """Something that was rejected. `where` is `file:line`, or the file when no line is at fault."""

    where: str
    problem: str


class DocumentReader(Iterator[Document]):
    """An iterator over documents that also counts: `rejected`, and `left_out`, the files of unknown kinds."""

    def __init__(
        self,
        paths: list[tuple[Path, str, Origin]],
        max_bytes: int,
        on_reject: Callable[[Rejection], None],
        naming: Naming,
    ) -> None:
        self.rejected = 0
        self.left_out = 0
        self._naming = naming
        self._max_bytes = max_bytes
        self._on_reject = on_reject
        self._seen: set[bytes] = set()
        self._documents = self._read(paths)

    def __next__(self) -> Document:
        """The next document; anything rejected before it goes to on_reject."""
        return next(self._documents)

    def refuse(self, document: Document, problem: str) -> None:
        """Count a document that was read as rejected after all, and report it."""
        path = Path(document.origin.path if document.origin else "")
        self._reject(path / document.source_id, None, problem)

    def _read(self, paths: list[tuple[Path, str, Origin]]) -> Iterator[Document]:
        for path, source_id, origin in paths:
            self._naming = replace(self._naming, origin=origin)
            if path.is_dir():
                yield from self._folder(path, source_id)
            else:
                yield from self._file(path, source_id)

    def _folder(self, given: Path, source_id: str) -> Iterator[Document]:
        """Everything in a folder and its subfolders, with an explicit stack: a hostile tree is deeper than
        Python's."""
        read: set[tuple[int, int]] = set()
        waiting = [(given, source_id)]
        while waiting:
            path, source_id = waiting.pop()
            try:
                status = path.stat()
                if stat.S_ISDIR(status.st_mode):
                    folder = (status.st_dev, status.st_ino)
                    # A folder is read once: links are followed neither in loops nor along every combination of
                    # links.
                    if not (folder in read and path.is_symlink()):
                        read.add(folder)
                        waiting += _entries(path, source_id)
                    continue
            except OSError as error:
                # Dangling links too: their documents are missing, and a prune must know.
                self._reject(path, None, str(UnreadableError(error)))
                continue
            if stat.S_ISREG(status.st_mode) and path.suffix.lower() in KINDS:
                yield from self._file(path, source_id)
            else:
                self.left_out += 1

    def _file(self, path: Path, source_id: str) -> Iterator[Document]:
        suffix = path.suffix.lower()
        try:
            with attempt(lambda: path.open("rb")) as file:
                if suffix in _JSON_LINES:
                    yield from self._json_lines(path, file)
                elif suffix in _CSV:
                    yield from self._csv(path, file)
                else:
                    yield from self._text(path, file, source_id)
        except UnreadableError as error:
            self._reject(path, None, str(error))

    def _text(self, path: Path, file: BinaryIO, source_id: str) -> Iterator[Document]:
        data = attempt(file.read, self._max_bytes + len(BOM) + 1).removeprefix(BOM)
        if len(data) > self._max_bytes:
            self._reject(path, None, _too_large(self._max_bytes))
            return
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            self._reject(path, data.count(b"\n", 0, error.start) + 1, not_utf8(error))
            return
        markdown = path.suffix.lower() in _MARKDOWN
        naming = self._naming
        yield from self._checked(
            path, None, Document, f"{naming.prefix}{source_id}", text, {}, markdown, naming.origin
        )

    def _json_lines(self, path: Path, file: BinaryIO) -> Iterator[Document]:
        naming = self._own_ids()
        for number, line in json_lines(file, self._max_bytes):
            if line is None:
                self._reject(path, number, _too_large(self._max_bytes))
            elif line.strip():
                yield from self._checked(path, number, from_json, naming, line)

    def _own_ids(self) -> Naming:
        origin = self._naming.origin
        return replace(self._naming, origin=origin and replace(origin, own_ids=True))

    def _csv(self, path: Path, file: BinaryIO) -> Iterator[Document]:
        naming = self._own_ids()
        # The limit is process-wide, 128 KiB by default. Records are cut off at max_bytes before they reach it.
        csv.field_size_limit(max(csv.field_size_limit(), self._max_bytes))
        records = csv_records(file, self._max_bytes)
        try:
            columns = csv_header(naming, next(records, (1, b""))[1])
        except DocumentError as error:
            self._reject(path, 1, error.problem)
            return
        for number, record in records:
            if record is None:
                self._reject(path, number, _too_large(self._max_bytes))
            elif record.strip():
                yield from self._checked(path, number, from_csv, naming, columns, record)

    def _checked(
        self, path: Path, line: int | None, make: Callable[..., Document], *parts: object
    ) -> Iterator[Document]:
        """The document made from these parts, unless it is invalid or its id was seen before."""
        try:
            document = make(*parts)
        except DocumentError as error:
            self._reject(path, line, error.problem)
            return
        digest = hashlib.blake2b(document.source_id.encode(), digest_size=16).digest()
        if digest in self._seen:
            self._reject(path, line, f"The id {quote(document.source_id)} appeared before in this run.")
            return
        self._seen.add(digest)
        yield document

    def _reject(self, path: Path, line: int | None, problem: str) -> None:
        self.rejected += 1
        name = _shown(path)
        self._on_reject(Rejection(name if line is None else f"{name}:{line}", problem))


def read_documents(
    paths: Iterable[Path | str],
    *,
    max_bytes: int,
    on_reject: Callable[[Rejection], None],
    root: Path | None = None,
    naming: Naming | None = None,
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

    Rejected through on_reject, while reading continues: what cannot be parsed, is not UTF-8, is larger than
    max_bytes, has no id, no text or a repeated id; and what a `Document` refuses. A byte order mark is dropped.

    Raises UsageError, before anything is read, for a path that does not exist, is neither file nor folder, or is
    not inside the root.
    """
    naming = naming or Naming()
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
    return DocumentReader([_placed(path, root, naming) for path in found], max_bytes, on_reject, naming)


def _placed(path: Path, root: Path | None, naming: Naming) -> tuple[Path, str, Origin]:
    """A given path, its id below the root, and where that is. Links are not resolved: `current` stays `current`."""
    base = root or (path if path.is_dir() else path.parent)
    inside = os.path.relpath(path.absolute(), base.absolute())
    if Path(inside).parts[:1] == (os.pardir,):
        raise UsageError(f"{str(path)!r} is not inside the root {str(root)!r}.", "Nothing was read.")
    origin = Origin(_shown(os.path.normpath(base)), _shown(os.path.abspath(base)), naming.prefix)  # noqa: PTH100
    return path, "" if inside == os.curdir else inside.replace(os.sep, "/"), origin


def _shown(path: Path | str) -> str:
    """A file's name need not be UTF-8, but what is stored and shown must be."""
    return os.fsencode(path).decode(errors="replace")


def _entries(folder: Path, source_id: str) -> list[tuple[Path, str]]:
    """What is in a folder, last name first, with the ids of files in it."""
    names = sorted(os.listdir(folder), reverse=True)  # noqa: PTH208 (names are all that is needed)
    left_out = {"queries.jsonl", "qrels"} if "corpus.jsonl" in names else set()
    inside = f"{source_id}/" if source_id else ""
    return [
        (folder / name, f"{inside}{name}") for name in names if not name.startswith(".") and name not in left_out
    ]


def _too_large(max_bytes: int) -> str:
    return f"This is larger than {max_bytes:,} bytes (max_document_bytes)."
