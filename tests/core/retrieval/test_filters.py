"""Filters lose nothing, compared with an exact search of all matching chunks, for common, rare and absent
values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pgvector import Vector

from revector.core import index
from revector.core.database import Connection
from revector.core.errors import UsageError
from revector.core.registry import Version
from revector.core.retrieval import check_options, search_vector, statements
from tests.core.retrieval.collections import chunks_with_metadata, drawn_version

CHUNKS, DIMENSIONS = 6_000, 12
METADATA = """jsonb_build_object('half', n % 2, 'fifth', n % 5, 'tenth', n % 10, 'rare', n % 700, 'single', n,
                                 'tags', jsonb_build_array('all', 'tag ' || n % 3),
                                 'deep', jsonb_build_object('a', n % 4))"""


@pytest.fixture
def version(connection: Connection) -> Version:
    chunks_with_metadata(connection, CHUNKS, METADATA)
    vectors = np.random.default_rng(7).standard_normal((CHUNKS, DIMENSIONS), dtype=np.float32)
    return drawn_version(connection, "v1", vectors)


def exactly(
    connection: Connection, version: Version, vector: np.ndarray, where: dict[str, object], k: int
) -> list[tuple[int, float]]:
    with connection.transaction():
        connection.execute("SET LOCAL enable_indexscan = off")
        return connection.execute(
            f"""
            SELECT chunk_id, embedding {index.operator(version).as_string()} %s::vector AS distance
            FROM {version.table_name} JOIN document_chunks c ON c.id = chunk_id
            WHERE metadata @> %s::jsonb ORDER BY distance, chunk_id LIMIT %s
            """,  # type: ignore[arg-type]  # noqa: S608
            [Vector(vector).to_text(), json.dumps(where), k],
        ).fetchall()


FILTERS: list[dict[str, object]] = [
    {"half": 1}, {"fifth": 3}, {"tenth": 7}, {"rare": 13}, {"single": 4_242}, {"single": -1}, {"half": 0, "fifth": 2},
    {"half": 1, "tenth": 4}, {"tags": ["tag 2"]}, {"tags": ["all"], "rare": 1}, {"deep": {"a": 3}}, {"half": "1"},
]  # fmt: skip


def test_filters_find_what_an_exact_scan_finds(connection: Connection, version: Version) -> None:
    assert index.use(connection, version).used
    rng = np.random.default_rng(8)
    missed = wanted = 0
    for where in FILTERS:
        for k in (1, 10, 60):
            vector = rng.standard_normal(DIMENSIONS, dtype=np.float32)
            hits, _ = search_vector(connection, version, vector, check_options(k, where=where))
            expected = exactly(connection, version, vector, where, k)
            assert len(hits) == len(expected), where
            assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
            found, best = {hit.chunk_id for hit in hits}, {chunk for chunk, _ in expected}
            matching = _matching(connection, where)
            assert found <= matching
            if len(matching) <= statements.EXACT_ROWS:
                assert [hit.chunk_id for hit in hits] == [chunk for chunk, _ in expected], where
            missed += len(best - found)
            wanted += len(best)
    assert missed < wanted * 0.05  # by the index, which is not exact without a filter either


def _matching(connection: Connection, where: dict[str, object]) -> set[int]:
    rows = connection.execute(
        "SELECT id FROM document_chunks WHERE metadata @> %s::jsonb", [json.dumps(where)]
    ).fetchall()
    return {row[0] for row in rows}


def test_the_index_answers_where_many_match_and_goes_on_until_k_are_found(
    connection: Connection, version: Version
) -> None:
    from psycopg import sql

    where = {"fifth": 3}
    options = check_options(150, where=where)
    statements.set_session(connection, version, options)
    vector = np.ones(DIMENSIONS, np.float32)
    plan = connection.execute(
        sql.SQL("EXPLAIN (ANALYZE, COSTS OFF) {}").format(statements.search_statement(version, options)),
        {"vector": Vector(vector).to_text(), "filter": options.filter},
        prepare=False,
    ).fetchall()
    text = "\n".join(row[0] for row in plan)
    scan = next(line for line in text.splitlines() if index.index_name(version) in line)
    assert "rows=150" in scan  # ef_search is 150 and every fifth matches: without going on there were some 30
    assert text.count("never executed") >= 2  # neither of the two exact ways ran


def test_when_the_index_gives_up_everything_that_matches_is_compared(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What matches lies on the far side of everything, and the index may look at few."""
    far = 4_500
    chunks_with_metadata(connection, CHUNKS, f"jsonb_build_object('far', n > {far})")
    vectors = np.random.default_rng(9).standard_normal((CHUNKS, DIMENSIONS), dtype=np.float32)
    vectors[:far] += 5
    vectors[far:] -= 5
    version = drawn_version(connection, "v1", vectors)
    monkeypatch.setitem(statements.ITERATIVE_SCAN, "hnsw.max_scan_tuples", "1")
    vector = np.ones(DIMENSIONS, np.float32)
    hits, _ = search_vector(connection, version, vector, check_options(20, where={"far": True}))
    expected = exactly(connection, version, vector, {"far": True}, 20)
    assert [hit.chunk_id for hit in hits] == [chunk for chunk, _ in expected]
    assert len(hits) == 20


@pytest.mark.parametrize(("dimensions", "storage"), [(2_100, "vector"), (4_100, "halfvec")])
def test_filters_on_halfvec_and_bit_indexes(connection: Connection, dimensions: int, storage: str) -> None:
    chunks_with_metadata(connection, 400, METADATA)
    vectors = np.random.default_rng(3).standard_normal((400, dimensions), dtype=np.float32)
    version = drawn_version(connection, "v1", vectors, storage=storage)
    statements_before = statements.EXACT_ROWS
    try:
        for most in (statements_before, 0):
            statements.EXACT_ROWS = most  # type: ignore[misc]
            hits, _ = search_vector(connection, version, vectors[41], check_options(5, where={"half": 0}))
            assert hits[0].source_id == "doc-42"
            assert len(hits) == 5
            assert all(int(hit.source_id.removeprefix("doc-")) % 2 == 0 for hit in hits)
    finally:
        statements.EXACT_ROWS = statements_before  # type: ignore[misc]


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def test_keys_and_values_are_data(connection: Connection) -> None:
    chunks_with_metadata(connection, 3, "'{}'::jsonb")
    version = drawn_version(connection, "v1", np.eye(3, 4, dtype=np.float32), built=False)
    one = connection.execute("SELECT min(id) FROM document_chunks").fetchone()
    assert one is not None

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.dictionaries(TEXT, JSON, min_size=1, max_size=3))
    def finds_its_own(metadata: dict[str, object]) -> None:
        connection.execute(
            "UPDATE document_chunks SET metadata = %s::jsonb WHERE id = %s", [json.dumps(metadata), one[0]]
        )
        hits, _ = search_vector(connection, version, np.ones(4, np.float32), check_options(3, where=metadata))
        assert one[0] in {hit.chunk_id for hit in hits}

    finds_its_own()


@pytest.mark.parametrize(
    "where",
    [{1: "x"}, {"a": float("nan")}, {"a": object()}, {"a": "\0"}, {"a": "\ud800"}, {"a": "x" * 20_000}],
    ids=["key", "nan", "object", "nul", "surrogate", "long"],
)
def test_what_is_no_filter_is_refused(where: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="filter"):
        check_options(3, where=where)
