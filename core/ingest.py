"""Ingests documents as chunks: inserts new ones, deletes those that are gone, and leaves unchanged ones alone.

A batch of whole documents is one transaction, so an interrupted ingest leaves only whole documents. Run again, it
continues, since it finds its own chunks by their semantic keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, LiteralString
from uuid import UUID

from psycopg import errors as pg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from revector.core import audit
from revector.core.chunks import content_sha256, document_uuid, semantic_key
from revector.core.database import Connection, Progress, fetch_column, fetch_one
from revector.core.documents import Document, DocumentReader, Origin, Rejection
from revector.core.errors import RefusedError
from revector.core.locks import name_holders
from revector.core.origins import Cut, Origins
from revector.core.registry import fold_counts
from revector.core.sessions import require_own_session

_BATCH_DOCUMENTS = 500
_BATCH_CHARACTERS = 8 * 1024 * 1024
_ATTEMPTS = 5

_Waits = Callable[[str], None] | None


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did."""

    documents: Annotated[int, "that were read"] = 0
    chunks: Annotated[int, "of these documents: inserted and unchanged ones"] = 0
    inserted: Annotated[int, "chunks that are new"] = 0
    unchanged: Annotated[int, "chunks that were there"] = 0
    deleted: Annotated[int, "chunks of edited or pruned documents"] = 0
    rejected: Annotated[int, "documents that were not stored"] = 0
    cleaned: Annotated[int, "documents from which NUL characters or lone surrogates were taken"] = 0
    carried: Annotated[int, "vectors that chunks took over from others of the same text, in all versions"] = 0
    empty: Annotated[int, "documents without any text, which have no chunk"] = 0
    left_out: Annotated[int, "files in folders that are of no kind we read"] = 0
    left_out_kinds: Annotated[dict[str, int], "how many of them, by the ends of their names"] = field(
        default_factory=dict
    )
    replaced: Annotated[int, "documents whose id was that of one from another place"] = 0


def ingest(
    connection: Connection,
    documents: Iterable[Document],
    *,
    chunk_characters: int,
    prune: bool = False,
    replace: bool = False,
    on_progress: Progress | None = None,
    rejections: Collection[Rejection] = (),
    on_wait: Callable[[str], None] | None = None,
) -> IngestReport:
    """Make the collection hold these documents. Running it again with the same documents changes nothing.

    An edited document loses exactly the chunks that it no longer has; changed metadata is updated in place. A new
    chunk with the text of an embedded one copies that vector, in every live version, and is not queued. An edit
    that `normalise` removes (such as extra blanks) leaves the chunk unchanged. A different `chunk_characters`
    counts as an edit. Of two documents with the same id the later one wins.

    `prune` deletes, at the end and in one transaction, all documents that were not in this run, except those that
    another ingest wrote meanwhile. Raises RefusedError, and prunes nothing, when no document was read or something
    was rejected (as reported by `rejections`, or by a DocumentReader as `documents`). Documents that were read are
    stored anyway.

    A document whose id comes from the name of its file does not replace one from another folder (`core.origins`): it
    is rejected, unless `replace` says so or the folder was named in the same way, as in another checkout.

    Several ingests may run at once: their batches take turns, and a document in both ends up as in the later
    batch. `connection` is used in autocommit; inside a caller's transaction everything is one transaction. Calls
    on_progress("documents", done, 0) after each batch, and `on_wait` with a sentence when it waits for another, or
    when documents replaced others or are stored twice.
    """
    require_own_session(connection, "ingest")
    done: Counter[str] = Counter()
    origins = Origins(
        replace=replace, on_refuse=documents.refuse if isinstance(documents, DocumentReader) else None
    )
    with _staging(connection):
        last_chunk = _last_chunk(connection, on_wait) if prune else 0
        for batch in _batches(documents, chunk_characters):
            done.update(_store(connection, batch, origins, on_wait, remember=prune))
            done["replaced"] += origins.settle()
            if on_progress is not None:
                on_progress("documents", done["documents"], 0)
        if isinstance(documents, DocumentReader):
            done["rejected"], done["left_out"] = documents.rejected, documents.left_out
        if on_wait is not None:
            for sentence in origins.sentences():
                on_wait(sentence)
        done["rejected"] = max(done["rejected"], len(rejections))
        if prune:
            _require_complete(done)
            done["deleted"] += _prune(connection, last_chunk, on_wait)
    fold_counts(connection, 0)
    kinds = documents.left_out_kinds if isinstance(documents, DocumentReader) else {}
    report = IngestReport(**done, left_out_kinds=dict(kinds))
    if report.inserted or report.deleted:
        audit.record(connection, "ingest --prune" if prune else "ingest", None, detail=asdict(report))
    return report


