"""Query sets in the database: queries with their segments, and a revision that identifies their content."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from revector.core import audit
from revector.core.database import Connection, fetch_column, fetch_one
from revector.core.errors import UsageError, unknown_name
from revector.core.text import quote

MAX_QUERY_CHARACTERS = 10_000
MAX_ID_CHARACTERS = 500
WHOLE_SET = "all"
"""The segment of queries without one, and the name of the whole set in results."""


@dataclass(frozen=True)
class Query:
    """A query as a person would type it. `segment` groups queries that are reported together."""

    id: str
    text: str
    segment: str = WHOLE_SET


@dataclass(frozen=True)
class QuerySet:
    """A set of queries; `revision` is a digest of ids, texts and segments."""

    id: int
    name: str
    revision: str
    queries: tuple[Query, ...]

    @property
    def segments(self) -> tuple[str, ...]:
        """The segments' names, sorted."""
        return tuple(sorted({query.segment for query in self.queries}))


@dataclass(frozen=True)
class QuerySetSummary:
    """A row of the list of query sets."""

    name: Annotated[str, "the query set"]
    revision: Annotated[str, "a digest of ids, texts and segments"]
    queries: Annotated[int, "in it"]
    segments: Annotated[tuple[str, ...], "of the queries"]
    judgements: Annotated[int, "of all judges"]
    judges: Annotated[tuple[str, ...], "who judged"]
    created_by: Annotated[str, "who imported it"]
    updated_at: Annotated[datetime.datetime, "its last change"]


@dataclass(frozen=True)
class QueryChanges:
    """What saving a set changed, in numbers of queries. A query whose text changed lost its judgements."""

    added: Annotated[int, "queries that are new"]
    changed: Annotated[int, "queries of another text or segment"]
    removed: Annotated[int, "queries that are gone"]
    unchanged: Annotated[int, "queries that were there"]


def revision_of(queries: Iterable[Query]) -> str:
    """The first 16 hex digits of SHA-256 over the queries in the order of their ids."""
    rows = sorted([query.id, query.text, query.segment] for query in queries)
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def save_queries(connection: Connection, name: str, queries: Iterable[Query]) -> QueryChanges:
    """Make these queries the set of that name, in one transaction; unchanged queries keep their judgements.

    Raises UsageError for a set without queries, a repeated id, an empty text, and text that Postgres cannot store.
    """
    wanted = list(queries)
    _check(name, wanted)
    with connection.transaction():
        (set_id,) = fetch_one(
            connection,
            """
            INSERT INTO query_sets (name) VALUES (%s)
            ON CONFLICT (name) DO UPDATE SET updated_at = now() RETURNING id
            """,
            [name],
        )
        rows = {
            "set": set_id,
            "ids": [query.id for query in wanted],
            "texts": [query.text for query in wanted],
            "segments": [query.segment for query in wanted],
        }
        removed = connection.execute(
            "DELETE FROM queries WHERE query_set_id = %(set)s AND query_id <> ALL(%(ids)s)", rows
        ).rowcount
        # Another text is another query: its judgements are deleted with the row.
        changed = connection.execute(
            """
            DELETE FROM queries q USING unnest(%(ids)s::text[], %(texts)s::text[]) AS n(query_id, text)
            WHERE q.query_set_id = %(set)s AND q.query_id = n.query_id AND q.text <> n.text
            """,
            rows,
        ).rowcount
        inserted = connection.execute(
            """
            INSERT INTO queries (query_set_id, query_id, text, segment)
            SELECT %(set)s, * FROM unnest(%(ids)s::text[], %(texts)s::text[], %(segments)s::text[])
            ON CONFLICT (query_set_id, query_id) DO NOTHING
            """,
            rows,
        ).rowcount
        moved = connection.execute(
            """
            UPDATE queries q SET segment = n.segment
            FROM unnest(%(ids)s::text[], %(segments)s::text[]) AS n(query_id, segment)
            WHERE q.query_set_id = %(set)s AND q.query_id = n.query_id AND q.segment <> n.segment
            """,
            rows,
        ).rowcount
        connection.execute("UPDATE query_sets SET revision = %s WHERE id = %s", [revision_of(wanted), set_id])
        changes = QueryChanges(inserted - changed, changed + moved, removed, len(wanted) - inserted - moved)
        audit.record(
            connection, "queries import", None, "done",
            detail={"set": name, "queries": len(wanted), "added": changes.added, "changed": changes.changed,
                    "removed": changes.removed},
        )  # fmt: skip
    return changes


