"""The encoder guard: what it sees, what it says that is, and where it stops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from psycopg import sql

from revector.core import index
from revector.core.cutover.policy import change_policy
from revector.core.database import Connection, Database
from revector.core.encoders import again
from revector.core.index import warming
from revector.core.index.warming import stored_vectors
from revector.core.loader import copy_vectors
from revector.core.registry import Version, create_table, get_version
from revector.core.retrieval import EncoderCache
from revector.core.settings import Settings
from revector.core.vectors.files import open_vectors
from revector.core.vectors.load import load
from tests.benchmarks import corpus
from tests.guards import only, served, verdict
from tests.protocol_server import Gate, ProtocolServer, embed
from tests.versions import NUMBERS, add, add_chunks, backfill, ready_version

ROWS, WIDTH = 2_000, 16


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sesame")


@pytest.fixture
def provider() -> Iterator[ProtocolServer]:
    with ProtocolServer(models={"m": 32}) as server:
        yield server


def numbered(connection: Connection, metric: str = "cosine") -> tuple[Version, NDArray[np.int64], EncoderCache]:
    """A version without vectors, the ids of its chunks, and the encoder that makes row n of a matrix of text n."""
    ids = corpus.fill(connection, ROWS, words=1)
    connection.execute(
        """
        INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, encoder_spec, dimensions,
                                        distance_metric)
        VALUES ('v2', 'precomputed', '1', 'free:matrix', %s, %s)
        """,
        [WIDTH, metric],
    )
    version = get_version(connection, "v2")
    create_table(connection, version)
    encoder = corpus.FreeEncoder(corpus.random_vectors(ROWS, WIDTH))
    return version, ids, EncoderCache(lambda _spec: encoder)


def add_far(connection: Connection, number: int) -> NDArray[np.int64]:
    """Insert so many chunks with ids spread over all beyond the others'; the text of the n-th is that of chunk n."""
    rows = connection.execute(
        """
        INSERT INTO document_chunks (id, semantic_key, document_id, chunk_no, content, content_sha256)
        SELECT 9000000000000000000 / %(number)s * (row_number() OVER (ORDER BY id)), 'far ' || id, document_id, 0,
               content, content_sha256
        FROM (SELECT * FROM document_chunks ORDER BY id LIMIT %(number)s) AS near
        RETURNING id
        """,
        {"number": number},
    ).fetchall()
    return np.array(sorted(row[0] for row in rows), dtype=np.int64)


def pages(monkeypatch: pytest.MonkeyPatch, number: float) -> None:
    """Have so many random pages read at once."""
    monkeypatch.setattr(warming, "_FEWEST_PAGES", number)
    monkeypatch.setattr(warming, "_PAGES_PER_ROW", 0)


def loaded(
    database: Database,
    version: Version,
    folder: Path,
    name: str,
    ids: NDArray[np.int64],
    rows: NDArray[np.float32],
) -> None:
    np.save(folder / f"{name}.npy", rows)
    np.save(folder / f"{name}.ids.npy", ids)
    load(database, version, [open_vectors(folder / f"{name}.npy")])


# -- the sample ----------------------------------------------------------------------------------------------


def test_the_sample_is_spread_over_the_whole_version(connection: Connection) -> None:
    version, ids, _ = numbered(connection)
    copy_vectors(connection, version, ids, corpus.random_vectors(ROWS, WIDTH))
    for _ in range(20):
        found = np.array(list(stored_vectors(connection, version, 100).vectors))
        assert len(set(found)) == 100
        assert np.histogram(found, 10, (ids[0], ids[-1] + 1))[0].tolist() == pytest.approx([10] * 10, abs=2)
    again = [list(stored_vectors(connection, version, 9, seed="v2").vectors) for _ in range(2)]
    assert again[0] == again[1] != list(stored_vectors(connection, version, 9, seed="v3").vectors)
    assert len(stored_vectors(connection, version, ROWS + 1).vectors) == ROWS


