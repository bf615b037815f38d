"""Judgements: grades by people and by cross-encoders, for documents and for chunks.

A target is a document's source id or a chunk's semantic key, never a row id, so that judgements survive every
import.
"""

from __future__ import annotations

import datetime
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from revector.core.chunks import document_uuid
from revector.core.database import Connection, fetch_column, fetch_one
from revector.core.errors import UsageError, unknown_name
from revector.core.evaluation.judged_sets.query_sets import QuerySet, is_storable

JudgeKind = Literal["person", "model"]
TargetKind = Literal["document", "chunk"]

MAX_GRADE = 100
MAX_TARGET_CHARACTERS = 1_000
IMPORTED = "qrels"
"""The judge of judgements imported without a name."""


@dataclass(frozen=True)
class Judge:
    """A person by name, or a model by its spec and revision."""

    id: int
    name: str
    kind: JudgeKind
    spec: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Judgement:
    """A grade (0 is not relevant) for one target of one query, by the query's own id. `score` is a model's answer."""

    query: str
    target_kind: TargetKind
    target: str
    grade: int
    score: float | None = None


@dataclass(frozen=True)
class GivenJudgement:
    """A judgement with who gave it, and when."""

    query: str
    judge: str
    judge_kind: JudgeKind
    target_kind: TargetKind
    target: str
    grade: int
    score: float | None
    judged_at: datetime.datetime


@dataclass(frozen=True)
class Qrels:
    """What an evaluation reads: query id → target → grade, all at one level.

    At level `document` a target is a document's source id, at level `chunk` a semantic key. `unknown` are targets
    that are not in the collection, by query: they count as relevant documents that no version finds.
    """

    level: TargetKind
    judges: tuple[str, ...]
    grades: Mapping[str, Mapping[str, int]]
    unknown: Mapping[str, tuple[str, ...]]

    @property
    def judgements(self) -> int:
        """How many there are."""
        return sum(map(len, self.grades.values()))

    @property
    def unknown_count(self) -> int:
        """How many targets are not in the collection."""
        return sum(map(len, self.unknown.values()))


def semantic_keys(connection: Connection, chunk_ids: Iterable[object]) -> dict[Any, str]:
    """The semantic keys of those of these chunks that still exist, by chunk id."""
    query = "SELECT id, semantic_key FROM document_chunks WHERE id = ANY(%s)"
    return dict(connection.execute(query, [list(set(chunk_ids))]).fetchall())


def judges(connection: Connection) -> list[Judge]:
    """All judges: people first, then by name."""
    rows = connection.execute("SELECT id, name, kind, spec, revision FROM judges ORDER BY kind = 'model', name")
    return [Judge(*row) for row in rows.fetchall()]


def ensure_judge(
    connection: Connection, name: str, kind: JudgeKind, *, spec: str = "", revision: str = ""
) -> Judge:
    """The judge of that name, created if there is none.

    Raises UsageError when the name belongs to a judge of another kind, or a model with another spec or revision:
    grades of two models under one name could not be told apart.
    """
    if not name.strip() or len(name) > MAX_TARGET_CHARACTERS or not name.isprintable():
        raise UsageError(f"{name!r} is not a valid name for a judge.", "Use letters.")
    connection.execute(
        "INSERT INTO judges (name, kind, spec, revision) VALUES (%s, %s, %s, %s) ON CONFLICT (name) DO NOTHING",
        [name, kind, spec, revision],
    )
    judge = get_judge(connection, name)
    if (judge.kind, judge.spec, judge.revision) != (kind, spec, revision):
        have = "a person" if judge.kind == "person" else f"{judge.spec} at revision {judge.revision}"
        raise UsageError(f"Judge {name!r} is {have}.", "Use another name.")
    return judge


def get_judge(connection: Connection, name: str) -> Judge:
    """The judge of that name. Raises UsageError naming the near ones."""
    known = {judge.name: judge for judge in judges(connection)}
    if name not in known:
        raise unknown_name("judge", name, known)
    return known[name]


