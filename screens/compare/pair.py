"""The two compared versions, their newest evaluation, and a query set."""

from __future__ import annotations

from collections.abc import Callable

from revector.core.database import Connection
from revector.core.errors import RevectorError, UnreachableError
from revector.core.evaluation.judged_sets.query_sets import QuerySet, get_query_set
from revector.core.registry import VersionStatus
from revector.screens.compare.query_sets import Browsing, PairFacts, browse, read_pair
from revector.screens.pane import Failed, Pane, step_through
from revector.screens.situation import key_of


class VersionPair:
    """Reads the facts of the pair, off the screen's thread. `on_facts` is called when they have changed."""

    def __init__(self, pane: Pane, on_facts: Callable[[], None], failed: Failed) -> None:
        self.facts: PairFacts | None = None
        self.browsing: Browsing | None = None
        """The query set that the user steps through."""
        self._pane, self._on_facts, self._failed = pane, on_facts, failed
        self._primary: str | None = None
        self._opened: str | None = None
        """The candidate of an opened query: it applies while it is selected, even if it is active."""
        self._facts_of: tuple[str | None, str | None] | None = None

    # -- which versions -----------------------------------------------------------------------------------

    @property
    def versions(self) -> tuple[VersionStatus | None, VersionStatus | None]:
        """Primary (the active version, or the one chosen) and candidate."""
        situation = self._pane.situation
        with_vectors = [status for status in situation.versions if status.embedded]
        chosen = next((s for s in with_vectors if key_of(s) == self._primary), None)
        primary = chosen or situation.active or next(iter(with_vectors), None)
        candidate = situation.candidate
        if self._opened is not None and self._opened == situation.selection:
            candidate = situation.selected
        if candidate is None or not candidate.embedded or key_of(candidate) == key_of(primary):
            candidate = next((s for s in reversed(with_vectors) if key_of(s) != key_of(primary)), None)
        return primary, candidate

    @property
    def keys(self) -> tuple[str | None, str | None]:
        primary, candidate = self.versions
        return key_of(primary), key_of(candidate)

    def choose(self, primary: str | None) -> None:
        """Compare the selected version with this one, or with the active one."""
        self._primary, self._opened = primary, self._pane.situation.selection

    def next_primary(self) -> None:
        """Use another version as primary; after the last one the active one follows."""
        primary, candidate = self.keys
        self._primary = step_through([key for key in self._comparable if key != candidate], primary, 1)
        self._pane.draw()

    def other_candidate(self, step: int) -> str | None:
        """The version after the candidate, or before it."""
        primary, candidate = self.keys
        taken = (primary, key_of(self._pane.situation.active))
        return step_through([key for key in self._comparable if key not in taken], candidate, step)

    @property
    def _comparable(self) -> list[str]:
        return [status.version.version_key for status in self._pane.situation.versions if status.embedded]

    # -- what is known of them ----------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether queries are searched while typed: only if both encoders are local and free."""
        facts = self.facts
        return facts is not None and facts.remote is None and self._pane.situation.state.live

    def forget(self) -> None:
        """Forget the facts: there may be a new evaluation."""
        self._facts_of = None

    def look(self) -> None:
        """Read the facts of the pair, unless they are known."""
        if self._pane.situation.state.live and self.keys != self._facts_of:
            self._facts_of = self.keys
            self._read()

    def go_through(self, browsing: Browsing) -> None:
        self.browsing = browsing
        self._read()

    def _read(self) -> None:
        primary, candidate = self.versions
        if primary is None or candidate is None:
            self._set_facts(None)
            return
        known, name = self.facts, self.browsing.query_set if self.browsing else None
        versions = (primary.version, candidate.version)
        if known is not None and known.pair != self.keys:
            self._set_facts(None)

        def read(connection: Connection) -> tuple[PairFacts, QuerySet | None]:
            facts = read_pair(connection, *versions, name, known)
            return facts, get_query_set(connection, name) if name else None

        def done(found: tuple[PairFacts, QuerySet | None]) -> None:
            facts, query_set = found
            if query_set is not None and self.browsing is not None and self.browsing.query_set == query_set.name:
                self.browsing = browse(query_set, facts.evaluation, self.browsing)
            self._set_facts(facts)

        self._pane.read("facts", read, done, self._no_facts)

    def _no_facts(self, error: RevectorError) -> None:
        self._set_facts(None)
        if isinstance(error, UnreachableError):
            self._facts_of = None  # the next snapshot tries again
        else:
            self._failed(error)

    def _set_facts(self, facts: PairFacts | None) -> None:
        self.facts = facts
        self._on_facts()
