"""The guards: each passes, fails and is inconclusive for a real cause."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from revector.core import cutover, embedded, index
from revector.core.backfill.job.status import require_status
from revector.core.cutover.checks import vectors
from revector.core.cutover.guard import Guard
from revector.core.cutover.guards import _TIMEOUTS_MS, GUARDS
from revector.core.cutover.policy import HELP, change_policy
from revector.core.database import Connection, Database
from revector.core.errors import RefusedError, UsageError
from revector.core.evaluation.evaluate import Asked, evaluate
from revector.core.evaluation.gates.gate_file import read_gates
from revector.core.evaluation.judged_sets.query_sets import Query
from revector.core.index import warming
from revector.core.migrations import upgrade
from revector.core.registry import (
    Version,
    chunk_count,
    create_table,
    fold_counts,
    get_version,
    version_statuses,
)
from revector.core.retrieval import EncoderCache, Retriever
from revector.core.settings import Settings
from tests.benchmarks import corpus
from tests.core.backfill.steps import eventually
from tests.documents import GUARDS_PAGE, guards_page, guards_table
from tests.evaluations import judged_set
from tests.faults.servers import faulty_server
from tests.guards import guards, only, served, verdict
from tests.protocol_server import ProtocolServer
from tests.standby import PAUSE, streaming_standby
from tests.vector_files import new_version
from tests.versions import NUMBERS, add, add_chunks, backfill, ready_version

COSTLY = ("warm", "encoder", "recall")


# -- the table ---------------------------------------------------------------------------------------------


def test_the_table_is_whole() -> None:
    names = [rule.name for rule in GUARDS]
    assert len(set(names)) == len(names)
    assert {rule.name for rule in GUARDS if not rule.waivable} == {
        "complete", "dimensions", "index valid", "approvals",
    }  # fmt: skip
    assert {name for rule in GUARDS for name in rule.settings} <= HELP.keys()
    for number, rule in enumerate(GUARDS):
        assert set(rule.after) <= set(names[:number])


def test_what_looks_long_never_holds_the_flip() -> None:
    assert {rule.name for rule in GUARDS if rule.in_flip} == {"complete", "dimensions", "index valid", "approvals"}
    assert {rule.name for rule in GUARDS if rule.slow} == set(COSTLY) == {rule.name for rule in GUARDS[-3:]}
    assert not any(rule.in_flip for rule in GUARDS if rule.slow)


def test_the_document_is_that_of_the_code() -> None:
    assert GUARDS_PAGE.read_text(encoding="utf-8") == guards_page(), "python -m tests.documents"
    for rule in GUARDS:
        assert f"| `{rule.name}` | {rule.about} |" in guards_table()


def test_each_guard_is_told_as_soon_as_it_is_known(connection: Connection, two: tuple[Version, Version]) -> None:
    told: list[Guard] = []
    check = cutover.check(connection, "v2", on_guard=told.append)
    assert tuple(told) == check.guards
    assert [guard.name for guard in told] == [rule.name for rule in GUARDS]
    assert check.ready, check.guards


# -- waiving -----------------------------------------------------------------------------------------------


def test_a_waived_guard_does_not_stand_in_the_way(connection: Connection, two: tuple[Version, Version]) -> None:
    change_policy(connection, {"shadow_queries": 5})
    assert not cutover.check(connection, "v2").ready
    check = cutover.check(connection, "v2", waivers={"shadow": " nobody is here at night ", "warm": "no matter"})
    found = {guard.name: guard for guard in check.guards}
    assert (found["shadow"].verdict, found["shadow"].waived) == ("fail", "nobody is here at night")
    assert found["warm"].waived == ""  # it passes: there is nothing to waive
    assert check.ready


@pytest.mark.parametrize(
    ("waivers", "text"),
    [
        ({"complete": "who needs all of them"}, "'complete' cannot be waived"),
        ({"approvals": "they are asleep"}, "'approvals' cannot be waived"),
        ({"warm": "  "}, "needs a reason"),
        ({"worm": "typo"}, "worm"),
    ],
)
def test_a_waiver_that_is_none_is_refused(
    connection: Connection, two: tuple[Version, Version], waivers: dict[str, str], text: str
) -> None:
    with pytest.raises(UsageError, match=text):
        cutover.check(connection, "v2", waivers=waivers)


# -- what cannot be looked at ------------------------------------------------------------------------------


def test_a_guard_that_is_held_up_is_cut_off_and_the_rest_goes_on(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    connection.execute("SET statement_timeout = '1s'")
    with database.connect("test") as other, other.transaction():
        other.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(two[1].table))
        known = {name: Guard(name, "pass", "") for name in ("complete", "index valid")}
        for names, found in (
            (known, guards(connection)),
            (("index used", *COSTLY), guards(connection, known=known)),
        ):
            for name in names:
                assert found[name].verdict == "inconclusive", found[name]
                assert "statement timeout" in found[name].detail
                assert found[name].remedy
            assert found["pgvector"].verdict == "pass"
        other.execute("ROLLBACK")
    assert connection.execute("SHOW statement_timeout").fetchone() == ("1s",)
    connection.execute("RESET statement_timeout")
    assert cutover.check(connection, "v2").ready


def test_a_check_leaves_the_session_as_it_was(connection: Connection, two: tuple[Version, Version]) -> None:
    names = ["statement_timeout", "hnsw.ef_search", "enable_indexscan", "enable_seqscan", "jit"]
    connection.execute("SET hnsw.ef_search = 7")
    query = "SELECT current_setting(name) FROM unnest(%s::text[]) AS name"
    before = connection.execute(query, [names]).fetchall()
    assert cutover.check(connection, "v2").ready
    assert connection.execute(query, [names]).fetchall() == before


def test_what_a_role_may_not_read_is_inconclusive(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    connection.execute("DROP ROLE IF EXISTS may_read_little")
    connection.execute("CREATE ROLE may_read_little")
    schema = sql.Identifier(database.schema)
    try:
        for grant in ("USAGE ON SCHEMA {}", "SELECT ON ALL TABLES IN SCHEMA {}"):
            connection.execute(sql.SQL("GRANT " + grant + " TO may_read_little").format(schema))  # type: ignore[arg-type]
        connection.execute("REVOKE SELECT ON shadow_queries FROM may_read_little")
        change_policy(connection, {"shadow_queries": 1})
        connection.execute("SET ROLE may_read_little")
        verdict(connection, "shadow", "inconclusive", "permission denied for table shadow_queries")
        connection.execute("RESET ROLE")
    finally:
        connection.execute("DROP OWNED BY may_read_little")
        connection.execute("DROP ROLE may_read_little")


def test_the_costly_ones_wait_until_the_version_is_whole(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    add_chunks(connection, ["one more"])
    found = guards(connection)
    assert found["complete"].verdict == "fail"
    for name in COSTLY:
        assert found[name].verdict == "inconclusive"
        assert "skipped: needs complete" in found[name].detail


# -- the vectors -------------------------------------------------------------------------------------------


def test_vectors_gone_behind_the_counts_are_seen(connection: Connection, two: tuple[Version, Version]) -> None:
    verdict(connection, "complete", "pass", "16 looked at: a single damaged row would be seen")
    connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER embeddings_deleted").format(two[1].table))
    connection.execute(sql.SQL("DELETE FROM {} WHERE chunk_id = 7").format(two[1].table))
    verdict(connection, "complete", "fail", "15 of 16 chunks embedded; 1 missing; 16 looked at")
    connection.execute(sql.SQL("DROP TABLE {} CASCADE").format(two[1].table))
    verdict(connection, "complete", "fail", "no backfill has finished yet")


@pytest.mark.parametrize("in_time", [True, False])
def test_no_id_and_no_count_hides_what_is_missing(
    connection: Connection, two: tuple[Version, Version], monkeypatch: pytest.MonkeyPatch, in_time: bool
) -> None:
    """20,117 chunks and 16 vectors; one chunk at the far end of all ids; and counts that say that all is there."""
    monkeypatch.setattr(vectors, "_LOOK_PAGES", 150)
    if not in_time:
        monkeypatch.setattr(vectors, "_LOOK_S", 0.001)
    connection.execute(
        """
        INSERT INTO document_chunks (id, semantic_key, document_id, chunk_no, content, content_sha256)
        SELECT id, 'n' || id, gen_random_uuid(), 0, 'new ' || id, sha256(('new ' || id)::bytea)
        FROM (SELECT 1000 + n FROM generate_series(1, 20100) AS n UNION ALL VALUES (9223372036854775000)) AS made(id)
        """
    )
    connection.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, 20101)", [two[1].id])
    connection.execute("DELETE FROM chunk_outbox")
    verdict(connection, "complete", "fail", " missing; ")
    with pytest.raises(RefusedError, match="complete"):
        cutover.run(connection, "v2", confirm="v2")

    index.drop(connection, two[1])  # which 20,000 equal vectors would fill slowly
    connection.execute(
        sql.SQL(
            "INSERT INTO {} SELECT id, (SELECT embedding FROM {} LIMIT 1) FROM document_chunks ON CONFLICT DO NOTHING"
        ).format(two[1].table, two[1].table)
    )
    if in_time:
        verdict(connection, "complete", "pass", "20,117 looked at: a single damaged row would be seen")
        return
    verdict(connection, "complete", "inconclusive", "of the pages could be looked at")
    monkeypatch.setattr(vectors, "_CHUNKS_ON_A_PAGE", 10)
    verdict(connection, "complete", "pass", "% of the rows would be seen with 95% probability")


def test_counts_that_cannot_be_are_none(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    """Operators write rows of row_counts: no sum of theirs is shown below zero, or stops a command."""
    most = 10**12  # in one row
    for scope in (0, two[1].id, -two[1].id):
        for _ in range(2):
            connection.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, %s)", [scope, -most])
    connection.execute("UPDATE backfill_jobs SET total = -21, run_done = 0, outbox_done = 0, state = 'cancelled'")
    shown = {found.version.version_key: found for found in version_statuses(connection)}["v2"]
    assert (shown.embedded, shown.missing) == (0, 0)
    found = require_status(connection, two[1])
    assert (found.total, found.waiting) == (0, 0)
    verdict(connection, "complete", "pass", "16 of 16 chunks embedded")
    for scope in (0, two[1].id, -two[1].id):
        for _ in range(5):
            connection.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, %s)", [scope, most])
    connection.execute("UPDATE backfill_jobs SET total = %s", [2**31 - 1])
    assert version_statuses(connection)
    assert require_status(connection, two[1]).waiting == 3 * most
    verdict(connection, "complete", "pass", "16 of 16 chunks embedded")
    connection.execute("INSERT INTO row_counts (scope, delta) SELECT 0, %s FROM generate_series(1, 1001)", [most])
    fold_counts(connection, 0)
    assert chunk_count(connection) == most


def test_chunks_at_both_ends_of_all_ids_stop_no_check_and_no_backfill(
    database: Database, connection: Connection, two: tuple[Version, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("revector.core.backfill.job.job._MOST_RANGES", 4)
    connection.execute(
        """
        INSERT INTO document_chunks (id, semantic_key, document_id, chunk_no, content, content_sha256)
        SELECT id, 'n' || id, gen_random_uuid(), 0, 'at ' || id, sha256(('at ' || id)::bytea)
        FROM unnest(ARRAY[-9223372036854775808, 9223372036854775807]) AS id
        """
    )
    for version in two:
        backfill(database, version)
    assert cutover.check(connection, "v2").ready
    backfill(database, add(connection, "v3"))
    verdict(connection, "complete", "pass", "18 of 18 chunks embedded", "v3")


# -- the index ---------------------------------------------------------------------------------------------

WRONG = {
    "hnsw (embedding vector_l2_ops)": "its operators are vector_l2_ops, not vector_cosine_ops",
    "hnsw (embedding vector_cosine_ops) WHERE chunk_id > 3": "it is partial",
    "btree (chunk_id)": "its method is btree, not hnsw",
    "ivfflat (embedding vector_cosine_ops) WITH (lists = 1)": "its method is ivfflat, not hnsw",
    "hnsw ((embedding::halfvec(128)) halfvec_cosine_ops)": "its operators are halfvec_cosine_ops",
    "hnsw ((l2_normalize(embedding)::vector(128)) vector_cosine_ops)": "it is over ((l2_normalize(embedding))::vector",
    "hnsw (embedding own.vector_cosine_ops)": "it has operators or functions that are not pgvector's",
}


@pytest.mark.parametrize("definition", WRONG)
def test_an_index_of_another_definition_is_seen_at_any_size(
    connection: Connection, two: tuple[Version, Version], definition: str
) -> None:
    name = index.index_name(two[1])
    connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    connection.execute("CREATE SCHEMA own")
    connection.execute(
        """
        CREATE OPERATOR CLASS own.vector_cosine_ops FOR TYPE vector USING hnsw AS
            OPERATOR 1 <=> (vector, vector) FOR ORDER BY float_ops,
            FUNCTION 1 vector_negative_inner_product(vector, vector), FUNCTION 2 vector_norm(vector)
        """
    )
    make = sql.SQL("CREATE INDEX {} ON {} USING {}").format(
        sql.Identifier(name),
        two[1].table,
        sql.SQL(definition),  # type: ignore[arg-type]
    )
    connection.execute(make)
    verdict(connection, "index valid", "fail", f"{name} is invalid: {WRONG[definition]}")
    assert guards(connection)["index used"].detail == "skipped: needs index valid"
    assert index.build(connection, two[1], Settings()).problem == ""
    verdict(connection, "index valid", "pass", name)


def test_an_index_of_another_table_or_of_a_cut_off_build_is_seen(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    name = index.index_name(two[1])
    connection.execute("UPDATE pg_index SET indisready = false WHERE indexrelid = to_regclass(%s)", [name])
    verdict(connection, "index valid", "fail", "its build was interrupted")
    connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    make = sql.SQL("CREATE INDEX {} ON {} USING hnsw (embedding vector_cosine_ops)")
    connection.execute(make.format(sql.Identifier(name), two[0].table))
    verdict(connection, "index valid", "fail", f"it is not an index of {two[1].table_name}")


def test_a_function_of_the_name_of_pgvectors_is_none_of_its(database: Database, connection: Connection) -> None:
    version = new_version(connection, "v2", dimensions=4_100)
    create_table(connection, version)
    make = sql.SQL(
        "CREATE INDEX {} ON {} USING hnsw ((binary_quantize(embedding)::bit(4100)) bit_hamming_ops)"
    ).format(sql.Identifier(index.index_name(version)), version.table)
    connection.execute(make)
    assert index.inspect(connection, version).valid
    connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(index.index_name(version))))
    connection.execute(
        sql.SQL(
            "CREATE FUNCTION {}.binary_quantize(vector) RETURNS bit LANGUAGE sql IMMUTABLE AS 'SELECT B''1'''"
        ).format(sql.Identifier(database.schema))
    )
    connection.execute(make)
    assert index.inspect(connection, version).problem == "it has operators or functions that are not pgvector's"


# -- recall, and whether the index is used -----------------------------------------------------------------


def test_what_is_as_near_as_the_last_of_the_exact_ones_is_found(
    database: Database, connection: Connection
) -> None:
    """Many texts of two words are equally far from one of them, but for the last bit of a float."""
    add_chunks(connection, [f"{first} and {second}" for first in NUMBERS for second in NUMBERS])
    with ProtocolServer() as provider:
        ready_version(database, connection, "v1", f"openai:text-embedding-3-small?base_url={provider.base_url}")
        change_policy(connection, {"recall_queries": 256})
        detail = guards(connection, "v1")["recall"].detail
    assert detail.startswith("1.000 of what an exact scan finds")
    assert "worst 1.00" in detail


def test_an_index_that_finds_too_little_fails(database: Database, connection: Connection) -> None:
    corpus.fill(connection, 11_000, words=1)
    encoder = corpus.FreeEncoder(corpus.random_vectors(11_000, 24))
    version = corpus.fresh_version(connection, 24)
    key = version.version_key
    connection.execute("ALTER TABLE embedding_versions DISABLE TRIGGER check_encoder")
    connection.execute(
        "UPDATE embedding_versions SET encoder_spec = 'free:matrix', index_settings = %s",
        [Jsonb({"m": 2, "ef_construction": 4, "ef_search": 10})],
    )
    corpus.backfill(database, version, encoder)
    index.build(connection, get_version(connection, key), Settings())
    cache = EncoderCache(lambda _spec: encoder)
    change_policy(connection, {"recall_timeout_s": 300})
    bad = guards(connection, key, encoders=cache)["recall"]
    assert bad.verdict == "fail", bad
    assert "over 40 of 11,000 stored vectors" in bad.detail
    assert bad.remedy.startswith("No ef_search up to 1000 is enough.")
    assert replace(only(connection, "recall", key, cache), detail="") == replace(bad, detail="")

    change_policy(connection, {"recall_timeout_s": 0.001})
    verdict(
        connection,
        "recall",
        "inconclusive",
        "searches could be compared with scanning all 11,000 vectors in 0.001 s",
        key,
        encoders=cache,
    )
    change_policy(connection, {"recall_timeout_s": 300})

    connection.execute("SET enable_indexscan = off")
    verdict(connection, "index used", "fail", "the planner takes a", key, encoders=cache)
    verdict(
        connection, "recall", "pass", "1.000 of what an exact scan", key, encoders=cache
    )  # as the planner would search
    connection.execute("RESET enable_indexscan")
    verdict(connection, "index used", "pass", "Index Scan", key, encoders=cache)

    # The same vectors by a better index. The remedy is the smallest ef_search that would do, and does.
    index.change_settings(connection, get_version(connection, key), m=4, ef_construction=8)
    connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(index.index_name(version))))
    index.build(connection, get_version(connection, key), Settings())
    change_policy(connection, {"min_recall": 0.5, "recall_queries": 120})
    bad = only(connection, "recall", key, cache)
    assert (bad.verdict, bad.remedy.startswith(f"revector index set {key} --ef-search ")) == ("fail", True), bad
    enough = int(bad.remedy.rpartition(" ")[2])
    for ef_search, expected in ((enough * 3 // 4, {"fail", "inconclusive"}), (enough, {"pass"})):
        index.change_settings(connection, get_version(connection, key), ef_search=ef_search)
        assert only(connection, "recall", key, cache).verdict in expected

    # Between the two it cannot tell, however often it is asked, and says the same each time.
    mean = only(connection, "recall", key, cache).detail.split()[0]
    change_policy(connection, {"min_recall": mean})
    found = [only(connection, "recall", key, cache) for _ in range(2)]
    assert [(guard.verdict, guard.remedy) for guard in found] == [("inconclusive", found[0].remedy)] * 2
    assert "over 120 of 11,000 stored vectors" in found[0].detail
    assert found[0].remedy.startswith("revector index set")

    change_policy(connection, {"min_recall": 0.99})
    remedy = only(connection, "recall", key, cache).remedy
    assert (
        remedy
        == "120 searches cannot show 0.99, even if they find all: revector cutover policy recall_queries=381"
    )


@pytest.mark.parametrize(("dimensions", "storage"), [(32, "halfvec"), (2_100, "vector"), (4_100, "vector")])
def test_every_kind_of_index_is_checked_and_warmed(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch, dimensions: int, storage: str
) -> None:
    monkeypatch.setenv("TEST_KEY", "sesame")
    add_chunks(connection, NUMBERS)
    with ProtocolServer(models={"m": dimensions}) as provider:
        version = add(connection, "v2", served(provider), storage=storage)
        backfill(database, version)
        index.build(connection, version, Settings())
        for name in COSTLY:
            verdict(connection, name, "pass", "")
        assert warming.prewarm(connection, version).share > 0.9


def test_repeated_texts_are_no_loss(database: Database, connection: Connection) -> None:
    add_chunks(connection, ["the same text"] * 40)
    ready_version(database, connection, "v2")
    verdict(connection, "recall", "pass", "1.000")


def test_one_vector_has_nothing_to_find(database: Database, connection: Connection) -> None:
    add_chunks(connection, ["alone"])
    ready_version(database, connection, "v2")
    verdict(connection, "recall", "pass", "nothing to find")
    assert cutover.check(connection, "v2").ready


# -- warm --------------------------------------------------------------------------------------------------


@pytest.mark.database
def test_a_cold_server_fails_and_prewarming_mends_it() -> None:
    with faulty_server() as server:
        database = Database(server.dsn, "cold")
        upgrade(database)
        encoder = corpus.FreeEncoder(corpus.random_vectors(4_000, 64))
        cache = EncoderCache(lambda _spec: encoder)
        with database.session("test") as connection:
            corpus.fill(connection, 4_000, words=1)
            version = corpus.fresh_version(connection, 64)
            key = version.version_key
            connection.execute("ALTER TABLE embedding_versions DISABLE TRIGGER check_encoder")
            connection.execute("UPDATE embedding_versions SET encoder_spec = 'free:matrix'")
            corpus.backfill(database, version, encoder)
            index.build(connection, get_version(connection, key), Settings())
            change_policy(connection, {"warm_share": 0.99})
            verdict(connection, "warm", "pass", "pages of 5 searches", key, encoders=cache)
        for how in ("reading", "pg_prewarm"):
            embedded.stop(server.home)  # in order: a recovery would read what it replays
            server.restart()
            with database.session("test") as connection:
                if how == "pg_prewarm":
                    connection.execute("CREATE EXTENSION pg_prewarm")
                cold = only(connection, "warm", key, cache)
                assert cold.verdict == "fail", cold
                assert "at least 99% required" in cold.detail
                assert "prewarm" in cold.remedy
                found = warming.prewarm(connection, get_version(connection, key))
                assert (found.how, found.left_out) == (how, ())
                assert found.share > 0.98
                assert found.pages > 0
                assert only(connection, "warm", key, cache).verdict == "pass"


def test_prewarming_leaves_out_what_does_not_fit_and_refuses_what_is_not_there(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    fitting, left_out = warming._what_fits(connection, two[1])
    assert (fitting, left_out) == ([two[1].table_name, index.index_name(two[1])], ())
    index.drop(connection, two[1])
    with pytest.raises(RefusedError, match="no valid index"):
        warming.prewarm(connection, two[1])


# -- the evaluation ----------------------------------------------------------------------------------------


def test_an_evaluation_counts_while_it_is_of_what_is_there_now(
    database: Database, connection: Connection, two: tuple[Version, Version], tmp_path: Path
) -> None:
    queries = [Query(text, text, "all") for text in NUMBERS[:8]]
    documents = connection.execute("SELECT content, document_id::text FROM document_chunks ORDER BY id LIMIT 8")
    judged = judged_set(connection, "numbers", queries, {text: {document: 1} for text, document in documents})

    def evaluated(gate: str = "", *, hybrid: bool = False) -> None:
        asked = Asked()
        if gate:
            (tmp_path / "gates.toml").write_text(gate)
            asked = Asked(gates=read_gates(tmp_path / "gates.toml"))
        evaluate(database, judged, *(get_version(connection, key) for key in ("v1", "v2")), asked, hybrid=hybrid)

    verdict(connection, "evaluation", "pass", "none of v1 → v2, and none is required")
    change_policy(connection, {"evaluation": "required"})
    verdict(connection, "evaluation", "fail", "the policy requires one")
    evaluated()
    verdict(connection, "evaluation", "pass", "on numbers: without gates; 0.0% of the chunks are newer")
    evaluated('min_queries = 5\n[[gate]]\nmeasure = "P@10"\nat_least = 0.9\n')
    verdict(connection, "evaluation", "fail", "on numbers: fail")
    evaluated('min_queries = 5\n[[gate]]\nmeasure = "R@10"\nat_least = 0.001\n', hybrid=True)
    verdict(connection, "evaluation", "fail", "on numbers: fail")  # what hybrid searches pass hides nothing
    change_policy(connection, {"evaluation": "off"})
    verdict(connection, "evaluation", "pass", "the policy does not require one")
    change_policy(connection, {"evaluation": "default"})
    evaluated('min_queries = 30\n[[gate]]\nmeasure = "P@10"\nat_least = 0.05\n')
    verdict(connection, "evaluation", "inconclusive", "on numbers: inconclusive")
    evaluated('min_queries = 5\n[[gate]]\nmeasure = "R@10"\nat_least = 0.001\n')
    verdict(connection, "evaluation", "pass", "on numbers: pass")
    evaluated('min_queries = 5\n[[gate]]\nmeasure = "P@10"\nat_least = 0.9\n', hybrid=True)
    verdict(connection, "evaluation", "fail", r"on numbers (hybrid search): fail")
    connection.execute("ALTER TABLE evaluations DISABLE TRIGGER check_evaluation")
    connection.execute(
        "DELETE FROM evaluations e USING evaluation_runs r WHERE r.id = e.candidate_run_id AND r.hybrid"
    )

    connection.execute(
        "UPDATE embedding_versions SET index_settings = '{\"ef_search\": 500}' WHERE version_key = 'v2'"
    )
    verdict(connection, "evaluation", "fail", "v2 ef search 100 then, 500 now")
    connection.execute("UPDATE embedding_versions SET index_settings = '{\"m\": 8}' WHERE version_key = 'v2'")
    index.drop(connection, get_version(connection, "v2"))
    verdict(connection, "evaluation", "fail", "v2 m 16 then, none now")
    index.build(connection, get_version(connection, "v2"), Settings())
    verdict(connection, "evaluation", "fail", "v2 m 16 then, 8 now")
    evaluated()
    verdict(connection, "evaluation", "pass", "0.0% of the chunks are newer")

    add_chunks(connection, ["seventeen", "eighteen"])
    for version in two:
        backfill(database, version)
    verdict(connection, "evaluation", "fail", "11.1% of the chunks are newer, at most 10% may be")
    change_policy(connection, {"evaluation_new_share": 0.2})
    verdict(connection, "evaluation", "pass", "11.1% of the chunks are newer")


def test_an_evaluation_of_another_pair_does_not_count(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    judged = judged_set(connection, "numbers", [Query("q", "one", "all")], {"q": {"doc-one": 1}})
    evaluate(database, judged, two[1], two[0])
    verdict(connection, "evaluation", "pass", "none of v1 → v2")
    verdict(connection, "evaluation", "pass", "no other version is active", "v1")


def test_of_a_large_collection_newer_chunks_are_counted_on_random_pages(
    database: Database, connection: Connection, two: tuple[Version, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their ids: those of half of the chunks are far beyond the others."""
    judged = judged_set(connection, "numbers", [Query("q", "one", "all")], {"q": {"doc-one": 1}})
    insert = """
        INSERT INTO document_chunks (id, semantic_key, document_id, chunk_no, content, content_sha256)
        SELECT %(step)s * n + 1000, %(step)s || ' ' || n, gen_random_uuid(), 0, n::text, sha256(n::text::bytea)
        FROM generate_series(1, 3000) AS n
        """
    connection.execute(insert, {"step": 10**15})
    evaluate(database, judged, *two)
    connection.execute(insert, {"step": 1})
    monkeypatch.setattr("revector.core.cutover.checks.evidence._PAGES", 60)
    guard = guards(connection)["evaluation"]
    assert guard.verdict == "fail"
    assert " on random pages)" in guard.detail
    share = float(guard.detail.partition("without gates; ")[2].partition("%")[0])
    assert 20 < share < 80  # about half; of 60 pages, more than four standard errors
    monkeypatch.setattr("revector.core.cutover.checks.evidence._PAGES", 1)
    verdict(connection, "evaluation", "inconclusive", "of the pages of chunks hold only")


