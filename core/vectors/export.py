"""Writes the texts that a version still lacks, to be encoded elsewhere, with ids that `load` understands."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, get_args

from psycopg import sql

from revector.core.database import Connection, Progress
from revector.core.encoders.spec import read_spec
from revector.core.errors import RefusedError, UsageError
from revector.core.registry import Version, chunk_count, create_table, embedded_count
from revector.core.retrieval import open_version_encoder
from revector.core.vectors.columns import need_pyarrow
from revector.core.vectors.source import shown

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Format = Literal["openai-batch", "parquet"]

_READ = 5_000
_MOST_REQUESTS, _MOST_BYTES = 50_000, 190_000_000
"""Of one file: OpenAI takes 50,000 requests and 200 MB."""
_MOST_ROWS = 1_000_000
_ENDINGS: dict[str, str] = {"openai-batch": ".jsonl", "parquet": ".parquet"}

# Of chunks with the same text one is written: the backfill copies its vector to the others, which costs nothing.
_LACKING = sql.SQL(
    """
    SELECT c.id, c.semantic_key, c.content,
           EXISTS (SELECT FROM repeated_texts r WHERE r.content_sha256 = c.content_sha256)
           AND EXISTS (SELECT FROM document_chunks o WHERE o.content_sha256 = c.content_sha256 AND o.id < c.id)
    FROM document_chunks c
    WHERE c.id > %s AND NOT EXISTS (SELECT FROM {table} e WHERE e.chunk_id = c.id)
    ORDER BY c.id LIMIT %s
    """
)


@dataclass(frozen=True)
class ExportReport:
    """What was written."""

    version_key: Annotated[str, "the version that lacks these texts"]
    format: Annotated[str, "openai-batch or parquet"]
    texts: Annotated[int, "that were written"]
    repeated: Annotated[int, "chunks with the text of another, which take over its vector"]
    files: Annotated[tuple[str, ...], "the files"]


@dataclass(frozen=True)
class _Text:
    chunk_id: int
    key: str
    text: str


def export(
    connection: Connection,
    version: Version,
    form: str,
    output: Path,
    *,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> ExportReport:
    """Write the texts of the chunks that have no vector in the version, its document prefix before each.

    Into one file, or parts in a folder when `output` is one or has no ending. Raises UsageError for an unknown format
    or a path that cannot be written, RefusedError for files that exist and for more texts than one file may have.
    """
    if form not in get_args(Format):
        raise UsageError(f"There is no format {form!r}.", f"Expected {' or '.join(get_args(Format))}.")
    opened = _batch_writer(version) if form == "openai-batch" else _parquet_writer()
    create_table(connection, version)
    folder = output.is_dir() or not output.suffix
    total = max(0, chunk_count(connection) - embedded_count(connection, version))
    parts = _Parts(output, _ENDINGS[form], folder, overwrite, opened)
    written, repeated = 0, 0
    try:
        with parts:
            for one, same in _lacking(connection, version):
                if same:
                    repeated += 1
                    continue
                parts.add(one)
                written += 1
                if on_progress and not written % _READ:
                    on_progress("writing texts", written + repeated, total)
    except (OSError, ValueError) as error:  # ValueError: a NUL in a name
        raise UsageError(f"The export cannot be written: {error}") from None
    return ExportReport(version.version_key, form, written, repeated, tuple(shown(path) for path in parts.files))


def _lacking(connection: Connection, version: Version) -> Iterator[tuple[_Text, bool]]:
    """The chunks without a vector, and whether an earlier chunk has the same text."""
    prefix = read_spec(version.encoder_spec).document_prefix if version.encoder_spec else ""
    last = -(2**63)
    while True:
        query = _LACKING.format(table=version.table)
        rows = connection.execute(query, [last, _READ], prepare=False).fetchall()
        for chunk_id, key, content, same in rows:
            yield _Text(chunk_id, key, prefix + content), same
        if len(rows) < _READ:
            return
        last = rows[-1][0]


@dataclass(frozen=True)
class _Writer:
    """An open part: how a text is added, which returns False when there is no room for it; and how it is closed."""

    add: Callable[[_Text], bool]
    close: Callable[[], None]


class _Parts:
    """The files of an export. They get their names when all are written; after an error none is left."""

    def __init__(
        self, output: Path, ending: str, folder: bool, overwrite: bool, opened: Callable[[IO[bytes]], _Writer]
    ) -> None:
        self._output, self._ending, self._folder, self._overwrite = output, ending, folder, overwrite
        self._opened = opened
        self._writer: _Writer | None = None
        self._file: IO[bytes] | None = None
        self.files: list[Path] = []

    def __enter__(self) -> None:
        (self._output if self._folder else self._output.parent).mkdir(parents=True, exist_ok=True)
        self._next()

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        try:
            self._close()
            if kind is None:
                for path in self.files:
                    _part_of(path).replace(path)
        finally:
            for path in self.files:
                with contextlib.suppress(OSError):
                    _part_of(path).unlink(missing_ok=True)

    def add(self, one: _Text) -> None:
        if self._writer is not None and self._writer.add(one):
            return
        if not self._folder:
            raise RefusedError(
                f"{shown(self._output)} would be larger than one file may be.",
                "Name a folder, for several files: -o FOLDER",
            )
        self._next()
        if self._writer is not None:
            self._writer.add(one)

    def _next(self) -> None:
        self._close()
        name = f"part-{len(self.files):05}{self._ending}"
        path = self._output / name if self._folder else self._output
        if path.exists() and not self._overwrite:
            raise RefusedError(f"{shown(path)} exists.", "Name another one, or replace it: --overwrite")
        self.files.append(path)
        self._file = _part_of(path).open("wb")
        self._writer = self._opened(self._file)

    def _close(self) -> None:
        if self._writer is not None and self._file is not None:
            with self._file:
                self._writer.close()
        self._writer = None


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _batch_writer(version: Version) -> Callable[[IO[bytes]], _Writer]:
    """Requests of OpenAI's batch endpoint, as the version's encoder would send them."""
    provider = read_spec(version.encoder_spec).provider if version.encoder_spec else "none"
    if provider != "openai":
        raise UsageError(
            f"Version {version.version_key} has the encoder {version.encoder_spec or version.encoder_name}, which has "
            "no OpenAI batch endpoint.",
            "Write Parquet: --format parquet",
        )
    with contextlib.closing(open_version_encoder(version)) as encoder:
        body: dict[str, Any] = encoder.body([""], "document")  # type: ignore[attr-defined]
    head = {"method": "POST", "url": "/v1/embeddings"}

    def opened(file: IO[bytes]) -> _Writer:
        requests, size = 0, 0

        def add(one: _Text) -> bool:
            nonlocal requests, size
            request = head | {"body": body | {"input": one.text, "encoding_format": "float"}}
            line = json.dumps({"custom_id": one.key, **request}, ensure_ascii=False).encode() + b"\n"
            if requests == _MOST_REQUESTS or (requests and size + len(line) > _MOST_BYTES):
                return False
            file.write(line)
            requests, size = requests + 1, size + len(line)
            return True

        return _Writer(add, lambda: None)

    return opened


def _parquet_writer() -> Callable[[IO[bytes]], _Writer]:
    """Columns chunk_id, semantic_key and text; a column `embedding` beside them makes it a file that loads."""
    need_pyarrow("Parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("chunk_id", pa.int64()), ("semantic_key", pa.string()), ("text", pa.string())])

    def opened(file: IO[bytes]) -> _Writer:
        rows, waiting = 0, list[_Text]()
        writer = pq.ParquetWriter(file, schema)

        def add(one: _Text) -> bool:
            nonlocal rows
            if rows == _MOST_ROWS:
                return False
            rows += 1
            waiting.append(one)
            if len(waiting) == _READ:
                _write_rows(writer, schema, waiting)
            return True

        def close() -> None:
            _write_rows(writer, schema, waiting)
            writer.close()

        return _Writer(add, close)

    return opened


def _write_rows(writer: pq.ParquetWriter, schema: pa.Schema, rows: list[_Text]) -> None:
    import pyarrow as pa

    columns = [[one.chunk_id for one in rows], [one.key for one in rows], [one.text for one in rows]]
    writer.write_table(pa.table(columns, schema=schema))
    rows.clear()
