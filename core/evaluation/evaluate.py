"""Evaluates two versions on one query set: runs, measures, rank overlap and gates."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from revector.core import audit
from revector.core.database import Connection, Database, Progress
from revector.core.errors import RefusedError, UsageError
from revector.core.evaluation.document import (
    Evaluation,
    MeasureResult,
    QueryResult,
    Run,
    save_evaluation,
    worst,
)
from revector.core.evaluation.gates.verdicts import check_segments, judge_gates
from revector.core.evaluation.judged_sets.judgements import Qrels, judgement_count, load_qrels
from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET, QuerySet
from revector.core.evaluation.measures.measures import (
    DEFAULT_MEASURES,
    check_depth,
    check_measures,
    chunk_ids_of,
    known_targets,
    measure_depth,
    rankings,
    score,
    short_rankings,
)
from revector.core.evaluation.measures.rank_overlap import index_recall, overlap_results, query_overlaps
from revector.core.evaluation.runs.make_run import DEPTH, make_run
from revector.core.evaluation.runs.store import Results, load_results
from revector.core.overlap import RBO_P, Overlap
from revector.core.registry import versions

if TYPE_CHECKING:
    from revector.core.evaluation.gates.gate_file import GateFile
    from revector.core.registry import Version
    from revector.core.retrieval import EncoderCache

Scores = Mapping[str, Mapping[str, float]]
"""Measure → query → value."""


@dataclass(frozen=True)
class Asked:
    """What an evaluation should compute.

    `judges` are those whose judgements count (default: all people). The measures of the gates are added to
    `measures` (default: nDCG@10, P@10, R@100 and RR@10). `k` is the depth of the rank overlap, `confidence` that
    of the intervals, 0 to 1.
    """

    judges: Sequence[str] = ()
    measures: Sequence[str] = ()
    gates: GateFile | None = None
    k: int = 10
    confidence: float = 0.95


def evaluate(
    database: Database,
    query_set: QuerySet,
    primary: Version,
    candidate: Version,
    asked: Asked | None = None,
    *,
    depth: int = DEPTH,
    exact: bool = False,
    ef_search: int | None = None,
    hybrid: bool = False,
    encoders: EncoderCache | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Search both versions for every query of the set, compare, and store the result.

    `depth` is how many chunks the runs keep. `exact` searches without the index, so that differences come from the
    model alone; `hybrid` searches full text too, so that they are what users see. Raises UsageError for an unknown
    measure, judge or segment before anything is searched, RefusedError for a version compared with itself or without
    vectors, UnreachableError when an encoder cannot be reached; a second call then continues where the first one
    stopped.
    """
    asked = asked or Asked()
    if primary.id == candidate.id:
        raise RefusedError(
            f"Version {primary.version_key} cannot be compared with itself.", "Name another one: --candidate KEY"
        )
    depth = max(asked.k, depth)
    check_depth(_measures(asked), depth)
    with database.session("evaluate") as connection:
        _qrels(connection, query_set, asked)  # report errors before anything is paid for
        if asked.gates:
            check_segments(asked.gates, (WHOLE_SET, *query_set.segments))
    runs = [
        make_run(
            database,
            query_set,
            version,
            k=depth,
            exact=exact,
            ef_search=ef_search,
            hybrid=hybrid,
            encoders=encoders,
            on_progress=on_progress,
        )
        for version in (primary, candidate)
    ]
    with database.session("evaluate") as connection:
        return evaluate_runs(connection, query_set, runs[0], runs[1], asked)


