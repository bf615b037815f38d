"""The SQL of searches: always one statement, which also reads the active version in its snapshot.

**Filters lose nothing.** An HNSW index yields its candidates before the filter applies, so a rare value may leave
none of them. Hence three ways in one statement, of which one runs: up to EXACT_ROWS matching chunks are all
compared with the query; more are searched by the index, which continues (`hnsw.iterative_scan`) until more than k are
found (the nearest need not come first) or `hnsw.max_scan_tuples` were visited; and if that gave fewer than k, all
matching chunks are compared.

**Hybrid** is reciprocal rank fusion: a chunk's score is the sum of 1 / (60 + rank) over the lists by vector and by
words (Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
Methods", SIGIR 2009). Ranks are fused, never distances with text scores. The list by words is BM25's, from a function
of the database (core/migrations/sql/words.sql).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from revector.core.database import Connection, fetch_one
from revector.core.errors import EncoderError, PinnedVersionError, RefusedError, UsageError
from revector.core.index import candidates_query, distance_expression, kind_of
from revector.core.registry import Version
from revector.core.retrieval.options import SearchOptions, ef_search_for
from revector.core.retrieval.query_text import each_word_once
from revector.core.retrieval.result import Hit
from revector.core.sessions import keep_settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXACT_ROWS = 2_500
"""Up to this many matching chunks are compared one by one, exactly: no slower than the index would be."""
RRF_K = 60
ITERATIVE_SCAN = {"hnsw.iterative_scan": "relaxed_order", "hnsw.max_scan_tuples": "20000"}
"""relaxed_order finds more at the same cost; hits are sorted afterwards. Since pgvector 0.8."""

_FILTER = sql.SQL("c.metadata @? filter_path(%(filter)s::jsonb)")
_NOT_EXCLUDED = sql.SQL("(c.content_tsv @@ (SELECT excluded FROM asked)) IS NOT TRUE")
_RESULT = sql.SQL(
    """
    SELECT (SELECT id FROM embedding_versions WHERE active),
           n.chunk_id, c.semantic_key, c.source_id, c.chunk_no, n.distance, c.content, c.metadata::text{ranks}
    FROM (SELECT) one LEFT JOIN ({found} n JOIN document_chunks c ON c.id = n.chunk_id) ON true
    ORDER BY {order}, n.chunk_id
    """
)

_RANKS = sql.SQL(", n.score::float8, n.vector_rank, n.text_rank")


def search_statement(version: Version, options: SearchOptions) -> sql.Composed:
    """SQL of a search: the active version's id (or NULL), then what a Hit has after its rank, best first.

    Parameters: `vector`, `filter` (JSON) with a filter, `text` for a hybrid search. When nothing is found, there
    is one row, of NULLs except for the active version's id.
    """
    parts: list[sql.Composable] = []
    if options.excludes:
        parts.append(sql.SQL("asked AS MATERIALIZED (SELECT excluded FROM read_query(%(text)s))"))
    if options.filtered:
        parts.append(_filtered(version, options))
    else:
        parts.append(sql.SQL("nearest AS MATERIALIZED ({})").format(candidates_query(version, options.depth)))
    if options.hybrid:
        parts.append(_fused(version, options))
        result = _RESULT.format(found=sql.SQL("fused"), order=sql.SQL("n.score DESC"), ranks=_RANKS)
    else:
        result = _RESULT.format(found=sql.SQL("nearest"), order=sql.SQL("n.distance"), ranks=sql.SQL(""))
    return sql.SQL("WITH {} {}").format(sql.SQL(", ").join(parts), result)


def _condition(options: SearchOptions) -> sql.Composed:
    """SQL that says whether a chunk `c` may be a hit."""
    wanted = (_FILTER, options.filter is not None), (_NOT_EXCLUDED, options.excludes)
    return sql.SQL(" AND ").join(condition for condition, given in wanted if given)


def _filtered(version: Version, options: SearchOptions) -> sql.Composed:
    k, condition = options.depth, _condition(options)
    # OFFSET 0 keeps the planner from merging a subquery with the rest: the filter stays part of the index scan, so
    # that the scan can continue, and the exact comparison never uses the index for its order.
    by_index = candidates_query(
        version,
        k + (min(3 * k, 90) if options.filter is not None else 0),
        sql.SQL(
            "NOT (SELECT few FROM rare) AND EXISTS "
            "(SELECT FROM document_chunks c WHERE c.id = chunk_id AND {} OFFSET 0)"
        ).format(condition),
    )
    return sql.SQL(
        """
        matching AS MATERIALIZED (SELECT c.id FROM document_chunks c WHERE {counted} LIMIT {most} + 1),
        rare AS MATERIALIZED (SELECT count(*) BETWEEN {least} AND {most} AS few FROM matching),
        by_index AS MATERIALIZED ({by_index}),
        enough AS MATERIALIZED (SELECT count(*) >= {k} AS so FROM by_index),
        nearest AS MATERIALIZED (
            ({few})
            UNION ALL (SELECT * FROM by_index WHERE (SELECT so FROM enough) ORDER BY distance, chunk_id LIMIT {k})
            UNION ALL ({all}))
        """
    ).format(
        # What a -word leaves is not counted: it is nearly always most of the collection.
        counted=condition if options.filter is not None else sql.SQL("false"),
        least=sql.Literal(0 if options.filter is not None else 1),
        most=sql.Literal(EXACT_ROWS),
        by_index=by_index,
        k=sql.Literal(k),
        few=_compared(version, k, sql.SQL("matching c"), sql.SQL("(SELECT few FROM rare)")),
        all=_compared(
            version,
            k,
            sql.SQL("document_chunks c"),
            sql.SQL("{} AND NOT (SELECT few FROM rare) AND NOT (SELECT so FROM enough)").format(condition),
        ),
    )


def _compared(version: Version, k: int, source: sql.Composable, when: sql.Composable) -> sql.Composed:
    """The k nearest of some chunks, comparing each with the query."""
    return sql.SQL(
        "SELECT chunk_id, distance FROM (SELECT e.chunk_id, {distance} AS distance FROM {source} "
        "JOIN {table} e ON e.chunk_id = c.id WHERE {when} OFFSET 0) AS compared "
        "ORDER BY distance, chunk_id LIMIT {k}"
    ).format(
        distance=distance_expression(version), source=source, table=version.table, when=when, k=sql.Literal(k)
    )


def _fused(version: Version, options: SearchOptions) -> sql.Composed:
    # More by words than are fused, since some may have no vector yet.
    return sql.SQL(
        """
        by_vector AS (SELECT chunk_id, row_number() OVER (ORDER BY distance, chunk_id) AS place FROM nearest),
        by_words AS (
            SELECT w.chunk_id, row_number() OVER (ORDER BY w.score DESC, w.chunk_id) AS place
            FROM chunks_by_words(%(text)s, {more}, {filter}, {among}) w
            WHERE EXISTS (SELECT FROM {table} e WHERE e.chunk_id = w.chunk_id)
            ORDER BY place LIMIT {depth}),
        scores AS (
            SELECT chunk_id, coalesce(1.0 / ({rrf} + v.place), 0) + coalesce(1.0 / ({rrf} + w.place), 0) AS score,
                   v.place AS vector_rank, w.place AS text_rank
            FROM by_vector v FULL JOIN by_words w USING (chunk_id)
            ORDER BY score DESC, chunk_id LIMIT {k}),
        fused AS MATERIALIZED (
            SELECT chunk_id, s.score, s.vector_rank, s.text_rank, {distance} AS distance
            FROM scores s JOIN {table} e USING (chunk_id))
        """
    ).format(
        filter=sql.SQL("%(filter)s::jsonb" if options.filter is not None else "NULL"),
        # Where the filter leaves few chunks, all of them are ranked.
        among=sql.SQL("CASE WHEN (SELECT few FROM rare) THEN ARRAY(SELECT id FROM matching) END")
        if options.filtered
        else sql.SQL("NULL"),
        table=version.table,
        more=sql.Literal(options.depth * 5 // 4),
        depth=sql.Literal(options.depth),
        rrf=sql.Literal(RRF_K),
        k=sql.Literal(options.k),
        distance=distance_expression(version),
    )


# -- how a statement is run ----------------------------------------------------------------------------------


def session_settings(version: Version, options: SearchOptions) -> dict[str, str]:
    """The session settings that this search needs."""
    settings = {"hnsw.ef_search": str(ef_search_for(version, options.depth, options.ef_search))}
    return settings | ITERATIVE_SCAN if options.filtered else settings


@contextlib.contextmanager
def readable_filter() -> Iterator[None]:
    """Raise UsageError for a filter that the database refuses: only it reads the comparisons."""
    try:
        yield
    except psycopg.errors.InvalidParameterValue as error:
        raise UsageError(error.diag.message_primary or str(error), error.diag.message_hint or "") from None


def given_vector(version: Version, vector: object) -> NDArray[np.float32]:
    """A caller's vector, an array or a list, as float32 (d,).

    Raises UsageError for what is no row of numbers; RefusedError for one that the version cannot be searched by.
    """
    found, wrong = _checked(version, vector)
    if found is None:
        raise UsageError(f"The query's vector is {wrong}.", f"Expected {version.dimensions} numbers.")
    if wrong:
        raise RefusedError(f"The query's vector {wrong}.", "Encode the query with the version's own encoder.")
    return found


def encoded_vector(version: Version, answer: object) -> NDArray[np.float32]:
    """What the version's encoder answered for a query, as float32 (d,); raises EncoderError for no such vector."""
    found, wrong = _checked(version, answer)
    if found is None or wrong:
        wrong = f"a vector that {wrong}" if found is not None else wrong
        raise EncoderError(f"The encoder of {version.version_key} answered with {wrong}.", "Check that encoder.")
    return found