# -- the shadow --------------------------------------------------------------------------------------------


def shadowed(connection: Connection, version: Version, primary: str, *, answered: int, failed: int) -> None:
    """A shadow, and rows of queries as its mirror writes them."""
    (number,) = connection.execute(  # type: ignore[misc]
        "INSERT INTO shadows (embedding_version_id, sample, stopped_at) VALUES (%s, 0.5, now()) RETURNING id",
        [version.id],
    ).fetchone()
    connection.execute(
        """
        INSERT INTO shadow_queries (shadow_id, primary_version, k, primary_keys, candidate_keys, overlap, primary_ms,
                                    error)
        SELECT %(shadow)s, %(primary)s, 10, '{a}', '{a}', CASE WHEN n > %(failed)s THEN 0.5 END, 1,
               CASE WHEN n > %(failed)s THEN '' ELSE 'no answer' END
        FROM generate_series(1, %(all)s) AS n
        """,
        {"shadow": number, "primary": primary, "failed": failed, "all": answered + failed},
    )


def test_the_shadow_has_to_have_seen_enough(connection: Connection, two: tuple[Version, Version]) -> None:
    verdict(connection, "shadow", "pass", "the policy does not require one")
    change_policy(connection, {"shadow_queries": 150})
    shadowed(connection, two[1], "v0", answered=500, failed=0)  # of another version's users
    shadowed(connection, two[0], "v2", answered=500, failed=0)  # the other way round
    verdict(connection, "shadow", "fail", "none of v1's queries, 150 required")
    shadowed(connection, two[1], "v1", answered=100, failed=0)
    verdict(connection, "shadow", "inconclusive", "100 queries of v1 answered (150 required), 0 failed (0.0%)")
    shadowed(connection, two[1], "v1", answered=60, failed=1)
    verdict(
        connection,
        "shadow",
        "pass",
        "160 queries of v1 answered (150 required), 1 failed (0.6%), mean overlap 0.50",
    )
    shadowed(connection, two[1], "v1", answered=0, failed=9)
    verdict(connection, "shadow", "fail", "10 failed (5.9%)")
    change_policy(connection, {"shadow_error_share": 0.1})
    verdict(connection, "shadow", "pass", "10 failed")


