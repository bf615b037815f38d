"""A person's grades, one at a time: each can be undone, which restores what was there before."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from revector.core.database import Connection, fetch_one
from revector.core.errors import RefusedError, UsageError
from revector.core.evaluation.judged_sets.judgements import Judge, Judgement, document_id_of, save_judgements
from revector.core.evaluation.judged_sets.query_sets import QuerySet
from revector.core.evaluation.judging.queue import JudgingItem, judged_by

GRADES = ("not relevant", "marginal", "relevant", "exactly")
"""The labels of the grades; the index is the grade."""


@dataclass(frozen=True)
class Replaced:
    """A judgement that a new one replaced."""

    target_kind: str
    target: str
    grade: int
    score: float | None
    judged_at: datetime.datetime


@dataclass(frozen=True)
class Graded:
    """A stored grade, with what is needed to undo it."""

    item: JudgingItem
    grade: int
    judged_at: datetime.datetime
    replaced: tuple[Replaced, ...]


def grade(connection: Connection, query_set: QuerySet, judge: Judge, item: JudgingItem, given: int) -> Graded:
    """Store this judge's grade for the item, in one transaction.

    Earlier grades by this judge are deleted. For a document that includes grades of its chunks, the best of which
    would otherwise override a lower grade for the document.

    Raises UsageError for a grade that is not 0 to 3, and RefusedError when the query was deleted or its text
    changed, or when the set has changed from judging chunks to documents or back.
    """
    if not 0 <= given < len(GRADES):
        raise UsageError(f"The grade is {given}; expected 0 to {len(GRADES) - 1}.")
    with connection.transaction():
        query = _lock_query(connection, query_set, item)
        if judged_by(connection, query_set) != item.target_kind:
            raise RefusedError(
                f"Query set {query_set.name!r} is no longer judged by {item.target_kind}: judgements "
                "were added or removed.",
                "Nothing was stored. Open the queue again.",
            )
        replaced = _take_away(connection, query, judge, item)
        save_judgements(
            connection, query_set, judge, [Judgement(item.query_id, item.target_kind, item.target, given)]
        )
        (judged_at,) = fetch_one(
            connection,
            "SELECT judged_at FROM judgements WHERE query = %s AND judge_id = %s AND target_kind = %s AND target = %s",
            [query, judge.id, item.target_kind, item.target],
        )
    return Graded(item, given, judged_at, replaced)


def undo(connection: Connection, judge: Judge, graded: Graded, query_set: QuerySet) -> None:
    """Undo the grade, and restore what it replaced with the original time.

    Raises RefusedError when the stored grade has changed: somebody graded again under this name.
    """
    item = graded.item
    with connection.transaction():
        query = _lock_query(connection, query_set, item)
        gone = connection.execute(
            """
            DELETE FROM judgements
            WHERE query = %s AND judge_id = %s AND target_kind = %s AND target = %s AND judged_at = %s AND grade = %s
            """,
            [query, judge.id, item.target_kind, item.target, graded.judged_at, graded.grade],
        ).rowcount
        if not gone:
            raise RefusedError(
                f"The grade of {item.source_id!r} for query {item.query_id!r} has been changed since, under the name "
                f"{judge.name!r}.",
                "Nothing was undone. Grade it again.",
            )
        for before in graded.replaced:
            connection.execute(
                """
                INSERT INTO judgements (query, judge_id, target_kind, target, grade, score, judged_at)
                VALUES (%s, %s, %s, %s, %s, %s, %s)
                """,
                [
                    query, judge.id, before.target_kind, before.target, before.grade, before.score,
                    before.judged_at,
                ],
            )  # fmt: skip


def _lock_query(connection: Connection, query_set: QuerySet, item: JudgingItem) -> int:
    """Lock the query's row until the transaction ends; returns its row id."""
    found = connection.execute(
        "SELECT id FROM queries WHERE query_set_id = %s AND query_id = %s AND text = %s FOR KEY SHARE",
        [query_set.id, item.query_id, item.query],
    ).fetchone()
    if found is None:
        raise RefusedError(
            f"Query {item.query_id!r} of {query_set.name!r} is gone or its text has changed.",
            "Nothing was changed. Open the queue again.",
        )
    return int(found[0])


def _take_away(connection: Connection, query: int, judge: Judge, item: JudgingItem) -> tuple[Replaced, ...]:
    """Delete this judge's grades of the item, chunks of a document included."""
    document = document_id_of(item.target)
    rows = connection.execute(
        """
        DELETE FROM judgements j
        WHERE j.query = %(query)s AND j.judge_id = %(judge)s
          AND (j.target_kind = %(kind)s AND j.target = ANY(%(names)s)
               OR %(kind)s = 'document' AND j.target_kind = 'chunk' AND EXISTS (
                   SELECT FROM document_chunks c WHERE c.semantic_key = j.target AND c.document_id = %(document)s))
        RETURNING j.target_kind, j.target, j.grade, j.score, j.judged_at
        """,
        {
            "query": query,
            "judge": judge.id,
            "kind": item.target_kind,
            # A document may have been judged by its id instead of its source id.
            "names": [item.target] if item.target_kind == "chunk" else [item.target, str(document)],
            "document": document,
        },
    ).fetchall()
    return tuple(Replaced(*row) for row in rows)
