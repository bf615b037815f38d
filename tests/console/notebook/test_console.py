"""Every method of the notebook's Console on a real collection: what it answers, what it shows, what it refuses."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from IPython.core.formatters import DisplayFormatter

from revector.console.notebook import Console
from revector.console.notebook.answer import Answer
from revector.core.database import Database
from revector.core.errors import RefusedError, RevectorError, UnreachableError, UsageError
from revector.core.evaluation.judged_sets.judgements import ensure_judge
from revector.core.evaluation.judged_sets.query_sets import Query, save_queries
from revector.core.index import inspect
from revector.core.registry import get_version
from revector.core.retrieval import VersionSearcher
from tests.console.notebook.conftest import GATES, HOSTILE
from tests.screens.support import TEXTS, active_of, add_candidate
from tests.versions import NUMBERS, add, add_chunks, ready_version

VOID = {"br", "img", "hr", "meta", "line", "rect", "circle", "path"}
ALLOWED = {
    "div", "style", "p", "b", "br", "small", "span", "table", "thead", "tbody", "tr", "th", "td", "details", "summary",
    "figure", "figcaption", "svg", "title", "desc", "g", "line", "rect", "circle", "path", "text",
}  # fmt: skip


class Shown(HTMLParser):
    """Reads HTML strictly: the elements, their attributes, and the text outside of the style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def shown(answer: Answer[object]) -> str:
    """The text of an answer's HTML, which is sound, without script, and loads nothing."""
    html = answer._repr_html_()
    read = Shown(html)
    assert read.tags <= ALLOWED, read.tags - ALLOWED
    assert not {name for name in read.attributes if name.startswith("on")} | ({"src", "href"} & read.attributes)
    assert "url(" not in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert DisplayFormatter().format(answer) == ({"text/html": html, "text/plain": repr(answer)}, {})
    return read.text


def test_versions(console: Console) -> None:
    answer = console.versions()
    assert [s.version.version_key for s in answer.data] == ["demo-64", "demo-256"]
    assert "Versions: demo-64 is active" in shown(answer)
    assert f"demo-256 static:wordllama-256 256 ready {len(TEXTS)} 0 0" in shown(answer)
    assert f"demo-256 static:wordllama-256 256 ready {len(TEXTS)} 0 0" in " ".join(repr(answer).split())
    assert [(r["version_key"], r["active"], r["missing"]) for r in answer.rows()] == [
        ("demo-64", True, 0),
        ("demo-256", False, 0),
    ]


def test_a_backfill_to_its_index(own_console: Console, own_library: Database) -> None:
    with own_library.session("test") as connection:
        add_candidate(connection)
    with pytest.raises(UsageError, match="has no backfill yet"):
        own_console.status("demo-new")
    answer = own_console.backfill("demo-new", batch_size=4)
    assert (answer.data.state, answer.data.done) == ("done", len(TEXTS))
    assert "Backfill of demo-new: done" in shown(answer)
    assert "_hnsw" in shown(answer)
    assert repr(own_console.status("demo-new")) == repr(answer)
    with own_library.session("test") as connection:
        assert inspect(connection, get_version(connection, "demo-new")).valid
    with pytest.raises(UsageError, match="batch_size"):
        own_console.backfill("demo-new", batch_sice=4)


def test_search(console: Console, library: Database) -> None:
    answer = console.search("rotate a key", 3)
    with library.session("test") as connection:
        assert [hit.chunk_id for hit in answer.data.hits] == [
            hit.chunk_id for hit in VersionSearcher(connection).search("rotate a key", 3).hits
        ]
    assert "“rotate a key” by demo-64" in shown(answer)
    assert console.search("rotate a key", version="demo-256").data.version_key == "demo-256"
    assert [row["rank"] for row in answer.rows()] == [1, 2, 3]


