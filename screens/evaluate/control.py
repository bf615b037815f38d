"""What the Evaluate screen is about: the lists, the evaluation that is shown, and the one that is being made."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text
from textual.message import Message

from revector.core.errors import RevectorError
from revector.core.evaluation.document import Evaluation, get_evaluation
from revector.screens.evaluate.lists import Lists, ReportKind, read_lists, write_report
from revector.screens.evaluate.runner import CancelledError, Evaluator, Wish
from revector.screens.pane import Pane, step_through
from revector.screens.services import Services
from revector.screens.situation import key_of
from revector.screens.tabs import COMPARE
from revector.screens.widgets.background import in_background
from revector.screens.wording.errors import error_text
from revector.screens.wording.text import printable
from revector.screens.wording.theme import CAUTION, FAINT, GOOD

if TYPE_CHECKING:
    from revector.core.evaluation.measures.thresholds import Thresholds
    from revector.core.evaluation.runs.store import Results

_LOOK_EVERY_S = 5.0
"""Others evaluate too: how often the lists are read while the tab is in front."""
_BAR = 16


class Evaluating(Pane):
    """Reads, evaluates and writes reports. Whoever derives from it draws."""

    class Progressed(Message):
        """The evaluation that runs here got on, or ended."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.lists = Lists()
        self.shown: Evaluation | None = None
        self.listing_runs = False
        self.only: str | None = None
        """The candidate whose evaluations alone are listed."""
        self.marked: int | None = None
        """The run that another is to be held against."""
        self.opening = True
        self._looked_at: float | None = None
        self._looking_since: float | None = None
        self._sets_known = False
        self._patience_s = services.database.connect_timeout_s + 2 * services.settings.read_timeout_s
        self._message = Text()
        self._wish: Wish | None = None
        self._finished: int | None = None
        self._asked_to_load: int | None = None
        self._evaluator = Evaluator(services.database, self._tell_progress, self._ask_in_thread)

    # -- to be drawn --------------------------------------------------------------------------------------

    def draw_said(self) -> None:
        """Draw how far an evaluation is, or the last message."""
        raise NotImplementedError

    def said(self) -> Text:
        """How far the evaluation is that runs here, or the last message."""
        stage = self._evaluator.stage
        if stage is None:
            return self._message
        if self._evaluator.cancelling:
            return Text("Cancelling the evaluation …", CAUTION)
        text = Text(f"Evaluating: {printable(stage.doing)}", no_wrap=True, overflow="ellipsis")
        if stage.total:
            full = _BAR * stage.done // stage.total
            text.append(f"  {'━' * full}{'─' * (_BAR - full)}  {stage.done:,} of {stage.total:,}")
        return text.append("  x cancels", FAINT)

    def say(self, message: Text) -> None:
        """Show a sentence."""
        self._message = message
        self.draw_said()

    def fail(self, error: RevectorError) -> None:
        """Show an error."""
        self.say(error_text(error))

    @property
    def what_to_do(self) -> str:
        """The next step where there is no evaluation."""
        if len([status for status in self.situation.versions if status.embedded]) < 2:
            return "This needs two versions with vectors. Backfill another one (2)."
        if not self.lists.sets:
            return "No query set yet: revector queries import NAME --queries FILE --qrels FILE"
        if self.situation.looks_only:
            why = "this session is read-only" if self.situation.state.read_only else "an operator can"
            return f"No evaluation yet: revector evaluate {printable(self.lists.sets[0].name)} ({why})."
        return "No evaluation yet: press r."

    # -- reading ------------------------------------------------------------------------------------------

    def entered(self) -> None:
        """A message of an earlier visit is over, and there may be something new."""
        self._message = Text()
        self._looked_at, self._sets_known = None, False

    def look(self) -> None:
        """Read the lists, unless that was just done."""
        now = time.monotonic()
        fresh = self._looked_at is not None and now - self._looked_at < _LOOK_EVERY_S
        busy = self._looking_since is not None and now - self._looking_since < self._patience_s
        if fresh or busy or not self.situation.state.live:
            return
        self._looking_since = now
        only, sets = self.only, self.lists.sets if self._sets_known else None

        def read(_tell: object) -> Lists:
            with self.services.connections.reading() as connection:
                return read_lists(connection, only, sets)

        in_background(self, "lists", read, self._show_lists, self._no_lists)

    def look_again(self) -> None:
        """Read the lists now."""
        self._looked_at = self._looking_since = None
        self.look()

    def _show_lists(self, lists: Lists) -> None:
        self._looked_at, self._looking_since, self._sets_known = time.monotonic(), None, True
        changed, self.lists = lists != self.lists or self.opening, lists
        if self.shown is None and self._asked_to_load is None and lists.evaluations:
            self.load(lists.evaluations[0].id)
        else:
            self.opening = False
        if changed:
            self.changed()

    def _no_lists(self, error: RevectorError) -> None:
        self._looking_since = None
        self._looked_at = time.monotonic()
        if self.situation.state.live:  # else the banner says it
            self.fail(error)

    def load(self, number: int) -> None:
        """Show an evaluation."""
        self._asked_to_load = number

        def read(_tell: object) -> Evaluation:
            with self.services.connections.reading() as connection:
                return get_evaluation(connection, number)

        in_background(self, "evaluation", read, self.show_evaluation, self.fail)

    def show_evaluation(self, found: Evaluation) -> None:
        """Make this the evaluation that is shown."""
        first = self.shown is None
        self.shown, self.opening, self.listing_runs = found, False, False
        self.changed()
        if first or not self.screen.focused or not self.screen.focused.is_on_screen:
            self.focus_main()

    # -- evaluating ---------------------------------------------------------------------------------------

    def _tell_progress(self) -> None:
        self.post_message(self.Progressed())

    @property
    def evaluating(self) -> bool:
        """Whether an evaluation runs here."""
        return self._evaluator.working

    def evaluate(self) -> None:
        """Ask what, then begin."""
        if not self.lists.sets:
            self.say(Text(self.what_to_do, CAUTION))
            return
        self._open_dialog(self._default_wish())

    def _default_wish(self) -> Wish:
        names = [one.name for one in self.lists.sets]
        primary = key_of(self.situation.active) or self.situation.versions[0].version.version_key
        candidate = key_of(self.situation.candidate) or primary
        last = self._wish or Wish(self.shown.query_set if self.shown else names[0], primary, candidate)
        query_set = last.query_set if last.query_set in names else names[0]
        return replace(last, query_set=query_set, primary=primary, candidate=candidate, runs=None)

    def _open_dialog(self, wish: Wish) -> None:
        from revector.screens.evaluate.dialog import EvaluateDialog

        versions = self.situation.versions
        choices = {
            "query_set": [one.name for one in self.lists.sets],
            "primary": [status.version.version_key for status in versions if status.embedded],
            "candidate": [status.version.version_key for status in versions],
        }
        judges = {one.name: one.judges for one in self.lists.sets}
        self.app.push_screen(EvaluateDialog(wish, choices, judges), self._begin)

    def _begin(self, wish: Wish | None) -> None:
        if wish is None:
            return
        self._wish, self._message = wish, Text()
        self._evaluator.start(wish)
        self.changed()

    def cancel_evaluation(self) -> None:
        """Cancel the evaluation running here. Finished searches are kept."""
        self._evaluator.cancel()

    def on_evaluating_progressed(self) -> None:
        """Draw how far it is; show what it made."""
        number, error = self._evaluator.number, self._evaluator.error
        if self._evaluator.working:
            self.draw_said()
            return
        if isinstance(error, CancelledError):
            self._message = Text(f"{error.problem} {error.remedy}".strip(), CAUTION)
        elif error is not None:
            self._message = error_text(error)
        elif number is not None and number != self._finished:
            self._finished = number
            self._message = Text(f"✓ Evaluation {number} is stored.", GOOD)
            self.load(number)
        self.look_again()
        self.changed()

    def _ask_in_thread(self, text: str) -> bool:
        """Ask whether to spend, from the evaluation's thread; ends with a no when that is cancelled."""
        from revector.screens.widgets.confirm import Ask

        answered, answers = threading.Event(), []

        def answer(yes: bool | None) -> None:
            answers.append(bool(yes))
            answered.set()

        self.app.call_later(lambda: self.app.push_screen(Ask(text, "Embed nothing", "Embed and evaluate"), answer))
        while not answered.wait(0.2):
            if self._evaluator.cancelling:
                return False
        return answers[0]

    def on_unmount(self) -> None:
        """What was searched is kept: the evaluation can be gone on with."""
        self._evaluator.cancel()

    # -- runs ---------------------------------------------------------------------------------------------

    def open_run(self, key: str | None) -> None:
        """All that is known about a run."""
        from revector.screens.evaluate.text import run_page
        from revector.screens.widgets.page import Page

        run = next((run for run in self.lists.runs if str(run.id) == key), None)
        if run is not None:
            self.app.push_screen(Page(f"run {run.id}", run_page(run)))

    def compare_run(self, key: str | None) -> None:
        """Mark a run, or hold it against the marked one; the marked one itself is marked no more."""
        run = next((run for run in self.lists.runs if str(run.id) == key), None)
        marked = next((run for run in self.lists.runs if run.id == self.marked), None)
        if run is None:
            return
        if marked is None or run.id == marked.id:
            self.marked = run.id if marked is None else None
            self.changed()
            return
        if marked.query_set != run.query_set:
            problem = (
                f"Run {marked.id} is of {printable(marked.query_set)}, run {run.id} of {printable(run.query_set)}"
            )
            self.say(Text(f"✗ {problem}: two runs of one query set can be compared.", CAUTION))
            return
        wish = Wish(run.query_set, marked.version_key, run.version_key, runs=(marked.id, run.id))
        last = self._wish
        if last is not None:
            wish = replace(
                last, query_set=wish.query_set, primary=wish.primary, candidate=wish.candidate, runs=wish.runs
            )
        self.marked = None
        self._open_dialog(wish)

    # -- from the evaluation on ---------------------------------------------------------------------------

    def open_query(self, query_id: str | None) -> None:
        """Search for a query on the Compare tab, with the versions of the evaluation."""
        found = self.shown
        if found is None or query_id is None:
            return
        pair = found.primary.version_key, found.candidate.version_key
        if pair[0] == pair[1]:
            self.say(Text("Both runs are of one version: the Compare tab needs two.", CAUTION))
            return
        there = {status.version.version_key for status in self.situation.versions if status.embedded}
        gone = next((key for key in pair if key not in there), None)
        if gone is not None:
            self.say(Text(f"{printable(gone)} no longer has vectors, so its results cannot be searched.", CAUTION))
            return
        self.post_message(
            self.Open(
                COMPARE,
                lambda tab: tab.control.open_query(found.query_set, query_id, primary=pair[0]),
                select=pair[1],
            )
        )

    def open_details(self) -> None:
        """All of the evaluation."""
        from revector.screens.evaluate.text import details_page
        from revector.screens.widgets.page import LivePage

        if self.shown is not None:
            self.app.push_screen(LivePage(f"evaluation {self.shown.id}", details_page(self.shown)))

    def open_thresholds(self) -> None:
        """What becomes of an absolute score threshold."""
        from revector.screens.evaluate.thresholds_page import ThresholdsPage

        found = self.shown
        if found is None:
            return
        kept: list[Results] = []

        def read(cut: float | None, depth: int) -> Thresholds:
            from revector.core.evaluation.measures.thresholds import thresholds
            from revector.core.evaluation.runs.store import load_results
            from revector.core.registry import get_version

            with self.services.connections.reading() as connection:
                metrics = [
                    get_version(connection, run.version_key).distance_metric
                    for run in (found.primary, found.candidate)
                ]
                if not kept:
                    kept.extend([load_results(connection, run) for run in (found.primary, found.candidate)])
            return thresholds(kept[0], kept[1], (metrics[0], metrics[1]), cut=cut, depth=depth)

        self.app.push_screen(ThresholdsPage((found.primary.version_key, found.candidate.version_key), read))

    def export(self) -> None:
        """Choose a kind of report, then write it."""
        from revector.screens.evaluate.export_dialog import ExportDialog

        found = self.shown
        if found is not None:
            self.app.push_screen(ExportDialog(), partial(self._write, found))

    def _write(self, found: Evaluation, kind: ReportKind | None) -> None:
        if kind is None:
            return
        folder = Path.cwd()

        def done(path: Path) -> None:
            self.say(Text(f"Written to {printable(str(path))}", GOOD))

        in_background(self, "export", lambda _tell: write_report(found, kind, folder), done, self.fail)

    # -- the candidate ------------------------------------------------------------------------------------

    def toggle_only(self) -> None:
        """Only the evaluations of the selected candidate, or all again."""
        self.only = None if self.only else key_of(self.situation.candidate)
        self.look_again()

    def step_candidate(self, step: int) -> None:
        """Another version as candidate: the next one, or the one before."""
        keys = [status.version.version_key for status in self.situation.versions if not status.version.active]
        key = step_through(keys, key_of(self.situation.candidate), step)
        if key is not None:
            self.say(Text(f"The candidate is {printable(key)}: r evaluates it.", FAINT))
            if self.only is not None:
                self.only = key
                self.look_again()
            self.post_message(self.Select(key))
