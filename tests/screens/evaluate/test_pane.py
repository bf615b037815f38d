"""Tab 4 over a real collection: real runs, real measures, real files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from revector.console.app import RevectorApp
from revector.core import cutover
from revector.core.database import Connection, Database
from revector.core.documents import Document
from revector.core.evaluation.document import Evaluation, evaluations, get_evaluation
from revector.core.evaluation.evaluate import Asked, evaluate
from revector.core.evaluation.gates.gate_file import read_gates
from revector.core.evaluation.judged_sets.query_sets import Query, QuerySet
from revector.core.evaluation.measures.thresholds import thresholds
from revector.core.evaluation.runs.store import load_results, runs
from revector.core.ingest import ingest
from revector.core.registry import get_version
from revector.core.retrieval import EncoderCache
from revector.screens.compare.pane import ComparePane
from revector.screens.evaluate.actions import EvaluateState
from revector.screens.evaluate.dialog import EvaluateDialog
from revector.screens.evaluate.pane import EvaluatePane
from revector.screens.evaluate.thresholds_page import ThresholdsPage
from revector.screens.widgets.chart import Chart
from revector.screens.widgets.table import Table
from tests.databases import copied
from tests.evaluations import judged_set
from tests.screens.support import (
    LARGE,
    SMALL,
    console,
    shown,
    type_text,
    until,
    until_gone,
    until_shown,
)
from tests.screens.test_hostile import nothing_obeyed
from tests.versions import NUMBERS, ready_version

TEXTS = [f"{a} and {b}" for a in NUMBERS for b in NUMBERS if a != b]
GATES = """
[[gate]]
name = "no worse"
measure = "nDCG@10"
margin = 0.5

[[gate]]
name = "all is found"
measure = "P@10"
segment = "low"
at_least = 0.99
"""


def make(database: Database, connection: Connection) -> QuerySet:
    """240 documents, 40 judged queries in two segments and one unjudged, v1 active, v2 ready."""
    ingest(connection, [Document(text, text) for text in TEXTS], chunk_characters=500)
    ready_version(database, connection, "v1", "static:wordllama-64")
    ready_version(database, connection, "v2", "static:wordllama-256")
    cutover.run(connection, "v1", confirm="v1")
    picked = range(0, len(TEXTS), 6)
    queries = [
        Query(f"q{n:03}", " ".join(reversed(TEXTS[n].split())), "low" if n < 120 else "high") for n in picked
    ]
    grades = {
        f"q{n:03}": {text: 1 + (text == TEXTS[n]) for text in TEXTS if text.split()[0] == TEXTS[n].split()[0]}
        for n in picked
    }
    grades["q000"]["a document that is gone"] = 1
    return judged_set(
        connection, "numbers", [*queries, Query("open", "something else", "low")], grades, judge="ann"
    )


@pytest.fixture(scope="module")
def numbers(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The collection with one evaluation that has gates, for tests that add nothing but evaluations."""
    with copied(template) as database:
        with database.session("test") as connection:
            query_set = make(database, connection)
            gates = tmp_path_factory.mktemp("gates") / "gates.toml"
            gates.write_text(GATES)
            pair = get_version(connection, "v1"), get_version(connection, "v2")
        evaluate(database, query_set, *pair, Asked(gates=read_gates(gates)), encoders=EncoderCache())
        yield database


@pytest.fixture
def own_numbers(database: Database, connection: Connection) -> Database:
    """The collection without any evaluation, for one test alone."""
    make(database, connection)
    return database


def newest(database: Database) -> Evaluation:
    with database.session("test") as connection:
        return get_evaluation(connection, evaluations(connection)[0].id)


async def at_tab(pilot: Pilot[None]) -> EvaluatePane:
    """The tab, when it knows what there is."""
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await until(pilot, lambda: app.situation.overview, "the first snapshot")
    await pilot.press("4")
    await until(pilot, lambda: app.tab == "4", "the tab")
    pane = app.panes["4"]
    assert isinstance(pane, EvaluatePane)
    await until(pilot, lambda: not pane.reader.opening, "the lists")
    return pane