def test_compare_with_moves_and_stars(console: Console) -> None:
    answer = console.compare("Rate limits", 5)
    text = shown(answer)
    assert "demo-64 (primary)" in text
    assert "demo-256 (candidate)" in text
    assert "★2" in text
    assert "A judged query of titles, by ann: 1 relevant" in text
    assert f"overlap@5 {answer.data.overlap.overlap:.2f}" in text
    assert answer._repr_html_().count("<rect") == 5
    rows = answer.rows()
    assert [row["side"] for row in rows] == ["primary"] * 5 + ["candidate"] * 5
    for row, move in zip(rows, answer.data.primary_moves + answer.data.candidate_moves, strict=True):
        assert (row["primary_rank"], row["candidate_rank"]) == (move.before, move.after)
        assert move.label in text
    assert [row["grade"] for row in rows if row["content"].startswith("Rate limits")] == [2, 2]
    assert "★" not in shown(console.compare("something nobody judged"))


def test_evaluation_with_gates(own_console: Console, tmp_path: Path) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text(GATES)
    assert "titles 16 2 even, odd 16 ann" in shown(own_console.query_sets())
    assert own_console.query_sets().rows()[0]["queries"] == 16
    assert repr(own_console.evaluations()) == "No evaluations yet"

    answer = own_console.evaluate("titles", "demo-256", gates=gates, exact=True)
    e = answer.data
    text = shown(answer)
    assert (e.verdict, e.candidate.exact) == ("pass", True)
    assert "✓ Pass: demo-256 against demo-64" in text
    assert e.gates[0].detail in text
    for row in e.measures:
        assert f"{row.measure} {row.segment} {row.queries}" in text
    html = answer._repr_html_()
    measures = {row.measure for row in e.measures}
    assert html.count("<svg") == 2 * len(measures) + 2
    assert html.count("<circle") == len(e.measures), "a mark for every difference with its interval"
    assert all(warning in text for warning in e.warnings)
    assert answer.rows()[0] == {
        "measure": "nDCG@10", "segment": "all", "queries": 16, "primary": e.measures[0].primary,
        "candidate": e.measures[0].candidate, "difference": e.measures[0].difference, "low": e.measures[0].low,
        "high": e.measures[0].high, "p_value": e.measures[0].p_value,
    }  # fmt: skip

    assert own_console.evaluation(e.id)._repr_html_() == html
    assert f"{e.id} titles demo-64 demo-256 ✓ pass" in shown(own_console.evaluations())
    assert own_console.evaluations(candidate="demo-64").rows() == []
    gates.write_text(GATES.replace("margin = 0.9", "at_least = 0.9").replace("nDCG@10", "P@10"))
    refused = own_console.evaluate("titles", "demo-256", gates=gates)  # one document a query is relevant
    assert refused.data.verdict == "fail", "a verdict is an answer, not an exception"
    assert "✗ Fail: demo-256 against demo-64" in shown(refused)


def test_thresholds(console: Console) -> None:
    answer = console.thresholds("titles", cut=0.6)
    asked = answer.data.asked
    assert asked is not None
    assert f"demo-256 keeps as many at {asked.candidate:.4f}" in shown(answer)
    assert [row["asked"] for row in answer.rows()] == [False] * len(answer.data.rows) + [True]


def test_cutover_rollback_and_log(console: Console, library: Database) -> None:
    check = console.cutover_check("demo-256")
    assert check.data.ready
    assert "✓ demo-256 is ready for a cutover" in shown(check)
    with pytest.raises(RefusedError, match="The typed key is 'demo-64'"):
        console.cutover("demo-256", confirm="demo-64")
    assert active_of(library) == "demo-64"
    flip = console.cutover("demo-256", confirm="demo-256", reason="better <b>by far</b>")
    assert "✓ Cut over: demo-64 → demo-256" in shown(flip)
    assert active_of(library) == "demo-256"
    assert "✓ Rolled back: demo-256 → demo-64" in shown(console.rollback(confirm="demo-64"))
    assert active_of(library) == "demo-64"
    log = console.log(3)
    assert [(one.action, one.outcome) for one in log.data] == [
        ("rollback", "done"), ("cutover", "done"), ("cutover", "refused"),
    ]  # fmt: skip
    assert "better <b>by far</b>" in shown(log)
    assert [row["action"] for row in console.log(key="demo-256").rows()][:2] == ["rollback", "cutover"]


