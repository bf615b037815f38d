"""Steps through a query set, with the stored evaluation of two versions that says which queries moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from revector.core.database import Connection
from revector.core.encoders import runs_here
from revector.core.errors import RevectorError
from revector.core.evaluation.document import Evaluation, QueryResult, evaluations, get_evaluation
from revector.core.evaluation.judged_sets.query_sets import (
    WHOLE_SET,
    Query,
    QuerySet,
    QuerySetSummary,
    get_query_set,
    query_sets,
)
from revector.core.registry import Version
from revector.screens.widgets.chart import Range
from revector.screens.wording.text import date_and_time

_MOST_EVALUATIONS = 1_000
_QUARTILES = (2, 4)
"""The indexes of the lower and the upper quartile among the quantiles of an OverlapResult."""
_ALIKE = 1 - 1e-9


@dataclass(frozen=True)
class PairFacts:
    """Facts about a pair of versions, by their keys.

    `remote` names an encoder that is remote or costs money: queries are then sent only on Enter. `evaluation` is
    the newest of the pair, on `query_set` if that was named.
    """

    pair: tuple[str, str]
    query_set: str | None = None
    remote: str | None = None
    evaluation: Evaluation | None = None

    @property
    def title(self) -> str:
        if self.evaluation is None:
            return "RBO by segment"
        one = self.evaluation
        return f"RBO · {one.query_set} · {date_and_time(one.created_at)}"

    @property
    def legend(self) -> str:
        return f"o mean  --- middle half  #{self.evaluation.id}" if self.evaluation else ""

    @property
    def nothing(self) -> str:
        """Why there is no evaluation, and how to make one."""
        name = self.query_set or "SET"
        of = f" on {self.query_set}" if self.query_set else ""
        return (
            f"No evaluation of {self.pair[0]} → {self.pair[1]}{of} yet: tab 4, or\n"
            f"revector evaluate {name} --candidate {self.pair[1]}"
        )

    @property
    def ranges(self) -> list[Range]:
        """RBO of the whole set, then of the segments, the least alike first."""
        if self.evaluation is None:
            return []
        rows = [row for row in self.evaluation.overlaps if row.measure == "rbo"]
        rows.sort(key=lambda row: (row.segment != WHOLE_SET, row.mean, row.segment))
        lower, upper = _QUARTILES
        return [Range(row.segment, row.quantiles[lower], row.mean, row.quantiles[upper]) for row in rows]


def read_pair(
    connection: Connection, primary: Version, candidate: Version, query_set: str | None, known: PairFacts | None
) -> PairFacts:
    """Read the facts; an evaluation already known is not read again."""
    keys = (primary.version_key, candidate.version_key)
    newest = next(
        (
            row
            for row in evaluations(connection, candidate=keys[1], limit=_MOST_EVALUATIONS)
            if row.primary == keys[0] and query_set in (None, row.query_set)
        ),
        None,
    )
    evaluation = None
    if newest is not None:
        old = known.evaluation if known else None
        evaluation = old if old is not None and old.id == newest.id else get_evaluation(connection, newest.id)
    remote = next((v.encoder_spec or v.encoder_name for v in (primary, candidate) if not _here(v)), None)
    return PairFacts(keys, query_set, remote, evaluation)


def _here(version: Version) -> bool:
    try:
        return runs_here(version.encoder_spec)
    except RevectorError:  # from a package that is not installed; the search reports it
        return False


@dataclass(frozen=True)
class Browsing:
    """A query set in stepping order, and the position in it; `results` by query id."""

    query_set: str
    queries: tuple[Query, ...]
    place: int | None = None
    results: Mapping[str, QueryResult] = field(default_factory=dict)

    @property
    def query(self) -> Query | None:
        return None if self.place is None else self.queries[self.place]

    @property
    def words(self) -> str:
        """`cran · how-to · 3 of 40`."""
        if self.query is None or self.place is None:
            return self.query_set
        segment = f" · {self.query.segment}" if self.query.segment != WHOLE_SET else ""
        return f"{self.query_set}{segment} · {self.place + 1} of {len(self.queries):,}"

    def step(self, step: int) -> Browsing:
        """Step to the next (1) or the previous (−1) query; wraps around."""
        if self.place is None:
            return replace(self, place=0 if step > 0 else len(self.queries) - 1)
        return replace(self, place=(self.place + step) % len(self.queries))

    def at(self, query_id: str) -> Browsing:
        """Go to a query; does nothing when there is none with that id."""
        found = next((place for place, query in enumerate(self.queries) if query.id == query_id), self.place)
        return replace(self, place=found)

    def at_text(self, text: str) -> Browsing:
        """Go to the next query with that text."""
        found = (place for place in self.further() if self.queries[place].text == text)
        return replace(self, place=next(found, self.place))

    def further(self) -> list[int]:
        """The positions after the current one, wrapping around, ending with the current one."""
        first = 0 if self.place is None else self.place + 1
        return [*range(first, len(self.queries)), *range(min(first, len(self.queries)))]

    def moved(self, place: int) -> bool | None:
        """Whether the evaluation found the query's rankings different; None when it does not know the query."""
        result = self.results.get(self.queries[place].id)
        return None if result is None else result.rbo < _ALIKE


def browse(query_set: QuerySet, evaluation: Evaluation | None, before: Browsing | None = None) -> Browsing:
    """Order a set for stepping: the queries that moved most in its evaluation first, then the others by id.

    The current query stays current. A result for an older text of a query is ignored.
    """
    results: dict[str, QueryResult] = {}
    if evaluation is not None and evaluation.query_set == query_set.name:
        text_of = {query.id: query.text for query in query_set.queries}
        results = {row.id: row for row in evaluation.queries if text_of.get(row.id) == row.text}
    order = {query_id: place for place, query_id in enumerate(results)}
    queries = sorted(query_set.queries, key=lambda query: (order.get(query.id, len(order)), query.id))
    found = Browsing(query_set.name, tuple(queries), None, results)
    in_front = before.query if before is not None and before.query_set == query_set.name else None
    return found.at(in_front.id) if in_front else found


@dataclass(frozen=True)
class Choices:
    """The query sets, and one of them to choose a query from; None when there are no sets."""

    sets: tuple[QuerySetSummary, ...]
    browsing: Browsing | None


def read_choices(
    connection: Connection,
    primary: Version,
    candidate: Version,
    name: str | None,
    known: PairFacts | None,
    before: Browsing | None,
) -> Choices:
    """Read the sets, and the queries of the named one, or of the first one if it does not exist."""
    sets = tuple(query_sets(connection))
    if not sets:
        return Choices((), None)
    chosen = next((one.name for one in sets if one.name == name), sets[0].name)
    facts = read_pair(connection, primary, candidate, chosen, known)
    return Choices(sets, browse(get_query_set(connection, chosen), facts.evaluation, before))