async def part(pilot: Pilot[None], pane: EvaluatePane, name: str) -> None:
    """Bring a part to the front where one is shown at a time."""
    for _ in pane.PARTS:
        if not pane.tight or pane.part == name:
            return
        await pilot.press("m")
        await pilot.pause()
    assert pane.part == name


async def choose(pilot: Pilot[None], dialog: EvaluateDialog, name: str) -> None:
    """Put the cursor of the dialog on a line."""
    await pilot.press("home")
    for _ in range(12):
        if dialog.query_one(Table).row_key == name:
            return
        await pilot.press("down")
    raise AssertionError(f"no line {name}\n{shown(pilot.app)}")  # type: ignore[arg-type]


async def dialog_of(pilot: Pilot[None], key: str = "r") -> EvaluateDialog:
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, EvaluateDialog), "the dialog")
    screen = pilot.app.screen
    assert isinstance(screen, EvaluateDialog)
    return screen


async def enter(pilot: Pilot[None], dialog: EvaluateDialog, name: str, value: str) -> None:
    """Type a value into a line of the dialog."""
    await choose(pilot, dialog, name)
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(dialog.focused, Input), "the box")
    dialog.query_one("#value", Input).value = ""
    await type_text(pilot, value)
    await pilot.press("enter")


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_the_newest_evaluation_is_shown(numbers: Database, size: tuple[int, int]) -> None:
    found = newest(numbers)
    app = console(numbers)
    async with app.run_test(size=size) as pilot:
        pane = await at_tab(pilot)
        assert pane.shown == found
        await until_shown(pilot, "v2 against v1 on numbers, 40 of 41 judged", "▲ better  ▼ worse")
        # What qualifies the figures is there whatever part is.
        await until_shown(pilot, f"! 1 of {found.judgements} judgements are for documents", "[nDCG@10]")
        row = next(row for row in found.measures if (row.measure, row.segment) == ("nDCG@10", "low"))
        line = next(line for line in shown(app).split("\n") if " low " in line and f"{row.candidate:.3f}" in line)
        assert row.low is not None
        for figure in (f"{row.primary:.3f}", f"{row.difference:+.3f}", f"{row.low:+.3f}"):
            assert figure.replace("-", "−") in line
        assert row.primary != row.candidate
        await part(pilot, pane, "gates")
        assert {gate.verdict for gate in found.gates} == {"pass", "fail"}
        for gate in found.gates:
            sign = {"pass": "✓", "fail": "✗"}[gate.verdict]
            await until_shown(pilot, f"{sign} {gate.name} {gate.verdict}")
        await until_shown(pilot, "✗ Fail", "gates ─ 1 of 2 pass", f"! 1 of {found.judgements} judgements")
        await part(pilot, pane, "intervals")
        await until(pilot, lambda: pane.query_one(Chart).builds, "the chart")
        await until_shown(pilot, "nDCG@10: candidate − primary", "unclear")
        assert any("┤" in line and "all" in line for line in shown(app).split("\n"))