def save_judgements(
    connection: Connection, query_set: QuerySet, judge: Judge, given: Iterable[Judgement], *, replace: bool = False
) -> int:
    """Store a judge's grades; a second grade for a target replaces the first. Returns how many were stored.

    With `replace` they replace all of this judge's grades for the set. Raises UsageError for a query that is not
    in the set, a grade that is not 0 to 100, and an empty target; then nothing is stored.
    """
    rows = list(given)
    known = {query.id for query in query_set.queries}
    for row in rows:
        if row.query not in known:
            raise UsageError(
                f"A judgement is for query {row.query!r}, which is not in query set {query_set.name!r}.",
                "Import the queries with their judgements, or leave the judgement out.",
            )
        check_judgement(row)
    with connection.transaction():
        if replace:
            connection.execute(
                """
                DELETE FROM judgements j USING queries q
                WHERE q.id = j.query AND q.query_set_id = %s AND j.judge_id = %s
                """,
                [query_set.id, judge.id],
            )
        # One row for each target: ON CONFLICT cannot touch a row twice.
        last = {(row.query, row.target_kind, row.target): row for row in rows}
        connection.execute(
            """
            INSERT INTO judgements (query, judge_id, target_kind, target, grade, score)
            SELECT q.id, %(judge)s, n.target_kind, n.target, n.grade, n.score
            FROM unnest(%(queries)s::text[], %(kinds)s::text[], %(targets)s::text[], %(grades)s::int[],
                        %(scores)s::float8[]) AS n(query_id, target_kind, target, grade, score)
            JOIN queries q ON q.query_set_id = %(set)s AND q.query_id = n.query_id
            ON CONFLICT (query, judge_id, target_kind, target) DO UPDATE
            SET grade = excluded.grade, score = excluded.score, judged_at = now()
            """,
            {
                "set": query_set.id,
                "judge": judge.id,
                "queries": [row.query for row in last.values()],
                "kinds": [row.target_kind for row in last.values()],
                "targets": [row.target for row in last.values()],
                "grades": [row.grade for row in last.values()],
                "scores": [row.score for row in last.values()],
            },
        )
    return len(last)


def given_judgements(
    connection: Connection, query_set: QuerySet, *, judge: str | None = None
) -> list[GivenJudgement]:
    """Every judgement of the set, or of one judge, in the order of query, target and judge."""
    rows = connection.execute(
        """
        SELECT q.query_id, g.name, g.kind, j.target_kind, j.target, j.grade, j.score, j.judged_at
        FROM judgements j JOIN queries q ON q.id = j.query JOIN judges g ON g.id = j.judge_id
        WHERE q.query_set_id = %(set)s AND (%(judge)s::text IS NULL OR g.name = %(judge)s)
        ORDER BY q.query_id, j.target_kind, j.target, g.name
        """,
        {"set": query_set.id, "judge": judge},
    ).fetchall()
    return [GivenJudgement(*row) for row in rows]


def load_qrels(connection: Connection, query_set: QuerySet, names: Sequence[str] = ()) -> Qrels:
    """The judgements of these judges combined: of all people by default, or of all models when there are no
    people.

    - Where several judged one target, the lower median of their grades counts: a grade that at least half of them
      would give or exceed.
    - With any judgement on a document, everything is judged by document: a chunk's grade then counts for its
      document, and a document has the best of its chunks' grades. Without, chunks are judged.

    Raises UsageError for an unknown judge, or a set without judgements.
    """
    given = given_judgements(connection, query_set)
    chosen = _chosen(connection, query_set, given, names)
    kept = [row for row in given if row.judge in chosen]
    level = level_of(kept)
    found, gone = merged_grades(connection, kept, level)
    here = in_collection(connection, level, {target for by_target in found.values() for target in by_target})
    unknown: dict[str, set[str]] = defaultdict(set, gone)
    for query, by_target in found.items():
        unknown[query] |= by_target.keys() - here
    return Qrels(level, chosen, found, {query: tuple(sorted(them)) for query, them in unknown.items() if them})


def level_of(given: Iterable[GivenJudgement]) -> TargetKind:
    """The level at which these judgements can be combined: document as soon as one of them is on a document."""
    return "document" if any(row.target_kind == "document" for row in given) else "chunk"


