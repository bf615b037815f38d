"""Searches for the Compare screen; only the latest counts.

One runs at a time. A request made meanwhile waits in one slot, where a newer request replaces it; results of a
replaced one are dropped. So fast typing never builds a queue, and the screen never waits for SQL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.widget import Widget

from revector.core.errors import RevectorError
from revector.core.registry import Version
from revector.core.retrieval import Comparison
from revector.screens.compare.searcher import Searcher
from revector.screens.widgets.background import Tell, in_background

if TYPE_CHECKING:
    from revector.screens.compare.control import CompareControl


@dataclass(frozen=True)
class PairSearch:
    """Queries for two versions. With `seek` the first one on which they disagree is wanted, else there is one
    query.

    `typed` says that the query is still being typed. `query_set` is preferred when several have judgements on it.
    """

    queries: tuple[str, ...]
    primary: Version
    candidate: Version
    k: int
    query_set: str | None = None
    typed: bool = False
    seek: bool = False


class Latest:
    """Runs a searcher for one widget; the control is told, on the screen's own thread, what was found."""

    def __init__(self, widget: Widget, searcher: Searcher, asker: CompareControl) -> None:
        self._widget, self._searcher, self._asker = widget, searcher, asker
        self._waiting: PairSearch | None = None
        self._running: PairSearch | None = None

    @property
    def asked(self) -> str | None:
        """The query that is running or waiting."""
        request = self._waiting or self._running
        return None if request is None or request.seek else request.queries[0]

    def ask(self, request: PairSearch) -> None:
        """Search for it next, replacing a waiting request."""
        self._waiting = request
        if self._running is None:
            self._next()

    def _next(self) -> None:
        request, self._running, self._waiting = self._waiting, self._waiting, None
        if request is None:
            return
        in_background(
            self._widget,
            "search",
            lambda tell: self._work(request, tell),
            lambda _nothing: self._next(),
            lambda error: self._fail(request, error),
        )

    def _fail(self, request: PairSearch, error: RevectorError) -> None:
        self._if_wanted(request, lambda: self._asker.fail(error))
        self._next()

    def _if_wanted(self, request: PairSearch, tell: Callable[[], None]) -> None:
        if self._waiting is None and self._asker.wants(request):
            tell()

    def _work(self, request: PairSearch, tell: Tell) -> None:
        """Runs in a thread. Checks between statements whether the answer is still wanted."""
        asker = self._asker
        answer = self._first(request)
        if answer is None:
            tell(lambda: self._if_wanted(request, lambda: asker.found_nothing(request)))
            return
        tell(lambda: self._if_wanted(request, lambda: asker.found(request, *answer)))
        if self._waiting is None:
            found = answer[1]
            judged = self._searcher.judge(found, request.primary, request.candidate, request.query_set)
            tell(lambda: self._if_wanted(request, lambda: asker.found_judgements(found, judged)))

    def _first(self, request: PairSearch) -> tuple[int, Comparison] | None:
        """The first acceptable answer, with the number of its query."""
        for number, query in enumerate(request.queries):
            if number and self._waiting is not None:
                return None
            found = self._searcher.compare(query, request.primary, request.candidate, request.k)
            if not request.seek or disagree(found):
                return number, found
        return None


def disagree(comparison: Comparison) -> bool:
    """Whether the two lists differ at all."""
    return any(move.label != "=" for move in (*comparison.primary_moves, *comparison.candidate_moves))
