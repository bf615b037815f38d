"""Query sets, chunks and runs put into the database as a test needs them, without an encoder."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence

from revector.core.chunks import content_sha256, document_uuid, semantic_key
from revector.core.database import Connection, fetch_one
from revector.core.evaluation.document import Run
from revector.core.evaluation.judged_sets.query_sets import Query, QuerySet, get_query_set, save_queries
from revector.core.evaluation.runs.store import get_run


def query_set(connection: Connection, queries: Iterable[Query], name: str = "support") -> QuerySet:
    """Save it and read it back."""
    save_queries(connection, name, queries)
    return get_query_set(connection, name)


def document(connection: Connection, source_id: str, texts: Sequence[str]) -> list[int]:
    """A document's chunks as ingest stores them; returns their row ids."""
    document_id = document_uuid(source_id)
    return [
        fetch_one(
            connection,
            """
            INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256, source_id,
                                         metadata)
            VALUES (%s, %s, %s, %s, %s, %s, jsonb_build_object('title', %s::text)) RETURNING id
            """,
            [
                semantic_key(document_id, number, text), document_id, number, text, content_sha256(text), source_id,
                f"Title of {source_id}",
            ],
        )[0]
        for number, text in enumerate(texts)
    ]  # fmt: skip


def key_of(connection: Connection, chunk_id: int) -> str:
    """The semantic key of a chunk."""
    return str(fetch_one(connection, "SELECT semantic_key FROM document_chunks WHERE id = %s", [chunk_id])[0])


def run(
    connection: Connection, of: QuerySet, version_key: str, hits: Mapping[str, Sequence[int]], k: int = 100
) -> Run:
    """A run that came to its end with these chunks by query, best first."""
    (number,) = fetch_one(
        connection,
        """
        INSERT INTO evaluation_runs (query_set_id, query_set_revision, embedding_version_id, version_key, encoder,
                                     encoder_revision, k, exact, index_settings, chunks, queries)
        SELECT %(set)s, %(revision)s, (SELECT id FROM embedding_versions WHERE version_key = %(key)s), %(key)s,
               'static', 'r1', %(k)s, false, '{}', 0, %(queries)s
        RETURNING id
        """,
        {"set": of.id, "revision": of.revision, "key": version_key, "k": k, "queries": len(hits)},
    )
    documents: dict[int, uuid.UUID] = dict(
        connection.execute(
            "SELECT id, document_id FROM document_chunks WHERE id = ANY(%s)",
            [list({chunk for chunks in hits.values() for chunk in chunks})],
        ).fetchall()
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO evaluation_results (run_id, query_id, chunk_ids, document_ids, distances, encode_ms, search_ms)
            VALUES (%s, %s, %s, %s, %s, 1, 1)
            """,
            [
                (number, query, list(chunks), [documents[chunk] for chunk in chunks],
                 [place / 100 for place in range(len(chunks))])
                for query, chunks in hits.items()
            ],
        )  # fmt: skip
    connection.execute("UPDATE evaluation_runs SET state = 'done', finished_at = now() WHERE id = %s", [number])
    return get_run(connection, number)
