"""The watch after a cutover: what it sees, what it cannot judge, and the rollback on a limit."""

from __future__ import annotations

import bisect
import dataclasses
import threading

import pytest

from revector.core import audit, cutover, shadow
from revector.core.backfill.job.settings import JobSettings
from revector.core.cutover import Watch
from revector.core.cutover.keep_current import Keeper
from revector.core.cutover.limits import Breach
from revector.core.database import Connection, Database
from revector.core.errors import RefusedError
from revector.core.registry import Version, active_version, get_version
from revector.core.retrieval.counts import BOUNDS_MS, BUCKETS
from tests.versions import add_chunks, ready_version


@pytest.fixture
def two(two: tuple[Version, Version], connection: Connection) -> tuple[Version, Version]:
    """v1 was active and searched, in whose shadow v2 ran; v2 is active now."""
    shadow.start(connection, "v2")
    # v1 has been active for a day, as far as counting goes by it.
    connection.execute("UPDATE embedding_versions SET activated_at = now() - interval '1 day' WHERE active")
    cutover.run(connection, "v2", confirm="v2")
    return two


def watched(connection: Connection) -> Watch:
    found = cutover.observe(connection)
    assert found is not None
    return found


def flipped_ago(connection: Connection, seconds: float) -> None:
    """As if the flip had been that long ago."""
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")  # the history is append only
        connection.execute("UPDATE cutovers SET at = clock_timestamp() - make_interval(secs => %s)", [seconds])


def searched(
    connection: Connection, version: Version, seconds: range, *, each: int = 20, ms: float = 10, empty: int = 0,
    errors: int = 0, process: str = "shop",
) -> None:  # fmt: skip
    """As many searches in each of these seconds after the newest flip, as a process would have counted them."""
    times = [0] * BUCKETS
    times[bisect.bisect_left(BOUNDS_MS, ms)] = each - errors
    for second in seconds:
        connection.execute(
            """
            INSERT INTO search_counts (embedding_version_id, at, process, searches, empty, errors, latencies,
                                       first_error, last_error)
            SELECT %(version)s, at + %(second)s * interval '1 second', %(process)s, %(each)s, %(empty)s, %(errors)s,
                   %(times)s, CASE WHEN %(errors)s > 0 THEN at + %(second)s * interval '1 second' END,
                   CASE WHEN %(errors)s > 0 THEN at + (%(second)s + 0.9) * interval '1 second' END
            FROM cutovers ORDER BY id DESC LIMIT 1
            """,
            {
                "version": version.id, "second": second, "process": process, "each": each, "empty": empty,
                "errors": errors, "times": times,
            },
        )  # fmt: skip


def compared(connection: Connection, primary: str, overlap: float, number: int) -> None:
    """Queries that the shadow which runs has compared."""
    connection.execute(
        """
        INSERT INTO shadow_queries (shadow_id, primary_version, k, primary_keys, candidate_keys, overlap, primary_ms)
        SELECT id, %s, 10, '{}', '{}', %s, 1 FROM shadows, generate_series(1, %s) WHERE stopped_at IS NULL
        """,
        [primary, overlap, number],
    )


def test_without_figures_nothing_is_said_of_them(connection: Connection, two: tuple[Version, Version]) -> None:
    cutover.change_policy(
        connection,
        {"max_empty_rate_rise": 0.0, "max_latency_ratio": 1.0, "min_overlap": 1.0},
        "as strict as may be",
    )
    found = watched(connection)
    assert (found.previous, found.version_key, found.missing, found.way_back) == ("v1", "v2", 0, True)
    assert (found.until - found.began).total_seconds() == pytest.approx(24 * 3600, abs=1)
    assert (found.before.searches, found.since.searches, found.overlap, found.compared) == (0, 0, None, 0)
    assert found.breaches == ()
    assert [one.limit for one in found.unjudged] == ALL
    assert found.unjudged[0].detail == "no search was counted since the cutover"
    assert "0 searches counted before the cutover, 100 needed" in found.unjudged[1].detail
    assert cutover.roll_back_broken(connection, found) is None


ALL = ["max_error_rate", "max_empty_rate_rise", "max_latency_ratio", "min_overlap"]


def test_each_limit_is_broken_by_its_figures(connection: Connection, two: tuple[Version, Version]) -> None:
    flipped_ago(connection, 10)
    searched(connection, two[0], range(-30, 0), ms=10)
    searched(connection, two[1], range(10), ms=30, empty=6, errors=2)
    compared(connection, "v2", 0.4, 500)
    cutover.change_policy(connection, {"max_error_rate": "none"})
    found = watched(connection)
    assert (found.breaches, found.unjudged) == ((), ())  # no limit is set
    assert (found.before.searches, found.since.searches, found.overlap, found.compared) == (
        600,
        200,
        pytest.approx(0.4),
        500,
    )
    assert found.since.error_rate == pytest.approx(0.1)
    for limit, kept, broken in [
        ("max_error_rate", 0.2, 0.02), ("max_empty_rate_rise", 0.4, 0.1), ("max_latency_ratio", 4, 2),
        ("min_overlap", 0.3, 0.6),
    ]:  # fmt: skip
        cutover.change_policy(connection, {limit: kept})
        assert watched(connection).breaches == ()
        cutover.change_policy(connection, {limit: broken})
        assert [one.limit for one in watched(connection).breaches] == [limit]
        cutover.change_policy(connection, {limit: "none"})


