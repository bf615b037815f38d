"""`revector shadow`, as a person or a script calls it."""

from __future__ import annotations

import pytest

from revector.core import audit, shadow
from revector.core.database import Connection, Database
from revector.core.evaluation.judged_sets.query_sets import get_query_set
from tests.console.cli.program import Revector
from tests.core.shadow.support import answers, mirror_of, two_versions


def test_from_the_start_to_the_judging_queue(
    revector: Revector, database: Database, connection: Connection
) -> None:
    primary, _ = two_versions(database, connection)
    assert revector.call("shadow", "status", "--json", status=1).document == {"running": False}
    started = revector.call(
        "shadow",
        "start",
        "v2",
        "--confirm",
        "v2",
        "--sample",
        "1",
        "--query-text",
        "stored",
        "--reason",
        "a look",
        "--json",
    ).document
    assert (started["candidate"], started["sample"], started["query_text"]) == ("v2", 1, "stored")
    assert "Nothing" not in revector.call("shadow", "report").out
    assert "Both versions have not yet answered the same query." in revector.call("shadow", "report").out
    with mirror_of(database) as mirror:
        for result in answers(connection, primary, ["eleven and zero", "[red]nine\x1b[31m", "not a number"]):
            mirror(result, "numbers\x07")
        assert mirror.flush()
    found = revector.call("shadow", "status", "--json").document
    assert found["running"] is True
    assert (found["seen"], found["done"], found["failed"]) == (3, 3, 0)
    report = revector.call("shadow", "report", "--json").document
    assert sum(place["queries"] for place in report["histogram"]) == report["queries"] == 3
    assert report["segments"][0]["queries"] == 3
    shown = revector.call("shadow", "report").out
    assert "3 seen, 3 drawn, 3 done, 0 dropped, 0 failed" in shown
    worst = [one["query"] for one in report["worst"]]
    assert worst
    assert f"{'overlap':>9}" in shown
    assert "eleven and zero" in shown or "eleven and zero" not in worst
    judged = revector.call("shadow", "judge", "look", "--json").document
    assert judged == {"query_set": "look", "added": len(worst), "there_already": 0, "without_text": 0}
    assert len(get_query_set(connection, "look").queries) == len(worst)
    assert "0 queries added to look" in revector.call("shadow", "judge", "look").out
    stopped = revector.call("shadow", "stop", "--reason", "enough").out
    assert stopped.startswith("Stopped: shadow 1 of v2, sample 1")
    assert [entry.action for entry in audit.entries(connection)[:1]] == ["shadow stop"]
    assert revector.call("shadow", "report", "--shadow", "1", "--json").document["stopped_at"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ("start v2 --sample 2", 2, "The sample is 2; expected a share"),
        ("start v2 --query-text some", 2, "Expected one of stored, hashed, omitted."),
        ("start v2 --confirm v1", 1, "The typed key is 'v1', not 'v2': nothing was changed."),
        ("start v1", 1, "Version v1 is active"),
        ("start v3", 1, "has no encoder"),
        ("start v9", 2, "There is no embedding version 'v9'."),
        ("stop", 1, "No shadow runs."),
        ("report", 1, "There is no shadow to report on."),
        ("report --shadow 9", 2, "There is no shadow 9."),
        ("judge", 1, "There is no shadow to report on."),
    ],
)
def test_what_cannot_be_is_refused(library: Revector, arguments: str, status: int, words: str) -> None:
    result = library.call("shadow", *arguments.split(), "--json", status=status)
    assert words in result.err
    assert result.error["problem"] in result.err


@pytest.mark.parametrize("arguments", ["start v2", "stop", "judge"])
def test_read_only_changes_nothing(library: Revector, arguments: str) -> None:
    result = library.with_options("--read-only").call("shadow", *arguments.split(), status=1)
    assert result.err.startswith("This session is read-only: nothing was changed.\n")


def test_an_open_breaker_is_told_with_its_reason(
    revector: Revector, database: Database, connection: Connection
) -> None:
    primary, candidate = two_versions(database, connection, texts=["one", "two"])
    shadow.start(connection, "v2", sample=1)
    connection.execute(f"DROP TABLE {candidate.table_name} CASCADE")  # type: ignore[arg-type]
    with mirror_of(database, breaker_failures=1) as mirror:
        mirror(answers(connection, primary, ["one"])[0])
        assert mirror.flush()
    shown = revector.call("shadow", "status").out
    assert "0 done, 0 dropped, 1 failed" in shown
    assert "paused by " in shown
    assert "failed ×1: Version v2 has no vectors yet." in shown
