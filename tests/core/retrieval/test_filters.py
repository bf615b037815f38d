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
            WHERE metadata @? filter_path(%s::jsonb) ORDER BY distance, chunk_id LIMIT %s
            """,  # type: ignore[arg-type]  # noqa: S608
            [Vector(vector).to_text(), json.dumps(where), k],
        ).fetchall()


@pytest.fixture
def comparisons(connection: Connection) -> tuple[Connection, Version]:
    chunks_with_metadata(connection, len(ROWS), "'{}'::jsonb")
    for number, row in enumerate(ROWS, 1):
        connection.execute(
            "UPDATE document_chunks SET metadata = %s WHERE source_id = %s", [json.dumps(row), f"doc-{number}"]
        )
    return connection, drawn_version(connection, "v1", np.tri(len(ROWS), 4, dtype=np.float32), built=False)


FILTERS: list[dict[str, object]] = [
    {"half": 1}, {"fifth": 3}, {"tenth": 7}, {"rare": 13}, {"single": 4_242}, {"single": -1}, {"half": 0, "fifth": 2},
    {"half": 1, "tenth": 4}, {"tags": ["tag 2"]}, {"tags": ["all"], "rare": 1}, {"deep": {"a": 3}}, {"half": "1"},
    {"tags": "tag 2"}, {"single": {"$gt": 2_000}}, {"rare": {"$in": [1, 2]}, "half": {"$ne": 0}},
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
        "SELECT id FROM document_chunks WHERE metadata @? filter_path(%s::jsonb)", [json.dumps(where)]
    ).fetchall()
    return {row[0] for row in rows}


def test_the_index_answers_where_many_match_and_goes_on_until_k_are_found(
    connection: Connection, version: Version
) -> None:
    from psycopg import sql

    where = {"half": 1}
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
    assert "rows=240" in scan  # ef_search is 150 and every second matches: without going on there were some 75
    assert text.count("never executed") >= 2  # neither of the two exact ways ran


def test_when_the_index_gives_up_everything_that_matches_is_compared(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What matches lies on the far side of everything, and the index may look at few."""
    far = 3_000
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


ROWS: list[dict[str, object]] = [
    {"n": 1, "t": "docs/a", "tags": ["x", "y"]},
    {"n": 2.5, "t": "docs/b", "tags": ["y"], "deep": {"a": 1, "b": 2}},
    {"n": -3, "t": "src/c", "tags": "x", "deep": [{"a": 1, "b": 3}, {"a": 2, "b": 2}]},
    {"n": "2", "t": None, "": 7, 'a"b': True},
    {"who": {"name": "Ada"}},
    {"who": "Bob", "l": [["null"]]},
    {"who": [{"name": "Eve"}, 3]},
]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6]),
        ({"n": 1}, [0]),
        ({"n": -3}, [2]),
        ({"n": "2"}, [3]),
        ({"t": None}, [3]),
        ({"": 7, 'a"b': True}, [3]),
        ({"tags": "x"}, [0, 2]),
        ({"tags": ["x", "y"]}, [0]),
        ({"deep": {"a": 1, "b": 2}}, [1]),
        ({"deep": {"a": 2, "b": 2}}, [2]),
        ({"deep": {"a": {"$gte": 2}}}, [2]),
        ({"n": {"$gt": 1}}, [1]),
        ({"n": {"$gte": 1, "$lt": 2.5}}, [0]),
        ({"n": {"$lte": -3}}, [2]),
        ({"t": {"$gt": "docs/a", "$lt": "docs/z"}}, [1]),
        ({"n": {"$eq": 1}, "tags": {"$eq": "y"}}, [0]),
        ({"n": {"$ne": 1}}, [1, 2, 3, 4, 5, 6]),
        ({"tags": {"$ne": "x"}}, [1, 3, 4, 5, 6]),
        ({"n": {"$in": [1, "2", -3]}}, [0, 2, 3]),
        ({"n": {"$in": [1, "2"]}, "t": {"$in": ["docs/a", None]}}, [0, 3]),
        ({"n": {"$nin": [1, "2"]}}, [1, 2, 4, 5, 6]),
        ({"t": {"$prefix": "docs/"}}, [0, 1]),
        ({"deep": {"$exists": True}}, [1, 2]),
        ({"n": {"$exists": False}}, [4, 5, 6]),
        ({"t": {"$exists": True, "$ne": None}}, [0, 1, 2]),
        ({"who": {}}, [4, 6]),
        ({"who": {"name": {"$ne": "Ada"}}}, [6]),
        ({"who": {"name": {"$nin": ["Eve"]}}}, [4]),
        ({"who": {"name": {"$exists": False}}}, []),
        ({"l": {"$ne": "null"}}, [0, 1, 2, 3, 4, 5, 6]),
    ],
    ids=str,
)
def test_what_a_filter_lets_through(
    comparisons: tuple[Connection, Version], where: dict[str, object], expected: list[int]
) -> None:
    connection, version = comparisons
    hits, _ = search_vector(connection, version, np.ones(4, np.float32), check_options(9, where=where))
    assert sorted(int(hit.source_id.removeprefix("doc-")) - 1 for hit in hits) == expected