async def test_measures_in_turn_and_the_queries_follow_the_segment(numbers: Database) -> None:
    found = newest(numbers)
    app = console(numbers)
    async with app.run_test(size=LARGE) as pilot:
        pane = await at_tab(pilot)
        queries = pane.query_one("#queries", Table)

        def losses(measure: str, segment: str) -> list[str]:
            rows = [q for q in found.queries if segment in ("all", q.segment) and measure in q.primary]
            return [
                q.id for q in sorted(rows, key=lambda q: (q.candidate[measure] - q.primary[measure], q.rbo, q.id))
            ]

        def listed() -> list[str]:
            return [str(row.key.value) for row in queries.ordered_rows]

        assert listed() == losses("nDCG@10", "all")
        await pilot.press("down")
        await until(pilot, lambda: pane.segment == "high", "the segment")
        assert listed() == losses("nDCG@10", "high")
        await pilot.press("n")
        await until_shown(pilot, "[P@10]", "P@10 by segment", "worst queries of high ─ P@10")
        assert listed() == losses("P@10", "high")
        await pilot.press("N", "N")
        assert pane.measure == "kendall_tau"
        await pilot.press("N", "N")
        await until_shown(pilot, "[RBO]", "RBO by segment", "median", "of high that moved most")
        moved = sorted((q for q in found.queries if q.segment == "high"), key=lambda q: (q.rbo, q.id))
        assert listed() == [q.id for q in moved]
        await pilot.press("up", "up")
        await until(pilot, lambda: pane.segment == "all", "the whole set")
        assert "open" in listed(), "overlap needs no judgement"
        await pilot.press("enter")
        await until(pilot, lambda: app.focused is queries, "the queries")


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_a_worst_query_opens_on_the_compare_tab(numbers: Database, size: tuple[int, int]) -> None:
    app = console(numbers)
    async with app.run_test(size=size) as pilot:
        pane = await at_tab(pilot)
        await pilot.press("down", "enter", "down", "enter")
        await until(pilot, lambda: app.tab == "3", "the Compare tab")
        assert pane.shown is not None
        compare = app.panes["3"]
        assert isinstance(compare, ComparePane)
        await until(pilot, lambda: compare.comparison is not None, "searched")
        assert compare.comparison is not None
        wanted = pane.query_one("#queries", Table).row_key
        text = next(query.text for query in pane.shown.queries if query.id == wanted)
        assert compare.comparison.query == text
        pair = compare.comparison.primary.version_key, compare.comparison.candidate.version_key
        assert pair == ("v1", "v2")
        await until_shown(pilot, text)


async def test_a_query_opens_with_the_versions_of_the_evaluation_although_the_candidate_is_active(
    own_numbers: Database, connection: Connection
) -> None:
    from revector.core.evaluation.judged_sets.query_sets import get_query_set

    pair = get_version(connection, "v1"), get_version(connection, "v2")
    evaluate(own_numbers, get_query_set(connection, "numbers"), *pair)
    ready_version(own_numbers, connection, "v3", "static:wordllama-128")
    cutover.run(connection, "v2", confirm="v2")
    app = console(own_numbers)
    async with app.run_test(size=LARGE) as pilot:
        await at_tab(pilot)
        await pilot.press("enter", "enter")
        await until(pilot, lambda: app.tab == "3", "the Compare tab")
        compare = app.panes["3"]
        assert isinstance(compare, ComparePane)
        await until(pilot, lambda: compare.comparison is not None, "searched")
        assert compare.comparison is not None
        assert compare.comparison.primary.version_key == "v1"
        assert compare.comparison.candidate.version_key == "v2"


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_an_evaluation_from_the_screen(
    own_numbers: Database, connection: Connection, tmp_path: Path, size: tuple[int, int]
) -> None:
    (tmp_path / "gates.toml").write_text(GATES)
    app = console(own_numbers)
    async with app.run_test(size=size) as pilot:
        pane = await at_tab(pilot)
        await until_shown(pilot, "No evaluation yet: press r.")
        dialog = await dialog_of(pilot)
        await until_shown(pilot, "‹ v2 ›", "‹ by the index ›", "New evaluation")
        await choose(pilot, dialog, "how")
        await pilot.press("right")
        await until_shown(pilot, "‹ exact, no index ›")
        await until_gone(pilot, "ef_search")
        await enter(pilot, dialog, "measures", "RR@10 AP")
        await enter(pilot, dialog, "k", "0")
        await until_shown(pilot, "✗ overlap depth is '0'; expected a number from 1 to 1,000.")
        await pilot.press("escape")
        await enter(pilot, dialog, "judges", "ann")
        await enter(pilot, dialog, "gates", str(tmp_path / "gates.toml"))
        await pilot.press("r")
        await until(pilot, lambda: pane.shown is not None, "the evaluation")
        found = newest(own_numbers)
        assert pane.shown == found
        assert (found.primary.version_key, found.candidate.version_key) == ("v1", "v2")
        assert found.candidate.exact
        assert found.judges == ("ann",)
        assert {row.measure for row in found.measures} == {"RR@10", "AP", "nDCG@10", "P@10"}
        assert found.verdict == "fail"
        await until_shown(pilot, f"✓ Evaluation {found.id} is stored.", "✗ Fail")
        # The next one begins with what the last was asked for.
        await dialog_of(pilot)
        await until_shown(pilot, "‹ exact, no index ›", "RR@10 AP")