def evaluate_runs(
    connection: Connection, query_set: QuerySet, primary: Run, candidate: Run, asked: Asked | None = None
) -> Evaluation:
    """Compare two stored runs, and store the result.

    Raises UsageError for runs of different query sets or revisions: their queries differ.
    """
    asked = asked or Asked()
    for run in (primary, candidate):
        if (run.query_set, run.query_set_revision) != (query_set.name, query_set.revision):
            raise UsageError(
                f"Run {run.id} was made with query set {run.query_set!r} at revision {run.query_set_revision}; "
                f"{query_set.name!r} is at {query_set.revision} now.",
                "Evaluate the versions again.",
            )
    wanted = _measures(asked)
    if asked.gates:
        if primary.hybrid != candidate.hybrid:
            raise UsageError(
                f"Only one of the runs {primary.id} and {candidate.id} is of hybrid searches: gates would judge that, "
                "and not the versions.",
                "Compare two runs of the same kind.",
            )
        check_segments(asked.gates, (WHOLE_SET, *query_set.segments))
    qrels = _qrels(connection, query_set, asked)
    first, second = load_results(connection, primary), load_results(connection, candidate)
    chunk_ids = chunk_ids_of(connection, qrels)
    scores = _scores(first, qrels, wanted, chunk_ids), _scores(second, qrels, wanted, chunk_ids)
    segments = _segments(query_set, None)
    judged = _segments(query_set, set(qrels.grades))
    overlaps = query_overlaps(first, second, qrels.level, asked.k)
    gates = judge_gates(asked.gates, *scores, judged) if asked.gates else ()
    found = Evaluation(
        id=0,
        query_set=query_set.name,
        query_set_revision=query_set.revision,
        primary=primary,
        candidate=candidate,
        judges=qrels.judges,
        level=qrels.level if qrels.grades else None,
        k=asked.k,
        rbo_p=RBO_P,
        confidence=asked.confidence,
        measures=_measure_results(wanted, scores, judged, asked.confidence),
        overlaps=overlap_results(overlaps, segments),
        gates=gates,
        verdict=worst([gate.verdict for gate in gates]),
        queries=_query_results(query_set, scores, overlaps, qrels, chunk_ids, (first, second), asked.k),
        judged_queries=len(judged[WHOLE_SET]),
        unjudged_queries=len(query_set.queries) - len(judged[WHOLE_SET]),
        judgements=qrels.judgements,
        unknown_targets=tuple(
            (query, target) for query in sorted(qrels.unknown) for target in qrels.unknown[query]
        ),
        warnings=_encoder_warnings(connection, primary, candidate)
        + _warnings(query_set, qrels, first, second, wanted),
        index_recall=_index_recall(first, second, asked.k),
        created_at=datetime.datetime.now(datetime.UTC),
        created_by="",
    )
    with connection.transaction():
        found = save_evaluation(connection, found)
        audit.record(
            connection,
            "evaluate",
            candidate.version_key,
            detail={
                "evaluation": found.id,
                "query_set": query_set.name,
                "revision": query_set.revision,
                "primary": primary.version_key,
                "runs": [primary.id, candidate.id],
                "verdict": found.verdict,
            },
        )
    return found


# -- before anything is searched ---------------------------------------------------------------------------


def _measures(asked: Asked) -> tuple[str, ...]:
    gated = [gate.measure for gate in asked.gates.gates] if asked.gates else []
    return check_measures([*(asked.measures or DEFAULT_MEASURES), *gated])


def _qrels(connection: Connection, query_set: QuerySet, asked: Asked) -> Qrels:
    """The judgements; without grades for an unjudged set: rank overlap needs none."""
    if not asked.judges and judgement_count(connection, query_set) == 0:
        return Qrels("document", (), {}, {})
    return load_qrels(connection, query_set, asked.judges)


# -- what the runs say -------------------------------------------------------------------------------------


def _scores(results: Results, qrels: Qrels, measures: Sequence[str], chunk_ids: Mapping[str, int]) -> Scores:
    if not qrels.grades:
        return {measure: {} for measure in measures}
    return score(results, qrels, measures, chunk_ids=chunk_ids)


def _segments(query_set: QuerySet, only: set[str] | None) -> dict[str, list[str]]:
    """Query ids by segment (only these queries if given): the whole set first, then the segments by name."""
    found: dict[str, list[str]] = {name: [] for name in (WHOLE_SET, *query_set.segments)}
    for query in query_set.queries:
        if only is None or query.id in only:
            for name in {WHOLE_SET, query.segment}:
                found[name].append(query.id)
    return found


