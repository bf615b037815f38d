"""Imports query sets and judgements from files, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from revector.core import audit
from revector.core.database import Connection
from revector.core.evaluation.files.qrels import JudgementFile
from revector.core.evaluation.judged_sets import judgements, query_sets


@dataclass(frozen=True)
class Imported:
    """What an import did.

    `skipped_queries` are ids that the set does not have; `negative` and `repeated` are those of `JudgementFile`.
    """

    query_set: query_sets.QuerySet
    changes: query_sets.QueryChanges
    judge: Annotated[str | None, "who judged; null without judgements"]
    judgements: Annotated[int, "that were stored"]
    skipped: Annotated[int, "judgements of queries that the set does not have"]
    skipped_queries: tuple[str, ...]
    unknown_targets: Annotated[int, "judgements on what is not in the collection"]
    negative: int
    repeated: int


def import_query_set(
    connection: Connection,
    name: str,
    queries: Sequence[query_sets.Query] | None,
    qrels: JudgementFile | None = None,
    *,
    judge: str = judgements.IMPORTED,
    targets: judgements.TargetKind = "document",
    replace: bool = False,
) -> Imported:
    """Make these queries the set of that name (None: keep its queries), and store the judgements as a person's.

    The judgements are on documents (source ids) or on chunks (semantic keys), as `targets` says. They are added to
    the judge's earlier ones; with `replace` they take their place. Raises UsageError as save_queries, ensure_judge
    and save_judgements do; then nothing is changed.
    """
    with connection.transaction():
        # Two imports of one set run one after the other, so neither sees half of the other.
        connection.execute("SELECT FROM query_sets WHERE name = %s FOR UPDATE", [name])
        changes = query_sets.save_queries(connection, name, queries) if queries is not None else None
        query_set = query_sets.get_query_set(connection, name)
        if changes is None:
            changes = query_sets.QueryChanges(0, 0, 0, len(query_set.queries))
        if qrels is None:
            return Imported(query_set, changes, None, 0, 0, (), 0, 0, 0)
        return _import_judgements(connection, query_set, changes, qrels, judge, targets, replace)


def _import_judgements(
    connection: Connection,
    query_set: query_sets.QuerySet,
    changes: query_sets.QueryChanges,
    qrels: JudgementFile,
    judge: str,
    targets: judgements.TargetKind,
    replace: bool,
) -> Imported:
    known = {query.id for query in query_set.queries}
    rows = [
        judgements.Judgement(query, targets, target, grade)
        for query, by_target in qrels.grades.items()
        if query in known
        for target, grade in by_target.items()
    ]
    skipped = {query: len(by_target) for query, by_target in qrels.grades.items() if query not in known}
    person = judgements.ensure_judge(connection, judge, "person")
    stored = judgements.save_judgements(connection, query_set, person, rows, replace=replace)
    here = judgements.in_collection(connection, targets, {row.target for row in rows})
    found = Imported(
        query_set,
        changes,
        person.name,
        stored,
        sum(skipped.values()),
        tuple(sorted(skipped)),
        sum(row.target not in here for row in rows),
        qrels.negative,
        qrels.repeated,
    )
    audit.record(
        connection, "judgements import", None, "done",
        detail={"set": query_set.name, "judge": person.name, "judgements": stored, "skipped": found.skipped,
                "unknown_targets": found.unknown_targets, "replaced": replace},
    )  # fmt: skip
    return found