def test_a_few_searches_are_not_judged(connection: Connection, two: tuple[Version, Version]) -> None:
    cutover.change_policy(
        connection,
        {"max_empty_rate_rise": 0.1, "max_latency_ratio": 2.0, "min_overlap": 0.5, "auto_rollback": True},
    )

    def limits() -> tuple[list[str], list[str]]:
        found = watched(connection)
        return [one.limit for one in found.breaches], [one.limit for one in found.unjudged]

    flipped_ago(connection, 10)
    searched(connection, two[0], range(-30, 0))
    searched(connection, two[1], range(9), each=11, empty=11, ms=1_000)
    compared(connection, "v2", 0.0, 19)
    assert limits() == ([], ALL[1:])
    assert cutover.roll_back_broken(connection, watched(connection)) is None
    searched(connection, two[1], range(9, 10), each=11, empty=11, ms=1_000)
    assert limits() == (ALL[1:3], ["min_overlap"])
    compared(connection, "v2", 0.0, 11)
    assert limits() == (ALL[1:], [])
    # As many are wanted of the version before.
    connection.execute("DELETE FROM search_counts WHERE embedding_version_id = %s", [two[0].id])
    searched(connection, two[0], range(-9, 0), each=11)
    assert limits() == (["min_overlap"], ALL[1:3])


def test_searches_before_are_those_of_the_processes_that_search_since(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    flipped_ago(connection, 10)
    searched(connection, two[0], range(-30, 0), ms=10)
    searched(connection, two[0], range(-30, 0), ms=500, process="batch")
    assert watched(connection).before.searches == 1_200
    searched(connection, two[1], range(10), ms=10)
    found = watched(connection)
    assert found.before.searches == 600
    assert found.before.p95_ms == pytest.approx(10, rel=0.06)


def test_a_look_that_knows_the_one_before_sees_the_same(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    flipped_ago(connection, 2_000)
    searched(connection, two[0], range(-30, 0))
    searched(connection, two[1], range(0, 1_900, 100))
    first = watched(connection)
    searched(connection, two[1], range(1_990, 1_999), errors=20)
    later = cutover.observe(connection, first)
    assert later is not None
    whole = watched(connection)
    assert (later.since, later.before, later.breaches) == (whole.since, whole.before, whole.breaches)
    assert [one.limit for one in later.breaches] == ["max_error_rate"]
    assert later.since.searches == first.since.searches + 180


def test_a_broken_limit_rolls_back_with_its_figures_in_the_log(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    cutover.change_policy(connection, {"min_overlap": 0.5})
    compared(connection, "v2", 0.1, 50)
    flip = cutover.roll_back_broken(connection, watched(connection))
    assert flip is not None
    assert flip.version_key == "v1"
    entry = audit.entries(connection, limit=1)[0]
    assert (entry.action, entry.version_key) == ("rollback", "v1")
    assert entry.reason == "automatic: min_overlap: mean overlap is 0.10 over 50 queries; 0.50 is the limit"
    assert cutover.observe(connection) is None
    assert cutover.history(connection, limit=2)[1].watch_ended_why == "rollback: v1 became active"


def test_a_rollback_by_a_watch_that_is_out_of_date_changes_nothing(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    cutover.change_policy(connection, {"min_overlap": 0.5})
    compared(connection, "v2", 0.1, 50)
    stale = watched(connection)
    ready_version(database, connection, "v3")
    cutover.run(connection, "v3", confirm="v3")
    with pytest.raises(RefusedError, match="v2 is no longer active"):
        cutover.roll_back_broken(connection, stale)
    active = active_version(connection)
    assert active is not None
    assert active.version_key == "v3"


def test_a_version_that_is_retired_is_no_way_back(connection: Connection, two: tuple[Version, Version]) -> None:
    from revector.core.registry import drop_version, retire_version

    retire_version(connection, "v1", reason="a test", force=True)
    assert not watched(connection).way_back
    drop_version(connection, "v1")
    found = watched(connection)
    assert (found.previous, found.missing, found.way_back) == ("v1", None, False)
    broken = dataclasses.replace(found, breaches=(Breach("min_overlap", "0"),))
    assert cutover.roll_back_broken(connection, broken) is None


def test_new_chunks_reach_the_version_before(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    add_chunks(connection, ["new", "newer"])
    assert watched(connection).missing == 2
    keeper = Keeper(database, JobSettings(), lambda _: None)
    keeper.keep(connection, watched(connection))
    keeper.finish()
    assert watched(connection).missing == 0
    for version in two:
        assert not connection.execute(
            "SELECT 1 FROM chunk_outbox WHERE embedding_version_id = %s", [version.id]
        ).fetchall()
    assert cutover.rollback(connection, confirm="v1").missing == 0


def test_a_paused_backfill_stays_so_and_is_named(
    database: Database, connection: Connection, two: tuple[Version, Version]
) -> None:
    add_chunks(connection, ["new"])
    connection.execute("UPDATE backfill_jobs SET state = 'paused'")
    notes: list[str] = []
    threads = threading.active_count()
    keeper = Keeper(database, JobSettings(), notes.append)
    for _ in range(2):
        keeper.keep(connection, watched(connection))
    assert threading.active_count() == threads
    assert len(notes) == 2
    assert "revector backfill resume v1" in " ".join(notes)
    assert watched(connection).missing == 1
    keeper.close()


def test_there_is_nothing_to_watch_after_a_first_cutover_a_rollback_or_the_end(
    connection: Connection, two: tuple[Version, Version]
) -> None:
    cutover.rollback(connection, confirm="v1")
    assert cutover.observe(connection) is None
    cutover.change_policy(connection, {"watch_hours": 0})
    cutover.run(connection, "v2", confirm="v2")
    assert cutover.observe(connection) is None
    assert get_version(connection, "v1").state == "previous"