def get_query_set(connection: Connection, name: str) -> QuerySet:
    """The set of that name, its queries in the order of their ids. Raises UsageError naming the near ones."""
    found = connection.execute("SELECT id, revision FROM query_sets WHERE name = %s", [name]).fetchone()
    if found is None:
        known = fetch_column(connection, "SELECT name FROM query_sets")
        if not known:
            raise UsageError(
                f"There is no query set {name!r}, and no other yet.",
                f"Import one: revector queries import {name} --queries FILE --qrels FILE",
            )
        raise unknown_name("query set", name, known)
    rows = connection.execute(
        "SELECT query_id, text, segment FROM queries WHERE query_set_id = %s ORDER BY query_id", [found[0]]
    ).fetchall()
    return QuerySet(found[0], name, found[1], tuple(Query(*row) for row in rows))


def query_sets(connection: Connection) -> list[QuerySetSummary]:
    """All sets, by name."""
    rows = connection.execute(
        """
        SELECT s.name, s.revision, count(q.id),
               coalesce(array_agg(DISTINCT q.segment ORDER BY q.segment) FILTER (WHERE q.id IS NOT NULL), '{}'),
               (SELECT count(*) FROM judgements j JOIN queries o ON o.id = j.query WHERE o.query_set_id = s.id),
               (SELECT coalesce(array_agg(DISTINCT g.name ORDER BY g.name), '{}')
                FROM judgements j JOIN queries o ON o.id = j.query JOIN judges g ON g.id = j.judge_id
                WHERE o.query_set_id = s.id),
               s.created_by, s.updated_at
        FROM query_sets s LEFT JOIN queries q ON q.query_set_id = s.id GROUP BY s.id ORDER BY s.name
        """
    ).fetchall()
    return [QuerySetSummary(r[0], r[1], r[2], tuple(r[3]), r[4], tuple(r[5]), r[6], r[7]) for r in rows]


def drop_query_set(connection: Connection, name: str) -> None:
    """Delete a set with its judgements, runs and evaluations.

    Raises UsageError when there is none of that name, RefusedError when it has evaluations of another role.
    """
    found = get_query_set(connection, name)
    with audit.refusals(connection, "queries drop", None), connection.transaction():
        connection.execute("DELETE FROM query_sets WHERE id = %s", [found.id])
        audit.record(connection, "queries drop", None, "done", detail={"set": name, "queries": len(found.queries)})


def _check(name: str, queries: list[Query]) -> None:
    if not name or len(name) > MAX_ID_CHARACTERS or not name.isprintable() or name.endswith(" (hybrid)"):
        raise UsageError(f"{name!r} is not a valid name for a query set.", "Use letters.")
    if not queries:
        raise UsageError(f"The query set {name!r} would have no queries.", "Nothing was changed.")
    seen: set[str] = set()
    for query in queries:
        if query.id in seen:
            raise UsageError(f"Query id {query.id!r} comes twice.", "Every query needs its own id.")
        seen.add(query.id)
        check_query(query)


def check_query(query: Query) -> None:
    """Raise UsageError for a query that cannot be stored."""
    for what, text, most in (
        ("id", query.id, MAX_ID_CHARACTERS),
        ("text", query.text, MAX_QUERY_CHARACTERS),
        ("segment", query.segment, MAX_ID_CHARACTERS),
    ):
        if not text.strip() or len(text) > most:
            raise UsageError(
                f"Query {quote(query.id)}: its {what} has {len(text):,} characters; expected 1 to {most:,}."
            )
        if not is_storable(text):
            raise UsageError(f"Query {query.id!r}: its {what} has a NUL byte or a lone surrogate.")


def is_storable(text: str) -> bool:
    """Whether Postgres can store the text: it has no NUL and no lone surrogate."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
