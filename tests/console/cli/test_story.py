"""The main job by commands, as a person or a script would type them, and what is asked before a change."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
from collections import Counter
from pathlib import Path

import pytest
from psycopg import sql

from revector.core import cutover
from revector.core.database import Connection, Database
from revector.core.registry import active_version, get_version, retire_version
from tests.console.cli.conftest import TEXTS, write_corpus
from tests.console.cli.program import Revector, finish
from tests.protocol_server import Gate, ProtocolServer
from tests.versions import add, add_chunks, ready_version


def test_the_whole_story_by_commands(revector: Revector, tmp_path: Path) -> None:
    """Each command is a process of its own. Nothing but the database carries over."""
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    assert "12 inserted" in revector.run("ingest", str(corpus)).out
    again = revector.run("ingest", str(corpus), "--json").document
    assert (again["inserted"], again["unchanged"], again["deleted"]) == (0, 12, 0)

    for key, encoder in (("v1", "static:wordllama-64"), ("v2", "static:wordllama-256")):
        assert "Registered" in revector.run("versions", "add", key, "--encoder", encoder).out
    refused = revector.run("cutover", "run", "v1", "--confirm", "v1", status=1)
    assert "no backfill has finished yet" in refused.err
    assert "revector backfill run v1" in refused.err

    assert "v1: done" in revector.run("backfill", "run", "v1").out
    assert "v1 is ready" in revector.run("cutover", "check", "v1").out
    assert (
        "v1 is active (was none)"
        in revector.run("cutover", "run", "v1", "--confirm", "v1", "--reason", "the first").out
    )
    first = revector.run("search", "how do I rotate an api key", "--json").document
    assert (first["version_key"], first["hits"][0]["source_id"]) == ("v1", "doc-0")

    # An edited document reaches the active version and the candidate.
    write_corpus(tmp_path / "corpus.jsonl", [*TEXTS[:-1], "The museum is closed."])
    edited = revector.run("ingest", str(corpus))
    assert "1 inserted, 11 unchanged, 1 deleted" in edited.out
    assert edited.err == "1 chunk not in version v1 yet: revector backfill run v1\n"
    doctor = revector.run("doctor", status=1).out
    assert re.search(r"✗  chunks +v1 lacks 1 chunk\n +revector backfill run v1", doctor)
    assert "v1: done" in revector.run("backfill", "run", "v1").out

    assert revector.run("backfill", "run", "v2", "--json").document["done"] == 12
    compared = revector.run("compare", "closed on Sundays")
    assert "overlap@10" in compared.out
    assert "v2 is ready" in revector.run("cutover", "check", "v2").out
    flip = revector.run("cutover", "run", "v2", "--confirm", "v2", "--reason", "better")
    assert "v2 is active (was v1)" in flip.out
    assert revector.run("search", "museum", "--json").document["version_key"] == "v2"
    assert "v1 is active (was v2)" in revector.run("rollback", "--confirm", "v1").out
    again = revector.run("rollback", "--confirm", "v1")
    assert "postgres already rolled back, v2 → v1, 20" in again.out
    assert "nothing was changed. To go forward again, cut over: revector cutover run KEY" in again.out
    assert revector.run("search", "museum", "--json").document["version_key"] == "v1"

    log = revector.run("log").out
    flips = [line for line in log.splitlines() if "cutover" in line or "rollback" in line]
    assert [(" done " in line, " refused " in line) for line in flips] == [
        (True, False), (True, False), (True, False), (False, True),
    ]  # fmt: skip
    assert flips[1].endswith(": better: from v1")
    assert "no backfill has finished yet" in flips[3]
    actions = [entry["action"] for entry in revector.run("log", "--json").document["entries"]]
    assert actions[:2] == ["rollback", "cutover"]
    assert actions[:-4:-1] == ["ingest", "versions add", "versions add"]  # the second ingest changed nothing
    assert "inserted 12" in log.splitlines()[-1]


def test_a_version_of_plain_sql_is_adopted(revector: Revector, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    connection.execute(
        """
        INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric)
        VALUES ('by-sql', 'wordllama', '1', 64, 'cosine')
        """
    )
    for command in ("backfill run by-sql", "search x --version by-sql"):
        assert "revector versions adopt by-sql" in revector.call(*command.split(), status=1).err
    assert "by name only" in revector.call("versions", "show", "by-sql").out
    refused = revector.call("versions", "adopt", "by-sql", "--encoder", "static:wordllama-256", status=1)
    assert "256 dimensions; version by-sql was registered with 64" in refused.err
    assert get_version(connection, "by-sql").encoder_spec == ""
    right = ("versions", "adopt", "by-sql", "--encoder", "static:wordllama-64")
    assert "by-sql now has the encoder" in revector.call(*right).out
    assert revector.call("backfill", "run", "by-sql", "--json").document["state"] == "done"
    assert "already has the encoder" in revector.call(*right, status=1).err


# -- the key is typed --------------------------------------------------------------------------------------


@pytest.fixture
def flipped(database: Database, connection: Connection, revector: Revector) -> Revector:
    """v1 is active and v0 was before; v2 is ready; v3 is retired."""
    add_chunks(connection, TEXTS)
    for key in ("v0", "v1", "v2"):
        ready_version(database, connection, key)
    cutover.run(connection, "v0", confirm="v0")
    cutover.run(connection, "v1", confirm="v1")
    add(connection, "v3")
    retire_version(connection, "v3")
    return revector


def test_at_a_terminal_the_key_is_typed(flipped: Revector, connection: Connection) -> None:
    def active() -> str | None:
        found = active_version(connection)
        return found.version_key if found else None

    entries = len(flipped.call("log", "--json").document["entries"])
    for typed in ("V2", ""):
        refused = flipped.type(typed, "cutover", "run", "v2", status=1)
        assert "active v1 → v2" in refused.err
        assert f"The typed key is {typed!r}, not 'v2': nothing was changed." in refused.err
        assert refused.out == ""
    assert "The typed key is 'v1', not 'v0': nothing was changed." in flipped.type("v1", "rollback", status=1).err
    assert "nothing was changed" in flipped.type("v2", "versions", "drop", "v3", status=1).err
    assert active() == "v1"
    assert get_version(connection, "v3").state == "retired"
    refusals = flipped.call("log", "--json").document["entries"][:-entries]
    assert [(one["action"], one["outcome"]) for one in refusals] == [
        ("versions drop", "refused"), ("rollback", "refused"), ("cutover", "refused"), ("cutover", "refused"),
    ]  # fmt: skip

    assert flipped.type("v2", "cutover", "run", "v2", "--json").document["version_key"] == "v2"
    assert active() == "v2"
    back = flipped.type(" v1 ", "rollback", "--json")
    assert "active v2 → v1, 0 chunks missing" in back.err
    assert back.document["version_key"] == "v1"
    assert active() == "v1"
    assert "This deletes the vectors of v3 permanently." in flipped.type("v3", "versions", "drop", "v3").err
    assert "v3" not in flipped.call("versions", "list").out


def test_a_version_named_none_is_confirmed_too(revector: Revector, connection: Connection) -> None:
    """While nothing is active, prompts say `none` for it."""
    add(connection, "none")
    assert "needs --confirm none" in revector.call("cutover", "run", "none", status=2).err


def test_confirm_takes_the_place_of_typing(flipped: Revector, connection: Connection) -> None:
    """An empty one is an unset variable, not consent."""
    for given in ("v1", ""):
        for command in ("cutover run v2", "rollback", "versions drop v3", "versions retire v2"):
            given_here = given if command != "rollback" or not given else "v2"
            refused = flipped.call(*command.split(), "--confirm", given_here, status=1)
            assert f"The typed key is {given_here!r}" in refused.err
            assert "nothing was changed" in refused.err
    found = active_version(connection)
    assert found is not None
    assert found.version_key == "v1"
    assert flipped.call("rollback", "--confirm", "v0", "--json").document["previous"] == "v1"


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("cutover run v2", "v2"), ("rollback", "v0"), ("rollback --reason it's_slow", "v0"), ("rollback --json", "v0"),
    ],
)  # fmt: skip
def test_a_script_names_the_key_again_or_nothing_is_changed(
    flipped: Revector, connection: Connection, command: str, key: str
) -> None:
    def state() -> object:
        tables = ("embedding_versions", "cutovers", "audit_log", "shadows")
        select = sql.SQL("SELECT * FROM {} ORDER BY id")
        return [connection.execute(select.format(sql.Identifier(name))).fetchall() for name in tables]

    before = state()
    refused = flipped.call(*command.split(), status=2)
    assert f"needs --confirm {key}: nothing was changed." in refused.err
    (offered,) = re.findall(r"If you mean it: revector (.*)$", refused.err, re.MULTILINE)
    assert state() == before
    again = shlex.split(offered)
    assert again[:2] == ["--dsn", "…"]  # it may hold a password
    assert again[2:] == [*flipped.options[2:], *command.split(), "--confirm", key]
    flipped.call(*again[4:])
    assert state() != before


def test_the_prompt_names_database_collection_label_and_production(flipped: Revector, database: Database) -> None:
    settings = {"REVECTOR_LABEL": "prod-eu", "REVECTOR_PRODUCTION": "true"}
    asked = flipped.with_options(**settings).type("no", "rollback", status=1).err
    assert f"On {database.name}, collection {database.schema}, label prod-eu, PRODUCTION.\n" in asked
    assert "PRODUCTION" not in flipped.type("no", "versions", "retire", "v2", status=1).err


def test_a_rollback_says_what_it_would_lose(flipped: Revector, connection: Connection) -> None:
    add_chunks(connection, ["new one", "new two"])
    back = flipped.type("v0", "rollback")
    assert "active v1 → v0, 2 chunks missing." in back.err
    assert back.out.startswith("v0 is active (was v1)")
    assert "2 chunks missing: revector backfill run v0" in back.out


# -- Ctrl-C ------------------------------------------------------------------------------------------------


def _sessions_of_workers(connection: Connection) -> int:
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'revector backfill'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_ctrl_c_interrupts_a_backfill_and_run_finishes_it(
    revector: Revector, connection: Connection, tmp_path: Path
) -> None:
    add_chunks(connection, TEXTS)
    with ProtocolServer() as provider:
        spec = f"openai:house-model?base_url={provider.base_url}"
        revector.call("versions", "add", "v1", "--encoder", spec)
        gate = Gate.after(provider, len(provider.requests) + 2)
        few = revector.with_options(REVECTOR_BATCH_SIZE="2")
        process = few.start("backfill", "run", "v1", "--json")
        try:
            assert gate.reached.wait(60)
            running = few.call("backfill", "status", "v1", "--json").document
            assert (running["state"], running["workers"]) == ("running", 1)
            before = _sessions_of_workers(connection)
            process.send_signal(signal.SIGINT)
            while _sessions_of_workers(connection) == before:  # until the worker stops reading
                assert process.poll() is None
            gate.open()
            result = finish(process, status=130)
        finally:
            gate.open()
            process.kill()
            process.wait()
        assert result.error["kind"] == "interrupted"
        assert result.err == "Interrupted; nothing is lost. Resume: revector backfill run v1\n"
        status = few.call("backfill", "status", "v1", "--json").document
        assert status["state"] == "interrupted"
        assert 0 < status["pending"] == 12 - status["done"]
        shown = few.call("backfill", "status", "v1").out
        assert shown.startswith("v1: interrupted\n")
        assert "stopped at the keyboard by" in shown
        assert "revector backfill run v1" in few.call("cutover", "check", "v1", status=1).out
        assert few.call("backfill", "pause", "v1", "--json").document["state"] == "paused"
        assert few.call("backfill", "cancel", "v1", "--json").document["state"] == "cancelled"
        finished = few.call("backfill", "run", "v1", "--json").document
        assert (finished["state"], finished["done"], finished["pending"]) == ("done", 12, 0)
        paid = Counter(text for request in provider.requests for text in request.inputs)
        assert all(paid[text] == 1 for text in TEXTS[: status["done"]])


def test_pause_from_another_terminal(revector: Revector, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    with ProtocolServer() as provider:
        revector.call("versions", "add", "v1", "--encoder", f"openai:house-model?base_url={provider.base_url}")
        gate = Gate.after(provider, len(provider.requests) + 1)
        few = revector.with_options(REVECTOR_BATCH_SIZE="2")
        process = few.start("backfill", "run", "v1")
        try:
            assert gate.reached.wait(60)
            assert few.call("backfill", "pause", "v1", "--json").document["state"] == "pausing"
            gate.open()
            result = finish(process, status=1)
        finally:
            gate.open()
            process.kill()
            process.wait()
        assert result.out.startswith("v1: paused")
        assert result.err == "Resume: revector backfill run v1\n"
        assert few.call("backfill", "resume", "v1", "--json").document["pending"] == 0


def test_ctrl_c_in_an_index_build(revector: Revector, database: Database, connection: Connection) -> None:
    """The build waits for a transaction that holds the table; what it leaves is dropped by the next one."""
    add_chunks(connection, TEXTS)
    version = add(connection, "v1")
    revector.call("backfill", "run", "v1", "--no-index")
    with database.session("test") as other, other.transaction():
        other.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(version.table))
        process = revector.start("index", "build", "v1")
        while not connection.execute(
            "SELECT 1 FROM pg_stat_progress_create_index WHERE lockers_total > lockers_done"
        ).fetchone():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        finish(process, status=130)
    assert revector.call("index", "check", "v1", "--json", status=1).document["valid"] is False
    assert revector.call("index", "build", "v1", "--json").document["valid"] is True


def test_ctrl_c_at_the_prompt_changes_nothing(flipped: Revector, connection: Connection) -> None:
    keyboard, terminal = os.openpty()
    process = flipped.start("cutover", "run", "v2", stdin=terminal, stderr=terminal)
    os.close(terminal)
    try:
        shown = b""
        while not shown.rstrip().endswith(b"to confirm:"):
            shown += os.read(keyboard, 4096)
        process.send_signal(signal.SIGINT)
        finish(process, status=130)
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)
    found = active_version(connection)
    assert found is not None
    assert found.version_key == "v1"


@pytest.mark.parametrize(("answer", "status", "state"), [(b"n\n", 1, None), (b"\n", 1, None), (b"y\n", 0, "done")])
def test_a_backfill_that_costs_money_asks_at_a_terminal(
    revector: Revector, connection: Connection, answer: bytes, status: int, state: str | None
) -> None:
    add_chunks(connection, TEXTS)
    with ProtocolServer() as provider:
        revector.call(
            "versions", "add", "v1", "--encoder", f"openai:text-embedding-3-small?base_url={provider.base_url}"
        )
        keyboard, terminal = os.openpty()
        process = revector.start("backfill", "run", "v1", "--no-index", "--json", stdin=terminal, stderr=terminal)
        os.close(terminal)
        try:
            shown = b""
            while not shown.rstrip().endswith(b"Continue? [y/N]"):
                shown += os.read(keyboard, 4096)
            assert b"tokens, $0.0000" in shown
            assert b"at $0.02 per million." in shown
            asked = len(provider.requests)
            os.write(keyboard, answer)
            with contextlib.suppress(OSError):  # its end; a progress that nobody reads would block it
                while os.read(keyboard, 4096):
                    pass
            finish(process, status=status)
        finally:
            process.kill()
            process.wait()
            os.close(keyboard)
        assert (len(provider.requests) > asked) == (state == "done")
    row = connection.execute("SELECT state FROM backfill_jobs").fetchone()
    assert (row[0] if row else None) == state


def test_a_throttling_provider_is_named_while_one_waits(revector: Revector, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    with ProtocolServer() as provider:
        provider.fail(429, retry_after=0.04)
        encoder = f"openai:house-model?base_url={provider.base_url}"
        added = revector.call("versions", "add", "v1", "--encoder", encoder)
        provider.fail(429, retry_after=2)
        ran = revector.call("backfill", "run", "v1", "--json")
    assert "waiting 0.0 s for the encoder: 429: Rate limit reached" in added.err
    assert "held: 429: Rate limit reached for requests per minute., waiting 2 s" in ran.err
    assert json.loads(ran.out)["state"] == "done"


def test_the_status_in_detail(revector: Revector, connection: Connection, database: Database) -> None:
    add_chunks(connection, TEXTS)
    ready_version(database, connection, "v1")
    found = revector.call("backfill", "status", "v1", "--detail", "--json").document
    assert found["state"] == "done"
    assert [(proof["missing"], proof["embedded"]) for proof in found["detail"]["proofs"]] == [(0, len(TEXTS))]
    assert [row["to_state"] for row in found["detail"]["transitions"]] == ["done", "proving", "running"]
    assert sum(cell["finished"] for cell in found["detail"]["cells"]) >= 1
    shown = revector.call("backfill", "status", "v1", "--detail").out
    assert "proving → done" in shown
    assert revector.call("backfill", "status", "v1", "--json").document["detail"] is None
    (worker,) = found["detail"]["workers"]
    assert (worker["alive"], worker["error"]) == (False, None)
    assert found["detail"]["settings"]["workers"] == 1