async def test_what_is_wrong_is_said_in_the_dialog(own_numbers: Database, tmp_path: Path) -> None:
    (tmp_path / "gates.toml").write_text('[[gate]]\nname = "x"\nmeasure = "nDGC@10"\nmargin = 0.1\n')
    app = console(own_numbers)
    async with app.run_test(size=SMALL) as pilot:
        pane = await at_tab(pilot)
        dialog = await dialog_of(pilot)
        await enter(pilot, dialog, "gates", str(tmp_path / "gates.toml"))
        await pilot.press("r")
        await until_shown(pilot, "gates.toml:3:", "nDGC@10", "nDCG@10")
        await enter(pilot, dialog, "gates", "")
        await enter(pilot, dialog, "measures", "Q@10")
        await pilot.press("r")
        await until_shown(pilot, "Q@10")
        assert app.screen is dialog
        await enter(pilot, dialog, "measures", "")
        await choose(pilot, dialog, "primary")
        await pilot.press("right", "r")
        await until_shown(pilot, "v2 cannot be compared with itself")
        await pilot.press("left")
        await enter(pilot, dialog, "judges", "nobody")
        await pilot.press("r")
        await until(pilot, lambda: not isinstance(app.screen, EvaluateDialog), "begun")
        await until_shown(pilot, "✗", "nobody")
        assert not pane.control.evaluating
        await pilot.press("escape")
    with own_numbers.session("test") as connection:
        assert runs(connection) == []


async def test_a_cancelled_evaluation_is_gone_on_with(own_numbers: Database, connection: Connection) -> None:
    many = [Query(f"m{n:05}", f"{TEXTS[n % len(TEXTS)]} {n}") for n in range(3_000)]
    judged_set(connection, "many", many, {"m00000": {TEXTS[0]: 1}})
    app = console(own_numbers)

    def stored() -> list[tuple[int, str, int]]:
        return connection.execute(
            """
            SELECT r.id, r.state, (SELECT count(*) FROM evaluation_results e WHERE e.run_id = r.id)
            FROM evaluation_runs r ORDER BY r.id
            """
        ).fetchall()

    async with app.run_test(size=SMALL) as pilot:
        await at_tab(pilot)
        await dialog_of(pilot)
        await until_shown(pilot, "‹ many ›")
        await pilot.press("r")
        await until(pilot, lambda: [row for row in stored() if row[2]], "some queries are stored")
        assert "Evaluating: searching v1" in shown(app)
        assert "r evaluate" not in shown(app), "one at a time"
        await pilot.press("x")
        await until_shown(pilot, "The evaluation was cancelled.", "r evaluate")
        (number, state, count), *rest = stored()
        assert (state, rest) == ("running", [])
        assert 0 < count < len(many)
        await dialog_of(pilot)
        await pilot.press("r")
        await until(pilot, lambda: app.situation.of(EvaluateState).evaluated, "the evaluation", seconds=60)
        first, second = stored()
        assert first == (number, "done", len(many))
        assert second[1:] == ("done", len(many))