def _batches(documents: Iterable[Document], chunk_characters: int) -> Iterator[list[Cut]]:
    """Whole documents in batches that limit memory and transaction size."""
    batch: dict[UUID, Cut] = {}
    characters = 0
    for document in documents:
        document_id = document_uuid(document.source_id)
        size = len(document.text)
        full = len(batch) >= _BATCH_DOCUMENTS or characters + size > _BATCH_CHARACTERS
        if batch and (full or document_id in batch):
            yield list(batch.values())
            batch, characters = {}, 0
        batch[document_id] = Cut(document, document_id, chunk_characters)
        characters += size
    if batch:
        yield list(batch.values())


# One batch ---------------------------------------------------------------------------------------------------


_DROP_STAGING: LiteralString = (
    "DROP TABLE IF EXISTS pg_temp.ingest_documents, pg_temp.ingest_chunks, pg_temp.ingest_new, pg_temp.ingest_seen"
)


@contextmanager
def _staging(connection: Connection) -> Iterator[None]:
    """The temporary tables that a batch is loaded into, dropped at the end of the ingest."""
    connection.execute(_DROP_STAGING)
    connection.execute(
        """
        CREATE TEMPORARY TABLE ingest_documents (
            position int NOT NULL, document_id uuid NOT NULL, source_id text NOT NULL, metadata jsonb NOT NULL,
            origin_id bigint);
        CREATE TEMPORARY TABLE ingest_chunks (
            document_id uuid NOT NULL, chunk_no int NOT NULL, semantic_key text NOT NULL,
            content text NOT NULL, content_sha256 bytea NOT NULL);
        CREATE TEMPORARY TABLE ingest_new (id bigint NOT NULL, content_sha256 bytea NOT NULL);
        CREATE TEMPORARY TABLE ingest_seen (document_id uuid PRIMARY KEY)
        """
    )
    try:
        yield
    finally:
        # Not in a failed transaction or on a lost connection: there they are already gone.
        if connection.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.INTRANS):
            connection.execute(_DROP_STAGING)


def _store(
    connection: Connection, batch: list[Cut], origins: Origins, on_wait: _Waits, *, remember: bool
) -> Counter[str]:
    """One batch, as one transaction.

    Ingests cannot deadlock with each other, but they can with other sessions that delete chunks or process the
    outbox in another order, and a version's table may be dropped meanwhile. Then the batch is retried.
    """
    directly = True
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with connection.transaction():
                return _write(connection, batch, origins, on_wait, directly=directly, remember=remember)
        except (pg.DeadlockDetected, pg.SerializationFailure, pg.UndefinedTable, pg.UniqueViolation) as error:
            # Somebody else has stored a chunk with this key under another document.
            directly = directly and not isinstance(error, pg.UniqueViolation)
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _write(
    connection: Connection, batch: list[Cut], origins: Origins, on_wait: _Waits, *, directly: bool, remember: bool
) -> Counter[str]:
    _lock(connection, on_wait)
    with _by_index(connection):
        places = origins.places(connection, batch)
        known = _known_documents(connection, batch) if directly else {cut.document_id for cut in batch}
        new = [cut for cut in batch if cut.document_id not in known]
        old = [cut for cut in batch if cut.document_id in known]
        live = _live_versions(connection)
        if old or live:
            connection.execute("TRUNCATE pg_temp.ingest_documents, pg_temp.ingest_chunks, pg_temp.ingest_new")
        _copy_new(connection, new, places)
        if old:
            _stage(connection, old, places)
            old = origins.checked(connection, old)
        done = Counter(inserted=sum(len(cut.chunks) for cut in new))
        if new and live:
            _run(connection, _NEW_ONES, [[cut.document_id for cut in new]])
        if old:
            done["inserted"] += _run(connection, _INSERT)
        if done["inserted"]:
            # Before the old chunks and their vectors are deleted.
            done["carried"] = sum(_carry_over(connection, version_id) for version_id in live)
        if old:
            done["deleted"] = _run(connection, _DELETE)
            _run(connection, _UPDATE)
        stored = new + old
        if remember:
            _run(connection, _REMEMBER, [[cut.document_id for cut in stored]])
    done["documents"] = len(stored)
    done["chunks"] = sum(len(cut.chunks) for cut in stored)
    done["unchanged"] = done["chunks"] - done["inserted"]
    done["cleaned"] = sum(cut.document.cleaned for cut in stored)
    done["empty"] = sum(not cut.chunks for cut in stored)
    return done


@contextmanager
def _by_index(connection: Connection) -> Iterator[None]:
    """Look chunks up by their indexes: of a table that has just grown, the planner knows too little."""
    (before, _) = fetch_one(
        connection, "SELECT current_setting('enable_seqscan'), set_config('enable_seqscan', 'off', true)"
    )
    yield
    connection.execute("SELECT set_config('enable_seqscan', %s, true)", [before])


