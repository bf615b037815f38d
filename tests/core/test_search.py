"""Indexes and searches: every kind of index is used by its searches, and encoder and table are of one version."""

from __future__ import annotations

import numpy as np
import pytest

from revector.core import cutover, index
from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.errors import PinnedVersionError, RefusedError, UsageError
from revector.core.index import check_settings
from revector.core.registry import Version, get_version
from revector.core.retrieval import ROLLBACK_VARIABLE, EncoderCache, VersionSearcher, check_options, search_vector
from revector.core.settings import Settings
from tests.protocol_server import ProtocolServer
from tests.versions import NUMBERS, add, add_chunks, backfill, ready_version

TEXTS = [f"{a} and {b}" for a in NUMBERS for b in NUMBERS]


def nearest_by_hand(version: Version, connection: Connection, query: str, k: int) -> list[int]:
    """The top-k by NumPy over the same vectors."""
    rows = connection.execute(
        "SELECT chunk_id, embedding::text FROM chunk_embeddings WHERE embedding_version_id = %s ORDER BY 1",
        [version.id],
    ).fetchall()
    vectors = np.array([np.fromstring(text[1:-1], sep=",") for _, text in rows])
    target = open_encoder(version.encoder_spec).encode_query(query).astype(float)
    match version.distance_metric:
        case "cosine":
            distance = 1 - vectors @ target / np.linalg.norm(vectors, axis=1) / np.linalg.norm(target)
        case "l2":
            distance = np.linalg.norm(vectors - target, axis=1)
        case "ip":
            distance = -vectors @ target
    order = np.argsort(distance, kind="stable")[:k]
    return [rows[row][0] for row in order]


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("storage", ["vector", "halfvec"])
def test_a_search_finds_the_nearest_by_its_index(
    database: Database, connection: Connection, metric: str, storage: str
) -> None:
    add_chunks(connection, TEXTS)
    version = add(connection, "v1", metric=metric, storage=storage)
    backfill(database, version)
    assert index.build(connection, version, Settings()).valid
    connection.execute("SET enable_seqscan = off")
    assert index.use(connection, version).used
    found = VersionSearcher(connection).search("seven and three", 10, version=version)
    expected = nearest_by_hand(version, connection, "seven and three", 10)
    assert len(set(expected) & {hit.chunk_id for hit in found.hits}) >= 9
    assert found.hits[0].content in ("seven and three", "three and seven")
    assert [hit.rank for hit in found.hits] == list(range(1, 11))
    assert [hit.distance for hit in found.hits] == sorted(hit.distance for hit in found.hits)


def test_the_upgrade_from_small_to_large_by_the_provider(database: Database, connection: Connection) -> None:
    """text-embedding-3-small (1,536) to text-embedding-3-large (3,072): the large one is indexed as halfvec."""
    add_chunks(connection, TEXTS)
    with ProtocolServer() as provider:
        for key, model in (("small", "text-embedding-3-small"), ("large", "text-embedding-3-large")):
            version = ready_version(database, connection, key, f"openai:{model}?base_url={provider.base_url}")
            cutover.run(connection, key, confirm=key)
            result = VersionSearcher(connection).search("seven and three", 5)
            assert result.version_key == key
            assert result.hits[0].content in ("seven and three", "three and seven")
            assert cutover.check(connection, key).ready
        assert (version.dimensions, index.kind_of(version)) == (3072, "halfvec")
        plan = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE indexname = %s AND schemaname = %s",
            [index.index_name(version), database.schema],
        ).fetchone()
        assert plan is not None
        assert "halfvec(3072)) halfvec_cosine_ops" in plan[0]
        connection.execute("SET enable_seqscan = off")
        found = index.use(connection, version)
        assert found.used
        assert found.node == f"Index Scan using {index.index_name(version)}"
        cutover.rollback(connection, confirm="small")
        assert VersionSearcher(connection).search("seven and three", 5).version_key == "small"


def test_above_4000_dimensions_the_binary_index_is_ranked_again(
    database: Database, connection: Connection
) -> None:
    add_chunks(connection, TEXTS[:100])
    with ProtocolServer(models={"wide": 4100}) as provider:
        version = ready_version(database, connection, "wide", f"openai:wide?base_url={provider.base_url}")
        assert index.kind_of(version) == "bit"
        connection.execute("SET enable_seqscan = off")
        assert index.use(connection, version).used
        hits = VersionSearcher(connection).search(TEXTS[42], 5, version=version).hits
        assert hits[0].content == TEXTS[42]