async def test_leaving_ends_an_evaluation(own_numbers: Database, connection: Connection) -> None:
    many = [Query(f"m{n:05}", f"{TEXTS[n % len(TEXTS)]} {n}") for n in range(6_000)]
    judged_set(connection, "many", many, {"m00000": {TEXTS[0]: 1}})
    app = console(own_numbers)
    async with app.run_test(size=SMALL) as pilot:
        pane = await at_tab(pilot)
        await dialog_of(pilot)
        await pilot.press("r")
        await until_shown(pilot, "Evaluating: searching v1")
        thread = pane.control._evaluator._thread
    assert thread is not None
    thread.join(30)
    assert not thread.is_alive()
    assert evaluations(connection) == []


async def test_nothing_to_show_says_what_to_do(database: Database, connection: Connection) -> None:
    app = console(database)
    async with app.run_test(size=SMALL) as pilot:
        await at_tab(pilot)
        await until_shown(pilot, "This needs two versions with vectors. Backfill another one (2).")
        ingest(connection, [Document(text, text) for text in TEXTS[:20]], chunk_characters=500)
        ready_version(database, connection, "v1", "static:wordllama-64")
        ready_version(database, connection, "v2", "static:wordllama-256")
        await until_shown(pilot, "No query set yet: revector queries import NAME")
        await pilot.press("r")
        assert len(app.screen_stack) == 1


async def test_a_read_only_console_shows_and_does_not_evaluate(numbers: Database) -> None:
    app = console(Database(numbers.dsn, numbers.schema, read_only=True))
    async with app.run_test(size=LARGE) as pilot:
        await at_tab(pilot)
        await until_shown(pilot, "READ ONLY", "v2 against v1 on numbers", "d details")
        assert "r evaluate" not in shown(app)
        await pilot.press("r", "l", "c")
        await pilot.pause()
        assert len(app.screen_stack) == 1
        assert "● " not in shown(app).split("\n", 1)[1]


async def test_two_stored_runs_are_compared(own_numbers: Database, connection: Connection) -> None:
    from revector.core.evaluation.judged_sets.query_sets import get_query_set

    query_set = get_query_set(connection, "numbers")
    pair = get_version(connection, "v1"), get_version(connection, "v2")
    by_index = evaluate(own_numbers, query_set, *pair)
    exactly = evaluate(own_numbers, query_set, *pair, exact=True)
    app = console(own_numbers)
    async with app.run_test(size=LARGE) as pilot:
        pane = await at_tab(pilot)
        await pilot.press("l")
        await until_shown(pilot, "stored runs, the newest first", "exact")
        table = pane.query_one("#runs", Table)
        await until(pilot, lambda: app.focused is table, "the runs")
        await pilot.press("enter")
        await until_shown(pilot, "top 100 of 240 chunks, exact, without an index")
        await pilot.press("escape")
        table.move_to(str(by_index.candidate.id))
        await pilot.press("c")
        await until(pilot, lambda: pane.control.marked == by_index.candidate.id, "marked")
        table.move_to(str(exactly.candidate.id))
        await dialog_of(pilot, "c")
        await until_shown(pilot, f"run {exactly.candidate.id} against run {by_index.candidate.id}")
        assert "‹" not in shown(app)
        before = pane.shown
        await pilot.press("r")
        await until(pilot, lambda: pane.shown is not before, "compared")
        found = newest(own_numbers)
        assert (found.primary.id, found.candidate.id) == (by_index.candidate.id, exactly.candidate.id)
        await until_shown(pilot, "v2 against v2", "The runs differ in exact search")
        assert len(runs(connection)) == 4, "nothing was searched again"