def _known_documents(connection: Connection, batch: list[Cut]) -> set[UUID]:
    """Those documents of a batch that have chunks."""
    found = fetch_column(
        connection,
        """
        SELECT asked.id FROM unnest(%s::uuid[]) AS asked (id)
        CROSS JOIN LATERAL (SELECT FROM document_chunks c WHERE c.document_id = asked.id LIMIT 1) AS stored
        """,
        [[cut.document_id for cut in batch]],
    )
    return set(found)


def _copy_new(connection: Connection, batch: list[Cut], places: Mapping[Origin, int]) -> None:
    """Store documents that are not there yet. They are cut meanwhile: the server stores one, and we cut the next."""
    with connection.cursor().copy(
        "COPY document_chunks (semantic_key, document_id, chunk_no, content, content_sha256, source_id, metadata, "
        "origin_id) FROM STDIN WITH (FORMAT BINARY)"
    ) as copy:
        copy.set_types(("text", "uuid", "int4", "text", "bytea", "text", "jsonb", "int8"))
        for cut in batch:
            document = cut.document
            metadata = Jsonb(document.metadata_json, str)
            place = places[document.origin] if document.origin else None
            for number, chunk in enumerate(cut.chunks):
                key = semantic_key(cut.document_id, number, chunk)
                copy.write_row(
                    (
                        key,
                        cut.document_id,
                        number,
                        chunk,
                        content_sha256(chunk),
                        document.source_id,
                        metadata,
                        place,
                    )
                )


_NEW_ONES: LiteralString = """
    INSERT INTO pg_temp.ingest_new (id, content_sha256)
    SELECT id, content_sha256 FROM document_chunks WHERE document_id = ANY(%s)
    """

# Existing ones are excluded first: each conflict would use up an id and compute the tsvector.
_INSERT: LiteralString = """
    WITH inserted AS (
        INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256,
                                     source_id, metadata, origin_id)
        SELECT s.semantic_key, s.document_id, s.chunk_no, s.content, s.content_sha256, d.source_id, d.metadata,
               d.origin_id
        FROM pg_temp.ingest_chunks s JOIN pg_temp.ingest_documents d USING (document_id)
        WHERE NOT EXISTS (SELECT FROM document_chunks c WHERE c.semantic_key = s.semantic_key)
        ORDER BY d.position, s.chunk_no
        ON CONFLICT (semantic_key) DO NOTHING
        RETURNING id, content_sha256)
    INSERT INTO pg_temp.ingest_new (id, content_sha256) SELECT id, content_sha256 FROM inserted
    """

# Locked in id order, as a backfill locks the chunks of its vectors.
_DELETE: LiteralString = """
    WITH gone AS (
        SELECT c.id FROM document_chunks c JOIN pg_temp.ingest_documents d USING (document_id)
        WHERE NOT EXISTS (SELECT FROM pg_temp.ingest_chunks s WHERE s.semantic_key = c.semantic_key)
        ORDER BY c.id FOR UPDATE OF c)
    DELETE FROM document_chunks c USING gone WHERE c.id = gone.id
    """

_UPDATE: LiteralString = """
    UPDATE document_chunks c SET metadata = d.metadata, source_id = d.source_id
    FROM pg_temp.ingest_documents d
    WHERE c.document_id = d.document_id AND (c.metadata <> d.metadata OR c.source_id <> d.source_id)
    """

_REMEMBER: LiteralString = """
    INSERT INTO pg_temp.ingest_seen (document_id) SELECT * FROM unnest(%s::uuid[]) ON CONFLICT DO NOTHING
    """


def _stage(connection: Connection, batch: list[Cut], places: Mapping[Origin, int]) -> None:
    """Load documents beside the table, to be compared with what is in it."""
    with connection.cursor().copy(
        "COPY pg_temp.ingest_documents (position, document_id, source_id, metadata, origin_id) FROM STDIN"
    ) as copy:
        for position, cut in enumerate(batch):
            document = cut.document
            place = places[document.origin] if document.origin else None
            copy.write_row((position, cut.document_id, document.source_id, document.metadata_json, place))
    with connection.cursor().copy(
        "COPY pg_temp.ingest_chunks (document_id, chunk_no, semantic_key, content, content_sha256) "
        "FROM STDIN WITH (FORMAT BINARY)"
    ) as copy:
        copy.set_types(("uuid", "int4", "text", "text", "bytea"))
        for cut in batch:
            for number, chunk in enumerate(cut.chunks):
                key = semantic_key(cut.document_id, number, chunk)
                copy.write_row((cut.document_id, number, key, chunk, content_sha256(chunk)))
    # Autovacuum does not analyze temporary tables, and a bad estimate here would scan all of document_chunks.
    connection.execute("ANALYZE pg_temp.ingest_documents, pg_temp.ingest_chunks")


