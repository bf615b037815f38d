"""The control of the Compare tab: searches for the typed query, and steps through the queries of a query set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.text import Text
from textual.timer import Timer

from revector.core.errors import RevectorError
from revector.core.evaluation.judged_sets.judged_hits import JudgedHits
from revector.core.evaluation.judged_sets.query_sets import get_query_set
from revector.core.retrieval import Comparison
from revector.screens.compare.latest_search import Latest, PairSearch
from revector.screens.compare.pair import VersionPair
from revector.screens.compare.query_picker import QueryPicker
from revector.screens.compare.query_sets import Browsing, Choices, browse, read_choices
from revector.screens.compare.searcher import Searcher
from revector.screens.pane import Pane
from revector.screens.widgets.inputs import QueryBox
from revector.screens.wording.text import printable
from revector.screens.wording.theme import BAD, FAINT

_STEP = 5
_MOST = 100
_PAUSE_S = 0.15
"""How long after the last letter the typed query is searched for."""


class CompareControl:
    """Requests searches, and keeps the latest result. The query is the text in `box`.

    `on_found` is called with whether the focus stays in the text box, `on_judged` when there are judgements on the
    hits.
    """

    def __init__(
        self,
        pane: Pane,
        pair: VersionPair,
        box: QueryBox,
        *,
        on_found: Callable[[bool], None],
        on_judged: Callable[[JudgedHits], None],
    ) -> None:
        self.k = 10
        self.comparison: Comparison | None = None
        self.judged: JudgedHits | None = None
        self.message = Text("")
        self.searcher = Searcher(pane.services.connections)
        self._pane, self._pair, self._box = pane, pair, box
        self._on_found, self._on_judged = on_found, on_judged
        self._latest = Latest(pane, self.searcher, self)
        self._pause: Timer | None = None

    def say(self, message: Text) -> None:
        """Show a sentence, or the measures."""
        self.message = message
        self._pane.draw()

    def fail(self, error: RevectorError) -> None:
        """Show an error in the same place; keeps earlier results."""
        self.say(Text(f"✗ {printable(error.problem)} {printable(error.remedy)}".strip(), BAD))

    # -- what is shown ------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Drop results of another pair."""
        found, keys = self.comparison, self._pair.keys
        if found is not None and (found.primary.version_key, found.candidate.version_key) != keys:
            self.comparison = self.judged = None
            self._end_pause()
            self.message = Text("The pair has changed. Press / and Enter to search again.", FAINT)
            self._pane.post_message(Pane.Changed())
        if self.comparison is None and keys[1] is None:
            self.message = Text("This needs two versions with vectors. Backfill another one (2).")

    def show(self, comparison: Comparison, *, stay: bool = False) -> None:
        """Show the results, and focus them unless the user types the next query."""
        self.comparison, self.judged = comparison, None
        self._on_found(stay)

    def show_judgements(self, judged: JudgedHits | None) -> None:
        self.judged = judged
        if self.comparison is not None and judged is not None:
            self._on_judged(judged)

    @property
    def browsed(self) -> Browsing | None:
        """The query set, if its current query is the one shown."""
        browsing = self._pair.browsing
        query = browsing.query if browsing else None
        return browsing if query and self.comparison and query.text == self.comparison.query else None

    # -- searching ----------------------------------------------------------------------------------------

    def step_k(self, step: int) -> None:
        self.k = min(_MOST, max(_STEP, self.k + step * _STEP))
        self._pane.draw()
        if self.comparison is not None:
            self.search()

    def typed(self, text: str) -> None:
        """The text changed: search when it stays unchanged for a moment."""
        self._end_pause()
        if text.strip():
            self._pause = self._pane.set_timer(_PAUSE_S, self._search_typed)

    def _end_pause(self) -> None:
        """Stop the timer: the query is being searched for, or has changed again."""
        if self._pause is not None:
            self._pause.stop()
            self._pause = None

    @property
    def _query(self) -> str:
        """The query: the box's text, or the exact text of the query set's query, which the box may not show in
        full."""
        box, browsing = self._box, self._pair.browsing
        query = browsing.query if browsing else None
        return query.text if query is not None and box.validate_value(query.text) == box.value else box.value

    def _search_typed(self) -> None:
        query, facts = self._query, self._pair.facts
        shown = self.comparison.query if self.comparison else None
        if not query.strip() or query in (shown, self._latest.asked):
            return
        if self._pair.live:
            self._ask((query,), typed=True)
        elif facts is not None and facts.remote is not None:
            self.say(Text(f"Enter searches: {printable(facts.remote)} is remote or costs money.", FAINT))

    def search(self) -> None:
        self._end_pause()
        query = self._query
        if query.strip() and self._ask((query,)):
            self._box.remember(self._box.value)
            self.say(Text("Searching …", FAINT))

    def _ask(self, queries: Sequence[str], *, typed: bool = False, seek: bool = False) -> bool:
        primary, candidate = self._pair.versions
        if primary is None or candidate is None or not queries:
            return False
        name = self._pair.browsing.query_set if self._pair.browsing else None
        self._latest.ask(PairSearch(tuple(queries), primary.version, candidate.version, self.k, name, typed, seek))
        return True

    # Callbacks of the latest search, on the screen's own thread.

    def wants(self, request: PairSearch) -> bool:
        """Whether the answer still belongs to the pair, to k, and to the text in the box."""
        pair = (request.primary.version_key, request.candidate.version_key)
        same = pair == self._pair.keys and request.k == self.k
        return same and (not request.typed or self._query == request.queries[0])

    def found(self, request: PairSearch, number: int, comparison: Comparison) -> None:
        """The hits for the query of that number."""
        if request.seek and self._pair.browsing is not None:
            self._put_in_front(self._pair.browsing.at_text(request.queries[number]))
        self.show(comparison, stay=request.typed or self._query != request.queries[number])

    def found_nothing(self, request: PairSearch) -> None:
        """The versions agree on all queries."""
        self.say(Text(f"On all {len(request.queries):,} queries both versions give the same first {request.k}."))

    def found_judgements(self, comparison: Comparison, judged: JudgedHits | None) -> None:
        """The judgements on those hits, a moment later."""
        if comparison is self.comparison:
            self.show_judgements(judged)

    # -- query sets ---------------------------------------------------------------------------------------

    def choose_query(self) -> None:
        primary, candidate = self._pair.versions
        if primary is None or candidate is None:
            return
        versions, known, before = (primary.version, candidate.version), self._pair.facts, self._pair.browsing

        def read(name: str | None) -> Choices:
            with self._pane.services.connections.reading() as connection:
                return read_choices(connection, *versions, name, known, before)

        name = before.query_set if before else known.evaluation.query_set if known and known.evaluation else None
        self._pane.ask(QueryPicker(read, name), self._chosen)

    def _chosen(self, browsing: Browsing) -> None:
        self._search_for(browsing)
        self._pair.go_through(browsing)

    def open_query(self, query_set: str, query_id: str, *, primary: str | None = None) -> None:
        """Search for a query of a set and continue from there; called from an evaluation.

        `primary` is the version that the candidate is compared with (default: the active one).
        """
        self._pair.choose(primary)
        self._pane.draw()
        self._pane.read(
            "open-query",
            lambda connection: get_query_set(connection, query_set),
            lambda found: self._chosen(
                browse(found, self._pair.facts.evaluation if self._pair.facts else None).at(query_id)
            ),
            self.fail,
        )

    def open_text(self, text: str, *, primary: str | None = None) -> None:
        """Search for a text outside of query sets; called from shadow traffic. Line ends become blanks."""
        self._pair.choose(primary)
        self._pair.browsing = None
        self._pane.draw()
        self._put(" ".join(text.split()))
        self.search()
        self._pane.post_message(Pane.Changed())

    def step_query(self, step: int) -> None:
        if self._pair.browsing is not None:
            self._search_for(self._pair.browsing.step(step))

    def _put(self, query: str) -> None:
        self._box.value = query
        self._box.cursor_position = 0  # show its beginning

    def _put_in_front(self, browsing: Browsing) -> None:
        self._pair.browsing = browsing
        if browsing.query is not None:
            self._put(browsing.query.text)

    def _search_for(self, browsing: Browsing) -> None:
        self._put_in_front(browsing)
        if browsing.query is not None:
            self.search()
            self._pane.post_message(Pane.Changed())

    def next_moved_query(self) -> None:
        """The next query of the set on which the versions disagree, by the evaluation or else by searching."""
        browsing = self._pair.browsing
        if browsing is None:
            return
        places = browsing.further()
        if browsing.results:
            place = next((place for place in places if browsing.moved(place)), None)
            if place is None:
                self.say(Text(f"Both versions rank the same for every query of {browsing.query_set}."))
                return
            self._search_for(replace(browsing, place=place))
        elif self._pair.live:
            self.say(Text("Looking for the next query on which the versions disagree …", FAINT))
            self._ask([browsing.queries[place].text for place in places], seek=True)
        else:
            self.say(
                Text(
                    "This needs an evaluation of the pair: queries are not sent to a remote encoder to look for one."
                )
            )
