"""Why a version ranks a chunk where it does, against NumPy on the same vectors."""

from __future__ import annotations

import numpy as np
import pytest
from psycopg import sql

from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.explain import chunk_facts, explain
from revector.core.index import build
from revector.core.registry import create_table, get_version
from revector.core.retrieval import EncoderCache, VersionSearcher
from revector.core.settings import Settings
from tests.versions import SPEC, add, add_chunks, ready_version

QUERY = "forgotten password"
TEXTS = [f"text number {number}" for number in range(1_200)]


@pytest.fixture
def lossy(connection: Connection) -> dict[int, int]:
    """A version whose index is as bad as pgvector lets it be; the true rank of every chunk for QUERY."""
    ids = add_chunks(connection, TEXTS)
    version = add(connection, "lossy")
    connection.execute(
        """UPDATE embedding_versions SET index_settings = '{"m": 2, "ef_construction": 4, "ef_search": 1}'"""
    )
    create_table(connection, version)
    vectors = np.random.default_rng(7).standard_normal((len(ids), 64)).astype(np.float32)
    with connection.cursor() as cursor:
        cursor.executemany(
            sql.SQL("INSERT INTO {} VALUES (%s, %s::vector)").format(version.table),
            [(chunk, str(vector.tolist())) for chunk, vector in zip(ids, vectors, strict=True)],
        )
    connection.execute("UPDATE embedding_versions SET completed_at = now(), state = 'loaded'")
    build(connection, get_version(connection, "lossy"), Settings())
    connection.execute(sql.SQL("SET enable_seqscan = off"))
    query = open_encoder(SPEC).encode_query(QUERY).astype(np.float64)
    distances = 1 - vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    order = np.argsort(distances, kind="stable")
    return {ids[place]: rank for rank, place in enumerate(order, 1)}


def test_the_rank_without_an_index_is_the_true_one_and_shows_what_the_index_lost(
    connection: Connection, lossy: dict[int, int]
) -> None:
    version, encoders = get_version(connection, "lossy"), EncoderCache()
    hits = VersionSearcher(connection, encoders).search(QUERY, 5, version=version).hits
    found = {hit.chunk_id: hit.rank for hit in hits}
    lost = [chunk for chunk, rank in lossy.items() if rank <= 5 and chunk not in found]
    assert lost, "the index loses nothing: the test shows nothing"
    for chunk in (*found, *lost):
        one = explain(connection, encoders, QUERY, version, chunk, 5)
        assert one.exact_rank == lossy[chunk]
        assert one.rank == found.get(chunk)
        assert one.distance is not None
        assert one.ef_search == 5, "never less than k"
        assert (one.m, one.ef_construction, one.kind) == (2, 4, "vector")
        assert one.uses_index
        assert one.state.valid


def test_the_plan_is_that_of_the_very_search_and_has_no_vector_in_it(
    database: Database, connection: Connection
) -> None:
    ids = add_chunks(connection, TEXTS[:20])
    version = ready_version(database, connection, "small")
    one = explain(connection, EncoderCache(), "number seven", version, ids[7], 10)
    text = "\n".join(one.plan)
    assert "'[…]'" in text
    assert max(map(len, one.plan)) < 200
    assert "actual time" in text
    assert "embedding_versions" in text, "the active version is read in the search's own statement"
    assert "Seq Scan on " + version.table_name in text
    assert not one.uses_index, "twenty vectors are scanned"
    assert one.state.valid, "although there is an index"
    assert len(one.result.hits) == 10


def test_a_chunk_without_a_vector_has_no_distance(database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS[:3])
    version = ready_version(database, connection, "small")
    (late,) = add_chunks(connection, ["too late"])
    one = explain(connection, EncoderCache(), "number", version, late, 10)
    assert (one.rank, one.distance, one.exact_rank) == (None, None, None)


def test_comparing_all_vectors_is_given_up_at_the_statement_timeout(
    database: Database, connection: Connection
) -> None:
    ids = add_chunks(connection, TEXTS[:3])
    version = ready_version(database, connection, "small")
    # Counting takes a minute from here on, as it does over very many vectors.
    connection.execute(
        "CREATE FUNCTION slow(n bigint) RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT n + 1 FROM pg_sleep(60)'"
    )
    connection.execute("CREATE AGGREGATE count(*) (SFUNC = slow, STYPE = bigint, INITCOND = '0')")
    connection.execute("SELECT set_config('search_path', current_setting('search_path') || ', pg_catalog', false)")
    connection.execute("SET statement_timeout = '2s'")
    one = explain(connection, EncoderCache(), "number", version, ids[0], 10)
    assert one.rank is not None
    assert one.distance is not None
    assert one.exact_rank is None


def test_what_is_known_of_a_chunk(connection: Connection) -> None:
    (chunk,) = add_chunks(connection, ["text"])
    connection.execute("""UPDATE document_chunks SET metadata = '{"lang": "en"}'""")
    found = chunk_facts(connection, chunk)
    assert found is not None
    assert found.metadata == {"lang": "en"}
    assert chunk_facts(connection, chunk + 1) is None