def _measure_results(
    measures: Sequence[str],
    scores: tuple[Scores, Scores],
    segments: Mapping[str, Sequence[str]],
    confidence: float,
) -> tuple[MeasureResult, ...]:
    from revector.core.evaluation.measures.significance import compare_paired

    found = []
    for measure in measures:
        for segment, queries in segments.items():
            if not queries:
                continue
            values = [np.array([side[measure][query] for query in queries]) for side in scores]
            test = compare_paired(values[0], values[1], confidence)
            found.append(
                MeasureResult(
                    measure,
                    segment,
                    len(queries),
                    float(values[0].mean()),
                    float(values[1].mean()),
                    test.difference,
                    test.low,
                    test.high,
                    test.p_value,
                )
            )
    return tuple(found)


def _query_results(
    query_set: QuerySet,
    scores: tuple[Scores, Scores],
    overlaps: Mapping[str, Overlap],
    qrels: Qrels,
    chunk_ids: Mapping[str, int],
    runs: tuple[Results, Results],
    k: int,
) -> tuple[QueryResult, ...]:
    """Every query that both runs have, those that moved most first."""
    found = []
    names = known_targets(qrels, chunk_ids)
    ranks = [rankings(results, qrels.level) for results in runs]
    for query in query_set.queries:
        if query.id not in overlaps:
            continue
        overlap = overlaps[query.id]
        known = {names[target] for target in qrels.grades.get(query.id, ())}
        values = [
            {measure: side[measure][query.id] for measure in side if query.id in side[measure]} for side in scores
        ]
        unjudged = [sum(target not in known for target in ranked[query.id][:k]) for ranked in ranks]
        found.append(
            QueryResult(
                query.id,
                query.text,
                query.segment,
                len(known),
                values[0],
                values[1],
                unjudged[0],
                unjudged[1],
                overlap.overlap,
                overlap.jaccard,
                overlap.rbo,
                overlap.kendall_tau,
            )
        )
    return tuple(sorted(found, key=lambda each: (each.rbo, each.id)))


def _index_recall(first: Results, second: Results, k: int) -> float | None:
    exact, indexed = first.run, second.run
    if exact.version_key != indexed.version_key or not exact.exact or indexed.exact or indexed.hybrid:
        return None
    found = index_recall(first, second, k)
    return float(np.mean(list(found.values()))) if found else None


def _encoder_warnings(connection: Connection, *runs: Run) -> tuple[str, ...]:
    registered = {version.version_key: version.encoder_revision for version in versions(connection)}
    return tuple(
        f"The queries of {run.version_key} were encoded at revision {run.encoder_revision} of its encoder; its vectors "
        f"were registered at {registered[run.version_key]}: they may not be of one model."
        for run in runs
        if registered.get(run.version_key, run.encoder_revision) != run.encoder_revision
    )


def _warnings(
    query_set: QuerySet, qrels: Qrels, first: Results, second: Results, measures: Sequence[str]
) -> tuple[str, ...]:
    primary, candidate = first.run, second.run
    found = [str(run.sample["says"]) for run in (primary, candidate) if run.sample is not None]
    for what, one, other in (
        ("the depth", primary.k, candidate.k),
        ("exact search", primary.exact, candidate.exact),
        ("hybrid search", primary.hybrid, candidate.hybrid),
        ("ef_search", primary.ef_search, candidate.ef_search),
        ("chunks searched", primary.chunks, candidate.chunks),
    ):
        if one != other:
            found.append(
                f"The runs differ in {what}: {one} of {primary.version_key}, {other} of {candidate.version_key}."
            )
    if not qrels.grades:
        found.append(f"No query of {query_set.name} is judged: rankings are compared, not quality.")
        return tuple(dict.fromkeys(found))
    if qrels.unknown_count:
        found.append(
            f"{qrels.unknown_count:,} of {qrels.judgements:,} judgements are for documents or chunks that the "
            "collection does not contain: no version can find them."
        )
    deepest = max((depth for depth in map(measure_depth, measures) if depth), default=0)
    short = [
        f"{number:,} of {results.run.version_key}"
        for results in (first, second)
        if (number := short_rankings(results, qrels.level, deepest))
    ]
    if short:
        found.append(
            f"Runs keep {primary.k} chunks per query, fewer than {deepest} documents, for "
            f"{' and '.join(short)}: deep measures read low."
        )
    return tuple(dict.fromkeys(found))
