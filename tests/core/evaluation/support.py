"""Documents of several chunks, and a query set, as the tests of evaluation need them."""

from __future__ import annotations

from revector.core.chunks import content_sha256, document_uuid, semantic_key
from revector.core.database import Connection
from revector.core.evaluation.judged_sets.judgements import Judgement, ensure_judge, save_judgements
from revector.core.evaluation.judged_sets.query_sets import Query, QuerySet, get_query_set, save_queries


def add_document(connection: Connection, source_id: str, *texts: str) -> list[str]:
    """A document with these chunks, as the ingest makes it; returns their semantic keys."""
    document = document_uuid(source_id)
    keys = [semantic_key(document, number, text) for number, text in enumerate(texts)]
    for number, (key, text) in enumerate(zip(keys, texts, strict=True)):
        connection.execute(
            """
            INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256, source_id)
            VALUES (%s, %s, %s, %s, %s, %s)
            """,
            [key, document, number, text, content_sha256(text), source_id],
        )
    return keys


def new_set(connection: Connection, *queries: Query, name: str = "set") -> QuerySet:
    """A stored query set; without queries, q1 to q4 in the segments odd and even."""
    save_queries(
        connection,
        name,
        queries or [Query(f"q{n}", f"query {n}", "odd" if n % 2 else "even") for n in range(1, 5)],
    )
    return get_query_set(connection, name)


def judge(
    connection: Connection,
    query_set: QuerySet,
    name: str,
    *rows: tuple[str, str, int],
    kind: str = "document",
    model: bool = False,
) -> None:
    """Store grades (query, target, grade) of a judge."""
    spec = {"spec": "cross-encoder:x", "revision": "1"} if model else {}
    given = [Judgement(query, kind, target, grade) for query, target, grade in rows]  # type: ignore[arg-type]
    save_judgements(
        connection, query_set, ensure_judge(connection, name, "model" if model else "person", **spec), given
    )