def test_who_locks_a_table_is_named_and_what_is_not_required_is_not_read(
    database: Database, connection: Connection, two: tuple[Version, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_TIMEOUTS_MS, "lock_timeout", 100)
    with database.session("maintenance") as other, other.transaction():
        other.execute("LOCK TABLE shadow_queries")
        verdict(connection, "shadow", "pass", "the policy does not require one")
        change_policy(connection, {"shadow_queries": 1})
        held = f"timed out waiting for a lock, held by process {other.info.backend_pid} of {other.info.user} (revector"
        verdict(connection, "shadow", "inconclusive", held)
    verdict(connection, "shadow", "fail", "1 required")


# -- standbys ----------------------------------------------------------------------------------------------


def test_a_standby_has_to_replay_in_time(
    server: embedded.EmbeddedServer, connection: Connection, two: tuple[Version, Version]
) -> None:
    verdict(connection, "replicas", "pass", "no standby is connected")
    with streaming_standby(server) as on_standby:
        eventually(lambda: guards(connection)["replicas"].detail.startswith("b caught up within"))
        on_standby.run(PAUSE)
        change_policy(connection, {"replica_lag_s": 0.2})  # written, and so not replayed
        verdict(connection, "replicas", "fail", "behind after 0.2 s: b by ")
        on_standby.run("SELECT pg_wal_replay_resume()")
        change_policy(connection, {"replica_lag_s": 60})
        verdict(connection, "replicas", "pass", "b caught up within")
        connection.execute("DROP ROLE IF EXISTS sees_little")
        connection.execute("CREATE ROLE sees_little")
        try:
            connection.execute("GRANT pg_read_all_data TO sees_little")
            connection.execute("SET ROLE sees_little")
            verdict(connection, "replicas", "inconclusive", "cannot see how far 1 of 1 standbys")
            connection.execute("RESET ROLE")
        finally:
            connection.execute("DROP ROLE sees_little")
    eventually(lambda: guards(connection)["replicas"].detail == "no standby is connected")


def test_a_slot_without_its_standby_is_said(connection: Connection, two: tuple[Version, Version]) -> None:
    slot = f"left_behind_{os.getpid()}"
    connection.execute("SELECT pg_create_physical_replication_slot(%s)", [slot])
    try:
        verdict(connection, "replicas", "inconclusive", slot)
    finally:
        connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])


# -- processes that search ---------------------------------------------------------------------------------


def test_a_process_pinned_to_another_version_fails(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    verdict(connection, "pinned", "pass", "no search service is connected")
    with Retriever(database) as follower:
        assert follower.search("one").version_key == "v1"
        eventually(
            lambda: guards(connection)["pinned"].detail == "none of 1 search services is pinned to another version"
        )
        with Retriever(database, pinned="v1", program="old api") as pinned:
            assert pinned.search("one").version_key == "v1"
            eventually(lambda: guards(connection)["pinned"].verdict == "fail")
            verdict(connection, "pinned", "fail", "1 of 2 search services would not switch: old-api")
            assert cutover.check(connection, "v2", waivers={"pinned": "it is retired tonight"}).ready
        eventually(lambda: guards(connection)["pinned"].verdict == "pass")
    with Retriever(database, pinned="v2") as ahead:
        assert ahead.search("one").version_key == "v2"
        eventually(
            lambda: guards(connection)["pinned"].detail == "none of 1 search services is pinned to another version"
        )