def _lock(connection: Connection, on_wait: _Waits) -> None:
    """Lock out other ingests into this collection until the transaction ends.

    Otherwise two ingests of the same document would each store their own chunks without seeing the other's.
    Reading is not locked. `on_wait` is told, once, who holds the lock for seconds.
    """
    while True:
        try:
            with connection.transaction():
                connection.execute("SELECT lock_ingest()")
            return
        except pg.LockNotAvailable:
            if on_wait is not None:
                held, _ = name_holders(connection, {"locks": "RowShareLock"})
                on_wait(f"Waiting for another ingest: for a lock {held}.")
                on_wait = None


def _live_versions(connection: Connection) -> list[int]:
    return fetch_column(
        connection,
        """
        SELECT id FROM embedding_versions
        WHERE state IN ('backfilling', 'loaded', 'ready', 'active', 'previous')
          AND to_regclass('chunk_embeddings_' || id) IS NOT NULL
        ORDER BY id
        """,
    )


def _carry_over(connection: Connection, version_id: int) -> int:
    """Copy existing vectors of the same text to the new chunks in this version; returns how many.

    None while the version's index is built, which its table's writers wait for: these chunks stay queued.
    """
    table = sql.Identifier(f"chunk_embeddings_{version_id}")
    try:
        with connection.transaction():
            connection.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE NOWAIT").format(table))
    except pg.LockNotAvailable:
        return 0
    # One vector for each text, by a lateral lookup: otherwise a text shared by a thousand chunks would be joined
    # to all.
    statement = sql.SQL(
        """
        WITH carried AS (
            INSERT INTO {table} (chunk_id, embedding)
            SELECT n.id, same.embedding
            FROM (SELECT DISTINCT content_sha256 FROM pg_temp.ingest_new) AS texts
            CROSS JOIN LATERAL (
                SELECT e.embedding FROM document_chunks c JOIN {table} e ON e.chunk_id = c.id
                WHERE c.content_sha256 = texts.content_sha256 LIMIT 1) AS same
            JOIN pg_temp.ingest_new n ON n.content_sha256 = texts.content_sha256
            ORDER BY n.id
            ON CONFLICT DO NOTHING
            RETURNING chunk_id),
        not_queued AS (
            DELETE FROM chunk_outbox o USING carried
            WHERE o.embedding_version_id = {version} AND o.chunk_id = carried.chunk_id),
        counted AS (
            INSERT INTO row_counts (scope, delta) SELECT {version}, count(*) FROM carried HAVING count(*) > 0)
        SELECT count(*) FROM carried
        """
    ).format(table=table, version=sql.Literal(version_id))
    return int(fetch_one(connection, statement)[0])


def _run(connection: Connection, statement: LiteralString, params: Sequence[Any] | None = None) -> int:
    """Run a statement on the staged batch; returns the number of rows written."""
    # Planned each time: a prepared plan from when document_chunks was small would keep scanning all of it.
    return connection.execute(statement, params, prepare=False).rowcount


# After the last batch ---------------------------------------------------------------------------------------


def _last_chunk(connection: Connection, on_wait: _Waits) -> int:
    """The newest chunk before this run; no other ingest has uncommitted chunks below it."""
    with connection.transaction():
        _lock(connection, on_wait)
        return int(fetch_one(connection, "SELECT coalesce(max(id), 0) FROM document_chunks")[0])


def _require_complete(done: Counter[str]) -> None:
    if done["rejected"]:
        raise RefusedError(
            f"Nothing was pruned: {done['rejected']:,} documents were rejected, "
            f"and their stored chunks would be deleted. {done['documents']:,} were stored.",
            "Fix them, or ingest without --prune.",
        )
    if not done["documents"]:
        raise RefusedError(
            "Nothing was pruned: no document was read, so everything would be deleted.", "Check the paths."
        )


def _prune(connection: Connection, last_chunk: int, on_wait: _Waits) -> int:
    """Delete the documents that were not seen and have no chunk newer than `last_chunk`."""
    with connection.transaction():
        _lock(connection, on_wait)
        connection.execute("ANALYZE pg_temp.ingest_seen")
        return connection.execute(
            """
            WITH gone AS (
                SELECT c.id FROM document_chunks c
                WHERE NOT EXISTS (SELECT FROM pg_temp.ingest_seen s WHERE s.document_id = c.document_id)
                  AND NOT EXISTS (SELECT FROM document_chunks n
                                  WHERE n.document_id = c.document_id AND n.id > %s)
                ORDER BY c.id FOR UPDATE OF c)
            DELETE FROM document_chunks c USING gone WHERE c.id = gone.id
            """,
            [last_chunk],
            prepare=False,
        ).rowcount
