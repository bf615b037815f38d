"""Judgements on the hits for one query, when that query is part of a query set."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from revector.core.database import Connection, fetch_one
from revector.core.errors import UsageError
from revector.core.evaluation.judged_sets.judgements import Qrels, TargetKind, document_id_of, load_qrels
from revector.core.evaluation.judged_sets.query_sets import Query, get_query_set
from revector.core.registry import Version
from revector.core.retrieval import MAX_K, Comparison, SearchResult, VersionSearcher, check_query

DEPTH = 100
"""How many chunks of each version are ranked by document for nDCG, as in an evaluation."""


@dataclass(frozen=True)
class JudgedHits:
    """The grades for one query: `grades` maps chunk ids to grades (0 is not relevant); other chunks are unjudged.

    nDCG@k is trec_eval's, by ir-measures, for both versions' rankings at the judgements' level, each document by
    its best chunk; None when no relevant target is known, since then no ranking is better than another.
    """

    query_set: str
    query: Query
    level: TargetKind
    judges: tuple[str, ...]
    grades: Mapping[int, int]
    relevant: int
    k: int
    primary_ndcg: float | None
    candidate_ndcg: float | None


class QrelsCache:
    """Caches the judgements of query sets until new ones are stored; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[tuple[Any, ...], Qrels | None]] = {}

    def qrels(self, connection: Connection, name: str) -> Qrels | None:
        """The judgements of a set as `load_qrels` combines them; None when there are none."""
        stamp = fetch_one(
            connection,
            """
            SELECT s.revision, count(j.grade), max(j.judged_at)
            FROM query_sets s LEFT JOIN queries q ON q.query_set_id = s.id LEFT JOIN judgements j ON j.query = q.id
            WHERE s.name = %s GROUP BY s.id
            """,
            [name],
        )
        with self._lock:
            known = self._known.get(name)
        if known is None or known[0] != stamp:
            known = stamp, _load(connection, name) if stamp[1] else None
            with self._lock:
                self._known[name] = known
        return known[1]


def _load(connection: Connection, name: str) -> Qrels | None:
    try:
        return load_qrels(connection, get_query_set(connection, name))
    except UsageError:  # undone, or dropped with its set, since they were counted
        return None


def find_query(connection: Connection, text: str, prefer: str | None = None) -> tuple[str, Query] | None:
    """The query with exactly this text, and its set's name; of several, one in the set `prefer`, then a judged
    one."""
    row = connection.execute(
        """
        SELECT s.name, q.query_id, q.text, q.segment FROM queries q JOIN query_sets s ON s.id = q.query_set_id
        WHERE q.text = %(text)s
        ORDER BY s.name = %(prefer)s::text DESC NULLS LAST, EXISTS (SELECT FROM judgements j WHERE j.query = q.id) DESC,
                 s.name, q.query_id
        LIMIT 1
        """,
        {"text": text, "prefer": prefer},
    ).fetchone()
    return (row[0], Query(*row[1:])) if row else None


def judge_comparison(
    connection: Connection,
    searcher: VersionSearcher,
    found: Comparison,
    primary: Version,
    candidate: Version,
    *,
    qrels: QrelsCache | None = None,
    prefer: str | None = None,
) -> JudgedHits | None:
    """The judgements on a comparison's hits; None when its query is in no set (`prefer` goes first).

    Searches both versions again, down to DEPTH, when judgements are on documents or the list is shorter: nDCG at k
    documents needs more than k chunks.
    """
    hit_of = find_query(connection, check_query(found.query), prefer)
    if hit_of is None:
        return None
    name, query = hit_of
    judged = (qrels or QrelsCache()).qrels(connection, name)
    if judged is None:
        return JudgedHits(name, query, "document", (), {}, 0, found.k, None, None)
    grades = judged.grades.get(query.id, {})
    relevant = sum(grade > 0 for grade in grades.values())
    sides: Sequence[SearchResult] = (found.primary, found.candidate)
    if relevant:
        depth = min(MAX_K, max(found.k, DEPTH))
        sides = [searcher.search(found.query, depth, version=version) for version in (primary, candidate)]
    shown = (found.primary, found.candidate)
    targets = _targets(connection, judged.level, (hit.chunk_id for side in (*shown, *sides) for hit in side.hits))
    # What joins a judgement and a chunk: the semantic key, or the document's uuid.
    key_of = str if judged.level == "chunk" else document_id_of
    by_target = {str(key_of(target)): grade for target, grade in grades.items()}
    values: list[float | None] = [None, None]
    if relevant:
        values = [
            _ndcg(by_target, [targets.get(hit.chunk_id, "") for hit in side.hits], found.k) for side in sides
        ]
    return JudgedHits(
        name,
        query,
        judged.level,
        judged.judges,
        {
            hit.chunk_id: by_target[targets[hit.chunk_id]]
            for side in shown
            for hit in side.hits
            if targets.get(hit.chunk_id) in by_target
        },
        relevant,
        found.k,
        *values,
    )


def _targets(connection: Connection, level: TargetKind, chunk_ids: Iterable[int]) -> dict[int, str]:
    rows = connection.execute(
        "SELECT id, semantic_key, document_id FROM document_chunks WHERE id = ANY(%s)", [list(set(chunk_ids))]
    )
    return {chunk_id: key if level == "chunk" else str(document) for chunk_id, key, document in rows}


def _ndcg(grades: Mapping[str, int], ranked: Sequence[str], k: int) -> float:
    import ir_measures

    targets = list(dict.fromkeys(ranked))
    run = {"q": {target: float(len(targets) - rank) for rank, target in enumerate(targets)}}
    measured = list(ir_measures.iter_calc([ir_measures.nDCG @ k], {"q": dict(grades)}, run))
    return float(measured[0].value) if measured else 0.0
