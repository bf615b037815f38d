"""Searching while typing: nothing queues, nothing stale is shown, and nothing is sent to a provider unasked."""

from __future__ import annotations

import threading

import pytest
from textual.pilot import Pilot

from revector.console.app import RevectorApp
from revector.core.database import Database
from revector.core.registry import get_version
from revector.core.retrieval import Comparison, EncoderCache, VersionSearcher
from revector.screens.compare.hit_list import HitList
from revector.screens.compare.latest_search import disagree
from revector.screens.compare.pane import ComparePane
from revector.screens.widgets.inputs import QueryBox
from tests.screens.support import LARGE, SMALL, console, shown, type_text, until, until_shown
from tests.versions import add_chunks


async def at_compare(pilot: Pilot[None]) -> ComparePane:
    """The tab, with all known of the pair."""
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await until_shown(pilot, "demo-256")
    await pilot.press("3")
    await until(pilot, lambda: app.tab == "3", "the tab")
    pane = app.panes["3"]
    assert isinstance(pane, ComparePane)
    await until(pilot, lambda: pane.pair.facts is not None, "what is known of the pair")
    return pane


async def test_what_is_typed_is_found_without_enter(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        pane = await at_compare(pilot)
        await pilot.press("slash")
        await type_text(pilot, "refund")
        await until(pilot, lambda: pane.comparison and pane.comparison.query == "refund", "found")
        assert isinstance(app.focused, QueryBox), "whoever types goes on typing"
        await type_text(pilot, "s today")
        await until(pilot, lambda: pane.comparison and pane.comparison.query == "refunds today", "found")
        assert pane.comparison is not None
        with library.session("test") as connection:
            versions = [get_version(connection, key) for key in ("demo-64", "demo-256")]
            expected = VersionSearcher(connection, EncoderCache()).compare("refunds today", *versions, 10)
        assert pane.comparison.candidate.hits == expected.candidate.hits
        box = app.query_one(QueryBox)
        await pilot.press("up")
        assert box.value == "refunds today", "what was only typed is not in the history"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.focused, HitList), "Enter goes to the results")


async def test_a_newer_query_replaces_the_older_and_nothing_queues(
    library: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that hangs, as on a busy server: of all that is typed meanwhile only the last text is searched
    for."""
    go_on, searched = threading.Event(), []
    real = VersionSearcher.compare

    def hanging(self: VersionSearcher, text: str, *rest: object) -> Comparison:
        searched.append(text)
        assert go_on.wait(60)
        return real(self, text, *rest)  # type: ignore[arg-type]

    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        pane = await at_compare(pilot)
        monkeypatch.setattr(VersionSearcher, "compare", hanging)
        box = app.query_one(QueryBox)
        await pilot.press("slash")
        await type_text(pilot, "first")
        await until(pilot, lambda: searched == ["first"], "the first search hangs")
        for query in ("second", "third", "fourth"):
            box.value = query
            await until(pilot, lambda query=query: pane.control._latest.asked == query, "asked for")  # type: ignore[misc]
        assert searched == ["first"], "the others wait in one place"
        assert pane.comparison is None
        stale: list[str] = []
        show = pane.control.show
        monkeypatch.setattr(
            pane.control, "show", lambda found, **more: (stale.append(found.query), show(found, **more))
        )
        go_on.set()
        await until(pilot, lambda: pane.comparison is not None, "found")
        assert searched == ["first", "fourth"]
        assert stale == ["fourth"], "what nobody wants any more was never shown"


async def test_a_letter_typed_and_taken_back_ends_with_the_right_result(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        pane = await at_compare(pilot)
        await pilot.press("slash")
        await type_text(pilot, "backup")
        await until(pilot, lambda: pane.comparison and pane.comparison.query == "backup", "found")
        await type_text(pilot, "sx")
        await pilot.press("backspace")
        await until(pilot, lambda: pane.comparison and pane.comparison.query == "backups", "found")


@pytest.mark.parametrize(
    "spec", ["openai:text-embedding-3-small?dimensions=64&key_env=NOT_SET_HERE", "", "nobody:knows"]
)
async def test_nothing_is_sent_elsewhere_before_enter(own_library: Database, spec: str) -> None:
    with own_library.session("test") as connection:
        connection.execute("ALTER TABLE embedding_versions DISABLE TRIGGER check_encoder")
        connection.execute(
            "UPDATE embedding_versions SET encoder_spec = %s WHERE version_key = 'demo-256'", [spec]
        )
    app = console(own_library)
    async with app.run_test(size=LARGE) as pilot:
        pane = await at_compare(pilot)
        assert not pane.pair.live
        name = spec or "static:wordllama-256"
        assert name in app.query_one(QueryBox).placeholder
        await pilot.press("slash")
        await type_text(pilot, "refund")
        await until_shown(pilot, f"Enter searches: {name[:30]}")
        assert pane.comparison is None
        assert pane.control._latest.asked is None
        await pilot.press("enter")
        await until(pilot, lambda: "✗ " in shown(app), "it was tried now")


async def test_without_candidate_or_database_typing_asks_for_nothing(own_library: Database) -> None:
    with own_library.session("test") as connection:
        from revector.core.registry import drop_version, retire_version

        retire_version(connection, "demo-256")
        drop_version(connection, "demo-256")
    app = console(own_library)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "demo-64")
        await pilot.press("3")
        await until_shown(pilot, "This needs two versions with vectors")
        pane = app.panes["3"]
        assert isinstance(pane, ComparePane)
        app.query_one(QueryBox).value = "refund"
        await pilot.pause(0.3)
        assert pane.control._latest.asked is None
        assert pane.comparison is None


def test_disagreement_is_any_move(library: Database, own_library: Database) -> None:
    with own_library.session("test") as connection:
        add_chunks(connection, ["one more, so that it is another collection"])
        searcher = VersionSearcher(connection, EncoderCache())
        versions = [get_version(connection, key) for key in ("demo-64", "demo-256")]
        assert disagree(searcher.compare("api key", *versions, 10))
        assert not disagree(searcher.compare("api key", versions[0], versions[0], 10))