@pytest.mark.parametrize(
    ("where", "problem", "remedy"),
    [
        ({"$or": [{"a": 1}]}, "begins with '$or'", "year"),
        ({"a": {"$in": [*range(201)]}}, "compares by $in", "1 to 200"),
        ({"a": {"$regex": "x"}}, "'$regex', which is no comparison", "$prefix"),
        ({"a": {"$gt": 1, "b": 2}}, "'b', which is no comparison", "$gt"),
        ({"a": {"$gt": True}}, "compares by $gt with true", "a number or a text"),
        ({"a": {"$eq": [1]}}, "compares by $eq with [1]", "true, false or null"),
        ({"a": {"$in": []}}, "compares by $in with []", "a list of 1 to 200"),
        ({"a": {"$nin": [[1]]}}, "compares by $nin with [[1]]", "a list of 1 to 200"),
        ({"a": {"$prefix": 1}}, "compares by $prefix with 1", "a text"),
        ({"a": {"$exists": "no"}}, "compares by $exists with", "true or false"),
        ({"a": [[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]}, "more than 20 deep", ""),
    ],
    ids=str,
)
def test_a_comparison_that_cannot_be_made_is_refused(
    comparisons: tuple[Connection, Version], where: dict[str, object], problem: str, remedy: str
) -> None:
    connection, version = comparisons
    with pytest.raises(UsageError) as refusal, connection.transaction():
        search_vector(connection, version, np.ones(4, np.float32), check_options(9, where=where))
    assert problem in refusal.value.problem
    assert remedy in refusal.value.remedy


def test_equalities_are_read_from_the_index_of_the_metadata(connection: Connection) -> None:
    chunks_with_metadata(connection, CHUNKS, METADATA)
    for where in ({"rare": 3}, {"tags": ["tag 1"], "rare": -3}, {"single": {"$in": [1, 2]}}, {"deep": {"a": 9}}):
        plan = connection.execute(
            "EXPLAIN SELECT FROM document_chunks WHERE metadata @? filter_path(%s)",
            [json.dumps(where)],
            prepare=False,
        ).fetchall()
        assert "document_chunks_metadata_idx" in str(plan), where


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NAMES = TEXT.filter(lambda name: not name.startswith("$"))
"""A name that begins with $ is a comparison."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def test_keys_and_values_are_data(connection: Connection) -> None:
    chunks_with_metadata(connection, 3, "'{}'::jsonb")
    version = drawn_version(connection, "v1", np.eye(3, 4, dtype=np.float32), built=False)
    one = connection.execute("SELECT min(id) FROM document_chunks").fetchone()
    assert one is not None

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.dictionaries(NAMES, JSON, min_size=1, max_size=3))
    def finds_its_own(metadata: dict[str, object]) -> None:
        connection.execute(
            "UPDATE document_chunks SET metadata = %s::jsonb WHERE id = %s", [json.dumps(metadata), one[0]]
        )
        hits, _ = search_vector(connection, version, np.ones(4, np.float32), check_options(3, where=metadata))
        assert one[0] in {hit.chunk_id for hit in hits}, json.dumps(metadata)

    finds_its_own()


@pytest.mark.parametrize(
    "where",
    [{1: "x"}, "a=b", {"a": float("nan")}, {"a": object()}, {"a": "\0"}, {"a": "\ud800"}, {"a": "x" * 20_000}],
    ids=["key", "text", "nan", "object", "nul", "surrogate", "long"],
)
def test_what_is_no_filter_is_refused(where: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="filter"):
        check_options(3, where=where)


def test_a_backslash_before_u0000_is_no_nul() -> None:
    assert check_options(3, where={"a": "\\u0000"}).filter == '{"a": "\\\\u0000"}'