async def test_reports_are_written_and_never_over_another(
    numbers: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = console(numbers)
    async with app.run_test(size=SMALL) as pilot:
        pane = await at_tab(pilot)
        assert pane.shown is not None
        for place in (0, 1, 2, 3, 0):
            before = len(list(tmp_path.iterdir()))
            await pilot.press("e")
            await until_shown(pilot, "Markdown, for a pull request")
            await pilot.press(*["down"] * place, "enter")
            await until(pilot, lambda before=before: len(list(tmp_path.iterdir())) > before, "written", seconds=60)  # type: ignore[misc]
            await until_shown(pilot, "Written to")
        files = sorted(tmp_path.iterdir())
        assert sorted(file.suffix for file in files) == [".html", ".json", ".md", ".md", ".xml"]
        assert all(file.name.startswith(f"evaluation-{pane.shown.id}-numbers-") for file in files)
        by_kind = {file.suffix: file.read_text(encoding="utf-8") for file in files}
        assert json.loads(by_kind[".json"])["verdict"] == "fail"
        assert ElementTree.fromstring(by_kind[".xml"]).get("failures") == "1"  # noqa: S314  (our own)
        assert "<svg" in by_kind[".html"]
        assert "all is found" in by_kind[".md"]


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_thresholds(numbers: Database, size: tuple[int, int]) -> None:
    app = console(numbers)
    async with app.run_test(size=size) as pilot:
        pane = await at_tab(pilot)
        assert pane.shown is not None
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, ThresholdsPage), "the page")
        with numbers.session("test") as connection:
            sides = [load_results(connection, run) for run in (pane.shown.primary, pane.shown.candidate)]
        expected = thresholds(sides[0], sides[1], ("cosine", "cosine"), cut=0.8, depth=10)
        await until_shown(pilot, "cut of the primary", "the first 1 of each")
        await type_text(pilot, "x")
        await pilot.press("enter")
        await until_shown(pilot, "The cut is 'x'; expected a number such as 0.82.")
        await pilot.press("backspace")
        await type_text(pilot, "0.8")
        await pilot.press("tab", "end", "backspace")
        await type_text(pilot, "10")
        await pilot.press("enter")
        assert expected.asked is not None
        await until_shown(
            pilot, "the first 10 of each", f"A cut at 0.8 keeps {expected.asked.kept:.1%} with v1",
            f"at {expected.asked.candidate:.4f}", f"{expected.rows[4].candidate:.4f}",
        )  # fmt: skip
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1, "closed")


async def test_details_have_everything(numbers: Database) -> None:
    app = console(numbers)
    async with app.run_test(size=(120, 80)) as pilot:
        pane = await at_tab(pilot)
        assert pane.shown is not None
        await pilot.press("d")
        await until_shown(
            pilot, f"revision {pane.shown.query_set_revision}", "by ann", "a document that is gone (query",
            "all is found fail", "rank overlap of the first 10", "tau",
        )  # fmt: skip


async def test_a_pilot_says_so(own_numbers: Database, connection: Connection) -> None:
    from tests.versions import add

    add(connection, "v3", "static:wordllama-128")
    judged_set(
        connection, "few", [Query(f"f{n}", TEXTS[n]) for n in range(5)], {f"f{n}": {TEXTS[n]: 1} for n in range(5)}
    )
    app = console(own_numbers)
    async with app.run_test(size=SMALL) as pilot:
        pane = await at_tab(pilot)
        dialog = await dialog_of(pilot)
        await choose(pilot, dialog, "candidate")
        while "‹ v3 ›" not in shown(app):
            await pilot.press("right")
        await choose(pilot, dialog, "how")
        await pilot.press("left")
        await until_shown(pilot, "‹ a pilot ›")
        await enter(pilot, dialog, "distractors", "100")
        await pilot.press("r")
        await until(pilot, lambda: pane.shown is not None, "the pilot")
        await until_shown(pilot, "! A pilot on 105 of 240 chunks: 5 judged, 100", "v3 against v1 on few")
        found = newest(own_numbers)
        assert found.candidate.sample is not None
        await part(pilot, pane, "gates")
        await until_shown(pilot, "! A pilot on 105 of 240 chunks")


