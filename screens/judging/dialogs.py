"""The dialogs of the judging screen: what to judge, and as whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Static

from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET
from revector.core.evaluation.judging.queue import KINDS, ItemKind
from revector.screens.judging.desk import JudgingChoice
from revector.screens.widgets.dialog import Dialog
from revector.screens.widgets.inputs import LineBox
from revector.screens.widgets.list_dialog import ListDialog
from revector.screens.widgets.table import Column, Row
from revector.screens.wording.text import printable
from revector.screens.wording.theme import FAINT

_COLUMNS = (Column("", 2), Column("what", 10), Column("which"), Column("left", 9, right=True))


class ChoiceDialog(ListDialog[JudgingChoice]):
    """Kind, segment and query set in one list. Returns None for no change."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f", "dismiss", "Close", show=False)]

    def __init__(
        self, choice: JudgingChoice, query_set: str, sets: Sequence[str], left: Mapping[tuple[ItemKind, str], int]
    ) -> None:
        """`left` counts open pairs by kind and segment."""
        self._choice, self._query_set, self._left = choice, query_set, left
        segments = sorted({segment for _, segment in left} - {WHOLE_SET})
        self._choices: dict[str, JudgingChoice] = {}
        self._rows: list[Row] = []
        for kind in (None, *KINDS):
            self._add("kind", kind or "every kind", replace(choice, kind=kind), self._count(kind, choice.segment))
        for segment in (WHOLE_SET, *segments):
            self._add("segment", segment, replace(choice, segment=segment), self._count(choice.kind, segment))
        for name in sets:
            # Segments are a set's own.
            self._add("query set", name, replace(choice, query_set=name, segment=WHOLE_SET), None)
        super().__init__("what to judge", "take it", _COLUMNS, self._rows)

    def _count(self, kind: str | None, segment: str) -> int:
        return sum(
            count
            for (of_kind, of_segment), count in self._left.items()
            if kind in (None, of_kind) and segment in (WHOLE_SET, of_segment)
        )

    def _add(self, what: str, name: str, choice: JudgingChoice, left: int | None) -> None:
        key = str(len(self._choices))
        here = name == self._query_set if what == "query set" else choice == self._choice
        self._choices[key] = choice
        count = "" if left is None else f"{left:,}"
        style = "bold" if here else ""
        self._rows.append(Row(key, ("●" if here else "", what, Text(printable(name), style), count)))

    def taken(self, key: str | None) -> JudgingChoice | None:
        """The choice, unless it is the current one."""
        chosen = self._choices.get(key or "")
        return None if chosen == self._choice else chosen


class NameDialog(Dialog[str | None]):
    """The name to judge as: people who share a database role enter their own names. Returns None for no change."""

    DEFAULT_CSS = """
    NameDialog #box { max-width: 66; margin: 0 2; }
    NameDialog Input { margin: 1 0; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "Close", show=False)]

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name_now = name

    def compose(self) -> ComposeResult:
        with self.frame("judge as", "↵ use it   esc close"):
            yield Static(Text("Grades are stored under a name, so that two people can be compared.", FAINT))
            yield LineBox(self._name_now, id="name", compact=True)

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        name = event.value.strip()
        self.dismiss(None if name in ("", self._name_now) else name)