@pytest.mark.parametrize("by_pages", [False, True])
def test_no_id_makes_a_row_more_or_less_likely(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, by_pages: bool
) -> None:
    """A thousand chunks in a row, and a thousand whose ids are spread over all that there are."""
    version, ids, _ = numbered(connection)
    far = add_far(connection, 1_000)
    rows = np.concatenate([ids[:1000], far])
    np.random.default_rng(1).shuffle(rows)
    copy_vectors(connection, version, rows, corpus.random_vectors(2_000, WIDTH))
    if by_pages:
        pages(monkeypatch, 20)
    near = set(ids[:1000].tolist())
    drawn = [stored_vectors(connection, version, 10, seed=str(n)) for n in range(100)]
    assert {one.whole for one in drawn} == {not by_pages}
    found = [chunk_id in near for one in drawn for chunk_id in one.vectors]
    assert len(found) == 1000
    assert 0.4 < np.mean(found) < 0.6
    assert [one.rows for one in drawn] == pytest.approx([2_000] * 100, rel=0 if not by_pages else 0.7)


def test_a_row_on_an_emptier_page_is_as_likely_as_another(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator leaves pages of one row, by inserts that he rolls back, and loads full ones beside them."""
    version, ids, _ = numbered(connection)
    connection.execute(sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = off)").format(version.table))
    copy_vectors(connection, version, ids[:750], corpus.random_vectors(750, WIDTH))
    one = corpus.random_vectors(1, WIDTH)
    for chunk_id in ids[1_000:1_250]:
        with connection.transaction(force_rollback=True):
            copy_vectors(connection, version, ids[1_250:1_325], np.repeat(one, 75, axis=0))
        copy_vectors(connection, version, np.array([chunk_id]), one)
    sparse = set(ids[1_000:].tolist())
    pages(monkeypatch, 130)
    found = [
        chunk_id in sparse
        for n in range(150)
        for chunk_id in stored_vectors(connection, version, 100, seed=str(n)).vectors
    ]
    assert 0.15 < np.mean(found) < 0.35  # a quarter of the rows, on nearly all pages


# -- what would blind it -------------------------------------------------------------------------------------


def test_decoys_far_away_hide_nothing(connection: Connection) -> None:
    """Each vector of the first 800 chunks lies under another's id, and 400 right ones have ids up to 9e18."""
    version, ids, cache = numbered(connection)
    right = corpus.random_vectors(ROWS, WIDTH)
    copy_vectors(connection, version, ids[:800], np.roll(right[:800], 1, axis=0))
    copy_vectors(connection, version, add_far(connection, 400), right[:400])
    connection.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, 1200)", [version.id])
    found = only(connection, "encoder", "v2", cache)
    assert (found.verdict, "of 299 chunks encoded again look like shuffled ids" in found.detail) == (
        "fail",
        True,
    ), found
    assert 150 < int(found.detail.split()[0]) < 250  # two thirds of 299


