"""Actions of the Evaluate tab: evaluate, compare stored runs, open details of an evaluation, write a report."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from revector.core.errors import RevectorError
from revector.screens.evaluate.dialog import EvaluateDialog
from revector.screens.evaluate.lists import ReportKind, write_report
from revector.screens.evaluate.reader import EvaluationReader
from revector.screens.evaluate.runner import CancelledError, Evaluator, Wish
from revector.screens.evaluate.text import details_page, run_page
from revector.screens.evaluate.thresholds_page import ThresholdsPage
from revector.screens.pane import Pane
from revector.screens.situation import key_of
from revector.screens.tabs import COMPARE
from revector.screens.widgets.background import in_background
from revector.screens.widgets.confirm import Ask
from revector.screens.widgets.page import LivePage, Page
from revector.screens.wording.errors import error_text
from revector.screens.wording.text import printable
from revector.screens.wording.theme import CAUTION, FAINT, GOOD

if TYPE_CHECKING:
    from revector.core.evaluation.document import Evaluation
    from revector.core.evaluation.measures.thresholds import Thresholds
    from revector.core.evaluation.runs.store import Results

_BAR = 16


class EvaluateControl:
    """Evaluates, opens details of the shown evaluation, and writes reports.

    `draw_said` draws what `said` returns: all that changes while an evaluation runs.
    """

    def __init__(self, pane: Pane, reader: EvaluationReader, draw_said: Callable[[], None]) -> None:
        self.marked: int | None = None
        """The marked run, to be compared with another."""
        self._pane, self._reader, self._draw_said = pane, reader, draw_said
        self._message = Text()
        self._wish: Wish | None = None
        self._finished: int | None = None
        tell = partial(pane.call_later, self._progressed)
        self._evaluator = Evaluator(pane.services.database, tell, self._ask_in_thread)

    # -- what is said -------------------------------------------------------------------------------------

    def said(self) -> Text:
        """The progress of the running evaluation, or the last message."""
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
        self._message = message
        self._draw_said()

    def fail(self, error: RevectorError) -> None:
        self.say(error_text(error))

    @property
    def what_to_do(self) -> str:
        """The next step when there is no evaluation."""
        situation, sets = self._pane.situation, self._reader.lists.sets
        if len([status for status in situation.versions if status.embedded]) < 2:
            return "This needs two versions with vectors. Backfill another one (2)."
        if not sets:
            return "No query set yet: revector queries import NAME --queries FILE --qrels FILE"
        if situation.looks_only:
            why = "this session is read-only" if situation.state.read_only else "an operator can"
            return f"No evaluation yet: revector evaluate {printable(sets[0].name)} ({why})."
        return "No evaluation yet: press r."

    # -- evaluating ---------------------------------------------------------------------------------------

    @property
    def evaluating(self) -> bool:
        """Whether an evaluation runs here."""
        return self._evaluator.working

    def evaluate(self) -> None:
        if not self._reader.lists.sets:
            self.say(Text(self.what_to_do, CAUTION))
            return
        self._open_dialog(self._default_wish())

    def _default_wish(self) -> Wish:
        situation, shown = self._pane.situation, self._reader.shown
        names = [one.name for one in self._reader.lists.sets]
        primary = key_of(situation.active) or situation.versions[0].version.version_key
        candidate = key_of(situation.candidate) or primary
        last = self._wish or Wish(shown.query_set if shown else names[0], primary, candidate)
        query_set = last.query_set if last.query_set in names else names[0]
        return replace(last, query_set=query_set, primary=primary, candidate=candidate, runs=None)

    def _open_dialog(self, wish: Wish) -> None:
        versions, sets = self._pane.situation.versions, self._reader.lists.sets
        choices = {
            "query_set": [one.name for one in sets],
            "primary": [status.version.version_key for status in versions if status.embedded],
            "candidate": [status.version.version_key for status in versions],
        }
        judges = {one.name: one.judges for one in sets}
        self._pane.ask(EvaluateDialog(wish, choices, judges), self._begin)

    def _begin(self, wish: Wish) -> None:
        self._wish, self._message = wish, Text()
        self._evaluator.start(wish)
        self._pane.changed()

    def cancel(self) -> None:
        self._evaluator.cancel()

    def _progressed(self) -> None:
        """Draw the progress; show a finished evaluation."""
        number, error = self._evaluator.number, self._evaluator.error
        if self._evaluator.working:
            self._draw_said()
            return
        if isinstance(error, CancelledError):
            self._message = Text(f"{error.problem} {error.remedy}".strip(), CAUTION)
        elif error is not None:
            self._message = error_text(error)
        elif number is not None and number != self._finished:
            self._finished = number
            self._message = Text(f"✓ Evaluation {number} is stored.", GOOD)
            self._reader.load(number)
        self._reader.look_again()
        self._pane.changed()

    def _ask_in_thread(self, text: str) -> bool:
        """Ask for consent to the cost, from the evaluation's thread; returns no when the evaluation is
        cancelled."""
        answered, answers = threading.Event(), []

        def answer(yes: bool | None) -> None:
            answers.append(bool(yes))
            answered.set()

        app, question = self._pane.app, Ask(text, "Embed nothing", "Embed and evaluate")
        app.call_later(lambda: app.push_screen(question, answer))
        while not answered.wait(0.2):
            if self._evaluator.cancelling:
                return False
        return answers[0]

    # -- runs ---------------------------------------------------------------------------------------------

    def open_run(self, key: str | None) -> None:
        run = next((run for run in self._reader.lists.runs if str(run.id) == key), None)
        if run is not None:
            self._pane.app.push_screen(Page(f"run {run.id}", run_page(run)))

    def compare_run(self, key: str | None) -> None:
        """Mark a run, or compare it with the marked one; on the marked one itself, unmark it."""
        runs = self._reader.lists.runs
        run = next((run for run in runs if str(run.id) == key), None)
        marked = next((run for run in runs if run.id == self.marked), None)
        if run is None:
            return
        if marked is None or run.id == marked.id:
            self.marked = run.id if marked is None else None
            self._pane.changed()
            return
        if marked.query_set != run.query_set:
            problem = (
                f"Run {marked.id} is of {printable(marked.query_set)}, run {run.id} of {printable(run.query_set)}"
            )
            self.say(Text(f"✗ {problem}: two runs of one query set can be compared.", CAUTION))
            return
        self.marked = None
        last, pair = self._wish or Wish("", "", ""), (marked.version_key, run.version_key)
        wish = replace(last, query_set=run.query_set, primary=pair[0], candidate=pair[1], runs=(marked.id, run.id))
        self._open_dialog(wish)

    # -- from the evaluation on ---------------------------------------------------------------------------

    def open_query(self, query_id: str | None) -> None:
        """Search for a query on the Compare tab, with the versions of the evaluation."""
        found = self._reader.shown
        if found is None or query_id is None:
            return
        pair = found.primary.version_key, found.candidate.version_key
        if pair[0] == pair[1]:
            self.say(Text("Both runs are of one version: the Compare tab needs two.", CAUTION))
            return
        there = {status.version.version_key for status in self._pane.situation.versions if status.embedded}
        gone = next((key for key in pair if key not in there), None)
        if gone is not None:
            self.say(Text(f"{printable(gone)} no longer has vectors, so its results cannot be searched.", CAUTION))
            return
        primary, candidate = pair
        self._pane.post_message(
            Pane.Open(
                COMPARE,
                lambda tab: tab.control.open_query(found.query_set, query_id, primary=primary),
                select=candidate,
            )
        )

    def open_details(self) -> None:
        found = self._reader.shown
        if found is not None:
            self._pane.app.push_screen(LivePage(f"evaluation {found.id}", details_page(found)))

    def open_thresholds(self) -> None:
        found = self._reader.shown
        if found is None:
            return
        kept: list[Results] = []

        def read(cut: float | None, depth: int) -> Thresholds:
            from revector.core.evaluation.measures.thresholds import thresholds
            from revector.core.evaluation.runs.store import load_results
            from revector.core.registry import get_version

            with self._pane.services.connections.reading() as connection:
                metrics = [
                    get_version(connection, run.version_key).distance_metric
                    for run in (found.primary, found.candidate)
                ]
                if not kept:
                    kept.extend([load_results(connection, run) for run in (found.primary, found.candidate)])
            return thresholds(kept[0], kept[1], (metrics[0], metrics[1]), cut=cut, depth=depth)

        self._pane.app.push_screen(ThresholdsPage((found.primary.version_key, found.candidate.version_key), read))

    def export(self) -> None:
        from revector.screens.evaluate.export_dialog import ExportDialog

        found = self._reader.shown
        if found is not None:
            self._pane.app.push_screen(ExportDialog(), partial(self._write, found))

    def _write(self, found: Evaluation, kind: ReportKind | None) -> None:
        if kind is None:
            return
        folder = Path.cwd()

        def done(path: Path) -> None:
            self.say(Text(f"Written to {printable(str(path))}", GOOD))

        in_background(self._pane, "export", lambda _tell: write_report(found, kind, folder), done, self.fail)

    # -- the candidate ------------------------------------------------------------------------------------

    def toggle_only(self) -> None:
        self._reader.list_only(None if self._reader.only else key_of(self._pane.situation.candidate))
