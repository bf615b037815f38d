"""Guards, the flip and the way back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql

from revector.core import audit, cutover, index, shadow
from revector.core.database import Connection, Database, readable_errors
from revector.core.errors import RefusedError, UsageError
from revector.core.registry import Version, active_version, get_version
from revector.core.settings import Settings
from tests.core.backfill.steps import eventually
from tests.versions import add, add_chunks, backfill, ready_version


def verdicts(connection: Connection, key: str) -> dict[str, str]:
    return {guard.name: guard.verdict for guard in cutover.check(connection, key).guards}


def active_key(connection: Connection) -> str | None:
    active = active_version(connection)
    return active.version_key if active else None


def refused(connection: Connection, key: str, guard: str) -> None:
    """The guard fails, the flip is refused with its name, nothing changes and the refusal is in the log."""
    before = active_key(connection)
    assert verdicts(connection, key)[guard] == "fail"
    with pytest.raises(RefusedError, match=guard):
        cutover.run(connection, key, confirm=key)
    assert active_key(connection) == before
    entry = audit.entries(connection, limit=1)[0]
    assert (entry.action, entry.version_key, entry.outcome) == ("cutover", key, "refused")
    assert guard in entry.detail["guards"]


def test_a_ready_version_passes_every_guard_and_becomes_active(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    assert set(verdicts(connection, "v2").values()) == {"pass"}
    flip = cutover.run(connection, "v2", confirm="v2", reason="it is better")
    assert (flip.version_key, flip.previous) == ("v2", "v1")
    assert get_version(connection, "v2").state == "active"
    assert get_version(connection, "v1").state == "previous"
    entry = audit.entries(connection, limit=1)[0]
    assert (entry.action, entry.reason, entry.outcome) == ("cutover", "it is better", "done")
    assert (entry.detail["from"], entry.detail["to"]) == ("v1", "v2")
    assert entry.client


def test_a_mistyped_key_changes_nothing(connection: Connection, two: tuple[Version, Version]) -> None:
    for typed in ("V2", "v", "", "v22", " v2"):
        with pytest.raises(RefusedError, match=f"The typed key is '{typed}', not 'v2'"):
            cutover.run(connection, "v2", confirm=typed)
        entry = audit.entries(connection, limit=1)[0]
        assert (entry.action, entry.outcome) == ("cutover", "refused")
        assert entry.detail["problem"].startswith(f"The typed key is '{typed}'")
    with pytest.raises(UsageError, match="v22"):
        cutover.run(connection, "v22", confirm="v22")
    with pytest.raises(RefusedError, match="already"):
        cutover.run(connection, "v1", confirm="v1")
    assert active_key(connection) == "v1"


def test_a_version_without_backfill_is_refused(connection: Connection, two: tuple[Version, Version]) -> None:
    add(connection, "v3")
    refused(connection, "v3", "complete")


def test_missing_chunks_are_refused(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    add_chunks(connection, ["new"])
    refused(connection, "v2", "complete")
    backfill(database, two[1])
    assert verdicts(connection, "v2")["complete"] == "pass"


def test_what_waits_in_the_outbox_is_refused_though_the_counts_agree(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    connection.execute(
        "INSERT INTO chunk_outbox (embedding_version_id, chunk_id) SELECT %s, min(id) FROM document_chunks",
        [two[1].id],
    )
    refused(connection, "v2", "complete")


def test_a_dead_letter_is_refused(connection: Connection, two: tuple[Version, Version]) -> None:
    connection.execute(
        "INSERT INTO dead_letters (embedding_version_id, chunk_id, error) "
        "SELECT %s, min(id), 'no' FROM document_chunks",
        [two[1].id],
    )
    refused(connection, "v2", "complete")


def test_a_version_without_index_is_refused(connection: Connection, two: tuple[Version, Version]) -> None:
    index.drop(connection, two[1])
    refused(connection, "v2", "index valid")


def test_an_index_whose_build_was_cut_off_is_refused(connection: Connection, two: tuple[Version, Version]) -> None:
    connection.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(%s)", [index.index_name(two[1])]
    )
    refused(connection, "v2", "index valid")


@pytest.mark.parametrize("of", ["vector_l2_ops)", "vector_cosine_ops) WHERE chunk_id > 3"])
def test_an_index_of_another_metric_or_over_a_part_is_refused(
    connection: Connection, two: tuple[Version, Version], of: str
) -> None:
    name = sql.Identifier(index.index_name(two[1]))
    connection.execute(sql.SQL("DROP INDEX {}").format(name))
    make = sql.SQL("CREATE INDEX {} ON {} USING hnsw (embedding {}")
    connection.execute(make.format(name, two[1].table, sql.SQL(of)))  # type: ignore[arg-type]
    refused(connection, "v2", "index valid")
    assert index.build(connection, two[1], Settings()).valid
    assert verdicts(connection, "v2")["index valid"] == "pass"


def test_a_version_that_names_no_encoder_is_refused(connection: Connection, two: tuple[Version, Version]) -> None:
    connection.execute("ALTER TABLE embedding_versions DISABLE TRIGGER check_encoder")
    connection.execute("UPDATE embedding_versions SET encoder_spec = '' WHERE version_key = 'v2'")
    refused(connection, "v2", "dimensions")


def test_a_table_of_other_dimensions_is_refused(connection: Connection, two: tuple[Version, Version]) -> None:
    connection.execute("DROP VIEW chunk_embeddings")  # it hangs on the column's type
    connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(index.index_name(two[1]))))
    connection.execute(sql.SQL("ALTER TABLE {} ALTER COLUMN embedding TYPE halfvec(128)").format(two[1].table))
    refused(connection, "v2", "dimensions")


def test_a_guard_is_checked_again_inside_the_flip(
    connection: Connection, two: tuple[Version, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = cutover.check, []

    def check_then_somebody_writes(found: Connection, key: str, **options: Any) -> cutover.Check:
        result = real(found, key, **options)
        calls.append(add_chunks(found, ["written between check and flip"]))
        return result

    monkeypatch.setattr("revector.core.cutover.flip.check", check_then_somebody_writes)
    with pytest.raises(RefusedError, match="complete"):
        cutover.run(connection, "v2", confirm="v2")
    assert len(calls) == 1
    assert active_key(connection) == "v1"
    assert audit.entries(connection, limit=1)[0].outcome == "refused"


def test_a_rollback_goes_to_the_version_before_and_only_one_way(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    with pytest.raises(RefusedError, match="no version to roll back to"):
        cutover.rollback(connection, confirm="v1")
    cutover.run(connection, "v2", confirm="v2")
    with pytest.raises(RefusedError, match="v1"):
        cutover.rollback(connection, confirm="v2")
    assert active_key(connection) == "v2"
    assert cutover.rollback(connection, confirm="v1", reason="empty results").missing == 0
    assert active_key(connection) == "v1"
    assert cutover.rollback_target(connection) is None
    done, entries = cutover.history(connection)[0], audit.entries(connection)
    again = cutover.rollback(connection, confirm="v1")
    assert (again.changed, again.version_key, again.previous) == (False, "v1", "v2")
    assert (again.at, again.made_by) == (done.at, done.made_by)
    with pytest.raises(RefusedError, match="not 'v1'"):
        cutover.rollback(connection, confirm="v2")
    assert active_key(connection) == "v1"
    assert cutover.history(connection)[0] == done
    assert audit.entries(connection)[1:] == entries  # the mistyped key


def test_of_three_versions_a_rollback_goes_to_the_last_and_not_to_the_oldest(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    ready_version(database, connection, "v3")
    for key in ("v2", "v3"):
        cutover.run(connection, key, confirm=key)
    with pytest.raises(RefusedError, match="not 'v2'"):
        cutover.rollback(connection, confirm="v")
    flip = cutover.rollback(connection, confirm="v2")
    assert (flip.previous, flip.version_key) == ("v3", "v2")
    with pytest.raises(RefusedError, match="not 'v2'"):
        cutover.rollback(connection, confirm="v1")  # further back is a cutover
    assert not cutover.rollback(connection, confirm="v2").changed
    assert cutover.run(connection, "v1", confirm="v1").action == "cutover"
    assert cutover.rollback(connection, confirm="v2").previous == "v1"


def test_a_rollback_is_not_refused_but_says_what_it_lacks(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    cutover.run(connection, "v2", confirm="v2")
    add_chunks(connection, ["new", "newer"])
    index.inspect(connection, two[0])
    assert cutover.rollback(connection, confirm="v1").missing == 2
    assert active_key(connection) == "v1"


def test_operators_at_the_same_instant_end_with_one_active_version(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    ready_version(database, connection, "v3")

    def flip(key: str) -> str:
        with database.session("test") as own:
            try:
                return cutover.run(own, key, confirm=key).version_key
            except RefusedError:
                return ""

    for _ in range(10):
        with ThreadPoolExecutor(2) as pool:
            flipped = [key for key in pool.map(flip, ["v2", "v3"]) if key]
        actives = connection.execute("SELECT version_key FROM embedding_versions WHERE active").fetchall()
        assert len(actives) == 1
        assert actives[0][0] in flipped
        newest = audit.entries(connection, limit=1)[0]
        assert newest.outcome == "refused" or newest.version_key == actives[0][0]


def test_read_only_changes_nothing(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    reader = Database(database.dsn, database.schema, read_only=True)
    with reader.connect("test") as own, pytest.raises(RefusedError, match="read-only"), readable_errors(reader):
        cutover.run(own, "v2", confirm="v2")
    assert active_key(connection) == "v1"


def test_a_dry_run_changes_nothing_and_its_sql_is_the_flip(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    before = connection.execute("SELECT * FROM embedding_versions ORDER BY id").fetchall()
    found = cutover.plan(connection, "v2", reason="it's better")
    assert found.check.ready
    assert connection.execute("SELECT * FROM embedding_versions ORDER BY id").fetchall() == before
    # As psql would: on a connection that knows nothing of the collection.
    with psycopg.connect(database.dsn, autocommit=True) as bare:
        bare.execute("\n".join(found.statements))
    assert active_key(connection) == "v2"
    newest = cutover.history(connection)[0]
    assert (newest.action, newest.from_version, newest.to_version) == ("cutover", "v1", "v2")
    assert newest.reason == "it's better"


def test_a_waived_guard_is_named_with_its_reason_for_good(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    cutover.change_policy(connection, {"evaluation": "required"})
    refused(connection, "v2", "evaluation")
    with pytest.raises(UsageError, match="reason"):
        cutover.run(connection, "v2", confirm="v2", waivers={"evaluation": " "})
    with pytest.raises(UsageError, match="cannot be waived"):
        cutover.run(connection, "v2", confirm="v2", waivers={"complete": "nearly"})
    with pytest.raises(UsageError, match="guard"):
        cutover.run(connection, "v2", confirm="v2", waivers={"all": "in a hurry"})
    assert active_key(connection) == "v1"
    cutover.run(connection, "v2", confirm="v2", waivers={"evaluation": "the judges are on holiday"})
    says = audit.entries(connection, limit=1)[0].detail["client_says"]
    assert says["waived"] == {"evaluation": "the judges are on holiday"}
    assert cutover.history(connection)[0].waived == {"evaluation": "the judges are on holiday"}


def test_whoever_holds_the_flip_makes_others_wait_and_then_give_up(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    cutover.change_policy(connection, {"lock_timeout_s": 0.1})
    with database.session("test") as other, other.transaction():
        other.execute("SELECT lock_flip()")
        pid = other.info.backend_pid
        held = rf"timed out waiting 0.1 s for a lock, held by process {pid} of postgres \(revector test, since 20.*\): "
        with pytest.raises(RefusedError, match=held + "nothing was changed") as refusal:
            cutover.run(connection, "v2", confirm="v2")
        assert f"the owner or a superuser ends it: SELECT pg_terminate_backend({pid})" in refusal.value.remedy
    assert active_key(connection) == "v1"
    entry = audit.entries(connection, limit=1)[0]
    assert (entry.action, entry.outcome) == ("cutover", "refused")
    assert "0.1 s" in entry.detail["problem"]
    with database.session("test") as other, database.session("test") as reader, reader.transaction():
        reader.execute("SELECT FROM embedding_versions")  # in nobody's way
        with other.transaction():
            other.execute("UPDATE embedding_versions SET notes = 'long' WHERE version_key = 'v1'")
            with pytest.raises(
                RefusedError, match=rf"held by process {other.info.backend_pid} of [^,]*, since [^,]*:"
            ):
                cutover.run(connection, "v2", confirm="v2")
    assert cutover.run(connection, "v2", confirm="v2").previous == "v1"


def test_a_flip_looks_once_more_only_when_nobody_else_can_flip(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    """What one holder of the flip's lock does is seen by the last check of the next."""
    with database.session("test") as own, ThreadPoolExecutor(1) as pool:
        with database.session("test") as other, other.transaction():
            other.execute("SELECT lock_flip()")
            flip = pool.submit(cutover.run, own, "v2", confirm="v2")
            waits = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
            eventually(lambda: connection.execute(waits, [own.info.backend_pid]).fetchone() is not None)
            add_chunks(other, ["written by who holds the flip"])
        with pytest.raises(RefusedError, match="complete"):
            flip.result()
    assert active_key(connection) == "v1"


