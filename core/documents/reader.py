"""Reads documents from files and folders."""

from __future__ import annotations

import csv
import hashlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from revector.core.documents.conversion import Converter
from revector.core.documents.document import Document, DocumentError, Origin
from revector.core.documents.files import (
    BOM,
    CutOffError,
    UnreadableError,
    attempt,
    csv_records,
    json_elements,
    json_lines,
)
from revector.core.documents.front_matter import take_front_matter
from revector.core.documents.kinds import COMPRESSED, CONVERTED, KINDS, SUFFIXES, UNREAD, Kind, suffix_of
from revector.core.documents.opened import decompressed, open_file
from revector.core.documents.records import (
    Naming,
    csv_fields,
    from_fields,
    from_json,
    header,
    not_utf8,
    tsv_fields,
)
from revector.core.errors import UsageError
from revector.core.text import quote

_STDIN = Path("-")


@dataclass(frozen=True)
class Rejection:
    """Something that was rejected. `where` is `file:line`, or the file when no line is at fault."""

    where: str
    problem: str


class DocumentReader(Iterator[Document]):
    """An iterator over documents that also counts: `rejected`, and `left_out`, the files of kinds that are not read.

    `left_out_kinds` counts these by the ends of their names; '' when there is none.
    """

    def __init__(
        self,
        paths: list[tuple[Path, str, Origin]],
        max_bytes: int,
        on_reject: Callable[[Rejection], None],
        naming: Naming,
        suffix: str | None = None,
    ) -> None:
        self.rejected = 0
        self.left_out_kinds: Counter[str] = Counter()
        self._naming = naming
        self._suffix = suffix
        self._max_bytes = max_bytes
        self._on_reject = on_reject
        self._converter = Converter(max_bytes)
        self._seen: set[bytes] = set()
        self._documents = self._read(paths)

    @property
    def left_out(self) -> int:
        """How many files of kinds that are not read."""
        return self.left_out_kinds.total()

    def __next__(self) -> Document:
        """The next document; anything rejected before it goes to on_reject."""
        return next(self._documents)

    def refuse(self, document: Document, problem: str) -> None:
        """Count a document that was read as rejected after all, and report it."""
        path = Path(document.origin.path if document.origin else "")
        self._reject(path / document.source_id, None, problem)

    def _read(self, paths: list[tuple[Path, str, Origin]]) -> Iterator[Document]:
        try:
            for path, source_id, origin in paths:
                self._naming = replace(self._naming, origin=origin)
                if path != _STDIN and path.is_dir():
                    yield from self._folder(path, source_id)
                else:
                    yield from self._file(path, source_id, self._suffix or suffix_of(path.name))
        finally:
            self._converter.close()

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
            suffix = suffix_of(path.name)
            if stat.S_ISREG(status.st_mode) and suffix in KINDS and _has_documents(path, suffix):
                yield from self._file(path, source_id, suffix)
            else:
                self.left_out_kinds[_shown(suffix)] += 1

    def _file(self, path: Path, source_id: str, suffix: str) -> Iterator[Document]:
        kind = SUFFIXES.get(suffix, "text")
        if suffix in UNREAD:
            self._reject(path, None, f"A {suffix} file is not read. Save it as .docx, .pptx, .html or text.")
            return
        try:
            with attempt(lambda: decompressed(sys.stdin.buffer) if path == _STDIN else open_file(path)) as file:
                if kind == "json_lines":
                    yield from self._json(path, json_lines(file, self._max_bytes))
                elif kind == "json":
                    yield from self._json(path, json_elements(file, self._max_bytes))
                elif kind == "csv":
                    # The limit is process-wide, 128 KiB by default. Records are cut off at max_bytes before they
                    # reach it.
                    csv.field_size_limit(max(csv.field_size_limit(), self._max_bytes))
                    yield from self._table(path, csv_records(file, self._max_bytes), csv_fields)
                elif kind == "tsv":
                    yield from self._table(path, json_lines(file, self._max_bytes), tsv_fields)
                else:
                    yield from self._whole(path, file, source_id, kind, suffix)
        except UnreadableError as error:
            self._reject(path, None, str(error))
        except CutOffError:
            self._reject(path, None, "This is not JSON: a bracket or a quote is left open. Is the file cut off?")

    def _whole(self, path: Path, file: BinaryIO, source_id: str, kind: Kind, suffix: str) -> Iterator[Document]:
        data = attempt(file.read, self._max_bytes + len(BOM) + 1)
        if kind not in CONVERTED:
            data = data.removeprefix(BOM)
        if len(data) > self._max_bytes:
            self._reject(path, None, _too_large(self._max_bytes))
            return
        if kind in CONVERTED:
            yield from self._checked(path, None, self._converted, source_id, kind, suffix, data)
            return
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            self._reject(path, data.count(b"\n", 0, error.start) + 1, not_utf8(error))
            return
        yield from self._checked(path, None, self._plain, source_id, text, kind == "markdown")

    def _plain(self, source_id: str, text: str, markdown: bool) -> Document:
        metadata, text = take_front_matter(text) if markdown else ({}, text)
        return Document(f"{self._naming.prefix}{source_id}", text, metadata, markdown, self._naming.origin)

    def _converted(self, source_id: str, kind: Kind, suffix: str, data: bytes) -> Document:
        found = self._converter.convert(kind, suffix, data)
        source_id = f"{self._naming.prefix}{source_id}"
        return Document(source_id, found.text, found.metadata, found.markdown, self._naming.origin)

    def _json(self, path: Path, rows: Iterator[tuple[int, bytes | None]]) -> Iterator[Document]:
        naming = self._own_ids()
        for number, row in rows:
            if row is None:
                self._reject(path, number, _too_large(self._max_bytes))
            elif row.strip():
                yield from self._checked(path, number, from_json, naming, row)

    def _table(
        self, path: Path, records: Iterator[tuple[int, bytes | None]], fields: Callable[[bytes], list[str]]
    ) -> Iterator[Document]:
        naming = self._own_ids()
        first = next(records, (1, b""))[1]
        try:
            if first is None:
                raise DocumentError("The header is larger than a document may be. The file was skipped.")
            columns = header(naming, fields(first))
        except DocumentError as error:
            self._reject(path, 1, error.problem)
            return
        for number, record in records:
            if record is None:
                self._reject(path, number, _too_large(self._max_bytes))
            elif record.strip():
                yield from self._checked(
                    path, number, lambda given: from_fields(naming, columns, fields(given)), record
                )

    def _own_ids(self) -> Naming:
        origin = self._naming.origin
        return replace(self._naming, origin=origin and replace(origin, own_ids=True))

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
        name = "stdin" if path == _STDIN else _shown(path)
        self._on_reject(Rejection(name if line is None else f"{name}:{line}", problem))


