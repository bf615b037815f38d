"""active_version() and search_chunks(): what a service in another language gets, against what revector finds itself."""

from __future__ import annotations

import datetime
import json

import numpy as np
import psycopg
import pytest
from pgvector import Vector
from psycopg import sql

from revector.core import index
from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.registry import get_version
from revector.core.retrieval import check_options, search_vector
from tests.core.retrieval.collections import chunks_with_metadata, drawn_version, flip
from tests.versions import NUMBERS, add, add_chunks, ready_version

ROWS = 300
KINDS = {
    "vector": (24, "vector"),
    "halfvec": (24, "halfvec"),
    "cast": (2_100, "vector"),
    "bit": (4_100, "halfvec"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_search_chunks_finds_what_python_finds(connection: Connection, kind: str) -> None:
    dimensions, storage = KINDS[kind]
    chunks_with_metadata(connection, ROWS, "'{}'::jsonb")
    rng = np.random.default_rng(dimensions)
    vectors = rng.standard_normal((ROWS, dimensions), dtype=np.float32)
    connection.execute("SET enable_seqscan = off")
    for metric in ("cosine", "l2", "ip"):
        version = drawn_version(connection, f"{kind}-{metric}", vectors, metric=metric, storage=storage)
        assert index.kind_of(version) == ("halfvec" if kind == "cast" else kind)
        assert index.use(connection, version).used
        for k in (1, 7, 150):
            query = rng.standard_normal(dimensions, dtype=np.float32)
            hits, _ = search_vector(connection, version, query, check_options(k))
            rows = connection.execute(
                "SELECT * FROM search_chunks(%s::vector, %s, %s)",
                [Vector(query).to_text(), k, version.version_key],
            ).fetchall()
            expected = [
                (hit.rank, hit.chunk_id, hit.semantic_key, hit.source_id, hit.chunk_no, hit.distance, hit.content,
                 version.version_key, False)
                for hit in hits
            ]  # fmt: skip
            assert rows == expected
            assert len(rows) == k


@pytest.mark.parametrize("kind", ["vector", "bit"])
def test_search_chunks_filters_and_fuses_as_python_does(connection: Connection, kind: str) -> None:
    dimensions, storage = KINDS[kind]
    rows = 5_400 if kind == "vector" else ROWS
    chunks_with_metadata(
        connection, rows, "jsonb_build_object('half', n % 2, 'rare', n % 90, 'tags', jsonb_build_array(n % 3))"
    )
    vectors = np.random.default_rng(5).standard_normal((rows, dimensions), dtype=np.float32)
    drawn_version(connection, "v1", vectors, storage=storage)
    version = get_version(connection, "v1")
    wheres: list[dict[str, object] | None] = [
        None,
        {"half": 1},
        {"half": 2},
        {"rare": {"$lt": 3}},
        {"half": {"$exists": True}},
        {"tags": 2, "half": {"$in": [0]}},
    ]
    for number, where in enumerate(wheres):
        for text in (None, "text 41 77", '"text 9" OR 12', "77 -41", "", "-text"):
            for k in (5, 60):
                query = vectors[number]
                options = check_options(k, where=where, hybrid=text is not None).of(text or "")
                hits, _ = search_vector(connection, version, query, options, text or "")
                found = connection.execute(
                    "SELECT rank, chunk_id, distance FROM search_chunks(%s::vector, %s, 'v1', %s, text => %s)",
                    [Vector(query).to_text(), k, None if where is None else json.dumps(where), text],
                ).fetchall()
                assert found == [(hit.rank, hit.chunk_id, hit.distance) for hit in hits], (where, text)


def test_search_chunks_leaves_the_settings_of_the_session_as_they_were(connection: Connection) -> None:
    chunks_with_metadata(connection, 3, "jsonb_build_object('n', n)")
    drawn_version(connection, "v1", np.eye(3, 4, dtype=np.float32))
    with connection.transaction():
        connection.execute("SET LOCAL hnsw.iterative_scan = strict_order; SET LOCAL hnsw.ef_search = 7")
        connection.execute("SELECT FROM search_chunks('[1,0,0,0]', 2, 'v1', '{\"n\": 2}')")
        row = connection.execute(
            "SELECT current_setting('hnsw.iterative_scan'), current_setting('hnsw.ef_search')"
        ).fetchone()
        assert row == ("strict_order", "7")


def test_search_chunks_refuses_what_is_no_filter(connection: Connection) -> None:
    chunks_with_metadata(connection, 3, "'{}'")
    drawn_version(connection, "v1", np.eye(3, 4, dtype=np.float32))
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no comparison") as refusal:
        connection.execute("SELECT FROM search_chunks('[1,0,0,0]', 2, 'v1', '{\"n\": {\"$near\": 2}}')")
    assert "$prefix" in (refusal.value.diag.message_hint or "")


def test_it_is_answered_by_the_index(connection: Connection) -> None:
    chunks_with_metadata(connection, ROWS, "'{}'::jsonb")
    for kind, (dimensions, storage) in KINDS.items():
        vectors = np.random.default_rng(1).standard_normal((ROWS, dimensions), dtype=np.float32)
        version = drawn_version(connection, kind, vectors, storage=storage)
        connection.execute("SET enable_seqscan = off")
        connection.execute(
            "SELECT count(*) FROM search_chunks(%s::vector, 5, %s)", [Vector(vectors[0]).to_text(), kind]
        )
        connection.execute("SELECT pg_stat_force_next_flush()")
        connection.execute("SELECT pg_stat_clear_snapshot()")
        scans = connection.execute(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = %s AND schemaname = current_schema()",
            [index.index_name(version)],
        ).fetchone()
        assert scans == (1,), kind


def test_a_service_moves_with_the_flip_and_finds_its_way_from_any_session(
    database: Database, connection: Connection
) -> None:
    add_chunks(connection, NUMBERS)
    assert connection.execute("SELECT * FROM active_version()").fetchall() == []
    spec = "static:wordllama-64?query_prefix=ask+100%25%2B%C3%A4%3A+&max_tokens=512&normalise=false"
    ready_version(database, connection, "v1", spec)
    ready_version(database, connection, "v2", "static:wordllama-128")
    flip(connection, "v1")
    # Its search path is not this collection's.
    with psycopg.connect(database.dsn, autocommit=True) as service:
        schema = sql.Identifier(database.schema)
        asks = sql.SQL("SELECT * FROM {}.active_version()").format(schema)
        searches = sql.SQL("SELECT content, version_key, active FROM {}.search_chunks(%s::vector, %s, %s)").format(
            schema
        )
        row = service.execute(asks).fetchone()
        assert row is not None
        assert row[0:2] == ("v1", "static:wordllama-64")
        assert row[3:12] == (64, "cosine", "vector", "static", "wordllama-64", None, "ask 100%+ä: ", False, 512)
        assert isinstance(row[12], datetime.datetime)
        vector = Vector(open_encoder(spec).encode_query("seven")).to_text()
        assert service.execute(searches, [vector, 2, "v1"]).fetchall()[0] == ("seven", "v1", True)
        flip(connection, "v2")
        assert service.execute(searches, [vector, 2, "v1"]).fetchall()[0] == ("seven", "v1", False)
        assert service.execute(asks).fetchone()[0] == "v2"  # type: ignore[index]
        before = service.execute("SELECT current_setting('hnsw.ef_search', true)").fetchone()
        service.execute(searches, [vector, 500, "v1"])
        assert service.execute("SELECT current_setting('hnsw.ef_search', true)").fetchone() == before


def test_settings_that_nobody_can_read_do_not_stop_who_asks(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    ready_version(database, connection, "v1")
    flip(connection, "v1")
    connection.execute("ALTER TABLE embedding_versions DISABLE TRIGGER check_encoder")
    connection.execute("UPDATE embedding_versions SET encoder_spec = 'a:%FF?base_url=%00&max_tokens=many'")
    row = connection.execute("SELECT * FROM active_version()").fetchone()
    assert row is not None
    assert row[6:12] == ("a", None, None, "", True, None)


def test_no_secret_and_nothing_of_the_machine_is_told(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    ready_version(database, connection, "v1")
    flip(connection, "v1")
    connection.execute("ALTER TABLE embedding_versions DISABLE TRIGGER check_encoder")
    connection.execute(
        "UPDATE embedding_versions SET encoder_spec = "
        "'openai:m%2Fx?api_key=hunter2&base_url=http%3A%2F%2Fh%2Fv1&key_env=MY_KEY&tokenizer=/home/x'"
    )
    row = connection.execute("SELECT * FROM active_version()").fetchone()
    assert row is not None
    assert (row[6], row[7], row[8]) == ("openai", "m/x", "http://h/v1")
    assert not any(secret in str(row) for secret in ("hunter2", "MY_KEY", "/home/x"))


def test_what_cannot_be_searched_is_refused_with_a_way_out(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    ready_version(database, connection, "v1")
    flip(connection, "v1")
    add(connection, "empty")
    connection.execute("INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, "
                       "distance_metric) VALUES ('tableless', 'x', '1', 3, 'l2')")  # fmt: skip
    good = str([1.0] * 64)
    for vector, k, key, words in (
        (good, 3, "v'1", "There is no embedding version"),
        (good, 0, "v1", "expected 1 to 1000"),
        (good, 1_001, "v1", "expected 1 to 1000"),
        ("[1,2,3]", 3, "v1", "The query has 3 dimensions; version v1 has 64"),
        (str([0.0] * 64), 3, "v1", "zero, or too long or too short for cosine"),
        (str([1e-30] * 64), 3, "v1", "zero, or too long or too short for cosine"),
        ("[1,2,3]", 3, "tableless", "has no vectors yet"),
        (None, 3, "v1", "takes a query vector"),
        (good, 3, None, "takes a query vector"),
    ):
        with pytest.raises(psycopg.Error, match=words) as caught:
            connection.execute("SELECT * FROM search_chunks(%s::vector, %s, %s)", [vector, k, key])
        assert caught.value.diag.message_hint or "expected" in words
    assert connection.execute("SELECT * FROM search_chunks(%s::vector, 3, 'empty')", [good]).fetchall() == []
