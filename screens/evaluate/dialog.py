"""The dialog before an evaluation: versions, search, judges, measures and gates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input, Static

from revector.core.errors import RevectorError, UsageError
from revector.screens.evaluate.runner import Wish, asked_of
from revector.screens.pane import step_through
from revector.screens.widgets.background import in_background
from revector.screens.widgets.dialog import EditDialog
from revector.screens.widgets.table import Column, Row, Table
from revector.screens.wording.text import printable, shorten
from revector.screens.wording.theme import BAD, FAINT

_COLUMNS = (Column("", 13), Column("value", 26), Column("", from_width=90))
_HOW = {"index": "by the index", "exact": "exact, no index", "pilot": "a pilot"}

HELP = {
    "query_set": "Both versions are searched for these queries.",
    "primary": "The version to compare with. Default: the active one.",
    "candidate": "The version to evaluate.",
    "how": "Index: as users search. Exact: the models alone. Pilot: embeds only judged chunks and a sample.",
    "ef_search": "For both indexes. Empty: each version's own setting.",
    "distractors": "Random chunks for the pilot, besides the judged ones.",
    "seed": "For the pilot's sample: the same seed draws the same chunks.",
    "judges": "Whose judgements count, separated by commas. Empty: everybody's.",
    "measures": "Such as nDCG@10 P@10. Empty: the usual four and those of the gates.",
    "gates": "A TOML file in the working directory; its gates decide the verdict. Empty: no gates.",
    "k": "Depth of the rank overlap.",
    "confidence": "Confidence of the intervals, 0.5 to 0.9999.",
}
"""Every line of the dialog, and what it means."""

_LABELS = {"query_set": "query set", "how": "search", "ef_search": "ef_search", "k": "overlap depth"}
_CHOICES = ("query_set", "primary", "candidate", "how")
_OF_RUNS = ("judges", "measures", "gates", "k", "confidence")
_ONLY = {"ef_search": "index", "distractors": "pilot", "seed": "pilot"}
_WHOLE = {"ef_search": (1, 1_000), "k": (1, 1_000), "distractors": (0, 10_000_000), "seed": (0, 2**31 - 1)}
_LEAST_CONFIDENCE, _MOST_CONFIDENCE = 0.5, 0.9999


class EvaluateDialog(EditDialog[Wish | None]):
    """Returns a wish whose gates and measures were checked, or None."""

    DEFAULT_CSS = """
    EvaluateDialog #box { max-width: 116; }
    EvaluateDialog Table { max-height: 1fr; }
    EvaluateDialog #help, EvaluateDialog Label { padding: 0 1; }
    EvaluateDialog #state { max-height: 6; padding: 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right", "change(1)", "Change", show=False),
        Binding("left", "change(-1)", "Change back", show=False),
        Binding("r", "go", "Evaluate", show=False),
    ]

    def __init__(
        self, wish: Wish, choices: Mapping[str, Sequence[str]], judges: Mapping[str, Sequence[str]]
    ) -> None:
        """`choices` are the query sets, and the versions for either side; `judges` are those of each query set."""
        runs = wish.runs
        title = "New evaluation" if runs is None else f"run {runs[1]} against run {runs[0]}"
        super().__init__(title, _COLUMNS, header=False, rest=Text())
        self._wish = wish
        self._choices = {**choices, "how": tuple(_HOW)}
        self._judges = judges
        self._values = _values_of(wish)
        self._checking = False

    # -- drawing ------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        if self._wish.runs is not None:
            return list(_OF_RUNS)
        return [name for name in HELP if _ONLY.get(name) in (None, self._values["how"])]

    def _draw(self) -> None:
        rows = []
        for name in self._names():
            value = self._values[name]
            words = _HOW[value] if name == "how" else printable(value)
            arrows = name in _CHOICES and len(self._choices[name]) > 1
            text = Text(f"‹ {words} ›" if arrows else words or "—", "bold" if words else FAINT)
            rows.append(Row(name, (_LABELS.get(name, name), text, Text(HELP[name], FAINT))))
        self.query_one(Table).show(rows)
        self._draw_help()
        keys = (
            " ↵ use it   esc leave it " if self._edited else " ↑ ↓ line   ← → ↵ change   r evaluate   esc close "
        )
        self.query_one("#box").border_subtitle = Content(keys)

    def _draw_help(self) -> None:
        name = self._line
        if name is None:
            return
        words = HELP[name]
        judges = self._judges.get(self._values["query_set"], ())
        if name == "judges":
            words += f" Known: {shorten(', '.join(judges), 200)}." if judges else " It has no judgements."
        self.query_one("#help", Static).update(Text(printable(words)))

    def _refuse(self, error: RevectorError) -> None:
        self._checking = False
        self._say(Text(printable(f"✗ {error.problem}\n{error.remedy}".strip(), lines=True), BAD))

    # -- changing -----------------------------------------------------------------------------------------

    def action_edit(self) -> None:
        self.action_change(1)

    def action_change(self, step: int) -> None:
        """Take the next choice, or open the box to type."""
        name = self.query_one(Table).row_key
        if name is None or self._edited is not None:
            return
        if name in _CHOICES:
            chosen = step_through(list(self._choices[name]), self._values[name], step)
            self._values[name] = chosen if chosen is not None else self._values[name]
            self._say(Text())
            self._draw()
        elif step > 0:
            self._open_box(name, _LABELS.get(name, name), self._values[name])

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self._edited is None:
            return
        before, self._values[self._edited] = self._values[self._edited], event.value.strip()
        try:
            self._wished()
        except UsageError as error:
            self._values[self._edited] = before
            self._refuse(error)
        else:
            self._say(Text())
            self._close_box()

    # -- the answer ---------------------------------------------------------------------------------------

    def action_go(self) -> None:
        """Check the gates and the measures, then start."""
        if self._edited is not None or not self._live or self._checking:
            return
        try:
            wish = self._wished()
        except UsageError as error:
            self._refuse(error)
            return
        if wish.runs is None and wish.primary == wish.candidate:
            self._refuse(UsageError(f"{wish.primary} cannot be compared with itself.", "Choose another version."))
            return
        self._checking = True
        self._say(Text("Reading the gates …" if wish.gates else "", FAINT))

        def begin(_asked: object) -> None:
            self.dismiss(wish)

        in_background(self, "check", lambda _tell: asked_of(wish), begin, self._refuse)

    def _wished(self) -> Wish:
        """The wish from the lines. Raises UsageError for a value out of range."""
        values = self._values
        found: dict[str, Any] = {name: values[name] for name in (*_CHOICES, "gates")}
        for name in _WHOLE:
            # An empty box changes nothing, but for the version's own ef_search.
            if (number := _whole(name, values[name])) is not None or name == "ef_search":
                found[name] = number
        return replace(
            self._wish,
            **found,
            judges=tuple(name for part in values["judges"].split(",") if (name := part.strip())),
            # A comma within brackets belongs to the measure: SetF(beta=2,rel=2).
            measures=tuple(name for name in re.split(r"[,\s]+(?![^(]*\))", values["measures"]) if name),
            confidence=_confidence(values["confidence"]),
        )


def _values_of(wish: Wish) -> dict[str, str]:
    found = {name: getattr(wish, name) for name in HELP} | {"confidence": f"{wish.confidence:g}"}
    found |= {"judges": ", ".join(wish.judges), "measures": " ".join(wish.measures)}
    return {name: "" if value is None else str(value) for name, value in found.items()}


def _whole(name: str, value: str) -> int | None:
    least, most = _WHOLE[name]
    if not value:
        return None
    if not value.isdecimal() or len(value) > len(str(most)) or not least <= int(value) <= most:
        raise UsageError(f"{_LABELS.get(name, name)} is {value!r}; expected a number from {least} to {most:,}.")
    return int(value)


def _confidence(value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = float("nan")
    if not _LEAST_CONFIDENCE <= found <= _MOST_CONFIDENCE:
        raise UsageError(f"confidence is {value!r}; expected {_LEAST_CONFIDENCE} to {_MOST_CONFIDENCE}.")
    return found