def merged_grades(
    connection: Connection, given: Sequence[GivenJudgement], level: TargetKind
) -> tuple[dict[str, dict[str, int]], dict[str, set[str]]]:
    """Query id → target → grade at one level, by the rules of `load_qrels`.

    Also the judged chunks, by query, that are not in the collection, so that their document is unknown.
    """
    of_chunk = {}
    if level == "document":
        of_chunk = _documents_of(connection, [row.target for row in given if row.target_kind == "chunk"])
    by_judge: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    gone: dict[str, set[str]] = defaultdict(set)
    for row in given:
        target: str | None = row.target
        if level == "document" and row.target_kind == "chunk":
            target = of_chunk.get(row.target)
        if target is None:
            gone[row.query].add(row.target)
            continue
        grades = by_judge[row.query, target]
        grades[row.judge] = max(row.grade, grades.get(row.judge, 0))
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for (query, target), grades in by_judge.items():
        # The lower median: see load_qrels.
        found[query][target] = sorted(grades.values())[(len(grades) - 1) // 2]
    return dict(found), dict(gone)


def _chosen(
    connection: Connection, query_set: QuerySet, given: Sequence[GivenJudgement], names: Sequence[str]
) -> tuple[str, ...]:
    for name in names:
        get_judge(connection, name)
    people = {row.judge for row in given if row.judge_kind == "person"}
    chosen = set(names) or people or {row.judge for row in given}
    if not any(row.judge in chosen for row in given):
        who = f"by {', '.join(sorted(names))} " if names else ""
        raise UsageError(
            f"Query set {query_set.name!r} has no judgements {who}yet.".replace("  ", " "),
            f"Import some (revector queries import {query_set.name} --qrels FILE), judge in the console (J), "
            f"or use a model: revector judge {query_set.name} --judge SPEC",
        )
    return tuple(sorted(chosen))


def _documents_of(connection: Connection, semantic_keys: Sequence[str]) -> dict[str, str]:
    """The documents of those chunks that are in the collection, as targets (see `document_id_of`)."""
    if not semantic_keys:
        return {}
    rows = connection.execute(
        "SELECT semantic_key, source_id, document_id FROM document_chunks WHERE semantic_key = ANY(%s)",
        [list(semantic_keys)],
    )
    return {key: document_target(source_id, document_id) for key, source_id, document_id in rows}


def document_target(source_id: str, document_id: uuid.UUID) -> str:
    """A document's target: its source id, or its id in canonical text when the source id does not lead to it."""
    return source_id if document_id_of(source_id) == document_id else str(document_id)


@lru_cache(maxsize=1 << 18)
def document_id_of(target: str) -> uuid.UUID:
    """The `document_id` that a judgement's target means: the uuid5 of a source id, or the id itself in canonical text.

    Chunks that an application inserts by SQL may have document ids that no source id leads to.
    """
    try:
        found = uuid.UUID(target)
    except ValueError:
        return document_uuid(target)
    return found if str(found) == target else document_uuid(target)


def in_collection(connection: Connection, level: TargetKind, targets: set[str]) -> set[str]:
    """The targets that are in the collection."""
    if level == "chunk":
        return set(_documents_of(connection, sorted(targets)))
    ids = {target: document_id_of(target) for target in targets}
    here = fetch_column(
        connection,
        """
        SELECT u FROM unnest(%s::uuid[]) AS u
        WHERE EXISTS (SELECT FROM document_chunks c WHERE c.document_id = u)
        """,
        [list(set(ids.values()))],
    )
    known = set(here)
    return {target for target, found in ids.items() if found in known}


def check_judgement(row: Judgement) -> None:
    """Raise UsageError for a judgement that cannot be stored, whatever the query set."""
    if not 0 <= row.grade <= MAX_GRADE:
        raise UsageError(
            f"Query {row.query!r}: the grade of {row.target!r} is {row.grade}; expected 0 to {MAX_GRADE}."
        )
    if not row.target or len(row.target) > MAX_TARGET_CHARACTERS or not is_storable(row.target):
        raise UsageError(
            f"Query {row.query!r}: a judgement's target has {len(row.target)} characters; "
            f"expected 1 to {MAX_TARGET_CHARACTERS:,}, without NUL and lone surrogates."
        )


def judgement_count(connection: Connection, query_set: QuerySet) -> int:
    """How many judgements the set has, by all judges."""
    (found,) = fetch_one(
        connection,
        "SELECT count(*) FROM judgements j JOIN queries q ON q.id = j.query WHERE q.query_set_id = %s",
        [query_set.id],
    )
    return int(found)