def _checked(version: Version, vector: object) -> tuple[NDArray[np.float32] | None, str]:
    """The vector as float32, None for what is no row of numbers; and what is wrong with it, as it is compared."""
    import numpy as np

    try:
        given = np.asarray(vector)
    except ValueError:
        return None, "rows of different lengths"
    if given.ndim != 1 or given.dtype.kind not in "fiu":
        return None, f"{type(vector).__name__} of shape {given.shape} and type {given.dtype}"
    if len(given) != version.dimensions:
        return given, f"has {len(given)} dimensions, not the {version.dimensions} of version {version.version_key}"
    halved = "halfvec" in (version.storage, kind_of(version))
    with np.errstate(all="ignore"):
        found = given.astype(np.float32, copy=False)
        compared = given.astype(np.float16).astype(np.float32) if halved else found
        square = float(compared @ compared)
    smallest = float(np.finfo(np.float32).tiny)
    if smallest <= square < np.inf:
        return found, ""
    if not np.isfinite(compared).all():
        return found, f"has a non-finite number{' in halfvec' if np.isfinite(found).all() else ''}"
    if not compared.any():
        return found, f"is zero{' in halfvec' if found.any() else ''}"
    # pgvector computes in float32, where the square of its length is infinite, or has no digits left.
    return found, "is too long or too short for cosine" if version.distance_metric == "cosine" else ""


