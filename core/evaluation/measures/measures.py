"""Measures of a run against judgements, by ir-measures in its notation: `nDCG@10`, `P@10`, `R@100`, `RR@10`.

It gets only ranks, so that distances of two encoders are never compared and ties stay in search order: trec_eval
sorts by score, and equal scores by name.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING

from revector.core.database import Connection
from revector.core.errors import UsageError
from revector.core.evaluation.judged_sets.judgements import Qrels, TargetKind, document_id_of
from revector.core.evaluation.runs.store import Results
from revector.core.retrieval import MAX_K

if TYPE_CHECKING:
    from ir_measures import Measure

DEFAULT_MEASURES: tuple[str, ...] = ("nDCG@10", "P@10", "R@100", "RR@10")
_MAX_NAME_CHARACTERS = 100

Target = uuid.UUID | int
"""A document by its id, or a chunk by its id."""


def check_measures(names: Iterable[str]) -> tuple[str, ...]:
    """The measures' canonical names, each once. Raises UsageError for an unknown one, naming near matches."""
    return tuple(dict.fromkeys(str(_parse(name)) for name in names))


def check_depth(measures: Iterable[str], k: int) -> None:
    """Raise UsageError when a measure reads deeper than the run's top k."""
    for name in measures:
        depth = _depth(_parse(name))
        if depth is not None and depth > k:
            raise UsageError(
                f"{name} needs the first {depth} results; the run has {k} per query.",
                f"Make a run with a depth of {depth} or more.",
            )


def rankings(results: Results, level: TargetKind) -> Mapping[str, Sequence[Target]]:
    """A run's rankings by query id, best first: chunks, or documents by their best chunk."""
    if level == "document":
        return results.documents
    return {query: hits.chunk_ids.tolist() for query, hits in results.hits.items()}


def short_rankings(results: Results, level: TargetKind, depth: int) -> int:
    """For how many queries the run's top k has fewer than `depth` different targets although more chunks existed.

    A deeper run would give such a query higher values at that depth.
    """
    return sum(
        len(ranked) < depth and len(results.hits[query].chunk_ids) >= results.run.k
        for query, ranked in rankings(results, level).items()
    )


def chunk_ids_of(connection: Connection, qrels: Qrels) -> dict[str, int]:
    """The chunk id of each judged semantic key in the collection; empty for judgements on documents."""
    if qrels.level == "document":
        return {}
    wanted = {target for grades in qrels.grades.values() for target in grades}
    rows = connection.execute(
        "SELECT semantic_key, id FROM document_chunks WHERE semantic_key = ANY(%s)", [sorted(wanted)]
    )
    return dict(rows.fetchall())


def score(
    results: Results, qrels: Qrels, measures: Sequence[str], *, chunk_ids: Mapping[str, int] | None = None
) -> dict[str, dict[str, float]]:
    """Canonical name → query → value for every judged query, 0 without results. Unjudged queries are left out.

    `chunk_ids` comes from `chunk_ids_of`, and is needed for judgements on chunks. A relevant target that is not in
    the collection counts as not found. Raises UsageError as `check_measures` and `check_depth` do.
    """
    import ir_measures

    if qrels.level == "chunk" and chunk_ids is None:
        raise ValueError("judgements on chunks need the chunks' ids")
    measures = check_measures(measures)
    if (
        results.run.sample is None or results.run.k < results.run.chunks
    ):  # otherwise all of a pilot's chunks are ranked
        check_depth(measures, results.run.k)
    known = known_targets(qrels, chunk_ids or {})
    judged = [query for query, grades in qrels.grades.items() if grades]
    groups = _by_depth(measures)
    deepest = max((depth or results.run.k for depth in groups), default=0)
    # Per-query numbers in place of ids: only which ones are judged matters, and a million uuids are slow to
    # format.
    truth: dict[str, dict[str, int]] = {}
    found: dict[str, list[str]] = {}
    ranks = rankings(results, qrels.level)
    unjudged = [f"unjudged-{rank}" for rank in range(deepest)]
    for number, query in enumerate(judged):
        grades: dict[Target | str, int] = {}
        for target, grade in qrels.grades[query].items():
            grades[known[target]] = max(grade, grades.get(known[target], 0))
        names = {target: str(each) for each, target in enumerate(grades)}
        truth[str(number)] = dict(zip(names.values(), grades.values(), strict=True))
        if query in ranks:
            ranked = ranks[query][:deepest]
            found[str(number)] = [names.get(target, none) for target, none in zip(ranked, unjudged, strict=False)]
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(judged, 0.0) for name in measures}
    for depth, group in groups.items():
        run = {
            query: {target: float(-rank) for rank, target in enumerate(ranked[:depth])}
            for query, ranked in found.items()
            if ranked
        }
        for metric in ir_measures.iter_calc(list(group), truth, run) if truth else ():
            values[group[metric.measure]][judged[int(metric.query_id)]] = float(metric.value)
    return values


