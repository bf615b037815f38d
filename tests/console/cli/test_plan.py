"""`revector backfill plan`: what it prints, what it sends, and its exit statuses."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from psycopg.types.json import Jsonb
from rich.cells import cell_len

from revector.core.database import Connection
from tests.console.cli.conftest import TEXTS
from tests.console.cli.program import Revector
from tests.protocol_server import ProtocolServer
from tests.versions import add, add_chunks


@pytest.fixture
def service() -> Iterator[ProtocolServer]:
    with ProtocolServer() as server:
        yield server


def spec(server: ProtocolServer, **settings: object) -> str:
    given = {"base_url": server.base_url, "max_retries": 0, "price": 2, **settings}
    return "openai:text-embedding-3-small?" + "&".join(f"{name}={value}" for name, value in given.items())


def test_the_document(revector: Revector, connection: Connection) -> None:
    add_chunks(connection, [*TEXTS, TEXTS[0]])
    add(connection, "v1")
    found = revector.call("backfill", "plan", "v1", "--workers", "2", "--json").document
    assert (found["chunks"], found["missing"], found["repeated"]) == (13, 13, 1)
    assert (found["price"], found["cost_usd"]["estimate"], found["workers"]) == (0, 0, 2)
    assert all(found[name] for name in ("tokens", "characters", "cost_usd", "seconds", "one_worker", "storage"))
    assert found["seconds"]["estimate"] <= found["one_worker"]["estimate"]
    assert found["rate"] > 0
    assert {one["verdict"] for one in found["findings"]} == {"pass"}
    assert found["ready"] is True
    assert connection.execute("SELECT FROM backfill_jobs").fetchall() == []


def test_the_page_fits_a_terminal(revector: Revector, connection: Connection, service: ProtocolServer) -> None:
    add_chunks(connection, [*TEXTS, TEXTS[0], " ", "much " * 500])
    add(connection, "v1", spec(service, max_tokens=100))
    result = revector.call("backfill", "plan", "v1", "--workers", "2", columns=80)
    lines = result.out.splitlines()
    assert max(map(cell_len, lines[1:])) <= 80  # the first one is the encoder's spec, which a terminal wraps
    figures, findings = result.out.split("\n\n")[1:3]
    for name in ("chunks", "text", "cost", "time", "disk", "memory"):
        assert f"\n{name} " in f"\n{figures}"
    assert "15 of 15 to be embedded; 1 takes the vector of another" in " ".join(figures.split())
    assert "at $2 per million tokens" in figures
    assert "with 2 workers" in " ".join(figures.split())
    assert "!  long texts" in findings
    assert "!  empty texts" in findings
    assert lines[-1] == "Ready to run: revector backfill run v1"


def test_the_probe_says_what_it_costs_before_it_is_sent(
    revector: Revector, connection: Connection, service: ProtocolServer
) -> None:
    add_chunks(connection, TEXTS)
    add(connection, "v1", spec(service))
    sent = len(service.requests)
    result = revector.call("backfill", "plan", "v1", "--no-probe")
    assert len(service.requests) == sent
    assert "time    unknown: not measured" in result.out
    assert "!  encoder" in result.out
    assert result.err == ""
    result = revector.call("backfill", "plan", "v1")
    assert len(service.requests) > sent
    assert re.match(r"The probe sends \d texts, about \d+ tokens, to ", result.err)
    assert "openai:text-embedding-3-small for about $0.000" in result.err
    assert result.err.endswith("; --no-probe skips it.\n")


def test_a_free_probe_is_not_talked_of(revector: Revector, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    add(connection, "v1")
    assert revector.call("backfill", "plan", "v1").err == ""


def test_a_plan_of_a_version_without_an_encoder(library: Revector) -> None:
    result = library.call("backfill", "plan", "v3", status=1)
    assert "has no encoder" in result.out
    assert "revector versions adopt v3" in result.out
    assert "cost    unknown: the encoder has no price set" in result.out
    assert result.out.endswith("1 finding would make the backfill fail.\n")


def test_a_read_only_session_may_plan(revector: Revector, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    add(connection, "v1")
    found = revector.with_options("--read-only").call("backfill", "plan", "v1", "--json").document
    assert found["probe"]["write"] is None
    assert found["seconds"] is not None
    assert [one["name"] for one in found["findings"] if one["verdict"] != "pass"] == ["session"]


def test_a_cap_below_the_cost_is_a_no(revector: Revector, connection: Connection, service: ProtocolServer) -> None:
    add_chunks(connection, TEXTS)
    version = add(connection, "v1", spec(service))
    connection.execute(
        "INSERT INTO backfill_jobs (embedding_version_id, state, settings, total) VALUES (%s, 'paused', %s, 12)",
        [version.id, Jsonb({"max_spend_usd": 1e-7})],
    )
    found = revector.call("backfill", "plan", "v1", "--no-probe", "--json", status=1).document
    assert found["ready"] is False
    assert found["seconds"] is None
    assert [one["name"] for one in found["findings"] if one["verdict"] == "fail"] == ["spend cap"]


def test_an_encoder_that_is_gone(revector: Revector, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    with ProtocolServer() as service:
        add(connection, "v1", spec(service))
    found = revector.call("backfill", "plan", "v1", "--json", status=4).document
    (failed,) = [one for one in found["findings"] if one["verdict"] == "fail"]
    assert failed["name"] == "encoder"
    assert "did not answer" in failed["detail"]
    assert found["tokens"]["estimate"] > 0


def test_a_key_that_is_not_set(revector: Revector, connection: Connection) -> None:
    """The encoder cannot even be opened; the rest of the plan is shown anyway."""
    add_chunks(connection, TEXTS)
    with ProtocolServer() as service:
        version = add(connection, "v1", spec(service))
    connection.execute("ALTER TABLE embedding_versions DISABLE TRIGGER check_encoder")
    connection.execute(
        "UPDATE embedding_versions SET encoder_spec = 'openai:text-embedding-3-small' WHERE id = %s", [version.id]
    )
    found = revector.with_options(OPENAI_API_KEY="").call("backfill", "plan", "v1", "--json", status=4).document
    assert "OPENAI_API_KEY" in found["findings"][0]["detail"]
    assert found["tokens"] is None
    assert found["characters"]["estimate"] == sum(map(len, TEXTS))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(("v9",), 2), (("v1", "--workers", "0"), 2), (("v1", "--sample", "3"), 2), ((), 2)],
)
def test_what_is_no_plan(library: Revector, arguments: tuple[str, ...], status: int) -> None:
    assert library.call("backfill", "plan", *arguments, status=status).out == ""


def test_a_database_that_is_gone(revector: Revector) -> None:
    gone = Revector(revector.folder, ("--dsn", "postgresql://nobody@127.0.0.1:1/none"))
    assert gone.call("backfill", "plan", "v1", status=4).out == ""
