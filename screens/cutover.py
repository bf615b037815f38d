"""Tab 6: the guards of the candidate, the flip, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from core.errors import RevectorError
from screens.background import Tell, in_background
from screens.buttons import Buttons
from screens.errors import error_text
from screens.facts import facts
from screens.pane import Pane, Services, step_through
from screens.situation import Situation, key_of
from screens.text import chunks, milliseconds, printable, time_now
from screens.theme import BAD, CAUTION, FAINT, GOOD

if TYPE_CHECKING:
    from core.cutover import Check, Flip, Guard
    from core.retrieval import EncoderCache
    from screens.confirm import Answer, Question

_SIGNS = {"pass": ("✓", GOOD), "fail": ("✗", BAD), "inconclusive": ("?", CAUTION)}


class CutoverPane(Pane):
    """Active before and after, guards as they fill in, rollback target, and the outcome of the last flip."""

    DEFAULT_CSS = """
    CutoverPane #change { height: auto; padding: 0 1; }
    CutoverPane #guards { height: 1fr; border: round $border-blurred; border-title-color: $secondary;
                          padding: 0 1; scrollbar-size-vertical: 1; }
    CutoverPane #guards:focus { border: heavy $border; }
    CutoverPane #outcome { height: auto; max-height: 6; padding: 0 1; }
    """

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.flipping = False
        self._guards: tuple[Guard, ...] = ()
        self._checked: object = None
        self._encoders: EncoderCache | None = None
        self._checking = False
        self._check: Check | None = None
        self._checked_at = ""
        self._check_error: RevectorError | None = None
        self._outcome = Text("")

    def compose(self) -> ComposeResult:
        """The change, its guards, the outcome, the buttons."""
        yield Static(id="change", markup=False)
        with VerticalScroll(id="guards"):
            yield Static(markup=False)
        yield Static(id="outcome", markup=False)
        yield Buttons("6")

    def cleared(self, situation: Situation) -> str | None:
        """The version whose guards all pass, by a check of what this snapshot shows."""
        check = self._check
        fresh = check is not None and self._checked == _facts_of(situation)
        return check.version_key if check is not None and check.ready and fresh else None

    def show(self, situation: Situation) -> None:
        """Draw; where what the guards are about has changed, check them again."""
        self.situation = situation
        if not situation.state.live:
            self._checked = None  # when the database is back, what was known before does not count
        elif situation.candidate is not None and not self.flipping and self._checked != _facts_of(situation):
            self.check_guards()
        self.draw()

    def draw(self) -> None:
        """Draw the candidate and its guards."""
        self.query_one("#change", Static).update(self._change())
        guards = self.query_one("#guards", VerticalScroll)
        guards.border_title = Content(self._guards_title())
        guards.query_one(Static).update(self._guard_lines())
        self.query_one("#outcome", Static).update(self._outcome)

    def show_actions(self, situation: Situation) -> None:
        """The buttons of this moment."""
        self.query_one(Buttons).show(situation)

    def focus_main(self) -> None:
        """The guards, which may be longer than the screen."""
        self.query_one("#guards").focus()

    def _change(self) -> RenderableType:
        active, candidate, target = self.situation.active, self.situation.candidate, self.situation.rollback
        before = printable(key_of(active) or "no version")
        change = Text(f"{before} is active", "bold")
        if candidate is not None:
            change = Text(f"{before}  →  {printable(candidate.version.version_key)}", "bold")
        if target is None:
            back = Text("no version was active before: there is nothing to go back to", FAINT)
        else:
            lacks = f"lacks {chunks(target.missing)}" if target.missing else "lacks no chunk"
            back = Text(
                f"{printable(target.version.version_key)}, which {lacks}", CAUTION if target.missing else ""
            )
        return facts([("cut over", change), ("roll back to", back)])

    def _guards_title(self) -> str:
        candidate = printable(key_of(self.situation.candidate) or "no candidate")
        if self._checking:
            return f" guards of {candidate} ─ checking … "
        if self._check is None:
            return f" guards of {candidate} "
        passed = sum(guard.verdict == "pass" for guard in self._guards)
        return f" guards of {candidate} ─ {passed} of {len(self._guards)} pass ─ checked {self._checked_at} "

    def _guard_lines(self) -> RenderableType:
        if self.situation.candidate is None:
            return Text("There is no version to cut over to: register and backfill one (1 Versions).", FAINT)
        if self._check_error is not None:
            return error_text(self._check_error)
        grid = Grid.grid(padding=(0, 2, 0, 0))
        for _ in range(3):
            grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for guard in self._guards:
            sign, colour = _SIGNS[guard.verdict]
            detail = Text(printable(guard.detail))
            if guard.remedy:
                detail.append(f"\n→ {printable(guard.remedy)}", CAUTION)
            grid.add_row(Text(sign, colour), Text(guard.verdict, colour), Text(printable(guard.name)), detail)
        return grid

    # -- the guards ---------------------------------------------------------------------------------------

    def check_guards(self) -> None:
        """Run the guards of the candidate, each shown as soon as it is known."""
        candidate = self.situation.candidate
        if candidate is None:
            return
        version = candidate.version
        self._checked = _facts_of(self.situation)
        self._checking, self._check, self._check_error, self._guards = True, None, None, ()

        def run(tell: Tell) -> Check:
            from core import cutover
            from core.retrieval import EncoderCache

            self._encoders = encoders = self._encoders or EncoderCache()
            found: list[Guard] = []

            def on_guard(guard: Guard) -> None:
                found.append(guard)
                tell(lambda guards=tuple(found): self._fill_in(guards))  # type: ignore[misc]

            with self.services.connections.reading() as connection:
                return cutover.check(connection, version.version_key, encoders=encoders, on_guard=on_guard)

        in_background(self, "guards", run, self.show_check, self._check_failed)

    def _fill_in(self, guards: tuple[Guard, ...]) -> None:
        self._guards = guards
        self.draw()

    def show_check(self, check: Check) -> None:
        """Draw a finished check."""
        self._checking, self._check, self._check_error, self._guards = False, check, None, check.guards
        self._checked_at = time_now()
        self.draw()
        self.post_message(self.Changed())

    def _check_failed(self, error: RevectorError) -> None:
        self._checking, self._check_error = False, error
        self.draw()
        self.post_message(self.Changed())

    # -- the flip -----------------------------------------------------------------------------------------

    def cut_over(self) -> None:
        """Ask, then make the candidate active."""
        candidate = self.situation.candidate
        if candidate is None:
            return
        before, after = key_of(self.situation.active), candidate.version.version_key
        back = f"{before} stays, and R rolls back to it" if before else "none: it is the first active version"
        question = self._question("Cut over", before, after, ("way back", back))

        def flip(answer: Answer) -> Flip:
            from core import cutover

            with self.services.connections.writing() as connection:
                return cutover.run(connection, after, confirm=answer.typed, reason=answer.reason)

        self._ask(question, before, flip)

    def roll_back(self) -> None:
        """Ask, then make the version active that was so before."""
        target = self.situation.rollback
        if target is None:
            return
        before, after = key_of(self.situation.active), target.version.version_key
        loss = f"{chunks(target.missing)}: not found until its backfill has run" if target.missing else "no chunk"
        question = self._question("Roll back", before, after, ("lacks", loss))

        def flip(answer: Answer) -> Flip:
            from core import cutover

            with self.services.connections.writing() as connection:
                return cutover.rollback(connection, confirm=answer.typed, reason=answer.reason)

        self._ask(question, before, flip)

    def _question(self, title: str, before: str | None, after: str, line: tuple[str, str]) -> Question:
        from screens.confirm import Question

        change = ("change", f"{before or 'no version'} → {after}")
        effect = ("effect", f"every search is answered by {after} from the next moment on")
        database, settings = self.services.database, self.services.settings
        return Question(title, database, settings, (change, effect, line), after, f"{title} now", ask_reason=True)

    def _ask(self, question: Question, before: str | None, flip: Callable[[Answer], Flip]) -> None:
        from screens.confirm import Confirm

        def still_so(situation: Situation) -> str:
            now = key_of(situation.active)
            if now != before:
                return f"The active version changed meanwhile to {now}: cancel, and look again."
            return ""

        def answered(answer: Answer | None) -> None:
            if answer is None:
                return
            self.flipping = True
            self._outcome = Text("Flipping …", FAINT)
            self.draw()
            self.post_message(self.Changed())
            in_background(self, "flip", lambda _tell: flip(answer), self._flipped, self._refused)

        self.app.push_screen(Confirm(question, still_so), answered)

    def _flipped(self, flip: Flip) -> None:
        word = "Rolled back" if flip.action == "rollback" else "Cut over"
        text = f"✓ {word}: {printable(flip.previous or 'no version')} → {printable(flip.version_key)}"
        text += f" in {milliseconds(flip.seconds)}, at {time_now()}."
        if flip.missing:
            text += f" Searches do not find {chunks(flip.missing)}: run its backfill (2, r)."
        self._end(Text(text, f"bold {GOOD}"))

    def _refused(self, error: RevectorError) -> None:
        self._end(error_text(error))

    def _end(self, outcome: Text) -> None:
        self.flipping = False
        self._outcome = outcome
        self.draw()
        self.post_message(self.Changed(database=True))

    # -- the candidate ------------------------------------------------------------------------------------

    def next_candidate(self) -> None:
        """The next version as candidate."""
        self._step(1)

    def previous_candidate(self) -> None:
        """The version before as candidate."""
        self._step(-1)

    def _step(self, step: int) -> None:
        keys = [s.version.version_key for s in self.situation.versions if not s.version.active]
        key = step_through(keys, key_of(self.situation.candidate), step)
        if key is not None:
            self._outcome = Text("")
            self.post_message(self.Select(key))


def _facts_of(situation: Situation) -> tuple[object, ...]:
    """What the guards are about, as far as a snapshot shows it: when it changes, they are checked again."""
    candidate = situation.candidate
    if candidate is None:
        return ()
    return (
        key_of(situation.active),
        candidate.version,
        candidate.embedded,
        candidate.missing,
        candidate.failed,
        situation.index(candidate),
    )