async def test_unjudged_sets_show_what_moved(own_numbers: Database, connection: Connection) -> None:
    from revector.core.evaluation.judged_sets.query_sets import get_query_set, save_queries

    save_queries(connection, "nobody", [Query(f"n{n}", TEXTS[7 * n], "a" if n % 2 else "b") for n in range(20)])
    pair = get_version(connection, "v1"), get_version(connection, "v2")
    found = evaluate(own_numbers, get_query_set(connection, "nobody"), *pair)
    app = console(own_numbers)
    async with app.run_test(size=LARGE) as pilot:
        pane = await at_tab(pilot)
        await until_shown(
            pilot,
            "! No query of nobody",
            "overlap@10 by segment",
            "that moved most",
            "[overlap@10]",
        )
        rows = [str(row.key.value) for row in pane.query_one("#queries", Table).ordered_rows]
        assert rows == [q.id for q in sorted(found.queries, key=lambda q: (q.overlap, q.rbo, q.id))]


async def test_hostile_text_is_shown_and_not_obeyed(own_numbers: Database, connection: Connection) -> None:
    queries = [
        Query("[b]id\x1b[2J", "[red]seven[/] and \x1b[31mthree\u202e", "[blink]seg\x1b[5m"),
        Query("two", "two\nand\tfour\x9b31m", "‮rtl"),
    ]
    judged_set(connection, "numbers", queries, {"[b]id\x1b[2J": {"seven and three": 1, "[red]gone\x1b[2J": 1}})
    from revector.core.evaluation.judged_sets.query_sets import get_query_set

    pair = get_version(connection, "v1"), get_version(connection, "v2")
    evaluate(own_numbers, get_query_set(connection, "numbers"), *pair)
    for size in (LARGE, SMALL):
        app = console(own_numbers)
        async with app.run_test(size=size) as pilot:
            pane = await at_tab(pilot)
            for name in pane.PARTS:
                await part(pilot, pane, name)
                if name == "intervals":
                    await until(pilot, lambda pane=pane: pane.query_one(Chart).builds, "the chart")  # type: ignore[misc]
                nothing_obeyed(app)
            await part(pilot, pane, "queries")
            await until_shown(pilot, "[red]seven[/] and ␛[31m")
            for key in ("d", "r"):
                await pilot.press(key)
                await until(pilot, lambda app=app: len(app.screen_stack) == 2, "in front")  # type: ignore[misc]
                nothing_obeyed(app)
                await pilot.press("escape")
                await until(pilot, lambda app=app: len(app.screen_stack) == 1, "closed")  # type: ignore[misc]


async def test_only_one_candidate_and_an_older_evaluation(own_numbers: Database, connection: Connection) -> None:
    from revector.core.evaluation.judged_sets.query_sets import get_query_set

    query_set = get_query_set(connection, "numbers")
    v1, v2 = get_version(connection, "v1"), get_version(connection, "v2")
    v3 = ready_version(own_numbers, connection, "v3", "static:wordllama-128")
    older = evaluate(own_numbers, query_set, v1, v2)
    newer = evaluate(own_numbers, query_set, v1, v3)
    app = console(own_numbers)
    async with app.run_test(size=LARGE) as pilot:
        pane = await at_tab(pilot)
        assert pane.shown == newer
        table = pane.query_one("#evaluations", Table)
        table.focus()
        await pilot.press("down", "enter")
        await until(pilot, lambda: pane.shown == older, "the older one")
        await until_shown(pilot, "v2 against v1")
        await pilot.press("f")
        await until(pilot, lambda: table.row_count == 1, "one candidate only")
        await until_shown(pilot, "evaluations of v3")
        await pilot.press("f")
        await until(pilot, lambda: table.row_count == 2, "all")