def known_targets(qrels: Qrels, chunk_ids: Mapping[str, int]) -> dict[str, Target | str]:
    """A run's id for each judged target; a target that it cannot find keeps its name."""
    targets = {target for grades in qrels.grades.values() for target in grades}
    if qrels.level == "document":
        return {target: document_id_of(target) for target in targets}
    return {target: chunk_ids.get(target, target) for target in targets}


def measure_depth(name: str) -> int | None:
    """The depth to which a measure reads a ranking, None for one that reads it whole."""
    return _depth(_parse(name))


def _by_depth(measures: Iterable[str]) -> dict[int | None, dict[Measure, str]]:
    """The measures with their names, by the depth to which they read a ranking: shorter rankings are much
    faster."""
    import ir_measures

    found: dict[int | None, dict[Measure, str]] = defaultdict(dict)
    for name in measures:
        measure = _parse(name)
        # Unjudged results are removed before the cut, so the cutoff does not limit the ranks that are read.
        depth = None if measure.params.get("judged_only") else _depth(measure)
        if depth is not None and measure.NAME == "RR":
            # trec_eval's version, which takes no depth and needs none: the ranking is already cut.
            measure = ir_measures.RR(rel=measure["rel"])
        found[depth][measure] = name
    return found


def _depth(measure: Measure) -> int | None:
    depth = measure.params.get("cutoff")
    return int(depth) if isinstance(depth, int) else None


@cache
def _parse(name: str) -> Measure:
    import ir_measures

    shown = name if len(name) <= _MAX_NAME_CHARACTERS else f"{name[:_MAX_NAME_CHARACTERS]}…"
    try:
        if shown != name:
            raise ValueError("too long")
        measure = ir_measures.parse_measure(name.strip())
        # Not the other providers: they need Perl, or divide by zero.
        providers = (ir_measures.pytrec_eval, ir_measures.msmarco, ir_measures.judged)
        supported = any(provider.supports(measure) for provider in providers)
    except NameError:
        raise _unknown(name) from None
    except (ValueError, AssertionError, TypeError, AttributeError, KeyError, RecursionError, MemoryError):
        raise UsageError(
            f"The measure {shown!r} cannot be read.",
            "Expected a name with its depth, such as nDCG@10 or P(rel=2)@5.",
        ) from None
    depth = _depth(measure)
    if depth is not None and not 1 <= depth <= MAX_K:
        raise UsageError(f"{name}: the depth is {depth}; expected 1 to {MAX_K:,}.")
    # A sum over the queries, such as NumRet, does not measure quality.
    if not supported or type(measure.aggregator()).__name__ != "MeanAgg":
        raise UsageError(f"{name} cannot be computed here.", f"Known: {', '.join(_examples())}.")
    return measure


def _unknown(name: str) -> UsageError:
    """The error for an unknown measure, with near matches at the same depth."""
    head, at, depth = name.strip().partition("@")
    heads = {example.partition("@")[0].lower(): example for example in _examples()}
    near = [heads[found] for found in get_close_matches(head.lower(), heads, n=3, cutoff=0.5)]
    if near:
        same = [
            f"{example.partition('@')[0]}@{depth}" if at and depth.isdigit() and "@" in example else example
            for example in near
        ]
        return UsageError(f"There is no measure {name!r}.", f"Did you mean {' or '.join(same)}?")
    return UsageError(f"There is no measure {name!r}.", f"Known: {', '.join(_examples())}.")


def _examples() -> tuple[str, ...]:
    return (*DEFAULT_MEASURES, "AP", "AP@100", "Success@5", "Rprec", "Bpref", "Judged@10", "infAP")
