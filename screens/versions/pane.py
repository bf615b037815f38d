"""Tab 1: the embedding versions, and details of the one under the cursor."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from revector.core.registry import VersionStatus
from revector.screens.pane import Pane
from revector.screens.situation import Situation
from revector.screens.tabs import BACKFILL, COMPARE, CUTOVER, Tab
from revector.screens.widgets.table import Column, Row, Table
from revector.screens.widgets.words import Words, titled
from revector.screens.wording.facts import facts
from revector.screens.wording.next_step import next_step
from revector.screens.wording.text import printable, size
from revector.screens.wording.theme import CAUTION, GOOD
from revector.screens.wording.version import cells, facts_of

_COLUMNS = (
    Column("", 1),
    Column("version"),
    Column("encoder", 28, from_width=112),
    Column("dims", 5, right=True),
    Column("metric", 6, from_width=88),
    Column("state", 11),
    Column("embedded", 10, right=True),
    Column("missing", 9, right=True),
    Column("index", 9),
)

_EMPTY = """There is no embedding version yet.

1. Import documents:
       revector ingest PATH…
2. Register a version:
       revector versions add KEY --encoder static:wordllama-256
3. Backfill it: press 2, then r. Or:
       revector backfill run KEY
4. Make it active: press 6, then u. Or:
       revector cutover run KEY

To see it all with demo documents: revector demo"""


class VersionsPane(Pane):
    """All versions in a table, the selected one in detail below it."""

    DEFAULT_CSS = """
    VersionsPane #versions { height: auto; max-height: 50%; }
    VersionsPane #detail { height: 1fr; border: round $border-blurred; padding: 0 1; scrollbar-size-vertical: 1;
                           border-title-color: $secondary; }
    VersionsPane #detail:focus { border: heavy $border; }
    VersionsPane #none { display: none; padding: 1 2; height: 1fr; }
    VersionsPane.-empty #none { display: block; }
    VersionsPane.-empty #versions, VersionsPane.-empty #detail { display: none; }
    """

    ROW_ACTION = "details"

    def compose(self) -> ComposeResult:
        yield Table(_COLUMNS, id="versions")
        with VerticalScroll(id="detail"):
            yield Words()
        yield Static(_EMPTY, id="none", markup=False)

    def draw(self) -> None:
        """Draw the versions; the cursor is on the selected one."""
        table = self.query_one("#versions", Table)
        self.set_class(not self.situation.versions, "-empty")
        table.show([_row(self.situation, status) for status in self.situation.versions])
        selected = self.situation.selected
        if selected is None:
            return
        if table.row_key != selected.version.version_key:
            with self.prevent(Table.RowHighlighted):
                table.move_to(selected.version.version_key)
        detail = self.query_one("#detail", VerticalScroll)
        titled(detail, printable(selected.version.version_key))
        detail.query_one(Static).update(describe(self.situation, selected))

    def focus_main(self) -> None:
        self.query_one("#versions", Table).focus()

    def on_data_table_row_highlighted(self, event: Table.RowHighlighted) -> None:
        key = event.row_key.value  # a new snapshot may have put the cursor back meanwhile
        if key is not None and key != self.situation.selection:
            self.post_message(self.Select(key))
        event.stop()

    # -- actions ------------------------------------------------------------------------------------------

    def open_details(self) -> None:
        from revector.screens.widgets.page import Page

        selected = self.situation.selected
        if selected is not None:
            body = describe(self.situation, selected, everything=True)
            self.app.push_screen(Page(f"version {selected.version.version_key}", body))

    def to_backfill(self) -> None:
        self._open(BACKFILL)

    def to_compare(self) -> None:
        self._open(COMPARE)

    def to_cutover(self) -> None:
        self._open(CUTOVER)

    def _open(self, tab: Tab) -> None:
        if self.situation.selected is not None:
            self.post_message(self.Open(tab, select=self.situation.selected.version.version_key))


def _row(situation: Situation, status: VersionStatus) -> Row:
    active = status.version.active
    key, encoder, *others, missing = cells(
        status, "version_key", "encoder_name", "metric", "state", "embedded", "missing"
    )
    return Row(
        status.version.version_key,
        (
            Text("▶", GOOD) if active else Text(" "),
            Text(printable(key), "bold" if active else ""),
            encoder,
            str(status.version.dimensions),
            *others,
            Text(missing, CAUTION if status.missing else ""),
            index_word(situation, status),
        ),
    )


def index_word(situation: Situation, status: VersionStatus) -> str:
    """The index in a word: its size, the progress of its build, or what is wrong."""
    build = situation.build(status)
    if build is not None:
        _, done, total = build
        return f"build {done * 100 // total} %" if total else "building"
    index = situation.index(status)
    if index is None or not index.exists:
        return "none"
    return size(index.bytes) if index.valid else "invalid"


def describe(situation: Situation, status: VersionStatus, *, everything: bool = False) -> RenderableType:
    """The version in lines of name and value; the next step first."""
    index = situation.index(status)
    lines: list[tuple[str, str | Text]] = [
        ("next step", Text(next_step(situation, status), "bold")),
        ("backfill", _job_line(situation, status)),
        ("index", _index_line(situation, status)),
    ]
    if everything:
        return facts([*lines, ("index name", index.name if index else "—"), *facts_of(status)])
    notes = ("notes",) if status.version.notes else ()
    lines[1:1] = facts_of(status, "encoder", "revision")
    return facts([*lines, *facts_of(status, "proven_at", "created_at", *notes)])


def _job_line(situation: Situation, status: VersionStatus) -> str:
    job = situation.job(status)
    if job is None:
        return "never run"
    line = f"{job.state}, {job.done:,} of {job.total:,}"
    if job.failed:
        line += f", {job.failed:,} failed"
    return f"{line}: {job.error}" if job.error else line


def _index_line(situation: Situation, status: VersionStatus) -> str:
    build = situation.build(status)
    if build is not None:
        phase, done, total = build
        return f"{phase}, {done:,} of {total:,}" if total else phase
    index = situation.index(status)
    if index is None or not index.exists:
        return "none"
    return f"valid, {size(index.bytes)}" if index.valid else "invalid: its build was interrupted"