def read_documents(
    paths: Iterable[Path | str],
    *,
    max_bytes: int,
    on_reject: Callable[[Rejection], None],
    root: Path | None = None,
    naming: Naming | None = None,
    suffix: str | None = None,
) -> DocumentReader:
    """The documents in files and folders, one at a time, in a fixed order.

    - Text (`.txt`, and whatever else is named itself) and Markdown (`.md`, `.markdown`) files are one document each,
      and so are those that are converted (`kinds.CONVERTED`, with the extra `documents`), as `.rst`, `.html`, `.pdf`.
      Its id is the path below the given folder, with forward slashes, or the name of a file that is named itself;
      with `root`, the path below that folder. Of files with the same one, the first is taken and the others are
      duplicates. The front matter of Markdown is metadata.
    - JSONL (`.jsonl`, `.ndjson`): an object a line, with `id` (or BEIR's `_id`) and `text`. A `title` goes before
      the text on a line of its own, and into the metadata, as do all other members. The members of an object
      `metadata` are merged with them; where names are the same, the outer one counts.
    - JSON (`.json`): an array of such objects. In a folder, other JSON is left out.
    - CSV (`.csv`, commas, quotes doubled, first line the header) and TSV (`.tsv`, tabs): columns `id` (or `_id`) and
      `text`; the other ones are metadata, as strings.
    - Folders are read recursively, sorted by name, without hidden files and folders and without files of other
      kinds, which `left_out` counts. Links are followed, but not round a loop. Beside a `corpus.jsonl` (the
      BEIR layout), `queries.jsonl` and `qrels` are no documents.
    - `-` is stdin, and `suffix` says what is in it, and in files that are named themselves.
    - All of them may be compressed, with `.gz` or `.zst` after the name.

    `naming` says where ids and texts of records are, and what goes before every id.

    Rejected through on_reject, while reading continues: what cannot be parsed, is not UTF-8, is larger than
    max_bytes, has no id, no text or a repeated id; and what a `Document` refuses. A byte order mark is dropped.

    Raises UsageError, before anything is read, for a path that does not exist, is neither file nor folder, or is
    not inside the root.
    """
    naming = naming or Naming()
    found = [Path(path) for path in paths]
    for path in found:
        if path == _STDIN:
            if suffix is None:
                raise UsageError("What is on stdin?", "Say it: --format jsonl, csv, tsv, json, txt, md …")
            continue
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            raise UsageError(f"There is no file or folder {str(path)!r}.", "Nothing was read.") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise UsageError(f"{str(path)!r} cannot be read: {error}.", "Nothing was read.") from None
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UsageError(f"{str(path)!r} is neither a file nor a folder.", "Nothing was read.")
    placed = [_placed(path, root, naming) for path in found]
    return DocumentReader(placed, max_bytes, on_reject, naming, suffix)


def _placed(path: Path, root: Path | None, naming: Naming) -> tuple[Path, str, Origin]:
    """A given path, its id below the root, and where that is. Links are not resolved: `current` stays `current`."""
    if path == _STDIN:
        return path, "stdin", Origin("-", "-", naming.prefix)
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
    ends = ("", *COMPRESSED)
    beir = any(f"corpus.jsonl{end}" in names for end in ends)
    left_out = {"qrels", *(f"queries.jsonl{end}" for end in ends)} if beir else set()
    inside = f"{source_id}/" if source_id else ""
    return [
        (folder / name, f"{inside}{name}") for name in names if not name.startswith(".") and name not in left_out
    ]


def _has_documents(path: Path, suffix: str) -> bool:
    """False for JSON that is no array: the settings of some program, in most folders."""
    if suffix != ".json":
        return True
    try:
        with open_file(path) as file:
            return file.read(4_096).removeprefix(BOM).lstrip().startswith(b"[")
    except OSError:
        return True  # and its documents are missing, which is said when it is read


def _too_large(max_bytes: int) -> str:
    return f"This is larger than {max_bytes:,} bytes (max_document_bytes)."
