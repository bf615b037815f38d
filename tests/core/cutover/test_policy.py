"""What a cutover requires: stored once for everybody, checked, and every change in the log."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields

import psycopg
import pytest
from psycopg.types.json import Jsonb

from revector.core import audit
from revector.core.cutover.policy import HELP, Policy, change_policy, changed, read_policy, shown
from revector.core.database import Connection, Database
from revector.core.errors import UsageError


def test_without_a_change_it_is_the_default(connection: Connection) -> None:
    assert read_policy(connection) == Policy()
    assert list(HELP) == [field.name for field in fields(Policy)]


def test_a_change_is_for_everybody_and_in_the_log(database: Database, connection: Connection) -> None:
    now = change_policy(connection, {"approvals": "2", "evaluation": "off", "min_overlap": 0.5}, "we are many")
    assert (now.approvals, now.evaluation, now.min_overlap) == (2, "off", 0.5)
    with database.session("test") as other:
        assert read_policy(other) == now
    entry = audit.entries(connection, limit=1)[0]
    assert (entry.action, entry.outcome, entry.reason) == ("cutover policy", "done", "we are many")
    assert entry.detail == {
        "changes": {
            "approvals": {"from": "default", "to": 2},
            "evaluation": {"from": "default", "to": "off"},
            "min_overlap": {"from": "default", "to": 0.5},
        }
    }
    assert change_policy(connection, {"approvals": "default", "min_overlap": "none"}) == changed(
        Policy(), {"evaluation": "off"}
    )
    stored = connection.execute("SELECT settings, updated_by = session_user FROM cutover_policy").fetchall()
    assert stored == [({"evaluation": "off"}, True)]


def test_a_change_by_sql_is_logged_too_and_the_row_stays(connection: Connection) -> None:
    connection.execute("""INSERT INTO cutover_policy (settings) VALUES ('{"approvals": 2}')""")
    connection.execute("UPDATE cutover_policy SET settings = '{}'")
    entries = audit.entries(connection)
    assert [(entry.action, entry.detail) for entry in entries] == [
        ("cutover policy", {"changes": {"approvals": {"from": 2, "to": "default"}}}),
        ("cutover policy", {"changes": {"approvals": {"from": "default", "to": 2}}}),
    ]
    for statement in ("DELETE FROM cutover_policy", "TRUNCATE cutover_policy"):
        with pytest.raises(psycopg.errors.RaiseException, match="cannot be removed"):
            connection.execute(statement)


def test_what_changes_nothing_is_not_logged(connection: Connection) -> None:
    change_policy(connection, {"approvals": 0})
    assert audit.entries(connection) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("approvals", "-1"), ("approvals", "1.5"), ("approvals", True), ("min_recall", "nan"), ("min_recall", "1.1"),
        ("min_recall", "none"), ("max_latency_ratio", "inf"), ("evaluation", "maybe"), ("auto_rollback", "perhaps"),
        ("watch_hours", "1e999"), ("request_hours", "1e-300"), ("recall_queries", ""), ("approvals", ["1"]),
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_refused_by_name(connection: Connection, name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"The setting {name} cannot be"):
        change_policy(connection, {"min_recall": 0.5, name: value})
    assert read_policy(connection) == Policy()


def test_a_setting_nobody_has_is_refused(connection: Connection) -> None:
    with pytest.raises(UsageError, match="approvals"):
        change_policy(connection, {"aprovals": "1"})
    with pytest.raises(UsageError, match="aprovals"):
        change_policy(connection, {"aprovals": "default"})


def test_what_somebody_stored_by_hand_is_checked(connection: Connection) -> None:
    connection.execute("INSERT INTO cutover_policy (settings) VALUES (%s)", [Jsonb({"of a later release": 1})])
    assert read_policy(connection) == Policy()
    connection.execute("UPDATE cutover_policy SET settings = %s", [Jsonb({"min_recall": 7})])
    with pytest.raises(UsageError, match="min_recall cannot be 7"):
        read_policy(connection)


def test_two_changes_at_once_are_both_kept(database: Database, connection: Connection) -> None:
    def change(changes: dict[str, object]) -> None:
        with database.session("test") as own:
            change_policy(own, changes)

    with ThreadPoolExecutor(2) as threads:
        for _ in threads.map(change, [{"approvals": 1}, {"watch_hours": 48}]):
            pass
    assert (read_policy(connection).approvals, read_policy(connection).watch_hours) == (1, 48)


def test_values_are_shown_as_they_are_read() -> None:
    policy = changed(Policy(), {"max_latency_ratio": "1.5", "auto_rollback": "true"})
    again = changed(Policy(), {name: shown(policy, name) for name in asdict(policy)})
    assert again == policy
