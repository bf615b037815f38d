"""Query sets, judgements and evaluations for tests that show them: stored as they are by real evaluations."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from psycopg.types.json import Jsonb

from revector.core.database import Connection, fetch_one
from revector.core.evaluation.document import Evaluation, OverlapResult, QueryResult, save_evaluation
from revector.core.evaluation.judged_sets.judgements import Judgement, ensure_judge, save_judgements
from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET, Query, QuerySet, get_query_set, save_queries
from revector.core.evaluation.runs.store import get_run
from revector.core.overlap import compare
from revector.core.registry import Version, get_version
from revector.core.retrieval import EncoderCache, VersionSearcher


def judged_set(
    connection: Connection,
    name: str,
    queries: Sequence[Query],
    grades: Mapping[str, Mapping[str, int]],
    *,
    kind: str = "document",
    judge: str = "ada",
) -> QuerySet:
    """A query set with one person's grades: query id → target → grade."""
    save_queries(connection, name, queries)
    query_set = get_query_set(connection, name)
    given = [
        Judgement(query, kind, target, grade)  # type: ignore[arg-type]
        for query, targets in grades.items()
        for target, grade in targets.items()
    ]
    save_judgements(connection, query_set, ensure_judge(connection, judge, "person"), given)
    return query_set


def stored_evaluation(
    connection: Connection, query_set: QuerySet, primary: str, candidate: str, *, k: int = 10
) -> Evaluation:
    """Two runs without hits, and their evaluation with the real overlap of every query, most moved first."""
    versions = [get_version(connection, key) for key in (primary, candidate)]
    searcher = VersionSearcher(connection, EncoderCache())
    results = [_result(searcher, query, versions, k) for query in query_set.queries]
    results.sort(key=lambda row: row.rbo)
    runs = [_run(connection, query_set, version, k) for version in versions]
    segments = [WHOLE_SET, *(name for name in query_set.segments if name != WHOLE_SET)]
    now = datetime.datetime.now(datetime.UTC)
    return save_evaluation(
        connection,
        Evaluation(
            id=0,
            query_set=query_set.name,
            query_set_revision=query_set.revision,
            primary=get_run(connection, runs[0]),
            candidate=get_run(connection, runs[1]),
            judges=("ada",),
            level="document",
            k=k,
            rbo_p=0.9,
            confidence=0.95,
            measures=(),
            overlaps=tuple(_overlap(name, results) for name in segments),
            gates=(),
            verdict=None,
            queries=tuple(results),
            judged_queries=0,
            unjudged_queries=0,
            judgements=0,
            unknown_targets=(),
            warnings=(),
            created_at=now,
            created_by="ada",
        ),
    )


def _result(searcher: VersionSearcher, query: Query, versions: Sequence[Version], k: int) -> QueryResult:
    keys = [[hit.semantic_key for hit in searcher.search(query.text, k, version=v).hits] for v in versions]
    found = compare(keys[0], keys[1], k)
    return QueryResult(
        query.id, query.text, query.segment, 0, {}, {}, k, k, found.overlap, found.jaccard, found.rbo,
        found.kendall_tau,
    )  # fmt: skip


def _overlap(segment: str, results: Sequence[QueryResult]) -> OverlapResult:
    values = [row.rbo for row in results if segment in (WHOLE_SET, row.segment)]
    quantiles = tuple(float(q) for q in np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]))
    histogram = tuple(int(n) for n in np.histogram(values, bins=10, range=(0, 1))[0])
    return OverlapResult("rbo", segment, len(values), statistics.fmean(values), quantiles, histogram)


def _run(connection: Connection, query_set: QuerySet, version: Version, k: int) -> int:
    (number,) = fetch_one(
        connection,
        """
        INSERT INTO evaluation_runs (query_set_id, query_set_revision, embedding_version_id, version_key, encoder,
                                     encoder_revision, k, exact, ef_search, index_settings, chunks, queries, state,
                                     finished_at, seconds)
        VALUES (%s, %s, %s, %s, %s, %s, %s, false, 100, %s, 0, %s, 'done', now(), 1) RETURNING id
        """,
        [query_set.id, query_set.revision, version.id, version.version_key, version.encoder_spec,
         version.encoder_revision, k, Jsonb({}), len(query_set.queries)],
    )  # fmt: skip
    return int(number)
