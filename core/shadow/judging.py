"""Sends queries on which the versions disagree from shadow traffic to the judging queue, as a query set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from revector.core import audit
from revector.core.database import Connection
from revector.core.errors import RefusedError
from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET, Query, get_query_set, save_queries

DEFAULT_SET = "shadow"
"""A separate set: a new query would give an evaluated set a new revision, without any runs."""


@dataclass(frozen=True)
class SentToJudging:
    """The result of sending queries to the judging queue."""

    query_set: Annotated[str, "the query set"]
    added: Annotated[int, "queries added to it"]
    there_already: Annotated[int, "queries that were in it"]
    without_text: Annotated[int, "queries whose text is not kept"]


def send_to_judging(connection: Connection, ids: Iterable[int], query_set: str = DEFAULT_SET) -> SentToJudging:
    """Add mirrored queries (by their ids in `shadow_queries`) to a query set, which is created if new.

    A query's id in the set follows from its text, so a query sent twice is added once; it keeps its segment.
    Raises RefusedError when no text is stored, UsageError for an invalid name of a set.
    """
    wanted = list(ids)
    rows = connection.execute(
        "SELECT query, segment FROM shadow_queries WHERE id = ANY(%s) ORDER BY id", [wanted]
    ).fetchall()
    texts = {text: segment for text, segment in rows if text}
    if not texts:
        raise RefusedError(
            "The text of none of these queries is kept, and nobody can judge a hash."
            if rows
            else "There are no queries to judge.",
            "Start a shadow that keeps it: revector shadow start KEY --query-text stored",
        )
    with connection.transaction():
        # Two people who send at once must not undo each other's additions.
        connection.execute("SELECT FROM query_sets WHERE name = %s FOR UPDATE", [query_set])
        found = connection.execute("SELECT 1 FROM query_sets WHERE name = %s", [query_set]).fetchone()
        there = get_query_set(connection, query_set).queries if found else ()
        known = {query.text for query in there}
        new = [
            Query(f"shadow-{hashlib.sha256(text.encode()).hexdigest()[:16]}", text, segment.strip() or WHOLE_SET)
            for text, segment in texts.items()
            if text not in known
        ]
        if new:
            save_queries(connection, query_set, [*there, *new])
        sent = SentToJudging(query_set, len(new), len(texts) - len(new), sum(not text for text, _ in rows))
        audit.record(connection, "shadow judge", None, detail={"set": query_set, "queries": sent.added})
    return sent
