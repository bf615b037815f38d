"""What the Compare screen is about: two versions, a query that may be one of a query set, and the latest search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.text import Text
from textual.timer import Timer
from textual.widgets import Input

from revector.core.errors import RevectorError, UnreachableError
from revector.core.evaluation.judged_sets.judged_hits import JudgedHits
from revector.core.evaluation.judged_sets.query_sets import QuerySet, get_query_set
from revector.core.registry import VersionStatus
from revector.core.retrieval import Comparison
from revector.screens.compare.latest_search import Latest, PairSearch
from revector.screens.compare.query_sets import Browsing, Choices, PairFacts, browse, read_choices, read_pair
from revector.screens.compare.searcher import Searcher
from revector.screens.pane import Pane, step_through
from revector.screens.services import Services
from revector.screens.situation import key_of
from revector.screens.widgets.background import in_background
from revector.screens.widgets.inputs import QueryBox
from revector.screens.wording.text import printable
from revector.screens.wording.theme import FAINT

_STEP = 5
_MOST = 100
_PAUSE_S = 0.15
"""After the last letter, before what was typed is searched for."""


class PairPane(Pane):
    """Asks for searches, and is told what they find. Whoever derives from it has a QueryBox and draws.

    Where encoders are here and cost nothing it searches while somebody types, else on Enter.
    """

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.k = 10
        self.comparison: Comparison | None = None
        self.browsing: Browsing | None = None
        self.facts: PairFacts | None = None
        self._primary: str | None = None
        self._opened: str | None = None
        """The candidate that came with an opened query: it counts while it is selected, even if it is active now."""
        self._facts_of: tuple[str | None, str | None] | None = None
        self._searcher = Searcher(services.connections)
        self._latest = Latest(self, self._searcher, self)
        self._pause: Timer | None = None

    # -- to be drawn --------------------------------------------------------------------------------------

    def show_comparison(self, comparison: Comparison, *, stay: bool = False) -> None:
        """Draw what was found, and put the cursor into the results, unless it is to stay where somebody types."""
        raise NotImplementedError

    def show_judgements(self, judged: JudgedHits | None) -> None:
        """Draw what judges said of the hits that are shown."""
        raise NotImplementedError

    def show_facts(self) -> None:
        """Draw what is known of the pair."""
        raise NotImplementedError

    def say(self, message: Text) -> None:
        """Show a sentence."""
        raise NotImplementedError

    def fail(self, error: RevectorError) -> None:
        """Show an error."""
        raise NotImplementedError

    # -- the pair -----------------------------------------------------------------------------------------

    @property
    def pair(self) -> tuple[VersionStatus | None, VersionStatus | None]:
        """Primary (the active version, or the one chosen) and candidate."""
        with_vectors = [status for status in self.situation.versions if status.embedded]
        chosen = next((s for s in with_vectors if key_of(s) == self._primary), None)
        primary = chosen or self.situation.active or next(iter(with_vectors), None)
        candidate = self.situation.candidate
        if self._opened is not None and self._opened == self.situation.selection:
            candidate = self.situation.selected
        if candidate is None or not candidate.embedded or key_of(candidate) == key_of(primary):
            candidate = next((s for s in reversed(with_vectors) if key_of(s) != key_of(primary)), None)
        return primary, candidate

    def entered(self) -> None:
        """There may be a new evaluation."""
        self._facts_of = None

    def step_k(self, step: int) -> None:
        """Five more results, or five fewer."""
        self.k = min(_MOST, max(_STEP, self.k + step * _STEP))
        self.draw()
        if self.comparison is not None:
            self.search()

    def step_candidate(self, step: int) -> None:
        """Another version as candidate: the next one, or the one before."""
        primary, candidate = map(key_of, self.pair)
        active = key_of(self.situation.active)
        key = step_through([key for key in self._comparable() if key not in (primary, active)], candidate, step)
        if key is not None:
            self.post_message(self.Select(key))

    def next_primary(self) -> None:
        """Another version in the place of the active one; the active one comes again after the last."""
        primary, candidate = map(key_of, self.pair)
        self._primary = step_through([key for key in self._comparable() if key != candidate], primary, 1)
        self.draw()

    def _comparable(self) -> list[str]:
        return [status.version.version_key for status in self.situation.versions if status.embedded]

    # -- what is known of the pair ------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether it searches while somebody types."""
        facts = self.facts
        return facts is not None and facts.remote is None and self.situation.state.live

    def look_at_pair(self) -> None:
        """Read what is known of the pair, unless that was done."""
        primary, candidate = map(key_of, self.pair)
        if self.situation.state.live and (primary, candidate) != self._facts_of:
            self._facts_of = (primary, candidate)
            self._read_facts()

    def _read_facts(self) -> None:
        primary, candidate = self.pair
        if primary is None or candidate is None:
            self._set_facts(None)
            return
        known, name = self.facts, self.browsing.query_set if self.browsing else None
        versions = (primary.version, candidate.version)
        if known is not None and known.pair != (versions[0].version_key, versions[1].version_key):
            self._set_facts(None)

        def read(_tell: object) -> tuple[PairFacts, QuerySet | None]:
            with self.services.connections.reading() as connection:
                facts = read_pair(connection, *versions, name, known)
                return facts, get_query_set(connection, name) if name else None

        def done(found: tuple[PairFacts, QuerySet | None]) -> None:
            facts, query_set = found
            if query_set is not None and self.browsing is not None and self.browsing.query_set == query_set.name:
                self.browsing = browse(query_set, facts.evaluation, self.browsing)
            self._set_facts(facts)

        in_background(self, "facts", read, done, self._no_facts)

    def _no_facts(self, error: RevectorError) -> None:
        self._set_facts(None)
        if isinstance(error, UnreachableError):
            self._facts_of = None  # the next snapshot asks again
        else:
            self.fail(error)

    def _set_facts(self, facts: PairFacts | None) -> None:
        self.facts = facts
        self.show_facts()

    def step_typed(self, step: int) -> None:
        """Another of the queries that were typed: the one after, or the one before."""
        self.query_one(QueryBox).step(step)

    def on_unmount(self) -> None:
        """The connection of the searches is not needed any more."""
        self._searcher.close()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in the query box."""
        event.stop()
        self.post_message(self.Act("search"))

    def on_input_changed(self, event: Input.Changed) -> None:
        """A letter more or less: search when no other one follows at once."""
        event.stop()
        self._end_pause()
        if event.value.strip():
            self._pause = self.set_timer(_PAUSE_S, self._search_typed)

    def _end_pause(self) -> None:
        """What was typed is searched for by now, or was changed again."""
        if self._pause is not None:
            self._pause.stop()
            self._pause = None

    @property
    def _query(self) -> str:
        """What stands in the box: of the query set's query its exact text, of which the box may not show all."""
        box = self.query_one(QueryBox)
        query = self.browsing.query if self.browsing else None
        return query.text if query is not None and box.validate_value(query.text) == box.value else box.value

    def _search_typed(self) -> None:
        query = self._query
        shown = self.comparison.query if self.comparison else None
        if not query.strip() or query in (shown, self._latest.asked):
            return
        if self.live:
            self._ask((query,), typed=True)
        elif self.facts is not None and self.facts.remote is not None:
            self.say(Text(f"Enter searches: {printable(self.facts.remote)} is remote or costs money.", FAINT))

    def search(self) -> None:
        """Search both versions for the query in the box."""
        self._end_pause()
        query = self._query
        if query.strip() and self._ask((query,)):
            box = self.query_one(QueryBox)
            box.remember(box.value)
            self.say(Text("Searching …", FAINT))

    def _ask(self, queries: Sequence[str], *, typed: bool = False, seek: bool = False) -> bool:
        primary, candidate = self.pair
        if primary is None or candidate is None or not queries:
            return False
        name = self.browsing.query_set if self.browsing else None
        self._latest.ask(PairSearch(tuple(queries), primary.version, candidate.version, self.k, name, typed, seek))
        return True

    # What the latest search is answered with.

    def wants(self, request: PairSearch) -> bool:
        """Whether the answer still belongs to the pair, to k, and to what stands in the box."""
        pair = (request.primary.version_key, request.candidate.version_key)
        same = pair == tuple(map(key_of, self.pair)) and request.k == self.k
        return same and (not request.typed or self._query == request.queries[0])

    def found(self, request: PairSearch, number: int, comparison: Comparison) -> None:
        """The hits."""
        if request.seek and self.browsing is not None:
            self._put_in_front(self.browsing.at_text(request.queries[number]))
        self.show_comparison(comparison, stay=request.typed)

    def found_nothing(self, request: PairSearch) -> None:
        """No query on which the versions disagree."""
        self.say(Text(f"On all {len(request.queries):,} queries both versions give the same first {request.k}."))

    def found_judgements(self, comparison: Comparison, judged: JudgedHits | None) -> None:
        """The stars."""
        if comparison is self.comparison:
            self.show_judgements(judged)

    def failed(self, request: PairSearch, error: RevectorError) -> None:
        """Said where the measures stand; what was found before stays."""
        self.fail(error)

    # -- query sets ---------------------------------------------------------------------------------------

    @property
    def is_browsed(self) -> bool:
        """Whether the query in front of the set is the one that is shown."""
        query = self.browsing.query if self.browsing else None
        return query is not None and self.comparison is not None and query.text == self.comparison.query

    def choose_query(self) -> None:
        """Choose a query of a query set."""
        from revector.screens.compare.query_picker import QueryPicker

        primary, candidate = self.pair
        if primary is None or candidate is None:
            return
        versions, known, before = (primary.version, candidate.version), self.facts, self.browsing

        def read(name: str | None) -> Choices:
            with self.services.connections.reading() as connection:
                return read_choices(connection, *versions, name, known, before)

        name = before.query_set if before else known.evaluation.query_set if known and known.evaluation else None
        self.app.push_screen(QueryPicker(read, name), self._chosen)

    def _chosen(self, browsing: Browsing | None) -> None:
        if browsing is not None:
            self.browsing = browsing
            self._search_in_front()
            self._read_facts()

    def open_query(self, query_set: str, query_id: str, *, primary: str | None = None) -> None:
        """Search for a query of a set and go on from there: the way here from an evaluation.

        `primary` is the version that the selected candidate is held against, the active one unless it is named.
        """
        self._primary, self._opened = primary, self.situation.selection
        self.draw()

        def read(_tell: object) -> QuerySet:
            with self.services.connections.reading() as connection:
                return get_query_set(connection, query_set)

        def done(found: QuerySet) -> None:
            evaluation = self.facts.evaluation if self.facts else None
            self._chosen(browse(found, evaluation).at(query_id))

        in_background(self, "open-query", read, done, self.fail)

    def open_text(self, text: str, *, primary: str | None = None) -> None:
        """Search for a text that is of no query set: the way here from shadow traffic. Line ends become blanks."""
        self._primary, self._opened = primary, self.situation.selection
        self.browsing = None
        self.draw()
        box = self.query_one(QueryBox)
        box.value = " ".join(text.split())
        box.cursor_position = 0  # its beginning is to be seen
        self.search()
        self.post_message(self.Changed())

    def step_query(self, step: int) -> None:
        """Another query of the set: the next one, or the one before."""
        if self.browsing is not None:
            self.browsing = self.browsing.step(step)
            self._search_in_front()

    def _put_in_front(self, browsing: Browsing) -> None:
        self.browsing = browsing
        if browsing.query is not None:
            box = self.query_one(QueryBox)
            box.value = browsing.query.text
            box.cursor_position = 0  # its beginning is to be seen

    def _search_in_front(self) -> None:
        if self.browsing is not None and self.browsing.query is not None:
            self._put_in_front(self.browsing)
            self.search()
            self.post_message(self.Changed())

    def next_moved_query(self) -> None:
        """The next query of the set on which the versions disagree: as the evaluation says, or else by searching."""
        browsing = self.browsing
        if browsing is None:
            return
        places = browsing.further()
        if browsing.results:
            place = next((place for place in places if browsing.moved(place)), None)
            if place is None:
                self.say(Text(f"Both versions rank the same for every query of {browsing.query_set}."))
                return
            self.browsing = replace(browsing, place=place)
            self._search_in_front()
        elif self.live:
            self.say(Text("Looking for the next query on which the versions disagree …", FAINT))
            self._ask([browsing.queries[place].text for place in places], seek=True)
        else:
            self.say(
                Text(
                    "This needs an evaluation of the pair: queries are not sent to a remote encoder to look for one."
                )
            )