def test_too_few_that_could_be_drawn_are_no_pass(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    version, ids, cache = numbered(connection)
    right = corpus.random_vectors(ROWS, WIDTH)
    copy_vectors(connection, version, ids, right)
    monkeypatch.setattr(warming, "_MORE_PAGES", 1)
    pages(monkeypatch, 10)
    found = only(connection, "encoder", "v2", cache)
    assert (found.verdict, "stored chunks could be drawn" in found.detail) == ("inconclusive", True), found
    assert "VACUUM" in found.remedy
    pages(monkeypatch, 0.01)
    for guard in ("encoder", "recall", "warm"):
        found = only(connection, guard, "v2", cache)
        assert (found.verdict, "could be drawn" in found.detail) == ("inconclusive", True), found
    # Vectors without a chunk are none of the sample, however many there are.
    monkeypatch.undo()
    connection.execute("DELETE FROM document_chunks WHERE id > %s", [int(ids[99])])
    copy_vectors(connection, version, np.arange(10_000_000, 10_020_000), corpus.random_vectors(20_000, WIDTH))
    found = only(connection, "encoder", "v2", cache)
    assert (found.verdict, found.detail.startswith("100 of 100 chunks encoded again")) == ("pass", True), found
    pages(monkeypatch, 10)
    found = only(connection, "encoder", "v2", cache)
    assert found.verdict == "inconclusive", found


# -- what it looks like --------------------------------------------------------------------------------------


def test_a_model_that_changed_under_its_name_is_found(
    database: Database, connection: Connection, provider: ProtocolServer
) -> None:
    add_chunks(connection, NUMBERS)
    ready_version(database, connection, "v2", served(provider))
    verdict(connection, "encoder", "pass", "16 of 16 chunks encoded again: lowest cosine 1.00000")
    verdict(connection, "encoder", "pass", "a single damaged row would be seen")

    # A newer model of nearly the same vectors, as providers serve it under the old name.
    noise = np.random.default_rng(1).standard_normal(32).astype(np.float32)
    provider.embed = lambda *given: embed(*given) + 0.1 * noise
    verdict(connection, "encoder", "fail", "look like another model's: lowest cosine 0.")
    change_policy(connection, {"encoder_cosine": 0.5})
    verdict(connection, "encoder", "pass", "at least 0.5 required")
    change_policy(connection, {"encoder_cosine": "default"})

    provider.embed = lambda text, *rest: embed(text, *rest) + (text == NUMBERS[7]) * noise
    verdict(connection, "encoder", "fail", "1 of 16 chunks encoded again")

    provider.embed = lambda *given: embed(*given)[:16]
    verdict(connection, "encoder", "fail", "dimensions")
    provider.embed = embed
    verdict(connection, "encoder", "pass", "lowest cosine")
    provider.fail(503)
    verdict(connection, "encoder", "inconclusive", "it cannot be reached")


@pytest.mark.parametrize("indexed", [False, True])
def test_shuffled_ids_are_named_and_the_file(
    database: Database, connection: Connection, tmp_path: Path, indexed: bool
) -> None:
    version, ids, cache = numbered(connection)
    right = corpus.random_vectors(ROWS, WIDTH)
    loaded(database, version, tmp_path, "good", ids[:1500], right[:1500])
    loaded(database, version, tmp_path, "shifted", ids[1500:], np.roll(right[1500:], 1, axis=0))
    if indexed:
        connection.execute("UPDATE embedding_versions SET completed_at = now(), state = 'loaded'")
        index.build(connection, get_version(connection, "v2"), Settings())
    found = only(connection, "encoder", "v2", cache)
    assert found.verdict == "fail"
    assert "of 299 chunks encoded again look like shuffled ids by +1: chunk " in found.detail, found
    named = found.detail.partition(": chunk ")[2].partition(";")[0].split(", ")
    for each in named:
        other, _, chunk = each.partition(" has that of ")
        assert int(other) == int(chunk) + 1
        assert int(chunk) >= ids[1500]
    assert "all among the chunks loaded from /" in found.detail
    assert found.detail.endswith("/shifted.npy")


def test_swapped_far_apart_are_found_by_the_index(connection: Connection) -> None:
    version, ids, cache = numbered(connection)
    mixed = corpus.random_vectors(ROWS, WIDTH)
    some = np.random.default_rng(3).permutation(ROWS)[:100]
    mixed[some] = mixed[np.roll(some, 1)]
    copy_vectors(connection, version, ids, mixed)
    connection.execute("UPDATE embedding_versions SET completed_at = now(), state = 'loaded'")
    index.build(connection, get_version(connection, "v2"), Settings())
    found = only(connection, "encoder", "v2", cache)
    assert (found.verdict, "look like shuffled ids: chunk " in found.detail) == ("fail", True), found
    stored_for, _, chunk = found.detail.partition(": chunk ")[2].partition(",")[0].partition(" has that of ")
    cycle = {int(ids[some[n - 1]]): int(ids[some[n]]) for n in range(len(some))}
    assert cycle[int(chunk.partition(";")[0])] == int(stored_for)


def test_a_file_of_another_model_is_named(database: Database, connection: Connection, tmp_path: Path) -> None:
    version, ids, cache = numbered(connection)
    right = corpus.random_vectors(ROWS, WIDTH)
    loaded(database, version, tmp_path, "good", ids[:1800], right[:1800])
    loaded(database, version, tmp_path, "strange", ids[1800:], -right[::-1][:200])
    found = only(connection, "encoder", "v2", cache)
    assert found.verdict == "fail"
    assert "look like another model's: lowest cosine" in found.detail, found
    assert "all among the chunks loaded from /" in found.detail
    assert found.detail.endswith("/strange.npy")


@pytest.mark.parametrize(("metric", "expected"), [("cosine", "pass"), ("l2", "fail"), ("ip", "fail")])
def test_vectors_of_another_length_are_others_where_length_counts(
    database: Database, connection: Connection, provider: ProtocolServer, metric: str, expected: str
) -> None:
    add_chunks(connection, NUMBERS)
    backfill(database, add(connection, "v2", f"{served(provider)}&normalise=false", metric=metric))
    verdict(connection, "encoder", "pass", "1.00000 (at least 0.999 required); a single")
    provider.embed = lambda text, *rest: (2 if text == NUMBERS[7] else 1) * embed(text, *rest)
    verdict(connection, "encoder", expected, "1 of 16 are 0.5 to 0.5 times as long as the encoder makes them")


# -- its limits ----------------------------------------------------------------------------------------------


def test_it_stops_when_time_is_up_and_says_what_it_would_have_seen(
    database: Database, connection: Connection, provider: ProtocolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_chunks(connection, NUMBERS)
    ready_version(database, connection, "v2", served(provider))
    monkeypatch.setattr(again, "_BATCH", 4)
    asked = len(provider.requests)
    verdict(connection, "encoder", "pass", "16 of 16")
    assert [len(request.inputs) for request in provider.requests[asked:]] == [4, 4, 4, 4]

    change_policy(connection, {"encoder_timeout_s": 2})
    gate = Gate.after(provider, len(provider.requests) + 2)
    try:
        verdict(connection, "encoder", "inconclusive", "8 of 16 chunks encoded again")
        verdict(connection, "encoder", "inconclusive", "no chunk was encoded again within 2 s")
    finally:
        gate.open()


def test_it_stops_when_the_money_is_spent(
    database: Database, connection: Connection, provider: ProtocolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "_BATCH", 4)
    add_chunks(connection, [f"{number} {number}" for number in NUMBERS])
    ready_version(database, connection, "v2", f"{served(provider)}&price=100")
    verdict(connection, "encoder", "pass", "of $0.1")
    asked = len(provider.requests)
    change_policy(connection, {"encoder_usd": 0.003})
    verdict(connection, "encoder", "inconclusive", "and 299 chunks do not fit into $0.003")
    sent = sum(len(request.inputs) for request in provider.requests[asked:])
    assert 4 <= sent < 16
    verdict(connection, "encoder", "inconclusive", "of the rows would be seen with 95% probability")
    change_policy(connection, {"encoder_usd": 0})
    verdict(connection, "encoder", "inconclusive", "no chunk was encoded again within $0")


def test_the_encoder_is_asked_outside_of_any_transaction(
    database: Database, connection: Connection, provider: ProtocolServer
) -> None:
    add_chunks(connection, NUMBERS)
    ready_version(database, connection, "v2", served(provider))
    states: list[str] = []
    with database.connect("test") as other:
        provider.meet = lambda: states.extend(
            row[0]
            for row in other.execute(
                "SELECT state FROM pg_stat_activity WHERE pid = %s", [connection.info.backend_pid]
            )
        )
        verdict(connection, "encoder", "pass", "lowest cosine")
        provider.meet = lambda: None
    assert states == ["idle"]
