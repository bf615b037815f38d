"""Tab 2: backfills that run here, and those that run elsewhere, by worker processes against a real provider."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.job.status import JobDetail, job_detail
from revector.core.database import Database
from revector.core.registry import get_version
from revector.screens.backfill import range_map
from revector.screens.backfill.range_map import RangeMap, drawn
from revector.screens.backfill.waive_dialog import WaiveChunk
from revector.screens.widgets.table import Table
from tests.protocol_server import Gate, ProtocolServer
from tests.screens.support import (
    LARGE,
    SMALL,
    cells_of,
    console,
    elsewhere,
    go_to_candidate,
    settings_of,
    shown,
    state_of,
    type_text,
    until,
    until_gone,
    until_shown,
)
from tests.versions import add_chunks


def living(database: Database) -> int:
    """Worker processes at work on `demo-new`, as its status says."""
    from revector.core.backfill.job.status import status

    with database.session("test") as connection:
        found = status(connection, get_version(connection, "demo-new"))
        return found.workers if found else 0


# -- running, pausing, leaving -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_a_backfill_runs_here_and_its_index_after_it(candidate: Database, size: tuple[int, int]) -> None:
    app = console(candidate)
    async with app.run_test(size=size) as pilot:
        await go_to_candidate(pilot, app)
        await until_shown(pilot, "no backfill yet", "r run", "Backfill it")
        await pilot.press("r")
        await until_shown(pilot, "─  done", "16 of 16 done", "100.0 %", "nothing missing")
        await until(pilot, lambda: not app.services.backfills.working, "all is done")
        await until_shown(pilot, "Compare it: press 3", "16 done")
        await pilot.press("1")
        await until_shown(pilot, "[1 Versions]")
        cells = cells_of(app.panes["1"].query_one("#versions", Table))["demo-new"]
        assert (cells["state"], cells["embedded"], cells["missing"]) == ("ready", "16", "0")
        await pilot.press("2")
        await until_shown(pilot, "[2 Backfill]")
        await pilot.press("l")
        await until_shown(pilot, "changes of state", "running → proving", "proving → done", "nothing missing")
    with candidate.session("test") as connection:
        assert get_version(connection, "demo-new").state == "ready"


async def test_a_job_of_another_process_is_shown_and_paused_from_here(served: Database, gate: Gate) -> None:
    app = console(served)
    with elsewhere(served):
        async with app.run_test(size=SMALL) as pilot:
            await go_to_candidate(pilot, app)
            await until_shown(pilot, "─  running elsewhere, by ", "1 worker", "10 of 16 done", "62.5 %")
            await pilot.press("p")
            await until(pilot, lambda: state_of(served) in ("pausing", "paused"), "asked to pause")
            gate.open()
            await until_shown(pilot, "─  paused", "The backfill is paused. To resume it, press r.")
    assert state_of(served) == "paused"


async def test_resuming_asks_the_process_that_stays_first(served: Database, gate: Gate) -> None:
    app = console(served)
    with elsewhere(served, stay=True):
        async with app.run_test(size=SMALL) as pilot:
            await go_to_candidate(pilot, app)
            await until_shown(pilot, "─  running elsewhere")
            await pilot.press("p")
            await until(pilot, lambda: state_of(served) in ("pausing", "paused"), "asked to pause")
            gate.open()
            await until_shown(pilot, "─  paused")
            await pilot.press("r")
            await until_shown(pilot, "✓ The process that keeps running continues this backfill.", "16 of 16 done")
            assert not app.services.backfills.working
            await until_shown(pilot, "─  done")


async def test_leaving_asks_and_pauses_what_runs_here(served: Database, gate: Gate) -> None:
    app = console(served, batch_size=2)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("r")
        await until_shown(pilot, "─  running in this console")
        await until(pilot, gate.reached.is_set, "a batch is in hand")
        await pilot.press("q")
        await until_shown(pilot, "This console is working on demo-new.", "Stay")
        await pilot.press("enter")
        await until(pilot, lambda: len(app.screen_stack) == 1, "Enter alone stays")
        assert app.is_running
        await pilot.press("q", "tab", "enter")
        await until(pilot, lambda: state_of(served) in ("pausing", "paused"), "asked to pause")
        gate.open()
        await until(pilot, lambda: app._exit, "the console ends")
    assert state_of(served) == "paused"


async def test_leaving_a_small_terminal_does_not_cut_the_backfill_off(served: Database, gate: Gate) -> None:
    app = console(served, batch_size=2)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("r")
        await until_shown(pilot, "─  running in this console")
        await pilot.resize_terminal(60, 20)
        await until_shown(pilot, "Too small")
        await pilot.press("q")
        await until_shown(pilot, "A backfill runs here")
        assert not app._exit
        await pilot.resize_terminal(*SMALL)
        await until_shown(pilot, "─  running in this console")
        gate.open()
        await until(pilot, lambda: not app.services.backfills.working, "all is done")


async def test_cancelling_takes_the_typed_key(served: Database, gate: Gate) -> None:
    app = console(served, batch_size=2)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("r")
        await until_shown(pilot, "─  running in this console")
        await pilot.press("x")
        await until_shown(pilot, "Stop backfill", "Type the version key to confirm: demo-new")
        await pilot.press("tab")
        await type_text(pilot, "demo-old")
        await pilot.press("enter")
        await until_shown(pilot, "Not the version key yet")
        assert state_of(served) == "running"
        await pilot.press(*["backspace"] * 3)
        await type_text(pilot, "new")
        await pilot.press("enter")
        await until(pilot, lambda: state_of(served) == "cancelled", "cancelled")
        gate.open()
        await until_shown(pilot, "─  cancelled")
        await until(pilot, lambda: not app.services.backfills.working, "the worker ends")


async def test_an_encoder_that_cannot_be_opened_is_said_in_its_place(candidate: Database) -> None:
    with candidate.session("test") as connection:
        connection.execute("ALTER TABLE embedding_versions DISABLE TRIGGER check_encoder")
        connection.execute(
            "UPDATE embedding_versions SET encoder_spec = 'nobody:knows' WHERE version_key = 'demo-new'"
        )
        add_chunks(connection, ["one more"])
    app = console(candidate)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("r")
        await until_shown(pilot, "✗", "nobody")
        assert "Traceback" not in shown(app)
        await pilot.press("right_square_bracket")
        await until_shown(pilot, "demo-64  ─")
        assert "nobody" not in shown(app)


async def test_a_worker_that_was_killed_is_replaced_and_said(served: Database, gate: Gate) -> None:
    import os
    import signal

    app = console(served, batch_size=2)
    async with app.run_test(size=LARGE) as pilot:
        pane = await go_to_candidate(pilot, app)
        await pilot.press("r")
        await until(pilot, gate.reached.is_set, "a batch is in hand")
        await until(pilot, lambda: pane.job.detail and pane.job.detail.workers, "the worker is listed")
        assert pane.job.detail is not None
        (worker,) = pane.job.detail.workers
        os.kill(worker.pid or 0, signal.SIGKILL)
        await until_shown(pilot, "! a worker was killed by SIGKILL; starting another", "ended", "died")
        gate.open()
        await until(pilot, lambda: not app.services.backfills.working, "all is done")
    assert state_of(served) == "done"


# -- map, workers, throttle --------------------------------------------------------------------------------


async def test_the_map_shows_what_is_done_running_failed_and_waiting(
    served: Database, provider: ProtocolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("revector.core.backfill.job.job._RANGE_CHUNKS", 4)
    with served.session("test") as connection:
        add_chunks(connection, [f"Page {number} of a long book" for number in range(160)])
    bad = "Key rotation policy"
    gate = Gate(provider, lambda text: text.startswith("Page 7 "))
    answer = provider.embed

    def embed(text: str, *arguments: object) -> object:
        vector = answer(text, *arguments)  # type: ignore[arg-type]
        return vector * float("nan") if text.startswith(bad) else vector

    provider.embed = embed  # type: ignore[assignment]
    app = console(served, batch_size=2)
    try:
        async with app.run_test(size=LARGE) as pilot:
            pane = await go_to_candidate(pilot, app)
            await until_shown(pilot, "No range of chunks has been planned yet.")
            await pilot.press("r")
            await until(pilot, gate.reached.is_set, "a text is held")
            await until_shown(pilot, "21 of 176 done", "1 failed", "the chunk ids in 176 parts", "1 failed chunk")

            def signs() -> str:
                return "".join(map(range_map.sign, pane.job.detail.cells)) if pane.job.detail else ""

            # The counts above the map are read separately, and may be one reading ahead of it.
            await until(pilot, lambda: re.fullmatch("█✗█{20}[»·]+", signs()), "the map shows what the counts say")
            assert pane.job.detail is not None
            width, height = pane.query_one(RangeMap).content_size
            assert "✗" in drawn(pane.job.detail.cells, width, height - 2)[0].plain
            assert "█" * 8 in shown(app)
            await pilot.press("m")
            assert not pane.tight, "all parts are there beside each other"
            assert "m next part" not in shown(app)
            await pilot.resize_terminal(*SMALL)
            await until_shown(pilot, "[failures 1]", "the vector")
            for part in ("[map]", "[rate]", "[workers 1]", "[failures 1]"):
                await pilot.press("m")
                await until_shown(pilot, part)
            gate.open()
            await pilot.press("m")
            await until_shown(pilot, "─  failed", "[map]", "█ 176 done")
            await until(pilot, lambda: not app.services.backfills.working, "all is done")
    finally:
        gate.open()


async def test_plus_and_minus_change_the_workers_that_live(served: Database, gate: Gate) -> None:
    app = console(served, batch_size=2)
    async with app.run_test(size=LARGE) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("r")
        await until(pilot, gate.reached.is_set, "a batch is in hand")
        await pilot.press("plus", "plus")
        await until(pilot, lambda: settings_of(served).workers == 3, "each key is a step")
        await until(pilot, lambda: living(served) == 3, "two more workers")
        await until_shown(pilot, "workers: 3 alive", "3 workers")
        await pilot.press("minus", "minus")
        await until(pilot, lambda: settings_of(served).workers == 1, "fewer are wanted")
        gate.open()
        await until(pilot, lambda: not app.services.backfills.working, "all is done")
        await pilot.press("minus")
        await until_shown(pilot, "✗ At least one worker is needed.")
    assert settings_of(served).workers == 1


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_what_holds_a_job_is_said_with_since_when(
    served: Database, gate: Gate, size: tuple[int, int]
) -> None:
    query = "SELECT E'[red]batch\\x1b[31m job at work'"
    app = console(served)
    with elsewhere(served, JobSettings(batch_size=2, throttle_query=query)):
        async with app.run_test(size=size) as pilot:
            await go_to_candidate(pilot, app)
            await until_shown(pilot, "HELD ", "[red]batch␛[31m job at work", "s changes the limits")
            assert re.search(r"HELD \d+ s", shown(app))
            await pilot.press("s")
            await until_shown(pilot, "throttle_query", "working_hours")
            await pilot.press("end", "up", "up")
            await until_shown(pilot, "It holds the backfill now", "[red]batch␛[31m job at work.")
            await pilot.press("enter", "ctrl+u")
            await type_text(pilot, "none")
            await pilot.press("enter")
            await until_shown(pilot, "✓ throttle_query is none now.")
            await pilot.press("escape")
            await until_gone(pilot, "HELD")
            gate.open()
            await until_shown(pilot, "16 of 16 done")


# -- settings ----------------------------------------------------------------------------------------------


async def test_settings_of_a_job_good_and_bad(served: Database, gate: Gate) -> None:
    app = console(served)
    with elsewhere(served):
        async with app.run_test(size=SMALL) as pilot:
            await go_to_candidate(pilot, app)
            await until_shown(pilot, "─  running")
            await until(pilot, lambda: app.panes["2"].job.detail is not None, "the detail")  # type: ignore[attr-defined]
            await pilot.press("s")
            await until_shown(
                pilot, "batch_size", "target_batch_s", "Texts encoded at a time", "within two seconds"
            )
            await pilot.press("down", "down", "down", "enter")
            await until_shown(pilot, "↵ apply")
            await pilot.press("ctrl+u")
            await type_text(pilot, "fast")
            await pilot.press("enter")
            await until_shown(pilot, "✗ The setting max_rate cannot be 'fast'")
            assert "fast" in shown(app).split("↵ apply")[0].rsplit("max_rate", 1)[0], "what was typed stays"
            await pilot.press("ctrl+u")
            await type_text(pilot, "750")
            await pilot.press("enter")
            await until_shown(pilot, "✓ max_rate is 750 now.")
            assert settings_of(served).max_rate == 750
            await pilot.press("enter", "9", "escape")
            await until_shown(pilot, "esc close")
            await pilot.press("enter", "enter")
            await until_shown(pilot, "esc close")
            assert settings_of(served).max_rate == 750, "neither Escape nor the same value changes anything"
            with served.session("test") as connection:
                from revector.core.backfill.job.job import change_settings

                change_settings(connection, get_version(connection, "demo-new"), {"lease_s": 33})
            await until_shown(pilot, "33")
            await pilot.press("escape")
            await until(pilot, lambda: len(app.screen_stack) == 1, "closed")
            gate.open()
            await until_shown(pilot, "16 of 16 done")


async def test_settings_of_a_backfill_that_has_not_begun(candidate: Database) -> None:
    app = console(candidate, batch_size=4)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await until_shown(pilot, "no backfill yet")
        await pilot.press("s")
        await until_shown(pilot, "It applies when the backfill is run")
        await pilot.press("down", "down", "enter", "ctrl+u")
        await type_text(pilot, "0")
        await pilot.press("enter")
        await until_shown(pilot, "✗ The setting workers cannot be '0'")
        await pilot.press("ctrl+u")
        await type_text(pilot, "2")
        await pilot.press("enter")
        await until_shown(pilot, "✓ workers is 2 now.")
        await pilot.press("escape", "r")
        await until(pilot, lambda: state_of(candidate) == "done", "done")
        await until(pilot, lambda: not app.services.backfills.working, "all is done")
    found = settings_of(candidate)
    assert (found.batch_size, found.workers) == (4, 2)


# -- dead letters ------------------------------------------------------------------------------------------


@pytest.fixture
def refusing(served: Database, provider: ProtocolServer) -> Iterator[ProtocolServer]:
    """A provider that has no good vector for two texts."""
    answer = provider.embed

    def embed(text: str, *arguments: object) -> object:
        vector = answer(text, *arguments)  # type: ignore[arg-type]
        return vector * float("nan") if text.startswith(("Refunds", "Invoices")) else vector

    provider.embed = embed  # type: ignore[assignment]
    yield provider
    provider.embed = answer


async def test_dead_letters_are_read_waived_and_tried_again(refusing: ProtocolServer, served: Database) -> None:
    app = console(served)
    async with app.run_test(size=SMALL) as pilot:
        pane = await go_to_candidate(pilot, app)
        await pilot.press("r")
        await until_shown(pilot, "─  failed", "2 failed", "[failures 2]", "the vector", "t retry", "w waive")
        await until(pilot, lambda: not app.services.backfills.working, "the run is over")
        await pilot.press("enter")
        await until_shown(pilot, "attempts", "1, the last at", "doc-")
        await pilot.press("escape", "f")
        await until_shown(pilot, "chunks that could not be embedded", "doc-Refunds", "doc-Invoices")
        await pilot.press("escape", "w")
        await until_shown(pilot, "Waive a dead letter", "Type the number of the chunk and a reason")
        await pilot.press("enter", "space", "enter")
        assert isinstance(app.screen, WaiveChunk), "without a reason nothing happens"
        await type_text(pilot, "a scan")
        await pilot.press("enter")
        await until_shown(pilot, "is waived.", "1 failed")
        with served.session("test") as connection:
            rows = connection.execute("SELECT waived_reason FROM dead_letters ORDER BY waived_reason NULLS LAST")
            assert [row[0] for row in rows] == ["a scan", None]
        await pilot.press("w")
        await until_shown(pilot, "Waive a dead letter")
        await pilot.press("up", "ctrl+u", "7", "7", "7", "7", "7", "down", "n", "o", "enter")
        await until_shown(pilot, "✗ Chunk 77777 is not a dead letter of version demo-new.")
        await pilot.press("t")
        await until(
            pilot, lambda: [one.attempts for one in pane.job.failures if not one.waived_reason] == [2], "again"
        )
        await until(pilot, lambda: not app.services.backfills.working, "the run is over")
        refusing.embed = Gate(refusing, lambda _text: False)._embed
        await pilot.press("t")
        await until_shown(pilot, "─  done", "0 failed")
        await until(pilot, lambda: not app.services.backfills.working, "all is done")


# -- what there is and what has room -----------------------------------------------------------------------


async def test_a_read_only_console_steers_nothing(served: Database, gate: Gate) -> None:
    reading = Database(served.dsn, served.schema, read_only=True)
    app = console(reading)
    with elsewhere(served):
        async with app.run_test(size=LARGE) as pilot:
            await go_to_candidate(pilot, app)
            await until_shown(
                pilot, "─  running elsewhere", "READ ONLY", "workers: 1 alive", "map of the chunk ids"
            )
            for words in ("r run", "p pause", "x cancel", "s settings", "+ worker", "- worker"):
                assert words not in shown(app)
            app.refusals.clock = lambda: 0.0
            await pilot.press("s", "p", "plus", "x", "r", "t", "w")
            assert len(app.screen_stack) == 1
            app.refusals.clock = lambda: 1_000.0
            await pilot.press("l")
            await until_shown(pilot, "changes of state")
        assert state_of(served) == "running"
        assert settings_of(served).workers == 1
        gate.open()


async def test_one_read_at_a_time_and_none_while_another_tab_is_in_front(
    candidate: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, blocked = [], threading.Event()

    def slow(*arguments: Any, **more: Any) -> JobDetail | None:
        reads.append(time.monotonic())
        blocked.wait(30)
        return job_detail(*arguments, **more)

    monkeypatch.setattr("revector.screens.backfill.reader.job_detail", slow)
    app = console(candidate)
    async with app.run_test(size=LARGE) as pilot:
        await go_to_candidate(pilot, app)
        await until(pilot, lambda: reads, "the first read")
        taken = app.reader.latest.overview
        await until(pilot, lambda: app.reader.latest.overview is not taken, "a new snapshot")
        taken = app.reader.latest.overview
        await until(pilot, lambda: app.reader.latest.overview is not taken, "and another")
        assert len(reads) == 1, "dropped while one is under way"
        blocked.set()
        await until(pilot, lambda: len(reads) > 2, "then one for each snapshot")
        await pilot.press("1")
        await until(pilot, lambda: app.tab == "1", "another tab")
        await until(pilot, lambda: app.panes["2"].job._reading_since is None, "the last read is over")  # type: ignore[attr-defined]
        count, taken = len(reads), app.reader.latest.overview
        await until(pilot, lambda: app.reader.latest.overview is not taken, "a new snapshot")
        assert len(reads) == count


async def test_a_read_goes_on_after_its_connection_was_killed(candidate: Database) -> None:
    app = console(candidate)
    async with app.run_test(size=LARGE) as pilot:
        pane = await go_to_candidate(pilot, app)
        await pilot.press("r")
        await until(pilot, lambda: pane.job.detail is not None, "the detail")
        await until(pilot, lambda: not app.services.backfills.working, "all is done")
        kept = pane.job._connection._connection
        assert kept is not None
        with candidate.session("test") as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", [kept.info.backend_pid])
        before = pane.job.detail
        await until(pilot, lambda: pane.job._connection._connection not in (None, kept), "a new connection")
        await until(pilot, lambda: pane.job.detail is not before, "read again")
        assert "✗" not in shown(app)


async def test_buttons_have_room_in_eighty_columns(refusing: ProtocolServer, served: Database) -> None:
    gate = Gate(refusing, lambda text: text.startswith("On call"))
    app = console(served)
    answer = refusing.embed

    def embed(text: str, *arguments: object) -> object:
        vector = answer(text, *arguments)  # type: ignore[arg-type]
        return vector * float("nan") if text.startswith("Refunds") else vector

    refusing.embed = embed  # type: ignore[assignment]
    with elsewhere(served):
        try:
            async with app.run_test(size=SMALL) as pilot:
                await go_to_candidate(pilot, app)
                await until_shown(
                    pilot, "r run", "p pause", "x cancel", "s settings", "f failures", "t retry", "w waive"
                )
                last = app.panes["2"].query_one("#button-waive")
                assert last.region.right <= 80
                for widget in app.panes["2"].query("#state, #bar, #figures, Parts, #failures, Buttons"):
                    assert widget.region.height > 0
                    assert widget.region.bottom <= 23
        finally:
            gate.open()
