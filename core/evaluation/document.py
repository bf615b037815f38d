"""What an evaluation says: two runs, their measures by segment, rank overlap, gates and the verdict.

These are the rows that the command line, the screens, the notebook and the reports show, and that `evaluations`
keeps as they were when somebody signed for them.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from psycopg.types.json import Jsonb

from revector.core.database import Connection, fetch_one
from revector.core.errors import UsageError
from revector.core.evaluation.judged_sets.judgements import TargetKind

Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Run:
    """The top-k of one version for every query of a set, with all that is needed to repeat it.

    `exact` searched without an index. `sample` says how the chunks of a pilot were drawn, None for the whole
    collection.
    """

    id: int
    query_set: str
    query_set_revision: str
    version_key: str
    encoder: str
    encoder_revision: str
    k: int
    exact: bool
    ef_search: int | None
    index_settings: dict[str, Any]
    sample: dict[str, Any] | None
    chunks: int
    queries: int
    state: Literal["running", "done"]
    started_at: datetime.datetime
    finished_at: datetime.datetime | None
    seconds: float
    created_by: str


@dataclass(frozen=True)
class MeasureResult:
    """A measure's means over the judged queries of one segment.

    `difference` is candidate − primary; `low` to `high` is its confidence interval and `p_value` that of the two-sided
    paired test of no difference, both None where they cannot be computed (fewer than two queries).
    """

    measure: str
    segment: str
    queries: int
    primary: float
    candidate: float
    difference: float
    low: float | None
    high: float | None
    p_value: float | None


@dataclass(frozen=True)
class GateResult:
    """A gate with its verdict and the figures behind it.

    Kind `floor`: `value` is the candidate's mean and `bound` what it has to reach. Kind `non-inferiority`: `value` is
    candidate − primary and `bound` is −margin. `low` and `high` bound the value at `confidence`, which is already
    corrected for the number of gates. `further_queries` would decide an inconclusive one, None when no number that
    can be named does; `detail` says all that in a sentence.
    """

    name: str
    kind: str
    measure: str
    segment: str
    verdict: Verdict
    queries: int
    value: float | None
    low: float | None
    high: float | None
    bound: float
    confidence: float
    p_value: float | None
    further_queries: int | None
    detail: str


@dataclass(frozen=True)
class OverlapResult:
    """How one measure of rank overlap is distributed over the queries of a segment, judged or not.

    `measure` is `overlap`, `jaccard`, `rbo` or `kendall_tau`; `quantiles` are those at 0, 0.05, 0.25, 0.5, 0.75, 0.95
    and 1; `histogram` counts queries in ten equal bins from 0 to 1, for `kendall_tau` from −1 to 1.
    """

    measure: str
    segment: str
    queries: int
    mean: float
    quantiles: tuple[float, ...]
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class QueryResult:
    """One query: its values by measure (empty without judgements), and how far the ranking moved.

    `judged` is how many of its relevant targets are known, `unjudged` how many of the top-k of the primary and of the
    candidate nobody judged. `kendall_tau` is None with fewer than two common results.
    """

    id: str
    text: str
    segment: str
    judged: int
    primary: dict[str, float]
    candidate: dict[str, float]
    primary_unjudged: int
    candidate_unjudged: int
    overlap: float
    jaccard: float
    rbo: float
    kendall_tau: float | None


@dataclass(frozen=True)
class Evaluation:
    """Two runs on one query set compared.

    `k` is the depth of the overlap and of "unjudged"; `rbo_p` the persistence of RBO. `measures` has the whole set
    first (segment `all`), then the segments by name. `queries` are those that moved most first. `unknown_targets` are
    (query, target) judged but not in the collection, `unjudged_queries` counts queries without any judgement; neither
    is dropped in silence. `verdict` is None without gates. `warnings` are sentences that belong on every page that
    shows the result: a pilot's sampling, runs with other index settings, a collection that changed between the runs.
    `index_recall` is the mean share of the exact top-k that the index found, 0 to 1, for an exact run of a version
    (primary) beside one by its index (candidate); None otherwise.
    """

    id: int
    query_set: str
    query_set_revision: str
    primary: Run
    candidate: Run
    judges: tuple[str, ...]
    level: TargetKind | None
    k: int
    rbo_p: float
    confidence: float
    measures: tuple[MeasureResult, ...]
    overlaps: tuple[OverlapResult, ...]
    gates: tuple[GateResult, ...]
    verdict: Verdict | None
    queries: tuple[QueryResult, ...]
    judged_queries: int
    unjudged_queries: int
    judgements: int
    unknown_targets: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    created_at: datetime.datetime
    created_by: str
    index_recall: float | None = None


@dataclass(frozen=True)
class EvaluationSummary:
    """A row of the list of evaluations."""

    id: int
    query_set: str
    primary: str
    candidate: str
    verdict: Verdict | None
    created_at: datetime.datetime
    created_by: str


def worst(verdicts: Sequence[Verdict]) -> Verdict | None:
    """One verdict of several: any fail fails, else any inconclusive is inconclusive; None for none."""
    for verdict in ("fail", "inconclusive", "pass"):
        if verdict in verdicts:
            return verdict
    return None


def save_evaluation(connection: Connection, found: Evaluation) -> Evaluation:
    """Keep it; returns it with its id, time and author as the database put them down."""
    row = fetch_one(
        connection,
        """
        INSERT INTO evaluations (query_set_id, primary_run_id, candidate_run_id, primary_version, candidate_version,
                                 verdict, report)
        SELECT query_set_id, %(primary)s, %(candidate)s, %(primary_key)s, %(candidate_key)s, %(verdict)s, %(report)s
        FROM evaluation_runs WHERE id = %(candidate)s
        RETURNING id, created_at, created_by
        """,
        {
            "primary": found.primary.id,
            "candidate": found.candidate.id,
            "primary_key": found.primary.version_key,
            "candidate_key": found.candidate.version_key,
            "verdict": found.verdict,
            "report": Jsonb(msgspec.to_builtins(found)),
        },
    )
    return dataclasses.replace(found, id=row[0], created_at=row[1], created_by=row[2])


def get_evaluation(connection: Connection, number: int) -> Evaluation:
    """The evaluation of that id. Raises UsageError when there is none."""
    row = connection.execute(
        "SELECT id, created_at, created_by, report FROM evaluations WHERE id = %s", [number]
    ).fetchone()
    if row is None:
        raise UsageError(f"There is no evaluation {number}.", "revector evaluations list")
    return msgspec.convert(
        row[3] | {"id": row[0], "created_at": row[1], "created_by": row[2]}, Evaluation, strict=False
    )


def evaluations(
    connection: Connection, *, candidate: str | None = None, limit: int = 100
) -> list[EvaluationSummary]:
    """The newest first; of one candidate only when its key is given."""
    rows = connection.execute(
        """
        SELECT e.id, s.name, e.primary_version, e.candidate_version, e.verdict, e.created_at, e.created_by
        FROM evaluations e JOIN query_sets s ON s.id = e.query_set_id
        WHERE %(candidate)s::text IS NULL OR e.candidate_version = %(candidate)s
        ORDER BY e.id DESC LIMIT %(limit)s
        """,
        {"candidate": candidate, "limit": limit},
    ).fetchall()
    return [EvaluationSummary(*row) for row in rows]
