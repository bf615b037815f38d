"""An evaluation: two runs, their measures by segment, rank overlap, gates and the verdict.

The command line, the screens, the notebook and the reports show these rows, and the table `evaluations` stores
them unchanged.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from psycopg.types.json import Jsonb

from revector.core.database import Connection, fetch_one
from revector.core.errors import RefusedError, UsageError
from revector.core.evaluation.judged_sets.judgements import TargetKind

Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Run:
    """The top-k of one version for every query of a set, with everything needed to repeat it."""

    id: Annotated[int, "its number"]
    query_set: Annotated[str, "the query set"]
    query_set_revision: Annotated[str, "the set's revision at that time"]
    version_key: Annotated[str, "the version that searched"]
    encoder: Annotated[str, "its encoder"]
    encoder_revision: Annotated[str, "the encoder's revision"]
    k: Annotated[int, "results of each query"]
    exact: Annotated[bool, "whether it searched without an index"]
    hybrid: Annotated[bool, "whether it searched full text too, as `revector search --hybrid` does"]
    ef_search: Annotated[int | None, "of the index; null for the version's own"]
    index_settings: Annotated[dict[str, Any], "of the index: m, ef_construction"]
    sample: Annotated[dict[str, Any] | None, "how a pilot's chunks were drawn; null for the whole collection"]
    chunks: Annotated[int, "that were searched"]
    queries: Annotated[int, "that were asked"]
    state: Annotated[Literal["running", "done"], "running or done"]
    started_at: Annotated[datetime.datetime, "when it began"]
    finished_at: Annotated[datetime.datetime | None, "when it ended"]
    seconds: Annotated[float, "that it took"]
    created_by: Annotated[str, "who made it"]


@dataclass(frozen=True)
class MeasureResult:
    """A measure's means over the judged queries of one segment. Intervals and p take at least two queries."""

    measure: Annotated[str, "such as nDCG@10"]
    segment: Annotated[str, "`all` for the whole set"]
    queries: Annotated[int, "judged ones"]
    primary: Annotated[float, "the mean of the primary"]
    candidate: Annotated[float, "the mean of the candidate"]
    difference: Annotated[float, "candidate − primary"]
    low: Annotated[float | None, "where the difference's confidence interval begins"]
    high: Annotated[float | None, "where it ends"]
    p_value: Annotated[float | None, "of the two-sided paired test of no difference"]


@dataclass(frozen=True)
class GateResult:
    """A gate with its verdict and the figures behind it."""

    name: Annotated[str, "as the file of gates has it"]
    kind: Annotated[str, "floor or non-inferiority"]
    measure: Annotated[str, "such as nDCG@10"]
    segment: Annotated[str, "`all` for the whole set"]
    verdict: Annotated[Verdict, "pass, fail or inconclusive"]
    queries: Annotated[int, "judged ones"]
    value: Annotated[float | None, "the candidate's mean; for non-inferiority, candidate − primary"]
    low: Annotated[float | None, "where the value's interval begins, at `confidence`"]
    high: Annotated[float | None, "where it ends"]
    bound: Annotated[float, "what the value has to reach; for non-inferiority, −margin"]
    confidence: Annotated[float, "corrected for the number of gates"]
    p_value: Annotated[float | None, "of the test"]
    further_queries: Annotated[int | None, "that would decide an inconclusive one; null when no number would"]
    detail: Annotated[str, "all that in a sentence"]


@dataclass(frozen=True)
class OverlapResult:
    """The distribution of one measure of rank overlap over the queries of a segment, judged or not."""

    measure: Annotated[str, "overlap, jaccard, rbo or kendall_tau"]
    segment: Annotated[str, "`all` for the whole set"]
    queries: Annotated[int, "in it"]
    mean: Annotated[float, "over the queries"]
    quantiles: Annotated[tuple[float, ...], "at 0, 0.05, 0.25, 0.5, 0.75, 0.95 and 1"]
    histogram: Annotated[tuple[int, ...], "queries in ten equal bins from 0 to 1, of kendall_tau from −1 to 1"]


