"""Reads the lists of the Evaluate tab while it is visible, and the shown evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable

from revector.core.errors import RevectorError
from revector.core.evaluation.document import Evaluation, get_evaluation
from revector.screens.evaluate.lists import Lists, read_lists
from revector.screens.pane import Failed, Pane

_LOOK_EVERY_S = 5.0
"""Others evaluate too: how often the lists are read while the tab is visible."""


class EvaluationReader:
    """Reads the lists and the shown evaluation, off the screen's thread.

    `on_shown` is called when there is another evaluation to show, with whether it is the first.
    """

    def __init__(self, pane: Pane, on_shown: Callable[[bool], None], failed: Failed) -> None:
        self.lists = Lists()
        self.shown: Evaluation | None = None
        self.only: str | None = None
        """Only this candidate's evaluations are listed; None for all."""
        self.opening = True
        """Nothing has been read yet."""
        self._pane, self._on_shown, self._failed = pane, on_shown, failed
        self._looked_at: float | None = None
        self._looking_since: float | None = None
        self._sets_known = False
        self._asked_to_load: int | None = None

    def forget(self) -> None:
        """Forget the lists, including query sets; they are read at the next `look`."""
        self._looked_at, self._sets_known = None, False

    def look(self) -> None:
        """Read the lists, unless they were just read."""
        now = time.monotonic()
        fresh = self._looked_at is not None and now - self._looked_at < _LOOK_EVERY_S
        busy = self._looking_since is not None and now - self._looking_since < self._pane.services.patience_s
        if fresh or busy or not self._pane.situation.state.live:
            return
        self._looking_since = now
        only, sets = self.only, self.lists.sets if self._sets_known else None
        self._pane.read(
            "lists", lambda connection: read_lists(connection, only, sets), self._show_lists, self._no_lists
        )

    def look_again(self) -> None:
        self._looked_at = self._looking_since = None
        self.look()

    def list_only(self, candidate: str | None) -> None:
        """List only the evaluations of a candidate, or all."""
        self.only = candidate
        self.look_again()

    def _show_lists(self, lists: Lists) -> None:
        self._looked_at, self._looking_since, self._sets_known = time.monotonic(), None, True
        changed, self.lists = lists != self.lists or self.opening, lists
        if self.shown is None and self._asked_to_load is None and lists.evaluations:
            self.load(lists.evaluations[0].id)
        else:
            self.opening = False
        if changed:
            self._pane.changed()

    def _no_lists(self, error: RevectorError) -> None:
        self._looking_since = None
        self._looked_at = time.monotonic()
        if self._pane.situation.state.live:  # otherwise the banner reports it
            self._failed(error)

    def load(self, number: int) -> None:
        self._asked_to_load = number
        self._pane.read(
            "evaluation", lambda connection: get_evaluation(connection, number), self.show, self._failed
        )

    def show(self, found: Evaluation) -> None:
        first, self.shown, self.opening = self.shown is None, found, False
        self._on_shown(first)
