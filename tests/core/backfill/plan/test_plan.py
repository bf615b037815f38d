"""The plan of a backfill: its figures against the truth, and each thing that would make the backfill fail."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import Jsonb

from revector.core import index, registry
from revector.core.backfill.job import disk
from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.plan import findings, footprint, plan, probe, sample
from revector.core.backfill.plan.plan import Plan, confirm_cost, make_plan
from revector.core.backfill.plan.sample import Demand, Estimate, interval, measure_demand
from revector.core.database import Connection, Database, fetch_one
from revector.core.encoders import Encoder, open_encoder
from revector.core.errors import EncoderError, UnreachableError, UsageError
from revector.core.loader import copy_vectors
from revector.core.registry import Version, get_version
from revector.core.settings import Settings
from tests.encoders import Stub
from tests.protocol_server import ProtocolServer
from tests.versions import SPEC, add, add_chunks, backfill, worker_on

TEXTS = [f"chunk {n}: " + " ".join(["word"] * (n % 40)) for n in range(200)]


@pytest.fixture
def service() -> Iterator[ProtocolServer]:
    with ProtocolServer() as server:
        yield server


def priced(server: ProtocolServer, model: str = "text-embedding-3-small", **settings: object) -> str:
    given = {"base_url": server.base_url, "max_retries": 0, **settings}
    return f"openai:{model}?" + "&".join(f"{name}={value}" for name, value in given.items())


def by_hand(connection: Connection, dimensions: int = 64, storage: str = "vector", **settings: int) -> Version:
    """A version as plain SQL registers it, with its table."""
    connection.execute(
        """
        INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric,
                                        storage, index_settings)
        VALUES ('v1', 'stub:test', '1', %s, 'cosine', %s, %s)
        """,
        [dimensions, storage, Jsonb(settings)],
    )
    version = get_version(connection, "v1")
    registry.create_table(connection, version)
    return version


def planned(connection: Connection, version: Version, encoder: object = None, **options: object) -> Plan:
    settings = options.pop("settings", Settings())
    return make_plan(connection, version, encoder or Stub(), settings, **options)  # type: ignore[arg-type]


def finding(found: Plan, name: str) -> findings.PlanFinding:
    (one,) = [finding for finding in found.findings if finding.name == name]
    return one


def names(found: Plan, verdict: str) -> set[str]:
    return {finding.name for finding in found.findings if finding.verdict == verdict}


def give_job(connection: Connection, version: Version, spent: float = 0.0, **settings: float) -> None:
    connection.execute("UPDATE embedding_versions SET state = 'backfilling' WHERE id = %s", [version.id])
    connection.execute(
        """
        INSERT INTO backfill_jobs (embedding_version_id, state, settings, total, spent_usd)
        VALUES (%s, 'paused', %s, 1, %s)
        """,
        [version.id, Jsonb(settings), spent],
    )


# -- chunks and tokens -------------------------------------------------------------------------------------


def test_a_small_collection_is_counted_exactly(connection: Connection) -> None:
    texts = [*TEXTS, TEXTS[3], TEXTS[3], TEXTS[5], "  "]
    ids = add_chunks(connection, texts)
    version, encoder = add(connection, "v1"), open_encoder(SPEC)
    found = measure_demand(connection, version, encoder)
    assert (found.chunks, found.missing, found.to_embed, found.sampled) == (204, 204, 204, 204)
    assert found.exact
    assert found.repeated == Estimate(3, 3, 3)
    tokens = encoder.count_tokens([*TEXTS, "  "])
    assert found.tokens == Estimate(tokens, tokens, tokens)
    assert found.characters is not None
    assert found.characters.estimate == sum(map(len, [*TEXTS, "  "]))
    assert found.blank == (ids[-1],)


def test_what_has_a_vector_or_failed_is_not_counted(database: Database, connection: Connection) -> None:
    first = add_chunks(connection, TEXTS[:100])
    version, encoder = add(connection, "v1"), open_encoder(SPEC)
    backfill(database, version)
    version = get_version(connection, "v1")
    new = add_chunks(connection, [*TEXTS[100:120], TEXTS[7]])
    failed, retried = new[0], new[1]
    for chunk_id in (failed, retried):
        connection.execute(
            "INSERT INTO dead_letters (embedding_version_id, chunk_id, error) VALUES (%s, %s, 'x')",
            [version.id, chunk_id],
        )
    connection.execute("DELETE FROM chunk_outbox WHERE chunk_id = %s", [failed])
    found = measure_demand(connection, version, encoder)
    assert (found.chunks, found.missing, found.failed, found.to_embed) == (121, 21, 1, 20)
    assert set(found.ids) == set(new[1:])
    assert not set(found.ids) & set(first)
    assert found.repeated.estimate == 1  # the text that has a vector


def test_a_large_collection_is_sampled_without_a_scan(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "_LISTED_CHUNKS", 0)
    connection.execute(
        """
        INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256)
        SELECT n::text, gen_random_uuid(), 0, text, sha256(text::bytea)
        FROM (SELECT n, repeat('word ', 1 + n / 4 % 60) || n / 4 AS text FROM generate_series(1, 20000) n) AS made
        """
    )
    connection.execute("ANALYZE document_chunks")
    version, encoder = add(connection, "v1"), Stub()

    def looked_at() -> tuple[int, int]:
        """Rows read by scans of the table, and entries read of its indexes."""
        connection.execute("SELECT pg_stat_force_next_flush()")
        query = """
            SELECT (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relid = t),
                   (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relid = t)::bigint
            FROM (SELECT 'document_chunks'::regclass AS t) AS chunks
        """
        scanned, entries = fetch_one(connection, query)
        return scanned, entries

    before = looked_at()
    found = measure_demand(connection, version, encoder)
    after = looked_at()
    assert after[0] == before[0]
    assert 0 < after[1] - before[1] < 10_000
    assert (found.to_embed, found.sampled, found.exact) == (20_000, 400, False)
    (characters, repeated) = fetch_one(
        connection,
        """
        SELECT sum(length(content)) FILTER (WHERE first), count(*) FILTER (WHERE NOT first)
        FROM (SELECT content, id = min(id) OVER (PARTITION BY content_sha256) AS first FROM document_chunks) c
        """,
    )
    # Four and a half standard errors either way: one run in 150,000 falls outside.
    for estimate, truth in (
        (found.characters, characters),
        (found.tokens, characters),
        (found.repeated, repeated),
    ):
        assert estimate is not None
        assert 0 < estimate.low < estimate.estimate < estimate.high
        assert abs(estimate.estimate - truth) <= 4.5 / 1.96 * (estimate.high - estimate.estimate)


def test_made_up_ids_are_sampled_by_pages(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "_LISTED_CHUNKS", 0)
    monkeypatch.setattr(sample, "_LOOKUPS", 2_000)
    connection.execute(
        """
        INSERT INTO document_chunks (id, semantic_key, document_id, chunk_no, content, content_sha256)
        SELECT n * 1000000000::bigint, n::text, gen_random_uuid(), 0, 'text', 'x' FROM generate_series(1, 500) n
        """
    )
    found = measure_demand(connection, add(connection, "v1"), Stub())
    assert (found.to_embed, found.sampled) == (500, 400)
    assert len(set(found.ids)) == 400


def test_a_half_done_backfill_is_sampled_where_it_is_not_done(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "_LISTED_CHUNKS", 0)
    monkeypatch.setattr(sample, "_LOOKUPS", 2_000)
    version = by_hand(connection)
    ids = add_chunks(connection, TEXTS)
    give_job(connection, version)
    # A range that is done, far away: were it drawn from, hardly a chunk would be found.
    connection.execute(
        """
        INSERT INTO backfill_ranges (job_id, first_chunk_id, last_chunk_id, cursor, state)
        SELECT j.id, r.first, r.last, r.cursor, r.state FROM backfill_jobs j,
               (VALUES (%(a)s::bigint, %(b)s::bigint, %(m)s::bigint, 'leased'),
                       (1000000, 900000000000, 1000000, 'done')) AS r(first, last, cursor, state)
        """,
        {"a": ids[0], "b": ids[-1], "m": ids[99]},
    )
    copy_vectors(connection, version, np.array(ids[:100]), np.ones((100, 64), np.float32))
    connection.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, 100)", [version.id])
    monkeypatch.setattr(sample, "_draw_pages", lambda *_: [])
    found = measure_demand(connection, get_version(connection, "v1"), Stub())
    assert set(found.ids) <= set(ids[100:])
    assert found.sampled > 90


def test_the_interval_is_the_textbook_one() -> None:
    found = interval([1, 2, 3, 4], 100)
    assert found.estimate == 250
    assert found.high - found.estimate == pytest.approx(100 * 1.96 * (5 / 3 / 4) ** 0.5 * 0.96**0.5)
    assert interval([1, 2, 3, 4], 4) == Estimate(10, 10, 10)
    assert interval([0, 0, 0, 9], 1_000).low == 9  # never less than what was seen


@pytest.mark.parametrize("spec", [f"{SPEC}?max_tokens=20", "service"])
def test_texts_that_the_model_does_not_read_whole(
    connection: Connection, service: ProtocolServer, spec: str
) -> None:
    """Also by an encoder that counts only what it reads."""
    spec = priced(service, max_tokens=20) if spec == "service" else spec
    ids = add_chunks(connection, ["short", "word " * 90, "also short"])
    found = measure_demand(connection, add(connection, "v1", spec), open_encoder(spec))
    assert [chunk_id for chunk_id, _ in found.too_long] == [ids[1]]


def test_a_text_of_just_the_limit_is_not_too_long(connection: Connection) -> None:
    add_chunks(connection, ["twelve chars"])
    encoder = Stub()
    encoder.max_tokens = 12  # type: ignore[assignment]
    assert measure_demand(connection, by_hand(connection), encoder).too_long == ()  # type: ignore[arg-type]


# -- cost --------------------------------------------------------------------------------------------------


def test_cost_is_tokens_by_price_and_the_probe_is_bounded(connection: Connection, service: ProtocolServer) -> None:
    add_chunks(connection, TEXTS)
    spec = priced(service, price=20)  # a million tokens for a car
    version, encoder = add(connection, "v1", spec), open_encoder(spec)
    sent = len(service.requests)
    assert planned(connection, version, encoder, probe_texts=0).probe is None
    assert len(service.requests) == sent
    offers = []
    found = planned(connection, version, encoder, on_offer=offers.append)
    assert found.cost_usd is not None
    assert found.cost_usd.estimate == pytest.approx(encoder.count_tokens(TEXTS) * 20 / 1e6)
    assert found.probe is not None
    texts = sum(len(request.inputs) for request in service.requests[sent:])
    assert found.probe.texts == texts - 2 <= len(TEXTS) / 10  # the two that ask for the dimensions
    assert found.probe.cost_usd is not None
    assert found.probe.cost_usd <= probe.MOST_USD
    (offer,) = offers
    assert offer.texts == found.probe.texts
    assert offer.cost_usd == pytest.approx(found.probe.cost_usd, rel=0.7)


def test_the_offer_may_be_turned_down(connection: Connection, service: ProtocolServer) -> None:
    add_chunks(connection, TEXTS)
    spec = priced(service)
    version, encoder = add(connection, "v1", spec), open_encoder(spec)
    sent = len(service.requests)

    def no(_offer: probe.Offer) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planned(connection, version, encoder, on_offer=no)
    assert len(service.requests) == sent


@pytest.mark.parametrize("price", [0.02, 0.13, 2.0, None])
def test_no_offer_is_dear(price: float | None) -> None:
    texts = tuple(TEXTS)
    encoder = Stub()
    encoder.price = price  # type: ignore[assignment]
    many = Estimate(1e6, 1e6, 1e6)
    demand = Demand(
        10**6, 10**6, 0, 10**6, 200, False, Estimate(0, 0, 0), many, many, many, (), (), None, texts, ()
    )  # fmt: skip
    offer = probe.make_offer(demand, encoder, batch_size=256)  # type: ignore[arg-type]
    assert offer.rounds >= 3
    if price is None:
        assert offer.cost_usd is None
        assert 0 < offer.tokens <= probe.MOST_TOKENS + 100
    else:
        assert offer.cost_usd is not None
        assert 0 < offer.cost_usd <= probe.MOST_USD * 1.05


def test_what_is_said_before_money_is_spent(connection: Connection, service: ProtocolServer) -> None:
    version = add(connection, "v1", priced(service))
    assert confirm_cost(connection, version, open_encoder(priced(service))) is None  # nothing to embed
    add_chunks(connection, [f"{n:04}" * 100 for n in range(100)])
    sent = len(service.requests)
    said = confirm_cost(connection, version, open_encoder(priced(service, price=250)))
    assert said == "About 10,000 tokens, $2.50 at $250 per million."
    assert confirm_cost(connection, version, open_encoder(SPEC)) is None
    own = open_encoder(priced(service, "house-model"))
    assert (
        confirm_cost(connection, version, own) == "About 10,000 tokens; no price is known for openai:house-model."
    )
    assert len(service.requests) == sent
    assert plan.dollars(Estimate(0.025, 0.02, 0.03)) == "$0.02–0.03"
    assert plan.dollars(Estimate(0.0002, 0.0001, 0.0003)) == "$0.0001–0.0003"
    assert [plan.short_number(n) for n in (950, 12_400, 1_234_567, 58e6, 3.14e9)] == [
        "950", "12,400", "1.2 M", "58 M", "3.1 G",
    ]  # fmt: skip


def test_an_unknown_price_is_not_zero(connection: Connection, service: ProtocolServer) -> None:
    add_chunks(connection, TEXTS[:20])
    spec = priced(service, "house-model")
    found = planned(connection, add(connection, "v1", spec), open_encoder(spec))
    assert found.cost_usd is None
    assert finding(found, "price").verdict == "warn"
    assert found.ready


@pytest.mark.parametrize(("cap", "spent", "verdict"), [(0.5, 0.0, "fail"), (5.0, 4.9, "fail"), (5.0, 1.0, "pass")])
def test_a_spend_cap_below_the_cost(
    connection: Connection, service: ProtocolServer, cap: float, spent: float, verdict: str
) -> None:
    add_chunks(connection, [f"{n:04}" * 100 for n in range(100)])
    spec = priced(service, price=100)  # the whole of it a dollar
    version = add(connection, "v1", spec)
    give_job(connection, version, spent, max_spend_usd=cap)
    found = planned(connection, get_version(connection, "v1"), open_encoder(spec), probe_texts=0)
    assert finding(found, "spend cap").verdict == verdict
    assert found.ready is (verdict == "pass")
    if cap == 0.5:
        assert "held at about 50%" in finding(found, "spend cap").detail


def test_a_new_backfill_has_the_spend_cap_of_the_settings(connection: Connection, service: ProtocolServer) -> None:
    add_chunks(connection, [f"{n:04}" * 100 for n in range(100)])
    spec = priced(service, price=100)  # the whole of it a dollar
    capped = Settings(backfill={"max_spend_usd": 0.5})
    found = planned(connection, add(connection, "v1", spec), open_encoder(spec), probe_texts=0, settings=capped)
    assert finding(found, "spend cap").verdict == "fail"


# -- time --------------------------------------------------------------------------------------------------


def test_the_spread_of_rates() -> None:
    assert probe.spread([]) is None
    one = probe.spread([10])
    assert one is not None
    assert (one.estimate, one.low, one.high) == pytest.approx((10, 5, 20))
    same = probe.spread([7, 7, 7, 7, 7])
    assert same is not None
    assert (same.low, same.high) == pytest.approx((7, 7))
    some = probe.spread([8, 12.5])
    assert some is not None
    assert some.estimate == pytest.approx(10)
    assert 0 < some.low < 8 < 12.5 < some.high


def test_the_slowest_part_sets_the_pace_and_cores_the_use_of_workers(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_chunks(connection, TEXTS[:100])
    monkeypatch.setattr(plan, "usable_cores", lambda: 2)
    measured = probe.Probe.failed(EncoderError("x"))
    measured = replace(measured, error=None, encode=Estimate(10, 5, 20), read=1000.0, write=50.0, cores=0.01)
    monkeypatch.setattr(plan, "run_probe", lambda *_, **__: measured)
    version = by_hand(connection)
    found = planned(connection, version, workers=4)
    assert found.one_worker == Estimate(10, 5, pytest.approx(20 + 2 + 0.1))
    assert found.seconds == Estimate(2.5, 2.0, pytest.approx(5 + 2 + 0.1))  # four wait for the service at once
    assert found.rate == 40
    measured = replace(measured, cores=1.0)
    found = planned(connection, version, workers=4)
    assert found.seconds is not None
    assert found.seconds.estimate == 5  # two cores compute twice as fast, not four times
    measured = replace(measured, cores=2.0)
    assert planned(connection, version, workers=4).seconds == found.one_worker


def test_parallel_encoders_are_measured_in_parallel(connection: Connection) -> None:
    class Service(Stub):
        parallel = 3
        meeting = threading.Barrier(3, timeout=60)

        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if len(texts) > probe._WARM_UP:
                self.meeting.wait()  # none is answered before three are asked
            return super().encode_documents(texts)

    add_chunks(connection, TEXTS)
    found = planned(connection, by_hand(connection), Service())
    assert found.probe is not None
    assert found.probe.parallel == 3
    assert found.probe.encode is not None
    assert found.seconds is not None
    assert found.seconds.low <= found.seconds.estimate <= found.seconds.high


def test_nothing_missing_takes_no_time(database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS[:5])
    backfill(database, add(connection, "v1"))
    found = planned(connection, get_version(connection, "v1"), open_encoder(SPEC))
    assert found.seconds == Estimate(0, 0, 0)
    assert finding(found, "chunks").verdict == "pass"
    assert found.cost_usd == Estimate(0, 0, 0)
    assert found.ready


# -- disk and memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dimensions", "storage"), [(64, "vector"), (384, "vector"), (384, "halfvec")])
def test_storage_is_what_postgres_takes(connection: Connection, dimensions: int, storage: str) -> None:
    rows = 12_000
    version = by_hand(connection, dimensions, storage, m=16, ef_construction=32)
    expected = footprint.estimate_storage(connection, version, rows)
    numbers = np.random.default_rng(1)
    start = wal_position(connection)
    for first in range(0, rows, 1_000):
        vectors = numbers.standard_normal((1_000, dimensions)).astype(np.float32)
        copy_vectors(connection, version, np.arange(first, first + 1_000), vectors)
    build(connection, version, "1GB")
    written = wal_position(connection) - start
    table, key, graph, whole = fetch_one(
        connection,
        """
        SELECT pg_table_size(t::regclass), pg_relation_size((t || '_pkey')::regclass),
               pg_relation_size((t || '_hnsw')::regclass), pg_total_relation_size(t::regclass)
        FROM (SELECT %s::text AS t) AS version
        """,
        [version.table_name],
    )
    assert expected.table == pytest.approx(table, rel=0.05)
    assert expected.primary_key == pytest.approx(key, rel=0.05)
    assert expected.index == pytest.approx(graph, rel=0.05)
    assert expected.table + expected.primary_key + expected.index == pytest.approx(whole, rel=0.15)
    assert expected.wal == pytest.approx(written, rel=0.25)
    there = footprint.estimate_storage(connection, version, rows)
    assert there.needed < expected.needed / 20  # all of it is there
    assert there.table == expected.table


def test_how_many_vectors_share_a_page(connection: Connection) -> None:
    """One dimension more, and of two vectors each has a page to itself."""
    for dimensions, pages in ((1_010, 50), (1_011, 100)):
        with connection.transaction(force_rollback=True):
            version = by_hand(connection, dimensions)
            copy_vectors(connection, version, np.arange(100), np.ones((100, dimensions), np.float32))
            (found,) = fetch_one(connection, "SELECT pg_relation_size(to_regclass(%s))", [version.table_name])
        assert footprint.table_bytes(version, 100) == pages * footprint.PAGE
        assert found >= pages * footprint.PAGE
        assert found < (pages + 40) * footprint.PAGE  # a bulk load makes room in advance


def test_vectors_beyond_a_page_are_counted_in_toast(connection: Connection) -> None:
    version = by_hand(connection, 3_072)
    vectors = np.ones((250, 3_072), np.float32)
    for first in range(0, 2_000, 250):
        copy_vectors(connection, version, np.arange(first, first + 250), vectors)
    (table,) = fetch_one(connection, "SELECT pg_table_size(to_regclass(%s))", [version.table_name])
    assert footprint.table_bytes(version, 2_000) == pytest.approx(table, rel=0.1)


@pytest.mark.parametrize("dimensions", [64, 1_536])
def test_the_graph_fits_where_it_is_said_to_fit(connection: Connection, dimensions: int) -> None:
    """Postgres itself says after how many vectors the graph outgrew its memory."""
    version = by_hand(connection, dimensions, m=16, ef_construction=32)
    rows = 8_000 if dimensions == 64 else 1_000
    vectors = np.random.default_rng(1).standard_normal((rows, dimensions)).astype(np.float32)
    copy_vectors(connection, version, np.arange(rows), vectors)
    notices: list[str] = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    build(connection, version, "4MB", workers=0)
    (fitted,) = [int(found[1]) for notice in notices if (found := re.search(r"after (\d+) tuples", notice))]
    assert index.graph_bytes(version, fitted) == pytest.approx(4 * 2**20, rel=0.05)


def wal_position(connection: Connection) -> int:
    return int(fetch_one(connection, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")[0])


def build(connection: Connection, version: Version, memory: str, workers: int = 2) -> None:
    connection.execute("UPDATE embedding_versions SET completed_at = now() WHERE id = %s", [version.id])
    index.build(connection, version, Settings(maintenance_work_mem=memory, index_workers=workers))


@pytest.mark.parametrize(("times", "verdict"), [(0.9, "fail"), (1.5, "warn"), (2.5, "pass")])
def test_the_disk(connection: Connection, monkeypatch: pytest.MonkeyPatch, times: float, verdict: str) -> None:
    add_chunks(connection, TEXTS)
    version = by_hand(connection)
    found = planned(connection, version, probe_texts=0)
    assert found.storage.free is not None  # over a socket the server is here
    free = SimpleNamespace(free=int(found.storage.needed * times))
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _folder: free)
    found = planned(connection, version, probe_texts=0)
    assert found.storage.free == free.free
    assert finding(found, "disk").verdict == verdict
    assert found.ready is (verdict != "fail")


def test_a_server_elsewhere_keeps_its_disk_to_itself(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "is_local", lambda _connection: False)
    found = planned(connection, by_hand(connection), probe_texts=0)
    assert found.storage.free is None
    assert "cannot be seen from here" in finding(found, "disk").detail


def test_an_index_that_outgrows_its_memory(connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    version = by_hand(connection, 1_000)
    small = planned(connection, version, probe_texts=0, settings=Settings(maintenance_work_mem="64 kB"))
    assert finding(small, "index memory").verdict == "warn"
    remedy = re.search(r"MEM=(\d+)MB", finding(small, "index memory").remedy)
    assert remedy is not None
    enough = Settings(maintenance_work_mem=f"{remedy[1]}MB")
    assert finding(planned(connection, version, probe_texts=0, settings=enough), "index memory").verdict == "pass"


@pytest.mark.parametrize(
    ("dimensions", "settings", "verdict"),
    [(3_000, {}, "pass"), (5_000, {}, "warn"), (64, {"m": 50}, "fail")],
)
def test_what_kind_of_index(
    connection: Connection, dimensions: int, settings: dict[str, int], verdict: str
) -> None:
    found = planned(connection, by_hand(connection, dimensions, **settings), probe_texts=0)
    assert finding(found, "index").verdict == verdict


# -- what would make it fail -------------------------------------------------------------------------------


def test_a_plan_changes_nothing(database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    version = add(connection, "v1")

    def state() -> list[object]:
        counts = [
            fetch_one(connection, sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))[0]
            for table in (version.table_name, "backfill_jobs", "backfill_workers", "row_counts", "audit_log")
        ]
        return [*counts, fetch_one(connection, "SELECT count(*) FROM pg_class")[0], get_version(connection, "v1")]

    before = state()
    found = planned(connection, version, open_encoder(SPEC))
    assert state() == before
    assert found.ready
    assert found.probe is not None
    assert found.probe.write is not None
    assert found.rate is not None
    with replace(database, read_only=True).session("test") as reader:
        found = planned(reader, version, open_encoder(SPEC))
    assert found.probe is not None
    assert found.probe.write is None
    assert found.seconds is not None
    assert names(found, "warn") == {"session"}
    assert found.ready


@pytest.mark.parametrize("status", [500, 401])
def test_an_encoder_that_refuses(connection: Connection, service: ProtocolServer, status: int) -> None:
    add_chunks(connection, TEXTS[:40])
    spec = priced(service)
    version = add(connection, "v1", spec)
    service.fail(status, 1_000)
    found = planned(connection, version, open_encoder(spec))
    assert found.unreachable
    assert not found.ready
    assert finding(found, "encoder").verdict == "fail"
    assert str(status) in finding(found, "encoder").detail
    assert found.demand.tokens is not None  # what can be known is
    assert found.seconds is None


def test_an_encoder_that_stops_answering(connection: Connection, service: ProtocolServer) -> None:
    add_chunks(connection, TEXTS[:40])
    spec = priced(service)
    version, encoder = add(connection, "v1", spec), open_encoder(spec)
    found = planned(connection, version, encoder, on_offer=lambda _: fail_after(service, 4))
    assert found.unreachable
    assert found.probe is not None
    assert found.probe.texts > 0


def fail_after(server: ProtocolServer, answers: int) -> None:
    """The next requests are answered properly, so many of them."""
    server.spoil("shuffled", answers)
    server.fail(500, 1_000)


def test_an_encoder_that_cannot_be_opened(connection: Connection) -> None:
    add_chunks(connection, TEXTS[:3])
    found = planned(connection, by_hand(connection), UnreachableError("No key.", "Set one."))
    assert found.unreachable
    assert (finding(found, "encoder").detail, finding(found, "encoder").remedy) == ("No key.", "Set one.")
    assert found.demand.tokens is None
    assert found.cost_usd is None


def test_a_refused_batch_is_told_of(connection: Connection, service: ProtocolServer) -> None:
    add_chunks(connection, TEXTS)
    spec = priced(service)
    version, encoder = add(connection, "v1", spec), open_encoder(spec)

    def refuse_one(_offer: probe.Offer) -> None:
        service.spoil("shuffled", 3)  # the two that ask for dimensions and the warm-up are answered
        service.fail(400, message="too long")

    found = planned(connection, version, encoder, on_offer=refuse_one)
    assert "too long" in finding(found, "refused").detail
    assert found.probe is not None
    assert found.probe.encode is not None
    assert found.ready


def test_a_long_throttle_ends_the_probe(connection: Connection, service: ProtocolServer) -> None:
    add_chunks(connection, TEXTS)
    spec = priced(service, max_retries=3)
    version, encoder = add(connection, "v1", spec), open_encoder(spec)
    waits = (encoder.on_throttle, encoder.wait)  # type: ignore[attr-defined]
    service.fail(429, 10, retry_after=100)
    found = planned(connection, version, encoder)
    assert found.unreachable
    assert "429" in finding(found, "encoder").detail
    assert "--no-probe" in finding(found, "encoder").remedy
    assert (encoder.on_throttle, encoder.wait) == waits  # type: ignore[attr-defined]


def test_a_short_throttle_is_waited_for(connection: Connection, service: ProtocolServer) -> None:
    add_chunks(connection, TEXTS)
    spec = priced(service, max_retries=3)
    version = add(connection, "v1", spec)
    waited: list[float] = []
    encoder = open_encoder(spec)
    encoder.wait = waited.append  # type: ignore[attr-defined]
    service.fail(429, retry_after=2)
    found = planned(connection, version, encoder)
    assert [round(seconds) for seconds in waited if seconds] == [2]
    assert "2.0 s" in finding(found, "throttling").detail
    assert found.ready


def test_other_dimensions_than_the_version(connection: Connection) -> None:
    found = planned(connection, by_hand(connection, 32), Stub(64))
    assert not found.ready
    assert not found.unreachable
    assert "returns 64 dimensions" in finding(found, "encoder").detail


def test_another_revision_of_the_encoder(database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS[:20])
    version = add(connection, "v1")
    connection.execute("UPDATE embedding_versions SET encoder_revision = 'older'")
    found = planned(connection, get_version(connection, "v1"), open_encoder(SPEC))
    assert finding(found, "revision").verdict == "warn"
    backfill(database, version)
    found = planned(connection, get_version(connection, "v1"), open_encoder(SPEC))
    assert finding(found, "revision").verdict == "fail"


@pytest.mark.parametrize(
    ("storage", "value", "verdict"),
    [("halfvec", 1e5, "fail"), ("halfvec", 1e-9, "fail"), ("vector", np.nan, "fail"), ("vector", 1e5, None)],
)
def test_vectors_that_cannot_be_stored(
    connection: Connection, storage: str, value: float, verdict: str | None
) -> None:
    add_chunks(connection, TEXTS[:40])

    class Spoiling(Stub):
        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            """Answer a single text well, as an encoder does that fails on some only."""
            return super().encode_documents(texts) if len(texts) > 1 else np.ones((1, 64), np.float32)

    found = planned(connection, by_hand(connection, storage=storage), Spoiling(value=value))
    assert [f.verdict for f in found.findings if f.name == "vectors"] == ([verdict] if verdict else [])


def test_texts_that_become_dead_letters(connection: Connection) -> None:
    add_chunks(connection, [*TEXTS[:20], " ", "\n"])
    spec = f"{SPEC}?max_tokens=20"
    found = planned(connection, add(connection, "v1", spec), open_encoder(spec))
    assert "2 of 22 chunks are blank" in finding(found, "empty texts").detail
    assert finding(found, "empty texts").verdict == finding(found, "long texts").verdict == "warn"
    assert "20 tokens" in finding(found, "long texts").detail
    assert found.ready


def test_texts_that_full_text_cannot_read(connection: Connection) -> None:
    add_chunks(connection, ["如何轮换密钥", "搜索数据库", *TEXTS[:3]])
    found = planned(connection, add(connection, "v1"), open_encoder(SPEC))
    assert finding(found, "full text").detail == "2 of 5 looked at are in a script without spaces"
    assert found.ready


def test_a_role_without_the_rights(database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS[:5])
    version = add(connection, "v1")
    schema = sql.Identifier(database.schema)
    role = sql.Identifier(f"reader_{database.schema}")
    connection.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, role))
        connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(schema, role))
        connection.execute(sql.SQL("SET ROLE {}").format(role))
        found = planned(connection, version, open_encoder(SPEC))
    finally:
        connection.execute("RESET ROLE")
        connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
        connection.execute(sql.SQL("DROP ROLE {}").format(role))
    assert finding(found, "rights").verdict == "fail"
    assert "INSERT on audit_log" in finding(found, "rights").detail
    assert not found.ready
    assert found.storage.free is None  # where the data is, such a role may not see
    assert finding(planned(connection, version, open_encoder(SPEC)), "rights").verdict == "pass"


def test_jobs_at_work(database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS[:5])
    version = by_hand(connection)
    encoding, go_on = threading.Event(), threading.Event()

    class Waiting(Stub):
        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            encoding.set()
            assert go_on.wait(60)
            return super().encode_documents(texts)

    encoder: Encoder = Waiting()  # type: ignore[assignment]
    worker = threading.Thread(target=worker_on(database, version, encoder, JobSettings()).join)
    worker.start()
    try:
        assert encoding.wait(60)
        own = planned(connection, version, probe_texts=0)
        other = planned(connection, add(connection, "v2"), open_encoder(SPEC), probe_texts=0)
    finally:
        go_on.set()
        worker.join()
    assert "1 worker already working on this backfill" in finding(own, "running").detail
    assert "the backfill of v1 is running" in finding(other, "running").detail
    assert "running" not in names(planned(connection, version, probe_texts=0), "warn")


def test_transactions_that_hold_back_vacuum(database: Database, connection: Connection) -> None:
    version = by_hand(connection)
    give_job(connection, version, max_transaction_s=1e-6)
    with database.session("night report") as other:
        assert "transactions" not in names(planned(connection, version, probe_texts=0), "warn")
        with other.transaction():
            other.execute("SELECT pg_current_xact_id()")
            found = finding(planned(connection, version, probe_texts=0), "transactions")
    assert "revector night report" in found.detail


def test_a_retired_version_would_come_back(connection: Connection) -> None:
    add(connection, "v1")
    version = registry.retire_version(connection, "v1")
    found = planned(connection, version, open_encoder(SPEC))
    assert finding(found, "version").verdict == "warn"
    assert finding(found, "chunks").verdict == "warn"  # the collection is empty


@pytest.mark.parametrize(("extension", "verdict"), [("0.8.3", "warn"), ("0.6.2", "fail"), (None, "fail")])
def test_an_old_pgvector(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, extension: str | None, verdict: str
) -> None:
    """And a standby: both cannot be had here, so the server's answer is given."""
    monkeypatch.setattr(findings, "fetch_one", lambda *_: (True, True, extension))
    found = list(findings._server(connection))
    assert [(f.name, f.verdict) for f in found] == [("server", "fail"), ("pgvector", verdict)]


def test_a_timeout_leaves_a_rough_plan(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    add_chunks(connection, TEXTS)
    version = by_hand(connection)
    monkeypatch.setattr(sample, "_LISTED_CHUNKS", 0)

    def cancelled(*_: object) -> list[int]:
        raise psycopg.errors.QueryCanceled

    monkeypatch.setattr(sample, "_draw_from_spans", cancelled)
    found = planned(connection, version)
    assert finding(found, "sample").verdict == "warn"
    assert found.demand.tokens is None
    assert found.seconds is None


@pytest.mark.parametrize("options", [{"sample": 29}, {"workers": 0}])
def test_what_cannot_be_planned(connection: Connection, options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        planned(connection, by_hand(connection), **options)