@dataclass(frozen=True)
class QueryResult:
    """One query: its values by measure, and how far the ranking moved."""

    id: Annotated[str, "in its query set"]
    text: Annotated[str, "what was asked"]
    segment: Annotated[str, "its segment"]
    judged: Annotated[int, "relevant targets that are known"]
    primary: Annotated[dict[str, float], "by measure; empty without judgements"]
    candidate: Annotated[dict[str, float], "by measure; empty without judgements"]
    primary_unjudged: Annotated[int, "of the primary's top-k, those that nobody judged"]
    candidate_unjudged: Annotated[int, "of the candidate's top-k, those that nobody judged"]
    overlap: Annotated[float, "the share of results that both have"]
    jaccard: Annotated[float, "results that both have, of those that either has"]
    rbo: Annotated[float, "rank-biased overlap"]
    kendall_tau: Annotated[float | None, "null with fewer than two results in common"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Two runs on one query set compared: stored in the database, and the answer of `revector evaluate --json`."""

    verdict: Annotated[Verdict | None, "of the gates; null without gates"]
    measures: Annotated[tuple[MeasureResult, ...], "the whole set first (segment `all`), then segments by name"]
    gates: Annotated[tuple[GateResult, ...], "as the file has them"]
    id: Annotated[int, "its number"]
    query_set: Annotated[str, "the query set"]
    query_set_revision: Annotated[str, "the set's revision at that time"]
    primary: Annotated[Run, "the run to compare with"]
    candidate: Annotated[Run, "the run that may be better"]
    judges: Annotated[tuple[str, ...], "whose judgements counted"]
    level: Annotated[TargetKind | None, "what was judged; null without judgements"]
    k: Annotated[int, "the depth of overlaps and of what is unjudged"]
    rbo_p: Annotated[float, "the persistence of RBO"]
    confidence: Annotated[float, "of the intervals"]
    overlaps: Annotated[tuple[OverlapResult, ...], "by measure and segment"]
    queries: Annotated[tuple[QueryResult, ...], "those that moved most first"]
    judged_queries: Annotated[int, "queries with a judgement"]
    unjudged_queries: Annotated[int, "queries without any"]
    judgements: Annotated[int, "that counted"]
    unknown_targets: Annotated[tuple[tuple[str, str], ...], "query and target, judged but not in the collection"]
    warnings: Annotated[tuple[str, ...], "sentences that belong on every page that shows the result"]
    created_at: Annotated[datetime.datetime, "when"]
    created_by: Annotated[str, "by whom"]
    index_recall: Annotated[
        float | None, "the share of the exact top-k that the index found, where the primary's run is an exact one"
    ] = None


@dataclass(frozen=True)
class EvaluationSummary:
    """A row of the list of evaluations."""

    id: Annotated[int, "its number"]
    query_set: Annotated[str, "the query set"]
    primary: Annotated[str, "the version to compare with"]
    candidate: Annotated[str, "the version that may be better"]
    verdict: Annotated[Verdict | None, "pass, fail or inconclusive; null without gates"]
    created_at: Annotated[datetime.datetime, "when"]
    created_by: Annotated[str, "by whom"]


def worst(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The worst of several verdicts: fail, then inconclusive, then pass; None without any."""
    return min(verdicts, key=("fail", "inconclusive", "pass").index, default=None)


def save_evaluation(connection: Connection, found: Evaluation) -> Evaluation:
    """Store it; returns it with the id, time and author set by the database."""
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
    """The evaluation of that id. Raises UsageError when there is none, RefusedError for a report that is none."""
    row = connection.execute(
        "SELECT id, created_at, created_by, report FROM evaluations WHERE id = %s", [number]
    ).fetchone()
    if row is None:
        raise UsageError(f"There is no evaluation {number}.", "revector evaluations list")
    own = {"id": row[0], "created_at": row[1], "created_by": row[2]}
    try:
        return msgspec.convert({**row[3], **own}, Evaluation, strict=False)
    except (TypeError, msgspec.ValidationError) as error:
        raise RefusedError(
            f"The report of evaluation {number}, saved by {row[2]}, is not revector's: {error}.",
            "Evaluate again: revector evaluate",
        ) from None


def evaluations(
    connection: Connection, *, candidate: str | None = None, limit: int = 100
) -> list[EvaluationSummary]:
    """All evaluations, newest first; only those of one candidate when its key is given."""
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
