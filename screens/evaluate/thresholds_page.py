"""The page of score thresholds: which threshold of the candidate keeps the same share of results."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Input, Label, Static

from revector.core.errors import RevectorError, UsageError
from revector.screens.widgets.background import in_background
from revector.screens.widgets.dialog import Dialog
from revector.screens.widgets.inputs import LineBox
from revector.screens.widgets.table import Column, Row, Table
from revector.screens.wording.text import printable
from revector.screens.wording.theme import BAD, FAINT

if TYPE_CHECKING:
    from revector.core.evaluation.measures.thresholds import Thresholds

_COLUMNS = (
    Column("kept", 8, right=True),
    Column("cut of the primary", 18, right=True),
    Column("same share in the candidate", 25, right=True),
    Column("kept if copied", right=True),
)


class ThresholdsPage(Dialog[None]):
    """`read(cut, depth)` computes the table, in a thread."""

    DEFAULT_CSS = """
    ThresholdsPage #box { max-width: 100; }
    ThresholdsPage #why, ThresholdsPage #answer { height: auto; padding: 0 1; }
    ThresholdsPage Horizontal { height: 1; }
    ThresholdsPage Label { padding: 0 1; }
    ThresholdsPage Input { width: 12; }
    ThresholdsPage #depth { width: 7; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Close", show=False),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def __init__(self, pair: tuple[str, str], read: Callable[[float | None, int], Thresholds]) -> None:
        super().__init__()
        self._primary, self._candidate = map(printable, pair)
        self._read = read

    def compose(self) -> ComposeResult:
        title = f"score thresholds: {self._primary} → {self._candidate}"
        with self.frame(title, "↵ calculate   tab next box   esc close"):
            yield Static("Reading both runs …", id="why", markup=False)
            yield Table(_COLUMNS, id="cuts")
            with Horizontal():
                yield Label("the cut in your application")
                yield LineBox(id="cut", compact=True, placeholder="0.82")
                yield Label("of the first")
                yield LineBox("1", id="depth", compact=True)
                yield Label("results")
            yield Static(id="answer", markup=False)

    def on_mount(self) -> None:
        self.query_one(Table).can_focus = False
        self.query_one(Table).show_cursor = False
        self.query_one("#cut").focus()
        self._work()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._work()

    def _work(self) -> None:
        try:
            cut, depth = (
                _number(self.query_one("#cut", Input).value),
                _depth(self.query_one("#depth", Input).value),
            )
        except UsageError as error:
            self._fail(error)
            return
        in_background(self, "cuts", lambda _tell: self._read(cut, depth), self._show, self._fail)

    def _show(self, found: Thresholds) -> None:
        self.query_one("#why", Static).update(found.says)
        self.query_one(Table).show(
            [
                Row(
                    str(place),
                    (f"{row.kept:.1%}", f"{row.primary:.4f}", f"{row.candidate:.4f}", f"{row.if_copied:.1%}"),
                )
                for place, row in enumerate(found.rows)
            ]
        )
        words = Text("Type the threshold that your application uses, then Enter.", FAINT)
        if answer := found.answer(self._primary, self._candidate):
            words = Text(f"{answer} Store the threshold with the version, or decide by rank instead.", "bold")
        self.query_one("#answer", Static).update(words)

    def _fail(self, error: RevectorError) -> None:
        self.query_one("#answer", Static).update(
            Text(f"✗ {printable(error.problem)} {printable(error.remedy)}", BAD)
        )


def _number(value: str) -> float | None:
    try:
        return float(value.replace(",", ".")) if value.strip() else None
    except ValueError:
        raise UsageError(f"The cut is {value!r}; expected a number such as 0.82.") from None


def _depth(value: str) -> int:
    if not value.strip().isdecimal() or len(value.strip()) > 4:
        raise UsageError(f"The depth is {value!r}; expected a number such as 1 or 10.")
    return int(value)
