"""`revector judge`, by a small cross-encoder that is trained here: see tests/cross_encoders."""

from __future__ import annotations

import os
import signal

import pytest

from revector.core import cutover
from revector.core.database import Connection, Database
from revector.core.evaluation.judged_sets.judgements import given_judgements
from revector.core.evaluation.judged_sets.query_sets import Query, QuerySet
from tests.console.cli.program import Revector, finish
from tests.core.evaluation.support import judge, new_set
from tests.cross_encoders import overlap, train
from tests.versions import NUMBERS, add_chunks, ready_version


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"cross-encoder:{train(tmp_path_factory.mktemp('models') / 'small', steps=5)}?batch_size=1"


@pytest.fixture
def query_set(database: Database, connection: Connection) -> QuerySet:
    """With an active version and a candidate."""
    add_chunks(connection, [f"{a} {b}" for a in NUMBERS[:6] for b in NUMBERS[:6]])
    ready_version(database, connection, "v1")
    cutover.run(connection, "v1", confirm="v1")
    ready_version(database, connection, "v2", "static:wordllama-256")
    return new_set(connection, *[Query(f"q{n}", NUMBERS[n], "odd" if n % 2 else "even") for n in range(6)])


def test_labels_and_agreement(revector: Revector, connection: Connection, query_set: QuerySet, model: str) -> None:
    found = revector.run("judge", "set", "--judge", model, "-k", "4", "--json").document
    assert (found["primary"], found["candidate"], found["judge"]) == ("v1", "v2", "small")
    assert (found["k"], found["kept"], found["gone"], found["agreement"]) == (4, 0, 0, None)
    assert found["made"] == found["pairs"] == len(given_judgements(connection, query_set)) > 6 * 4
    chunks = dict(connection.execute("SELECT semantic_key, content FROM document_chunks").fetchall())
    judge(
        connection, query_set, "anna",
        *[(r.query, r.target, overlap(r.query, chunks[r.target])) for r in given_judgements(connection, query_set)],
        kind="chunk",
    )  # fmt: skip
    shown = revector.call("judge", "set", "--judge", model, "-k", "4").out
    assert shown.startswith(
        f"small: 0 labels made, {found['made']} kept, for the top 4 of v1 and v2 on set.\n"
        "small and anna: weighted kappa "
    )
    again = revector.call("judge", "set", "--judge", model, "-k", "4", "--json").document
    assert (again["made"], again["agreement"]["pairs"]) == (0, found["made"])
    assert {segment["segment"] for segment in again["agreement"]["segments"]} == {"even", "odd"}


def test_ctrl_c_and_the_same_command_again(
    revector: Revector, database: Database, connection: Connection, query_set: QuerySet, model: str
) -> None:
    """Stopped in the middle by a lock on one query's row, which the labels of its chunks wait for."""
    arguments = ("judge", "set", "--judge", model, "-k", "4", "--json")
    with database.session("test") as other, other.transaction(force_rollback=True):
        other.execute("SELECT FROM queries WHERE query_id = 'q5' FOR UPDATE")
        process = revector.start(*arguments)
        while not connection.execute(
            "SELECT FROM pg_stat_activity WHERE application_name = 'revector judge' AND wait_event_type = 'Lock'"
        ).rowcount:
            assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        stopped = finish(process, 130)
    assert stopped.err.endswith("Interrupted; nothing is lost. Run the same command to continue.\n")
    kept = given_judgements(connection, query_set)
    assert kept
    again = revector.call(*arguments).document
    assert again["kept"] == len(kept)
    rows = {(r.query, r.target): r.judged_at for r in given_judgements(connection, query_set)}
    assert len(rows) == again["pairs"] == again["kept"] + again["made"]
    assert {pair: rows[pair] for pair in ((r.query, r.target) for r in kept)} == {
        (r.query, r.target): r.judged_at for r in kept
    }


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("no --judge cross-encoder:x", 2, "There is no query set 'no'."),
        ("set --judge static:wordllama-64", 2, "There is no kind of judge 'static'."),
        ("set --judge cross-encoder:x?thresholds=2", 2, "thresholds is '2'"),
        ("set --judge cross-encoder:no-such-model", 4, "There is no model 'no-such-model'"),
        ("set --judge cross-encoder:x --candidate v9", 2, "v9"),
        ("set", 2, "--judge"),
    ],
)
def test_what_is_refused(
    revector: Revector, connection: Connection, query_set: QuerySet, arguments: str, status: int, message: str
) -> None:
    refused = revector.call("judge", *arguments.split(), "--json", status=status)
    assert refused.error["kind"] == {1: "refused", 2: "usage", 4: "unreachable"}[status]
    assert message in refused.err
    assert given_judgements(connection, query_set) == []
    assert connection.execute("SELECT count(*) FROM judges").fetchone() == (0,)


def test_a_read_only_session_labels_nothing(revector: Revector, query_set: QuerySet, model: str) -> None:
    refused = revector.with_options("--read-only").call("judge", query_set.name, "--judge", model, status=1)
    assert refused.err.startswith("This session is read-only: nothing was changed.\n")


def test_a_name_that_is_taken(revector: Revector, connection: Connection, query_set: QuerySet, model: str) -> None:
    judge(connection, query_set, "anna", ("q1", "d", 1))
    refused = revector.call("judge", "set", "--judge", model, "--name", "anna", status=2)
    assert "Judge 'anna' is a person." in refused.err
    named = revector.call("judge", "set", "--judge", model, "--name", "strict", "-k", "1", "--json").document
    assert (named["judge"], named["spec"].startswith("cross-encoder:/")) == ("strict", True)