def test_settings_outside_of_pgvectors_limits_are_refused() -> None:
    assert check_settings(16, 64) == {"m": 16, "ef_construction": 64}
    for m, ef_construction in ((1, 64), (101, 300), (16, 3), (16, 1001), (40, 64)):
        with pytest.raises(UsageError, match="pgvector takes"):
            check_settings(m, ef_construction)


def test_a_build_that_was_cut_off_is_done_again(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    version = ready_version(database, connection, "v1")
    connection.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(%s)", [index.index_name(version)]
    )
    assert not index.inspect(connection, version).valid
    assert index.build(connection, version, Settings()).valid


def test_an_index_is_not_built_before_the_load(connection: Connection) -> None:
    version = add(connection, "v1")
    with pytest.raises(RefusedError, match="not complete"):
        index.build(connection, version, Settings())


def test_one_build_at_a_time(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    version = add(connection, "v1")
    backfill(database, version)
    with (
        database.session("other") as other,
        index._one_build(other, version),
        pytest.raises(RefusedError, match="already being built"),
    ):
        index.build(connection, version, Settings())
    assert index.build(connection, version, Settings()).valid


def test_a_flip_between_encoding_and_searching_searches_again(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    ready_version(database, connection, "v1")
    ready_version(database, connection, "v2", "static:wordllama-128")
    cutover.run(connection, "v1", confirm="v1")
    encoded: list[int] = []

    class Flipping(EncoderCache):
        def encoder(self, version: Version):  # type: ignore[no-untyped-def]
            encoder = super().encoder(version)
            encoded.append(encoder.dimensions)
            if len(encoded) == 1:
                with database.session("operator") as operator:
                    cutover.run(operator, "v2", confirm="v2")
            return encoder

    result = VersionSearcher(connection, Flipping()).search("seven", 3)
    assert encoded == [64, 128]
    assert result.version_key == "v2"
    assert result.hits[0].content == "seven"


def test_the_environment_pins_a_version(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_chunks(connection, NUMBERS)
    ready_version(database, connection, "v1")
    ready_version(database, connection, "v2")
    cutover.run(connection, "v2", confirm="v2")
    monkeypatch.setenv(ROLLBACK_VARIABLE, "v1")
    assert VersionSearcher(connection).search("seven").version_key == "v1"
    monkeypatch.setenv(ROLLBACK_VARIABLE, "v11")
    with pytest.raises(PinnedVersionError, match=r"version v11 .RETRIEVAL_ROLLBACK_VERSION"):
        VersionSearcher(connection).search("seven")


def test_what_cannot_be_searched_is_refused(database: Database, connection: Connection) -> None:
    searcher = VersionSearcher(connection)
    with pytest.raises(RefusedError, match="No embedding version is active"):
        searcher.search("seven")
    version = add(connection, "v1")
    for text in ("", " \n", "\0", "\ud800"):
        with pytest.raises(UsageError, match="empty"):
            searcher.search(text, version=version)
    for k in (0, 1001):
        with pytest.raises(UsageError, match="expected 1 to 1000"):
            searcher.search("seven", k, version=version)
    with pytest.raises(RefusedError, match="64"):
        search_vector(connection, version, np.ones(63, np.float32), check_options(3))
    assert searcher.search("seven", version=version).hits == ()


def test_a_comparison_shows_moves_and_overlap(database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    first = ready_version(database, connection, "v1")
    second = ready_version(database, connection, "v2", "static:wordllama-256")
    found = VersionSearcher(connection).compare("seven and three", first, get_version(connection, "v2"), 10)
    assert (found.primary.version_key, found.candidate.version_key) == ("v1", "v2")
    keys = [[hit.semantic_key for hit in result.hits] for result in (found.primary, found.candidate)]
    assert found.overlap.overlap == len(set(keys[0]) & set(keys[1])) / 10 == found.overlap_by_depth[-1]
    for hit, move in zip(found.candidate.hits, found.candidate_moves, strict=True):
        assert move.after == hit.rank
        assert move.before == (keys[0].index(hit.semantic_key) + 1 if hit.semantic_key in keys[0] else None)
    assert second.dimensions == 256