def parameters(vector: NDArray[np.float32], options: SearchOptions, text: str) -> dict[str, Any]:
    """The parameters of a search's statement, for a connection that knows pgvector's types."""
    from pgvector import Vector

    given: dict[str, Any] = {"vector": Vector(vector)}
    if options.filter is not None:
        given["filter"] = options.filter
    if options.hybrid:
        given["text"] = each_word_once(text)
    return given


def read_rows(rows: Sequence[Sequence[Any]]) -> tuple[tuple[Hit, ...], int | None]:
    """The hits, and the id of the version that was active when they were found."""
    hits = tuple(Hit(rank, *row[1:]) for rank, row in enumerate(rows, 1) if row[1] is not None)
    return hits, rows[0][0] if rows else None


def has_vectors(version: Version) -> sql.Composed:
    """SQL that says whether the version has a vector, or there is no chunk that could have one.

    For a search that found nothing. One that found something needs no further round trip.
    """
    return sql.SQL("SELECT EXISTS (SELECT FROM {}) OR NOT EXISTS (SELECT FROM document_chunks)").format(
        version.table
    )


def no_vectors(version: Version, *, pinned: bool = False) -> RefusedError:
    """The error for a version whose table is missing or empty; `pinned` when the process is pinned to it."""
    backfill = f"revector backfill run {version.version_key}"
    if version.active:
        return RefusedError(
            f"Version {version.version_key} is active and has no vectors: {version.table_name} is missing or empty.",
            "See what is wrong: revector doctor",
        )
    if pinned:
        return PinnedVersionError(
            f"This process is pinned to version {version.version_key} (RETRIEVAL_ROLLBACK_VERSION, or `pinned`), "
            "which has no vectors yet.",
            f"Pin it to a version that has vectors, or unpin it. Or backfill this one: {backfill}",
        )
    return RefusedError(f"Version {version.version_key} has no vectors yet.", f"Backfill it: {backfill}")


def search_vector(
    connection: Connection, version: Version, vector: NDArray[np.float32], options: SearchOptions, text: str = ""
) -> tuple[tuple[Hit, ...], int | None]:
    """The k nearest chunks of a query vector (d,), and the id of the version active at that moment.

    Raises RefusedError when the version has no vectors, or cannot be searched by this one.
    """
    vector = given_vector(version, vector)
    set_session(connection, version, options)
    query = search_statement(version, options)
    try:
        prepare = False if options.filtered else None  # filters vary widely in frequency: plan each time
        given = parameters(vector, options, text)
        given["vector"] = given["vector"].to_text()  # the caller's connection need not know the type
        with readable_filter():
            rows = connection.execute(query, given, prepare=prepare).fetchall()
        hits, active = read_rows(rows)
        if not hits and not fetch_one(connection, has_vectors(version))[0]:
            raise no_vectors(version)
    except psycopg.errors.UndefinedTable as error:
        if version.table_name not in str(error):
            raise
        raise no_vectors(version) from None
    return hits, active


def set_session(connection: Connection, version: Version, options: SearchOptions) -> None:
    """Set the caller's session up for a search of this version."""
    keep_settings(connection, session_settings(version, options))
