"""The judging screen over a real collection: one key a grade, undo, what cannot be stored, two people."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from revector.console.app import RevectorApp
from revector.core import embedded
from revector.core.database import Database
from revector.core.evaluation.judged_sets.agreement import Agreement
from revector.core.evaluation.judged_sets.judgements import GivenJudgement, Judge, given_judgements
from revector.core.evaluation.judged_sets.query_sets import Query, QuerySet, get_query_set, save_queries
from revector.core.evaluation.judging.queue import Count, JudgingItem, Passage
from revector.core.migrations import upgrade
from revector.core.settings import Settings
from revector.screens.frame import snapshots
from revector.screens.judging.desk import JudgingBatch, Opened
from revector.screens.judging.screen import JudgingScreen
from tests.screens.frozen import NOWHERE, FrozenReader, version
from tests.screens.support import LARGE, SMALL, console, fill, shown, type_text, until, until_gone, until_shown
from tests.screens.test_hostile import HOSTILE, nothing_obeyed
from tests.versions import add_chunks

QUERIES = [
    Query("q1", "how do I rotate an API key", "keys"),
    Query("q2", "when is an invoice sent", "billing"),
    Query("q3", "restore a backup", "operations"),
]


@pytest.fixture
def judged_library(own_library: Database) -> Database:
    """The small collection with an unjudged query set."""
    save(own_library, QUERIES)
    return own_library


def save(database: Database, queries: list[Query]) -> None:
    with database.session("test") as connection:
        save_queries(connection, "support", queries)


def said(database: Database) -> list[GivenJudgement]:
    with database.session("test") as connection:
        return given_judgements(connection, get_query_set(connection, "support"))


async def open_screen(pilot: Pilot[None]) -> JudgingScreen:
    """Press J, and let both versions be searched where that was not done yet."""
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await until_shown(pilot, "demo-256", "↵ details")
    await pilot.press("J")
    await until(pilot, lambda: isinstance(app.screen, JudgingScreen), "the screen")
    screen = app.screen
    assert isinstance(screen, JudgingScreen)
    await until(pilot, lambda: screen.answers.item or "must first be searched" in shown(app), "opened")
    if screen.answers.item is None:
        await pilot.press("enter")
        await until(pilot, lambda: screen.answers.item, "a pair to judge")
    return screen


async def stored(pilot: Pilot[None], screen: JudgingScreen) -> None:
    await until(pilot, lambda: not screen.answers.pending, "everything is stored")


def grades(database: Database) -> dict[tuple[str, str], int]:
    return {(row.query, row.target): row.grade for row in said(database)}


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_one_key_a_grade_and_back_again(judged_library: Database, size: tuple[int, int]) -> None:
    app = console(judged_library)
    async with app.run_test(size=size) as pilot:
        screen = await open_screen(pilot)
        await until_shown(pilot, "0 not relevant", "3 exactly", "judging support", "0 of")
        items = list(screen.answers.items)
        assert items[0].query in shown(app)
        assert items[0].passages[0].content.splitlines()[0] in shown(app)
        for word in ("demo-64", "demo-256", "rank 1", "distance"):
            assert word not in shown(app), "blind"
        await pilot.press("2", "0", "s", "3")
        await stored(pilot, screen)
        assert grades(judged_library) == {items[0].pair: 2, items[1].pair: 0, items[3].pair: 3}
        assert screen.answers.item == items[4]
        await until_shown(pilot, "3 of")
        await pilot.press("u", "u")
        await stored(pilot, screen)
        assert screen.answers.item == items[2], "the one that was skipped"
        await pilot.press("1", "u", "u")
        await stored(pilot, screen)
        assert screen.answers.item == items[1]
        assert grades(judged_library) == {items[0].pair: 2}
        await pilot.press("u", "u")
        await stored(pilot, screen)
        assert not said(judged_library)
        await until_shown(pilot, "Nothing to undo", "0 of")
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1, "left")


async def test_to_the_end_and_nothing_twice(judged_library: Database) -> None:
    app = console(judged_library)
    async with app.run_test(size=SMALL) as pilot:
        screen = await open_screen(pilot)
        left = sum(screen.answers.left.values())
        seen = []
        while (item := screen.answers.item) is not None:
            seen.append(item.pair)
            await pilot.press("1")
            await stored(pilot, screen)
        await until_shown(pilot, "Nothing left to judge here", "100.0 %", f"{left} of {left} judged")
        assert len(seen) == len(set(seen)) == left == len(said(judged_library))
        await pilot.press("2", "escape")
        await until(pilot, lambda: len(app.screen_stack) == 1, "left")
        assert {row.grade for row in said(judged_library)} == {1}


async def test_what_cannot_be_stored_comes_again_in_its_order(judged_library: Database) -> None:
    app = console(judged_library)
    async with app.run_test(size=SMALL) as pilot:
        screen = await open_screen(pilot)
        items = list(screen.answers.items)
        await pilot.press("3")
        await stored(pilot, screen)
        # The others get another text meanwhile: they are not what was read, and their grades are refused.
        first = items[0].query_id
        save(judged_library, [q if q.id == first else Query(q.id, q.text + "?", q.segment) for q in QUERIES])
        of_first = sum(item.query_id == first for item in items)
        keys = "2" * (of_first - 1) + "101s0"
        with judged_library.session("test") as other, other.transaction():
            other.execute("LOCK TABLE judgements")  # all is typed before anything is refused
            await type_text(pilot, keys)
            await until(pilot, lambda: len(screen.answers.pending) == len(keys), "all typed")
        await stored(pilot, screen)
        await until_shown(pilot, "✗ Not stored.", "is gone or its text has changed")
        assert list(screen.answers.items)[: len(items) - of_first] == items[of_first:], "all that came after it"
        assert grades(judged_library) == {
            item.pair: 2 if place else 3 for place, item in enumerate(items[:of_first])
        }
        assert f"{of_first} of" in shown(app)
        await pilot.press("u")
        await stored(pilot, screen)
        assert len(said(judged_library)) == of_first - 1, "what was stored can be taken back"
        await pilot.press("r")
        await until(pilot, lambda: screen.answers.item or "must first be searched" in shown(app), "read again")


async def test_two_people_and_how_far_they_agree(judged_library: Database) -> None:
    app = console(judged_library)
    async with app.run_test(size=LARGE) as pilot:
        screen = await open_screen(pilot)
        await pilot.press("2", "0", "3", "1")
        await stored(pilot, screen)
        await pilot.press("n")
        await until_shown(pilot, "judge as")
        await type_text(pilot, "bob")  # what stands in the box is selected
        await pilot.press("enter")
        await until_shown(pilot, "as bob", "0 of")
        await until(pilot, lambda: screen.answers.item, "bob's own queue")
        ada = {row.judge for row in said(judged_library)}
        given = grades(judged_library)
        for _ in range(60):
            item = screen.answers.item
            if item is None:
                break
            await pilot.press(str(given.get(item.pair, 0)))
        await stored(pilot, screen)
        await pilot.press("r")
        await until_shown(pilot, f"with {next(iter(ada))}: κ 1.00 on 4")


async def test_kind_and_segment_are_chosen(judged_library: Database) -> None:
    app = console(judged_library)
    async with app.run_test(size=SMALL) as pilot:
        screen = await open_screen(pilot)
        await pilot.press("f")
        await until_shown(pilot, "what to judge", "billing", "operations")
        await pilot.press("down", "down", "down", "down", "down", "enter")
        await until_shown(pilot, "segment billing")
        await until(pilot, lambda: screen.answers.item, "read")
        assert {item.query_id for item in screen.answers.items} == {"q2"}
        await pilot.press("f", "down", "enter")
        await until_shown(pilot, "disputed ─ segment billing", "Nothing left to judge here")


async def test_without_a_query_set_it_says_what_to_do(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "demo-256", "↵ details")
        await pilot.press("J")
        await until_shown(pilot, "There is no query set yet", "revector queries import")
        await pilot.press("1", "s", "u", "f", "n", "escape")
        await until(pilot, lambda: len(app.screen_stack) == 1, "left")


@pytest.fixture
def home() -> Iterator[Path]:
    """A server of this test's own, to stop and start. Not in pytest's folder, which another run would close to it."""
    with tempfile.TemporaryDirectory(prefix="revector-test-") as folder:
        yield Path(folder)
        embedded.stop(Path(folder))


async def test_no_key_is_taken_while_the_database_is_lost(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_LONGEST_PAUSE_S", 0.3)
    database = Database(embedded.start(home).dsn, "docs", embedded=True)
    upgrade(database)
    fill(database)
    save(database, QUERIES)
    app = console(database)
    async with app.run_test(size=SMALL) as pilot:
        screen = await open_screen(pilot)
        items = list(screen.answers.items)
        await pilot.press("3")
        await stored(pilot, screen)
        embedded.stop(home)
        await until_shown(pilot, "✗ No connection to the database: keys are ignored")
        await pilot.press("2", "s", "u", "f", "n", "r")
        assert screen.answers.item == items[1]
        assert app.screen is screen
        embedded.start(home)
        await until_gone(pilot, "No connection to the database")
        await pilot.press("1")
        await stored(pilot, screen)
        assert grades(database) == {items[0].pair: 3, items[1].pair: 1}
        assert "Not stored" not in shown(app)


async def test_a_grade_on_the_way_when_the_server_goes_is_not_lost_from_sight(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_LONGEST_PAUSE_S", 0.3)
    database = Database(embedded.start(home).dsn, "docs", embedded=True)
    upgrade(database)
    fill(database)
    save(database, QUERIES)
    app = RevectorApp(database, Settings(refresh_s=30))  # it does not know yet
    async with app.run_test(size=SMALL) as pilot:
        screen = await open_screen(pilot)
        items = list(screen.answers.items)
        embedded.stop(home)
        await type_text(pilot, "321")
        await stored(pilot, screen)
        await until_shown(pilot, "✗ Not stored. Cannot reach the database")
        assert list(screen.answers.items) == items
        embedded.start(home)
        await pilot.press("2")
        await stored(pilot, screen)
        assert grades(database) == {items[0].pair: 2}


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_hostile_text_is_shown_and_not_obeyed(database: Database, size: tuple[int, int]) -> None:
    fill(database)
    with database.session("test") as connection:
        save_queries(
            connection,
            "support",
            [
                Query(f"q{place}", text.replace("\0", ""), f"[red]{place}\x1b[31m")
                for place, text in enumerate(HOSTILE)
            ],
        )
        add_chunks(connection, HOSTILE)
        connection.execute("UPDATE document_chunks SET metadata = jsonb_build_object('title', content)")
    app = console(database)
    async with app.run_test(size=size) as pilot:
        screen = await open_screen(pilot)
        for _ in range(30):
            nothing_obeyed(app)
            await pilot.press("s")
        await pilot.press("f")
        await until_shown(pilot, "[red]0␛[31m")
        nothing_obeyed(app)
        assert screen.answers.item is not None


# -- pictures ----------------------------------------------------------------------------------------------


def frozen_screen(
    kind: str = "moved", before: int | None = None
) -> tuple[RevectorApp, Callable[[Pilot[None]], Any]]:
    """The screen on data built by hand: no server, no clock."""
    app = RevectorApp(NOWHERE, Settings(label="search-eu"), reader=FrozenReader())
    text = (
        "Rotating credentials\n\nTo rotate an API key without downtime, create the new key first and deploy it to "
        "every client. Revoke the old key when no request has used it for a day.\n\nThe audit log names who rotated "
        "which key."
    )
    item = JudgingItem(
        "q1", "how do I rotate an api key without downtime", "keys", "document", "guide/keys.md", "guide/keys.md",
        "Key rotation", (Passage("a", 2, text), Passage("b", 7, "Keys that were rotated are kept for a week.")),
        kind, before,  # type: ignore[arg-type]
    )  # fmt: skip
    counts = (Count("disputed", "keys", 3, 4), Count("moved", "keys", 60, 212), Count("unjudged", "keys", 34, 96))
    agreement = Agreement("ada", "bob", "document", 42, 0.7, 0.713, (0, 1), (), False, (3, 3), 0, ())

    async def before_picture(pilot: Pilot[None]) -> None:
        screen = JudgingScreen(app.services, version(1, "a", 64, "active"), version(2, "b", 64, "ready"))
        await app.push_screen(screen)
        await app.workers.wait_for_complete()
        await pilot.pause()
        screen._message.plain = ""  # that there is no server
        queries = QuerySet(1, "support", "r", tuple(QUERIES))
        screen._opened = Opened(queries, ("support",), Judge(1, "ada", "person"), None)
        screen._now_read(JudgingBatch((item,), counts, (agreement,)))
        await pilot.pause()

    return app, before_picture


@pytest.mark.parametrize("size", [LARGE, SMALL], ids=["large", "small"])
def test_picture_of_a_pair(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    app, before = frozen_screen("disputed", 2)
    assert snap_compare(app, terminal_size=size, run_before=before)


@pytest.mark.parametrize("size", [LARGE, SMALL], ids=["large", "small"])
def test_picture_of_the_choice(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    app, before = frozen_screen()

    async def choose(pilot: Pilot[None]) -> None:
        await before(pilot)
        await pilot.press("f")
        await pilot.pause()

    assert snap_compare(app, terminal_size=size, run_before=choose)
