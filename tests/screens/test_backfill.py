"""Tab 2: backfills that run here, and those that run elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from console.app import RevectorApp
from core.backfill.settings import JobSettings
from core.backfill.worker import Worker
from core.database import Database
from core.encoders import open_encoder
from core.errors import EncoderError
from core.registry import get_version
from tests.screens.support import LARGE, SMALL, add_candidate, console, shown, type_text, until, until_shown
from tests.versions import add_chunks


class SlowEncoder:
    """A real encoder that encodes a batch for each permit it is given."""

    def __init__(self) -> None:
        self._encoder = open_encoder("static:wordllama-64")
        self.permits = threading.Semaphore(0)
        self.open = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._encoder, name)

    def encode_documents(self, texts: list[str]) -> object:
        if not self.open:
            self.permits.acquire()
        return self._encoder.encode_documents(texts)

    def let_go(self) -> None:
        self.open = True
        self.permits.release(100)


class Picky(SlowEncoder):
    """Refuses one text."""

    def encode_documents(self, texts: list[str]) -> object:
        if any(text.startswith("Refunds") for text in texts):
            raise EncoderError("The provider says [red]no\x1b[31m.")
        return self._encoder.encode_documents(texts)


def state_of(database: Database, key: str) -> str:
    with database.session("test") as connection:
        row = connection.execute(
            "SELECT j.state FROM backfill_jobs j JOIN embedding_versions v ON v.id = j.embedding_version_id "
            "WHERE version_key = %s",
            [key],
        ).fetchone()
        return str(row[0]) if row else "none"


@pytest.fixture
def candidate(own_library: Database) -> Database:
    """`demo-new` has no vectors yet."""
    with own_library.session("test") as connection:
        add_candidate(connection)
    return own_library


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowEncoder]:
    """The console's backfills encode when they are allowed to."""
    encoder = SlowEncoder()
    monkeypatch.setattr("core.retrieval.open_version_encoder", lambda _version: encoder)
    yield encoder
    encoder.let_go()


async def go_to_candidate(pilot: object, app: RevectorApp) -> None:
    await until_shown(pilot, "demo-new")  # type: ignore[arg-type]
    await pilot.press("end")  # type: ignore[attr-defined]
    await until(pilot, lambda: app.selection == "demo-new", "the version is selected")  # type: ignore[arg-type]
    await pilot.press("b")  # type: ignore[attr-defined]
    await until(pilot, lambda: app.tab == "2", "its backfill")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_a_backfill_runs_here_and_its_index_after_it(candidate: Database, size: tuple[int, int]) -> None:
    app = console(candidate)
    async with app.run_test(size=size) as pilot:
        await go_to_candidate(pilot, app)
        await until_shown(pilot, "no backfill yet", "r run", "Backfill it")
        await pilot.press("r")
        await until_shown(pilot, "─  done", "16 of 16 done", "100.0 %")
        await until(pilot, lambda: not app.services.backfills.working, "all is done")
        await until_shown(pilot, "Compare it with the active one")
    with candidate.session("test") as connection:
        assert get_version(connection, "demo-new").state == "ready"


async def test_a_job_of_another_process_is_shown_and_paused_from_here(candidate: Database) -> None:
    encoder = SlowEncoder()
    with candidate.session("test") as connection:
        version = get_version(connection, "demo-new")
    worker = Worker(candidate, version, encoder, JobSettings(batch_size=4))  # type: ignore[arg-type]
    other = threading.Thread(target=worker.run)
    other.start()
    app = console(candidate)
    try:
        async with app.run_test(size=SMALL) as pilot:
            await go_to_candidate(pilot, app)
            await until_shown(pilot, "─  running", "1 workers")
            assert "in this console" not in shown(app)
            encoder.permits.release()
            await until_shown(pilot, "4 of 16 done", "25.0 %")
            await pilot.press("p")
            await until(pilot, lambda: state_of(candidate, "demo-new") in ("pausing", "paused"), "asked to pause")
            encoder.let_go()
            await until_shown(pilot, "─  paused", "Its backfill is paused. Go on with it")
    finally:
        encoder.let_go()
        other.join()
    assert state_of(candidate, "demo-new") == "paused"


async def test_leaving_asks_and_pauses_what_runs_here(candidate: Database, slow: SlowEncoder) -> None:
    app = console(candidate, batch_size=4)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("r")
        await until_shown(pilot, "─  running in this console")
        await pilot.press("q")
        await until_shown(pilot, "This console works on demo-new.", "Stay")
        await pilot.press("enter")
        await until(pilot, lambda: len(app.screen_stack) == 1, "Enter alone stays")
        assert app.is_running
        await pilot.press("q", "tab", "enter")
        await until(pilot, lambda: state_of(candidate, "demo-new") in ("pausing", "paused"), "asked to pause")
        slow.let_go()
        await until(pilot, lambda: app._exit, "the console ends")
    assert state_of(candidate, "demo-new") == "paused"


async def test_leaving_a_small_terminal_does_not_cut_the_backfill_off(
    candidate: Database, slow: SlowEncoder
) -> None:
    app = console(candidate, batch_size=4)
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
        slow.let_go()
        await until(pilot, lambda: not app.services.backfills.working, "all is done")


async def test_cancelling_takes_the_typed_key(candidate: Database, slow: SlowEncoder) -> None:
    app = console(candidate, batch_size=4)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("r")
        await until_shown(pilot, "─  running in this console")
        await pilot.press("x")
        await until_shown(pilot, "Cancel the backfill", "type the version key demo-new")
        await pilot.press("tab")
        await type_text(pilot, "demo-old")
        await pilot.press("enter")
        await until_shown(pilot, "That is not the key yet")
        assert state_of(candidate, "demo-new") == "running"
        await pilot.press(*["backspace"] * 3)
        await type_text(pilot, "new")
        await pilot.press("enter")
        await until(pilot, lambda: state_of(candidate, "demo-new") == "cancelled", "cancelled")
        slow.let_go()
        await until_shown(pilot, "─  cancelled")
        await until(pilot, lambda: not app.services.backfills.working, "the worker ends")


async def test_failures_are_listed_as_they_are(candidate: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.retrieval.open_version_encoder", lambda _version: Picky())
    app = console(candidate)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("r")
        await until_shown(
            pilot, "─  failed", "1 failed", "The provider says [red]no␛[31m.", "t try failures again"
        )
        await pilot.press("f")
        await until_shown(pilot, "chunks that could not be embedded", "doc-Refunds")
        await pilot.press("escape")
        monkeypatch.undo()
        await pilot.press("t")
        await until_shown(pilot, "─  done", "0 failed")
        await until(pilot, lambda: not app.services.backfills.working, "all is done")


async def test_an_encoder_that_cannot_be_opened_is_said_in_its_place(candidate: Database) -> None:
    with candidate.session("test") as connection:
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