def test_a_version_that_is_not_ready(own_console: Console, own_library: Database) -> None:
    with own_library.session("test") as connection:
        add_candidate(connection)
    check = own_console.cutover_check("demo-new")
    assert "✗ demo-new is not ready" in shown(check)
    assert "revector backfill run demo-new" in shown(check)
    assert "fail" in {row["verdict"] for row in check.rows()}


def test_a_read_only_console_looks_and_changes_nothing(library: Database, console: Console) -> None:
    reader = Console(library.dsn, library.schema, read_only=True)
    assert repr(reader).endswith("read-only")
    assert repr(reader.versions()) == repr(console.versions())
    assert reader.compare("Rate limits").rows()
    for change in (
        lambda: reader.backfill("demo-256"),
        lambda: reader.evaluate("titles"),
        lambda: reader.cutover("demo-256", confirm="demo-256"),
        lambda: reader.rollback(confirm="demo-64"),
    ):
        with pytest.raises(RefusedError, match="read-only"):
            change()


def test_errors_are_those_of_core(console: Console, database: Database) -> None:
    with pytest.raises(UsageError, match="Did you mean demo-64") as raised:
        console.search("x", version="demo-46")
    lines = raised.value._render_traceback_()  # type: ignore[attr-defined]  (what IPython asks for)
    assert lines == [
        "\x1b[31mNotFoundError\x1b[0m: There is no embedding version 'demo-46'.",
        "Did you mean demo-64 or demo-256?",
    ]
    with pytest.raises(UsageError, match="There is no query set"):
        console.evaluate("titel")
    with pytest.raises(UsageError, match=r"nowhere\.toml"):
        console.evaluate("titles", gates="nowhere.toml")
    with pytest.raises(UsageError, match="entries"):
        console.log(0)
    empty = Console(database.dsn, database.schema)
    assert "none is active" in shown(empty.versions())
    assert "There is no query set yet" in shown(empty.query_sets())
    with pytest.raises(RefusedError, match="No embedding version is active yet"):
        empty.search("x")
    with pytest.raises(UnreachableError):
        Console("postgresql://localhost:1/nowhere").versions()
    with pytest.raises(RevectorError, match="empty"):
        console.search("  ")


def test_hostile_text_is_shown_and_not_obeyed(database: Database) -> None:
    with database.session("test") as connection:
        add_chunks(connection, [HOSTILE, *(f"{a} {HOSTILE}" for a in NUMBERS)])
        from revector.core import cutover

        ready_version(database, connection, "v1")
        cutover.run(connection, "v1", confirm="v1", reason=HOSTILE)
        ready_version(database, connection, "v2", "static:wordllama-256")
        add(connection, "v3", notes=HOSTILE)
        name = "<b>set</b>"
        save_queries(
            connection,
            name,
            [Query(f"<i>{n}</i>", f"{a} <script>x</script>", "<u>s</u>") for n, a in enumerate(NUMBERS)],
        )
        ensure_judge(connection, "<s>ann</s>", "person")
    console = Console(database.dsn, database.schema)
    for answer in (
        console.versions(), console.search(f"one {HOSTILE}"), console.compare(f"one {HOSTILE}"), console.log(),
        console.query_sets(), console.evaluate(name), console.evaluations(),
    ):  # fmt: skip
        text = shown(answer)  # only elements and attributes of ours
        for shape in (text, repr(answer)):
            assert "\x1b" not in shape
            assert "\x07" not in shape
            assert "‮" not in shape
    found = shown(console.search(f"one {HOSTILE}"))
    assert "<script>alert(1)</script><img src=x onerror=alert(2)> </td>&amp; ␛[31mred␇ ‹202E›drow" in found
