"""Tab 6: the guards of the candidate, evidence and approvals, the flip, the watch after it, and the way back."""

from __future__ import annotations

from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from revector.screens.cutover.board import guard_lines, guards_page
from revector.screens.cutover.facts import Facts
from revector.screens.cutover.steps import Stepping
from revector.screens.cutover.text import (
    approval_lines,
    approvals_word,
    change_lines,
    evidence_lines,
    serving_table,
)
from revector.screens.cutover.watch import HISTORY, entry_page, history_row, watch_lines, watch_title
from revector.screens.pane import step_through
from revector.screens.services import Services
from revector.screens.situation import Situation, key_of
from revector.screens.widgets.buttons import Buttons
from revector.screens.widgets.page import Page
from revector.screens.widgets.parts import Parts
from revector.screens.widgets.table import Table
from revector.screens.wording.errors import error_text
from revector.screens.wording.text import printable
from revector.screens.wording.theme import FAINT

_TALL, _WIDE = 32, 100
"""The terminal below which the parts have no room beside each other."""


class CutoverPane(Stepping):
    """The change and who serves it; the watch, guards, evidence, approvals, processes and history; the outcome."""

    DEFAULT_CSS = """
    CutoverPane #change { height: auto; max-height: 6; padding: 0 1; }
    CutoverPane .box { border: round $border-blurred; border-title-color: $secondary; padding: 0 1;
                       scrollbar-size-vertical: 1; }
    CutoverPane .box:focus { border: round $border; }
    CutoverPane #watch.-broken { border: heavy $error; border-title-color: $error; border-title-style: bold; }
    CutoverPane #watch { height: auto; max-height: 14; }
    CutoverPane #guards { width: 58%; height: 1fr; }
    CutoverPane #middle, CutoverPane #side { height: 1fr; }
    CutoverPane #side { width: 1fr; }
    CutoverPane #evidence { height: auto; max-height: 10; }
    CutoverPane #approvals { height: 1fr; }
    CutoverPane #serving { height: auto; max-height: 7; }
    CutoverPane #history { height: auto; max-height: 8; border: round $border-blurred;
                           border-title-color: $secondary; }
    CutoverPane #history:focus { border: round $border; }
    CutoverPane #outcome { height: auto; max-height: 6; padding: 0 1; }
    CutoverPane.-tight #watch, CutoverPane.-tight #guards, CutoverPane.-tight #evidence,
    CutoverPane.-tight #approvals, CutoverPane.-tight #serving, CutoverPane.-tight #history {
        width: 100%; height: 1fr; max-height: 100%;
    }
    """

    PARTS: ClassVar[tuple[str, ...]] = ("guards", "evidence", "approvals", "watch", "serving", "history")

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.part: str | None = None
        """The part in front where one is shown at a time; None for the one that matters now."""

    def compose(self) -> ComposeResult:
        """From what is about to change to what has happened."""
        yield Static(id="change", markup=False)
        yield Parts("m", id="parts")
        yield _box("watch")
        with Horizontal(id="middle"):
            yield _box("guards")
            with Vertical(id="side"):
                yield _box("evidence")
                yield _box("approvals")
                yield _box("serving")
        yield Table(HISTORY, id="history")
        yield Static(id="outcome", markup=False)
        yield Buttons("6")

    # -- what is shown ------------------------------------------------------------------------------------

    @property
    def tight(self) -> bool:
        """Whether one part is shown at a time."""
        return self.app.size.height < _TALL or self.app.size.width < _WIDE

    @property
    def front(self) -> str:
        """The part in front: while a cutover is watched that is the watch, unless another one was chosen."""
        watched = self.facts is not None and self.facts.watch is not None
        if self.part is None or (self.part == "watch" and not watched):
            return "watch" if watched else "guards"
        return self.part

    def show_actions(self, situation: Situation) -> None:
        """The buttons of this moment."""
        self.query_one(Buttons).show(situation)

    def focus_main(self) -> None:
        """The part in front, which may be longer than its place."""
        self.query_one(f"#{self.front if self.tight else 'guards'}").focus()

    def on_resize(self) -> None:
        """What has room beside each other may be more or less now."""
        self.draw()
        self.post_message(self.Changed())

    def step_done(self) -> None:
        """After a flip the watch matters."""
        self.part = None

    # -- drawing ------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Draw all that is known."""
        if not self.app.is_running or not self.query(Buttons):
            return  # what was read in the background may come while the console ends
        facts = self.facts
        self._arrange(facts)
        self.query_one("#change", Static).update(
            change_lines(self.situation, facts, broken=self.tight and self.front != "watch")
        )
        self._fill("guards", self._guards_title(), self._guard_lines())
        waiting: RenderableType = error_text(self.facts_error) if self.facts_error else Text("Reading …", FAINT)
        known = facts if facts and facts.candidate == key_of(self.situation.candidate) else None
        self._fill("evidence", " evidence ", evidence_lines(known) if known else waiting)
        title = f" approvals{approvals_word(known)} "
        self._fill(
            "approvals", title, approval_lines(known, asks=not self.situation.looks_only) if known else waiting
        )
        self._fill("serving", " who serves what ", serving_table(facts) if facts else waiting)
        self._draw_watch(facts)
        history = self.query_one("#history", Table)
        history.show([history_row(one) for one in facts.history] if facts else [])
        history.border_title = Content(" history, the newest first ")
        history.border_subtitle = Content(" ↵ all of it ")
        outcome = self.query_one("#outcome", Static)
        outcome.update(self.outcome)
        outcome.display = bool(self.outcome)

    def _arrange(self, facts: Facts | None) -> None:
        tight = self.tight
        self.set_class(tight, "-tight")
        watched = facts is not None and facts.watch is not None
        there = {part for part in self.PARTS if part != "watch" or watched}
        if self.situation.candidate is None:
            there -= {"evidence", "approvals"}
        front = self.front if self.front in there else "guards"
        shown = {front} if tight else there
        for part in self.PARTS:
            self.query_one(f"#{part}").display = part in shown
        self.query_one("#side").display = bool(shown & {"evidence", "approvals", "serving"})
        self.query_one("#middle").display = bool(shown & {"guards", "evidence", "approvals", "serving"})
        parts = self.query_one("#parts", Parts)
        parts.display = tight
        parts.show([(part, self._word(part)) for part in self.PARTS if part in there], front)

    def _word(self, part: str) -> str:
        facts = self.facts
        if part == "guards" and self.board.guards:
            clear = sum(guard.clear for guard in self.board.in_order)
            return f"guards {clear}/{clear + sum(not guard.clear for guard in self.board.in_order)}"
        if part == "approvals":
            return f"approvals{approvals_word(facts)}"
        if part == "watch" and facts is not None and facts.watch is not None and facts.watch.breaches:
            return "watch ✗"
        return part

    def _fill(self, part: str, title: str, body: RenderableType) -> None:
        box = self.query_one(f"#{part}", VerticalScroll)
        box.border_title = Content(title)
        box.query_one(Static).update(body)

    def _draw_watch(self, facts: Facts | None) -> None:
        overview = self.situation.overview
        if facts is None or facts.watch is None or overview is None:
            return
        target = key_of(self.situation.rollback)
        can = target == facts.watch.previous and not self.situation.looks_only
        body = watch_lines(facts.watch, facts.policy, overview.taken_at, can_roll_back=can)
        self._fill("watch", watch_title(facts.watch, overview.taken_at), body)
        self.query_one("#watch").set_class(bool(facts.watch.breaches), "-broken")

    def _guards_title(self) -> str:
        candidate = printable(key_of(self.situation.candidate) or "no candidate")
        board = self.board
        if board.candidate != key_of(self.situation.candidate) or not (board.guards or board.pending):
            return f" guards of {candidate} "
        when = f"checked {board.checked_at}" if not board.pending else "checking …"
        return f" guards of {candidate} ─ {board.count} ─ {when} "

    def _guard_lines(self) -> RenderableType:
        candidate = key_of(self.situation.candidate)
        if candidate is None:
            return Text("There is no version to cut over to: register and backfill one (1 Versions).", FAINT)
        if self.check_error is not None:
            return error_text(self.check_error)
        if self.left_alone:
            return Text(
                f"{printable(candidate)} is the way back: a rollback asks no guard. g looks at them all the same.",
                FAINT,
            )
        return guard_lines(self.board)

    # -- choosing -----------------------------------------------------------------------------------------

    def next_part(self) -> None:
        """The next part, where one is shown at a time."""
        there = [part for part in self.PARTS if part != "watch" or (self.facts and self.facts.watch)]
        if self.situation.candidate is None:
            there = [part for part in there if part not in ("evidence", "approvals")]
        self._show_part(step_through(there, self.front, 1) or "guards")

    def _show_part(self, part: str) -> None:
        self.part = part
        self.changed()
        self.query_one(f"#{part}").focus()

    def on_parts_chosen(self, event: Parts.Chosen) -> None:
        """A click on a part."""
        event.stop()
        self._show_part(event.name)

    def on_data_table_row_selected(self, event: Table.RowSelected) -> None:
        """A click on the flip under the cursor."""
        event.stop()
        event.data_table.focus()
        self.post_message(self.Act("open-cutover"))

    def open_row(self) -> None:
        """What has the focus, in full: a flip of the history, the evaluation, or the guards."""
        focused = self.screen.focused
        history = self.query_one("#history", Table)
        if focused is history and self.facts is not None:
            entry = next((one for one in self.facts.history if str(one.id) == history.row_key), None)
            if entry is not None:
                self.app.push_screen(Page(f"flip {entry.id}", entry_page(entry)))
        elif focused is not None and focused.id == "evidence" and self.evaluated:
            self.open_evaluation()
        else:
            self.app.push_screen(Page("guards", guards_page(self.board)))

    @property
    def evaluated(self) -> bool:
        """Whether there is an evaluation to open."""
        return self.facts is not None and self.facts.evaluation is not None

    def open_evaluation(self) -> None:
        """The evaluation of the pair on the Evaluate tab."""
        if self.facts is not None and self.facts.evaluation is not None:
            self.post_message(self.OpenEvaluation(self.facts.evaluation.id))

    def open_shadow(self) -> None:
        """The shadow on its own tab."""
        self.post_message(self.Act("tab-5"))


def _box(name: str) -> VerticalScroll:
    return VerticalScroll(Static(markup=False), id=name, classes="box")
