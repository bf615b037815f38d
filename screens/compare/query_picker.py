"""Choose a query of a query set: typed words and a segment filter the list; queries that moved most come first."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Static

from revector.core.errors import RevectorError
from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET
from revector.screens.compare.query_sets import Browsing, Choices
from revector.screens.pane import step_through
from revector.screens.widgets.background import in_background
from revector.screens.widgets.dialog import Dialog
from revector.screens.widgets.inputs import LineBox
from revector.screens.widgets.parts import Parts
from revector.screens.widgets.table import Column, Row, Table
from revector.screens.wording.text import printable, shorten

_MOST_ROWS = 500
_NAMES_SHOWN = 5
_LONGEST_NAME = 18
_COLUMNS = (
    Column("query"),
    Column("segment", 14, from_width=60),
    Column("RBO", 5, right=True),
    Column("id", 10, from_width=90),
)


class QueryPicker(Dialog[Browsing | None]):
    """Returns the set, positioned at the chosen query. `read` reads a set by name, or the first one for None."""

    DEFAULT_CSS = """
    QueryPicker #box { max-width: 110; height: 100%; margin: 1 2; }
    QueryPicker #filter { padding: 0 1; background: $panel; }
    QueryPicker Table { height: 1fr; background: $background; }
    QueryPicker #count { height: 1; padding: 0 1; color: $secondary; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Close", show=False),
        Binding("enter", "choose", "Choose", show=False, priority=True),
        Binding("tab", "segment(1)", "Next segment", show=False, priority=True),
        Binding("shift+tab", "segment(-1)", "Segment before", show=False, priority=True),
        Binding("ctrl+n", "next_set", "Next query set", show=False, priority=True),
        *(
            Binding(key, f"move('{key}')", show=False, priority=True)
            for key in ("up", "down", "pageup", "pagedown")
        ),
    ]

    def __init__(self, read: Callable[[str | None], Choices], name: str | None) -> None:
        super().__init__()
        self._read = read
        self._wanted = name
        self._choices = Choices((), None)
        self.segment = WHOLE_SET

    def compose(self) -> ComposeResult:
        with self.frame("queries", "type to filter   ↑ ↓ ↵ choose   esc close"):
            yield Parts("^n", id="sets")
            yield Parts("tab", id="segments")
            yield LineBox(placeholder="words of the query", id="filter", compact=True)
            yield Table(_COLUMNS, id="queries")
            yield Static("Reading …", id="count", markup=False)

    def on_mount(self) -> None:
        self.query_one("#filter").focus()
        self._load(self._wanted)

    def _load(self, name: str | None) -> None:
        in_background(self, "sets", lambda _tell: self._read(name), self._show, self._fail)

    def _fail(self, error: RevectorError) -> None:
        self.query_one("#count", Static).update(f"✗ {printable(error.problem)} {printable(error.remedy)}".strip())

    def _show(self, choices: Choices) -> None:
        self._choices = choices
        self.segment = WHOLE_SET
        self._draw_list()
        browsing = choices.browsing
        if browsing is not None and browsing.query is not None:
            self.query_one(Table).move_to(browsing.query.id)

    # -- what is listed -----------------------------------------------------------------------------------

    @property
    def _segments(self) -> list[str]:
        browsing = self._choices.browsing
        found = {query.segment for query in browsing.queries} if browsing else set()
        return [WHOLE_SET, *sorted(found - {WHOLE_SET})]

    def _draw_list(self) -> None:
        browsing = self._choices.browsing
        if browsing is None:
            self.query_one("#count", Static).update(
                "There is no query set yet: revector queries import NAME --queries FILE --qrels FILE"
            )
            return
        names = [(one.name, f"{printable(one.name)} {one.queries:,}") for one in self._choices.sets]
        self.query_one("#sets", Parts).show(_around(names, browsing.query_set), browsing.query_set)
        segments = [(name, printable(name)) for name in self._segments]
        self.query_one("#segments", Parts).show(_around(segments, self.segment), self.segment)
        words = self.query_one("#filter", Input).value.casefold().split()
        found = [
            query
            for query in browsing.queries
            if self.segment in (WHOLE_SET, query.segment)
            and all(word in query.text.casefold() or word in query.id.casefold() for word in words)
        ]
        rbo = {query_id: f"{result.rbo:.2f}" for query_id, result in browsing.results.items()}
        self.query_one(Table).show(
            [
                Row(query.id, (query.text, query.segment, rbo.get(query.id, "—"), query.id))
                for query in found[:_MOST_ROWS]
            ]
        )
        count = f"{len(found):,} of {len(browsing.queries):,}"
        more = f", the first {_MOST_ROWS} shown" if len(found) > _MOST_ROWS else ""
        order = "those that moved most first" if browsing.results else "by id: no evaluation of this pair yet"
        self.query_one("#count", Static).update(f"{count}{more}, {order}")

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._draw_list()

    def on_parts_chosen(self, event: Parts.Chosen) -> None:
        event.stop()
        if event.part_of == "sets":
            self._load(event.name)
        else:
            self.segment = event.name
            self._draw_list()

    def on_data_table_row_selected(self, event: Table.RowSelected) -> None:
        event.stop()
        self.action_choose()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Keep the focus in the filter."""
        if not isinstance(event.widget, Input):
            self.query_one("#filter").focus()

    # -- keys ---------------------------------------------------------------------------------------------

    def action_move(self, key: str) -> None:
        """Arrow keys move in the list, while letters go into the filter."""
        table = self.query_one(Table)
        {"up": table.action_cursor_up, "down": table.action_cursor_down, "pageup": table.action_page_up,
         "pagedown": table.action_page_down}[key]()  # fmt: skip

    def action_segment(self, step: int) -> None:
        self.segment = step_through(self._segments, self.segment, step) or WHOLE_SET
        self._draw_list()

    def action_next_set(self) -> None:
        browsing = self._choices.browsing
        name = step_through([one.name for one in self._choices.sets], browsing.query_set if browsing else None, 1)
        if name is not None:
            self._load(name)

    def action_choose(self) -> None:
        browsing, key = self._choices.browsing, self.query_one(Table).row_key
        if browsing is not None and key is not None:
            self.dismiss(browsing.at(key))


def _around(items: list[tuple[str, str]], chosen: str) -> list[tuple[str, str]]:
    """Names around the chosen one, as many as fit on a line."""
    place = next((at for at, (name, _) in enumerate(items) if name == chosen), 0)
    first = max(0, min(place - _NAMES_SHOWN // 2, len(items) - _NAMES_SHOWN))
    return [(name, shorten(words, _LONGEST_NAME)) for name, words in items[first : first + _NAMES_SHOWN]]
