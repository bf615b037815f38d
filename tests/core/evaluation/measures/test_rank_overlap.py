"""Overlap of whole runs by query; distributions and the recall of an index are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from revector.core import index
from revector.core.database import Connection, Database
from revector.core.evaluation.judged_sets.judgements import TargetKind
from revector.core.evaluation.judged_sets.query_sets import Query, get_query_set, save_queries
from revector.core.evaluation.measures.rank_overlap import index_recall, overlap_results, query_overlaps
from revector.core.evaluation.runs.make_run import make_run
from revector.core.evaluation.runs.store import load_results
from revector.core.overlap import Overlap
from revector.core.settings import Settings
from tests.core.evaluation.made_runs import made_results
from tests.versions import NUMBERS, add, add_chunks, backfill


@pytest.mark.parametrize("level", ["chunk", "document"])
def test_each_query_that_both_runs_have_is_compared_at_the_level(level: TargetKind) -> None:
    of = {chunk: chunk // 3 for chunk in range(12)}
    primary = made_results({"a": [0, 1, 3, 6], "b": [9], "c": [], "gone": [1]}, of)
    candidate = made_results({"a": [3, 2, 0, 11], "b": [9], "c": [], "new": [1]}, of)
    found = query_overlaps(primary, candidate, level, 2)
    assert set(found) == {"a", "b", "c"}
    # As chunks 0, 1 against 3, 2; as documents 0, 1 against 1, 0.
    shared, tau = (0.0, None) if level == "chunk" else (1.0, -1.0)
    assert (found["a"].k, found["a"].overlap, found["a"].kendall_tau) == (2, shared, tau)
    assert found["b"].rbo == pytest.approx(1.0)
    assert found["c"].overlap == 1.0
    with pytest.raises(ValueError, match="k is 0; expected"):
        query_overlaps(primary, candidate, level, 0)


def test_distributions_by_segment() -> None:
    overlaps = {
        f"q{n}": Overlap(10, n / 10, n / 10, 1.0, None if n < 9 else -1.0 + (n - 9) * 2) for n in range(11)
    }
    segments = {"all": list(overlaps), "few": ["q3", "gone"], "nobody": ["gone"]}
    found = {(each.segment, each.measure): each for each in overlap_results(overlaps, segments)}
    assert {segment for segment, _ in found} == {"all", "few"}
    whole = found["all", "overlap"]
    assert (whole.queries, whole.mean) == (11, pytest.approx(0.5))
    assert whole.quantiles == pytest.approx((0, 0.05, 0.25, 0.5, 0.75, 0.95, 1))
    # Each tenth begins a bin, and 1 is in the last: also 3/10, 6/10 and 7/10, which are no round binary numbers.
    assert whole.histogram == (1, 1, 1, 1, 1, 1, 1, 1, 1, 2)
    assert found["all", "rbo"].histogram == (0,) * 9 + (11,)
    tau = found["all", "kendall_tau"]
    assert (tau.queries, tau.mean, tau.histogram) == (2, 0.0, (1, 0, 0, 0, 0, 0, 0, 0, 0, 1))
    assert found["few", "overlap"].queries == 1
    assert ("few", "kendall_tau") not in found


def test_the_recall_of_an_index_counts_what_is_as_near() -> None:
    exact = made_results({"q": [1, 2, 3, 4], "none": []}, distances={"q": [0.1, 0.2, 0.3, 0.3]})
    # 9 has the text of 3 and 4; 8 is further away than the third.
    indexed = made_results({"q": [1, 9, 8], "none": [], "other": [1]}, distances={"q": [0.1, 0.3, 0.4]})
    assert index_recall(exact, indexed, 3) == {"q": pytest.approx(2 / 3)}
    assert index_recall(exact, indexed, 1) == {"q": 1.0}
    with pytest.raises(ValueError, match="one version"):
        index_recall(exact, made_results({}, version_key="v2"), 3)


def test_an_index_that_looks_at_little_loses_recall(database: Database, connection: Connection) -> None:
    add_chunks(connection, [f"{a} and {b} of {c}" for a in NUMBERS for b in NUMBERS for c in NUMBERS[:8]])
    # A graph with hardly any edges.
    version = add(connection, "v1", index_settings={"m": 2, "ef_construction": 4})
    backfill(database, version)
    index.build(connection, version, Settings())
    save_queries(connection, "set", [Query(text, f"{text} or {NUMBERS[0]}") for text in NUMBERS])
    query_set = get_query_set(connection, "set")
    exact, indexed = (
        load_results(connection, make_run(database, query_set, version, k=10, exact=exact))
        for exact in (True, False)
    )
    assert indexed.run.index_settings == {"kind": "vector", "m": 2, "ef_construction": 4, "used": True}
    assert set(index_recall(exact, exact, 10).values()) == {1.0}
    found = index_recall(exact, indexed, 10)
    assert np.mean(list(found.values())) < 1.0
    for query, recall in found.items():
        nearest = set(exact.hits[query].chunk_ids.tolist()) & set(indexed.hits[query].chunk_ids.tolist())
        assert recall >= len(nearest) / 10
