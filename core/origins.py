"""Where documents came from, so that one source does not replace another's unseen, or store its files twice.

An id that is made from the name of a file is relative to a folder: `index.md` of another folder is another document.
The newest chunk of a document says where it was read last.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import LiteralString
from uuid import UUID

from revector.core.chunks import document_uuid, split
from revector.core.database import Connection, fetch_as
from revector.core.documents import Document, Origin
from revector.core.text import counted, quote


@dataclass(frozen=True)
class Cut:
    """A document and its chunks of so many characters, which are cut when they are first asked for."""

    document: Document
    document_id: UUID
    characters: int

    @cached_property
    def chunks(self) -> list[str]:
        """The texts, in order."""
        return split(self.document.text, markdown=self.document.markdown, characters=self.characters)


@dataclass(frozen=True)
class _Known:
    id: int
    given: str
    path: str
    prefix: str


@dataclass
class _Noticed:
    """What a batch does to documents of other places."""

    refused: list[tuple[Document, str]] = field(default_factory=list)
    replaced: list[tuple[str, str]] = field(default_factory=list)
    doubled: list[tuple[str, str, str]] = field(default_factory=list)


class Origins:
    """The places that an ingest reads from, compared with those that the collection's documents came from."""

    def __init__(self, *, replace: bool, on_refuse: Callable[[Document, str], None] | None) -> None:
        self._replace = replace
        self._on_refuse = on_refuse
        self._batch = _Noticed()
        self._all = _Noticed()

    def places(self, connection: Connection, batch: list[Cut]) -> dict[Origin, int]:
        """The ids of the places that a batch comes from. Within the lock of ingests."""
        self._batch = _Noticed()
        origins = {cut.document.origin for cut in batch if cut.document.origin}
        known = _known(connection, origins) if origins else []
        if len({place.path for place in known}) > 1:
            self._notice_doubles(connection, batch, known)
        numbers = {(place.given, place.path, place.prefix): place.id for place in known}
        return {origin: numbers[origin.given, origin.path, origin.prefix] for origin in origins}

    def checked(self, connection: Connection, batch: list[Cut]) -> list[Cut]:
        """The staged batch without what would replace another source's, which is not staged any more.

        `settle` reports it, when the batch is stored.
        """
        refused = self._replacements(connection, batch)
        if not refused:
            return batch
        connection.execute(
            "DELETE FROM pg_temp.ingest_chunks WHERE document_id = ANY(%s)",
            [[batch[position].document_id for position in refused]],
        )
        connection.execute("DELETE FROM pg_temp.ingest_documents WHERE position = ANY(%s)", [sorted(refused)])
        return [cut for position, cut in enumerate(batch) if position not in refused]

    def settle(self) -> int:
        """Report what the last batch refused; returns how many documents it replaced."""
        for document, problem in self._batch.refused:
            if self._on_refuse is not None:
                self._on_refuse(document, problem)
        self._all.replaced += self._batch.replaced
        self._all.doubled += self._batch.doubled
        return len(self._batch.replaced)

    def sentences(self) -> Iterator[str]:
        """What a person has to know at the end."""
        if self._all.replaced:
            source_id, place = self._all.replaced[0]
            number = counted(len(self._all.replaced), "document")
            yield f"{number} replaced what was read from another place: {quote(source_id)} came from {place}."
        if self._all.doubled:
            source_id, other, place = self._all.doubled[0]
            yield (
                f"{counted(len(self._all.doubled), 'file')} stored twice: {quote(source_id)} is also "
                f"{quote(other)}, from {place}. One id for each file, whatever folder is named: --root FOLDER"
            )

    def _replacements(self, connection: Connection, batch: list[Cut]) -> set[int]:
        refused = set()
        for position, given, path in connection.execute(_REPLACEMENTS, prepare=False).fetchall():
            document = batch[position].document
            origin = document.origin
            if origin is None:
                continue
            moved = origin.own_ids or origin.given == given
            if self._replace or moved or self._on_refuse is None:
                self._batch.replaced.append((document.source_id, path))
                continue
            refused.add(position)
            problem = (
                f"The id {quote(document.source_id)} is that of a document from {path}, which this one would "
                f"replace. To keep both, give these ids a beginning: --prefix {posixpath.basename(origin.path)}/ "
                "(or --root with a folder that holds both). To replace it: --replace"
            )
            self._batch.refused.append((document, problem))
        return refused

    def _notice_doubles(self, connection: Connection, batch: list[Cut], known: list[_Known]) -> None:
        """Files that are stored under another id, since a folder above or below was ingested too."""
        others: dict[UUID, tuple[str, str, _Known]] = {}
        for cut in batch:
            origin = cut.document.origin
            if origin is None or origin.own_ids:
                continue
            inside = cut.document.source_id.removeprefix(origin.prefix)
            for place in known:
                other = _other_id(posixpath.join(origin.path, inside), place)
                if other is not None and other != cut.document.source_id:
                    others[document_uuid(other)] = cut.document.source_id, other, place
        found = connection.execute(
            "SELECT DISTINCT document_id, origin_id FROM document_chunks WHERE document_id = ANY(%s)",
            [list(others)],
            prepare=False,
        ).fetchall()
        for document_id, number in found:
            source_id, other, place = others[document_id]
            if place.id == number:
                self._batch.doubled.append((source_id, other, place.path))


# The newest chunk says where a document came from. One that does not change replaces nothing.
_REPLACEMENTS: LiteralString = """
    SELECT d.position, was.given, was.path
    FROM pg_temp.ingest_documents d
    CROSS JOIN LATERAL (
        SELECT (array_agg(c.origin_id ORDER BY c.id DESC))[1] AS origin_id, count(*) AS chunks,
               bool_or(c.metadata <> d.metadata) AS other_metadata,
               bool_or(NOT EXISTS (SELECT FROM pg_temp.ingest_chunks s WHERE s.semantic_key = c.semantic_key)) AS goes
        FROM document_chunks c WHERE c.document_id = d.document_id) AS stored
    JOIN ingest_origins was ON was.id = stored.origin_id
    JOIN ingest_origins now ON now.id = d.origin_id
    WHERE was.path <> now.path
      AND (stored.goes OR stored.other_metadata
           OR stored.chunks < (SELECT count(*) FROM pg_temp.ingest_chunks s WHERE s.document_id = d.document_id))
    ORDER BY d.position
    """


def _known(connection: Connection, origins: set[Origin]) -> list[_Known]:
    """All places, with these among them. Within the lock of ingests, so that none is there twice."""
    read: LiteralString = "SELECT id, given, path, prefix FROM ingest_origins ORDER BY id"
    known = fetch_as(connection, _Known, read)
    new = {(o.given, o.path, o.prefix) for o in origins} - {(k.given, k.path, k.prefix) for k in known}
    for given, path, prefix in sorted(new):
        connection.execute(
            "INSERT INTO ingest_origins (given, path, prefix) VALUES (%s, %s, %s)", [given, path, prefix]
        )
    return fetch_as(connection, _Known, read) if new else known


def _other_id(path: str, place: _Known) -> str | None:
    """The id of this file when it is read from that place; None for a file that is not inside."""
    below = place.path.rstrip("/") + "/"
    return f"{place.prefix}{path.removeprefix(below)}" if path.startswith(below) else None
