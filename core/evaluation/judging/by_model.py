"""A model labels what two versions found: the pooled top-k of their runs, stored batch by batch.

Only what one of the versions shows to users needs a label. After an interruption, labels made so far stay, and the
same call makes the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from revector.core import audit
from revector.core.errors import UsageError
from revector.core.evaluation.judged_sets.judgements import (
    Judge,
    Judgement,
    ensure_judge,
    given_judgements,
    save_judgements,
    semantic_keys,
)
from revector.core.evaluation.runs.store import load_results

if TYPE_CHECKING:
    from revector.core.database import Connection, Database, Progress
    from revector.core.evaluation.document import Run
    from revector.core.evaluation.judged_sets.query_sets import QuerySet
    from revector.core.evaluation.judging.cross_encoder import CrossEncoderJudge
    from revector.core.evaluation.runs.store import Results

_BATCHES_A_SAVE = 4
"""How many batches of the model are stored at once: at most these are labelled again after a kill."""


@dataclass(frozen=True)
class PoolLabels:
    """The result of labelling a pool of (query, chunk) pairs."""

    judge: Judge
    primary: Run
    candidate: Run
    k: Annotated[int, "the depth"]
    made: Annotated[int, "labels made now"]
    kept: Annotated[int, "labels made before"]
    gone: Annotated[int, "chunks without one, since they left the collection"]

    @property
    def pairs(self) -> Annotated[int, "of a query and a chunk"]:
        """How many pairs of the pool have a label by this judge."""
        return self.made + self.kept


def pooled(primary: Results, candidate: Results, k: int) -> list[tuple[str, int]]:
    """The (query id, chunk id) pairs in the top-k of either, each once.

    Rank 1 of all queries comes first, so that interrupted labelling reaches the same depth everywhere.
    """
    ranks: dict[tuple[str, int], int] = {}
    for results in (primary, candidate):
        for query, hits in results.hits.items():
            for rank, chunk in enumerate(hits.chunk_ids[:k].tolist(), 1):
                pair = query, chunk
                ranks[pair] = min(rank, ranks.get(pair, rank))
    return sorted(ranks, key=lambda pair: (ranks[pair], pair))


def judge_pool(
    database: Database,
    query_set: QuerySet,
    model: CrossEncoderJudge,
    primary: Run,
    candidate: Run,
    *,
    k: int = 10,
    name: str | None = None,
    on_progress: Progress | None = None,
) -> PoolLabels:
    """Have the model label the pooled top-k of two runs as the judge of that name (default: the model's name).

    Skips pairs that this judge has labelled. Labels are on chunks, stored batch by batch with the model's scores.
    Raises UsageError for runs of different queries and for a name that another judge has, and EncoderError for
    invalid answers of the model; labels made until then stay.
    """
    for run in (primary, candidate):
        if (run.query_set, run.query_set_revision) != (query_set.name, query_set.revision):
            raise UsageError(
                f"Run {run.id} is of {run.query_set} at revision {run.query_set_revision}, not of {query_set.name} "
                f"at {query_set.revision}.",
                "Make a new run of it.",
            )
    with database.session("judge") as connection:
        judge = ensure_judge(connection, name or model.name, "model", spec=model.spec, revision=model.revision)
        pool = pooled(load_results(connection, primary), load_results(connection, candidate), k)
        keys = semantic_keys(connection, (chunk for _, chunk in pool))
        there = [pair for pair in pool if pair[1] in keys]
        labelled = {(row.query, row.target) for row in given_judgements(connection, query_set, judge=judge.name)}
        missing = [(query, chunk) for query, chunk in there if (query, keys[chunk]) not in labelled]
        made = 0
        step = f"labelling by {judge.name}"
        if on_progress:
            on_progress(step, 0, len(missing))
        at_once = model.batch_size * _BATCHES_A_SAVE
        for start in range(0, len(missing), at_once):
            rows = _label(connection, query_set, model, missing[start : start + at_once])
            save_judgements(connection, query_set, judge, rows)
            made += len(rows)
            if on_progress:
                on_progress(step, made, len(missing))
        # A chunk may have been deleted while others were labelled.
        gone = len(pool) - len(there) + len(missing) - made
        audit.record(
            connection, "judge", None, "done",
            detail={"set": query_set.name, "judge": judge.name, "made": made, "kept": len(there) - len(missing),
                    "runs": [primary.id, candidate.id], "k": k},
        )  # fmt: skip
    return PoolLabels(judge, primary, candidate, k, made, len(there) - len(missing), gone)


def _label(
    connection: Connection, query_set: QuerySet, model: CrossEncoderJudge, batch: Sequence[tuple[str, int]]
) -> list[Judgement]:
    texts = {query.id: query.text for query in query_set.queries}
    rows = connection.execute(
        "SELECT id, semantic_key, content FROM document_chunks WHERE id = ANY(%s)", [[chunk for _, chunk in batch]]
    ).fetchall()
    chunks = {row[0]: (row[1], row[2]) for row in rows}
    here = [(query, *chunks[chunk]) for query, chunk in batch if chunk in chunks]
    labels = model.label([(texts[query], content) for query, _, content in here])
    return [
        Judgement(query, "chunk", key, int(grade), float(score))
        for (query, key, _), grade, score in zip(here, labels.grades, labels.scores, strict=True)
    ]
