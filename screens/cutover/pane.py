"""Tab 6: the candidate's guards, evidence and approvals, the flip, the watch after it, and the rollback."""

from __future__ import annotations

from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from revector.screens.cutover import text
from revector.screens.cutover.actions import CutoverState
from revector.screens.cutover.board import guard_lines, guards_page
from revector.screens.cutover.checking import CandidateChecks
from revector.screens.cutover.control import CutoverControl
from revector.screens.cutover.facts import Facts
from revector.screens.cutover.watch import HISTORY, entry_page, history_row, watch_lines, watch_title
from revector.screens.pane import Pane, step_through
from revector.screens.services import Services
from revector.screens.situation import Situation, key_of
from revector.screens.tabs import CUTOVER, EVALUATE, SHADOW
from revector.screens.widgets.buttons import Buttons
from revector.screens.widgets.page import Page
from revector.screens.widgets.parts import Parts
from revector.screens.widgets.table import Table
from revector.screens.widgets.words import Words, titled
from revector.screens.wording.errors import error_text
from revector.screens.wording.text import printable
from revector.screens.wording.theme import FAINT


class CutoverPane(Pane):
    """The change, the watch, guards, evidence, approvals, processes, history, and the outcome."""

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

    ROW_ACTION = "open-cutover"
    PARTS: ClassVar[tuple[str, ...]] = ("guards", "evidence", "approvals", "watch", "serving", "history")

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.checks: CandidateChecks = CandidateChecks(self)
        self.control: CutoverControl = CutoverControl(self, self.checks, self._show_what_matters)
        self.part: str | None = None
        """The chosen part when one is shown at a time; None for the one that matters now."""

    def compose(self) -> ComposeResult:
        yield Words(id="change")
        yield Parts("m", id="parts")
        yield _box("watch")
        with Horizontal(id="middle"):
            yield _box("guards")
            with Vertical(id="side"):
                yield _box("evidence")
                yield _box("approvals")
                yield _box("serving")
        yield Table(HISTORY, id="history")
        yield Words(id="outcome")
        yield Buttons(CUTOVER)

    # -- what is shown ------------------------------------------------------------------------------------

    def show(self, situation: Situation) -> None:
        """Draw; for a new snapshot also read the facts and run guards."""
        self.situation = situation
        self.checks.follow()
        self.draw()

    @property
    def front(self) -> str:
        """The visible part: the chosen one, else the watch while a cutover is watched."""
        there = self._parts
        if self.part in there:
            return str(self.part)
        return "watch" if "watch" in there else "guards"

    @property
    def _parts(self) -> list[str]:
        """The parts shown now."""
        facts, absent = self.checks.facts, set()
        if facts is None or facts.watch is None:
            absent = {"watch"}
        if self.situation.candidate is None:
            absent |= {"evidence", "approvals"}
        return [part for part in self.PARTS if part not in absent]

    def focus_main(self) -> None:
        """Focus the visible part, which may need scrolling."""
        self.query_one(f"#{self.front if self.tight else 'guards'}").focus()

    def on_resize(self) -> None:
        self.changed()

    def _show_what_matters(self) -> None:
        """Show the part that matters: after a flip, the watch."""
        self.part = None

    # -- what actions depend on ---------------------------------------------------------------------------

    def state(self, situation: Situation) -> CutoverState:
        checks = self.checks
        return CutoverState(
            cleared=checks.cleared(situation),
            blocked=checks.blocked,
            flipping=checks.flipping,
            request=checks.request,
            waivable=bool(checks.waivable),
            evidence=self.evaluated,
        )

    @property
    def evaluated(self) -> bool:
        """Whether there is an evaluation to open."""
        return self.checks.facts is not None and self.checks.facts.evaluation is not None

    # -- drawing ------------------------------------------------------------------------------------------

    def draw(self) -> None:
        if not self.app.is_running or not self.query(Buttons):
            return  # a background read may arrive while the console ends
        facts, known, error = self.checks.facts, self.checks.facts_now, self.checks.facts_error
        self._arrange()
        self.query_one("#change", Static).update(
            text.change_lines(self.situation, facts, broken=self.tight and self.front != "watch")
        )
        self._fill("guards", self._guards_title(), self._guard_lines())
        waiting = error_text(error) if error else Text("Reading …", FAINT)
        self._fill("evidence", " evidence ", text.evidence_lines(known) if known else waiting)
        title = f" approvals{text.approvals_word(known)} "
        self._fill(
            "approvals",
            title,
            text.approval_lines(known, asks=not self.situation.looks_only) if known else waiting,
        )
        self._fill("serving", " Search services ", text.serving_table(facts) if facts else waiting)
        self._draw_watch(facts)
        history = self.query_one("#history", Table)
        history.show([history_row(one) for one in facts.history] if facts else [])
        titled(history, " history, the newest first ")
        history.border_subtitle = Content(" ↵ details ")
        self.show_line("#outcome", self.control.outcome)

    def _arrange(self) -> None:
        tight, front, there = self.tight, self.front, self._parts
        self.set_class(tight, "-tight")
        shown = {front} if tight else set(there)
        for part in self.PARTS:
            self.query_one(f"#{part}").display = part in shown
        self.query_one("#side").display = bool(shown & {"evidence", "approvals", "serving"})
        self.query_one("#middle").display = bool(shown & {"guards", "evidence", "approvals", "serving"})
        parts = self.query_one("#parts", Parts)
        parts.display = tight
        parts.show([(part, self._word(part)) for part in there], front)

    def _word(self, part: str) -> str:
        facts, guards = self.checks.facts, self.checks.board.in_order
        if part == "guards" and guards:
            return f"guards {sum(guard.clear for guard in guards)}/{len(guards)}"
        if part == "approvals":
            return f"approvals{text.approvals_word(facts)}"
        if part == "watch" and facts is not None and facts.watch is not None and facts.watch.breaches:
            return "watch ✗"
        return part

    def _fill(self, part: str, title: str, body: RenderableType) -> None:
        box = self.query_one(f"#{part}", VerticalScroll)
        titled(box, title)
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
        board = self.checks.board
        if board.candidate != key_of(self.situation.candidate) or not (board.guards or board.pending):
            return f" guards of {candidate} "
        when = f"checked {board.checked_at}" if not board.pending else "checking …"
        return f" guards of {candidate} ─ {board.count} ─ {when} "

    def _guard_lines(self) -> RenderableType:
        checks, candidate = self.checks, key_of(self.situation.candidate)
        if candidate is None:
            return Text("No version to cut over to. Register and backfill one (1 Versions).", FAINT)
        if checks.check_error is not None:
            return error_text(checks.check_error)
        if checks.left_alone:
            return Text(
                f"{printable(candidate)} is the version to roll back to, which needs no guard. g checks them anyway.",
                FAINT,
            )
        return guard_lines(checks.board)

    # -- choosing -----------------------------------------------------------------------------------------

    def next_part(self) -> None:
        self._show_part(step_through(self._parts, self.front, 1) or "guards")

    def _show_part(self, part: str) -> None:
        self.part = part
        self.changed()
        self.query_one(f"#{part}").focus()

    def open_row(self) -> None:
        focused, facts = self.screen.focused, self.checks.facts
        history = self.query_one("#history", Table)
        if focused is history and facts is not None:
            entry = next((one for one in facts.history if str(one.id) == history.row_key), None)
            if entry is not None:
                self.app.push_screen(Page(f"flip {entry.id}", entry_page(entry)))
        elif focused is not None and focused.id == "evidence" and self.evaluated:
            self.open_evaluation()
        else:
            self.app.push_screen(Page("guards", guards_page(self.checks.board)))

    def open_evaluation(self) -> None:
        facts = self.checks.facts
        if facts is not None and facts.evaluation is not None:
            number = facts.evaluation.id
            self.post_message(self.Open(EVALUATE, lambda tab: tab.reader.load(number)))

    def open_shadow(self) -> None:
        self.post_message(self.Open(SHADOW))

    def step_candidate(self, step: int) -> None:
        keys = [s.version.version_key for s in self.situation.versions if not s.version.active]
        key = step_through(keys, key_of(self.situation.candidate), step)
        if key is not None:
            self.control.outcome = Text("")
            self.post_message(self.Select(key))


def _box(name: str) -> VerticalScroll:
    return VerticalScroll(Words(), id=name, classes="box")