def test_a_flip_from_psql_queues_behind_another(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    with database.session("test") as other, other.transaction():
        other.execute("SELECT lock_flip()")
        connection.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute(cutover.FLIP, {"key": "v2"})
    assert active_key(connection) == "v1"


def test_what_became_active_during_the_check_stops_the_flip(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    ready_version(database, connection, "v3")

    def somebody_flips(guard: cutover.Guard) -> None:
        if guard.name == "pgvector":
            with database.session("test") as other:
                cutover.run(other, "v3", confirm="v3")

    with pytest.raises(RefusedError, match="v3 became active"):
        cutover.run(connection, "v2", confirm="v2", on_guard=somebody_flips)
    assert active_key(connection) == "v3"


def test_a_policy_out_of_its_range_stops_no_rollback(connection: Connection, two: tuple[Version, Version]) -> None:
    cutover.run(connection, "v2", confirm="v2")
    connection.execute(
        """INSERT INTO cutover_policy (settings) VALUES ('{"lock_timeout_s": "soon", "approvals": 3}')"""
    )
    assert cutover.rollback(connection, confirm="v1").previous == "v2"


def test_a_cutover_to_the_version_before_is_a_rollback_whatever_it_is_called(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    cutover.run(connection, "v2", confirm="v2")
    assert cutover.run(connection, "v1", confirm="v1").action == "rollback"
    assert [one.action for one in cutover.history(connection)] == ["rollback", "cutover", "cutover"]


def test_history_and_log_tell_the_same_from_whoever_flips(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    cutover.run(connection, "v2", confirm="v2", reason="better")
    cutover.rollback(connection, confirm="v1", reason="worse")
    connection.execute(cutover.FLIP, {"key": "v2"})
    found = cutover.history(connection)
    assert [(one.action, one.from_version, one.to_version, one.reason) for one in found] == [
        ("cutover", "v1", "v2", ""),
        ("rollback", "v2", "v1", "worse"),
        ("cutover", "v1", "v2", "better"),
        ("cutover", None, "v1", ""),
    ]
    logged = [entry for entry in audit.entries(connection) if "to" in entry.detail]
    assert [(e.action, e.detail["from"], e.detail["to"], e.reason) for e in logged] == [
        (one.action, one.from_version, one.to_version, one.reason) for one in found
    ]
    assert [one.watch_until is not None for one in found] == [True, False, True, False]
    assert found[2].watch_ended_why == "rollback: v1 became active"


def test_a_running_shadow_is_turned_round_by_the_flip(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    started = shadow.start(connection, "v2", sample=0.5, query_text="stored", retention_days=3)
    cutover.run(connection, "v2", confirm="v2")
    turned = shadow.running(connection)
    assert turned is not None
    assert (turned.candidate, turned.sample, turned.query_text, turned.retention_days) == ("v1", 0.5, "stored", 3)
    assert turned.id != started.id
    cutover.rollback(connection, confirm="v1")
    again = shadow.running(connection)
    assert again is not None
    assert again.candidate == "v2"
