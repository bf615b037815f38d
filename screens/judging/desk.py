"""The judging screen's access to the database, off the screen's thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import psycopg

from revector.core.database import Connection, Progress
from revector.core.errors import UnreachableError
from revector.core.evaluation.judged_sets.agreement import Agreement, agreement
from revector.core.evaluation.judged_sets.judgements import Judge, judges
from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET, QuerySet, get_query_set, query_sets
from revector.core.evaluation.judging import queue
from revector.core.evaluation.judging.grading import grade, undo
from revector.core.registry import Version
from revector.core.sessions import keep_settings
from revector.screens.connections import KeptConnection
from revector.screens.judging.answers import JudgingStep
from revector.screens.services import Services

_ITEMS = 50
_MOST_PEOPLE = 5


@dataclass(frozen=True)
class JudgingChoice:
    """What to judge, and as whom. Empty names mean the set that changed last, and the database role."""

    query_set: str = ""
    kind: queue.ItemKind | None = None
    segment: str = WHOLE_SET
    name: str = ""


@dataclass(frozen=True)
class Opened:
    """A set, all sets, the person, and the pooled runs; None when they must be made."""

    query_set: QuerySet | None
    names: tuple[str, ...]
    judge: Judge | None
    pair: queue.RunPair | None


@dataclass(frozen=True)
class JudgingBatch:
    """The next items, this person's progress (None if not requested), and the agreement with others."""

    items: tuple[queue.JudgingItem, ...]
    counts: tuple[queue.Count, ...] | None
    agreements: tuple[Agreement, ...]


class JudgingDesk(KeptConnection):
    """Reads and writes for one person and one pair of versions."""

    def __init__(self, services: Services, primary: Version, candidate: Version) -> None:
        super().__init__(services.connections)
        self._services = services
        self._versions = primary, candidate
        self._closed = False

    def open(self, choice: JudgingChoice) -> Opened:
        """Find the set and its runs, and who the person is. Raises UsageError for a name that is a model's."""
        with self._services.connections.writing() as connection:
            sets = query_sets(connection)
            if not sets:
                return Opened(None, (), None, None)
            newest = max(sets, key=lambda found: found.updated_at)
            query_set = get_query_set(connection, choice.query_set or newest.name)
            judge = queue.person(connection, choice.name)
            pair = queue.stored_pair(connection, query_set, *self._versions)
        return Opened(query_set, tuple(found.name for found in sets), judge, pair)

    def search(self, opened: Opened, on_progress: Progress) -> Opened:
        """Make the runs of both versions. Raises what `make_run` does."""
        if opened.query_set is None:
            return opened
        from revector.core.evaluation.runs.make_run import make_run

        first, second = (
            make_run(self._services.database, opened.query_set, version, on_progress=on_progress)
            for version in self._versions
        )
        return replace(opened, pair=(first, second))

    def read(
        self, opened: Opened, choice: JudgingChoice, without: frozenset[tuple[str, str]], *, count: bool
    ) -> JudgingBatch:
        """The next items except those in `without`, and the figures.

        Counting reads every query (some seconds for 10,000), finding the next items only some.
        """
        if opened.query_set is None or opened.judge is None or opened.pair is None:
            return JudgingBatch((), (), ())
        common = opened.query_set, opened.judge, opened.pair
        with self._services.connections.reading() as connection:
            items = queue.queue(
                connection,
                *common,
                kinds=(choice.kind,) if choice.kind else queue.KINDS,
                segment=choice.segment,
                limit=_ITEMS,
                without=without,
            )
            counts = queue.progress(connection, *common) if count else None
            agreements = _agreements(connection, opened.query_set, opened.judge)
        return JudgingBatch(tuple(items), counts, agreements)

    def write(self, opened: Opened, step: JudgingStep) -> None:
        """Store an answer (a skip is not stored). Raises what `grade` does, and UnreachableError."""
        if opened.query_set is not None and opened.judge is not None and step.grade is not None:
            with self._writing() as connection:
                step.stored = grade(connection, opened.query_set, opened.judge, step.item, step.grade)

    def take_back(self, opened: Opened, step: JudgingStep) -> None:
        """Restore what was there before the answer. Raises what `undo` does, and UnreachableError."""
        if opened.query_set is not None and opened.judge is not None and step.stored is not None:
            with self._writing() as connection:
                undo(connection, opened.judge, step.stored, opened.query_set)
            step.stored = None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A connection that stays open between answers: opening one takes longer than a grade."""
        with self._lock:
            try:
                connection = self._connected()
                with self._services.connections.readable_errors():
                    yield connection
            except UnreachableError:
                self._close()
                raise
            finally:
                if self._closed:
                    self._close()

    def _connected(self) -> Connection:
        if self._connection is not None:
            try:
                self._connection.execute("SELECT 1")
            except psycopg.Error:
                self._close()  # the server was restarted since the last answer
        if self._connection is None:
            self._connection = self._open.enter_context(self._services.connections.writing())
            # A wait for a lock ends with an error, and the user can leave.
            timeout = f"{round(self._services.settings.read_timeout_s * 1000)}ms"
            keep_settings(self._connection, {"statement_timeout": timeout})
        return self._connection

    def close(self) -> None:
        """Close the connection, unless an answer is being stored, which then closes it."""
        self._closed = True
        super().close()


def _agreements(connection: Connection, query_set: QuerySet, judge: Judge) -> tuple[Agreement, ...]:
    """Agreement with every other person who judged some of the same pairs; most common pairs first."""
    summary = next(found for found in query_sets(connection) if found.name == query_set.name)
    if judge.name not in summary.judges:
        return ()
    people = [
        other.name for other in judges(connection) if other.kind == "person" and other.name in summary.judges
    ]
    found = [agreement(connection, query_set, judge.name, name) for name in people if name != judge.name]
    common = sorted((one for one in found if one.pairs), key=lambda one: (-one.pairs, one.second))
    return tuple(common[:_MOST_PEOPLE])
