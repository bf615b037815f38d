"""The answers of one judging session: loaded pairs, given answers, and those not stored yet.

An answer counts at once. When one cannot be stored, it and all later ones are undone: their pairs return to the
front of the queue, in order.
"""

from __future__ import annotations

import itertools
import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET
from revector.core.evaluation.judging.grading import Graded
from revector.core.evaluation.judging.queue import Count, ItemKind, JudgingItem

_PACES = 20
"""How many answers the pace is computed from; as a median, so that breaks do not count."""


@dataclass(eq=False)
class JudgingStep:
    """One answer; `grade` is None for a skip. `stored` is set once it is stored."""

    item: JudgingItem
    grade: int | None
    stored: Graded | None = field(default=None)


@dataclass(frozen=True)
class Write:
    """Something to store: an answer, or its undoing."""

    step: JudgingStep
    undo: bool


class Answers:
    """`pending` is stored from the left; after each write, `stored` or `revert` is called for the first."""

    def __init__(self) -> None:
        self.items: deque[JudgingItem] = deque()
        self.pending: deque[Write] = deque()
        self._history: list[JudgingStep] = []
        self._counts: dict[tuple[ItemKind, str], list[int]] = {}
        self._times: deque[float] = deque(maxlen=_PACES + 1)

    # -- the session --------------------------------------------------------------------------------------

    @property
    def item(self) -> JudgingItem | None:
        """The current pair."""
        return self.items[0] if self.items else None

    @property
    def seen(self) -> frozenset[tuple[str, str]]:
        """The pairs that are loaded, answered or skipped, and must not be read again."""
        return frozenset(item.pair for item in (*self.items, *(step.item for step in self._history)))

    def clear(self, *, forget: bool) -> None:
        """Drop the loaded pairs; with `forget`, also the undo history."""
        self.items.clear()
        self._counts = {}
        if forget:
            self._history.clear()

    def answer(self, grade: int | None, at: float) -> None:
        """Answer or skip the current pair; `at` is in seconds of any clock."""
        step = JudgingStep(self.items.popleft(), grade)
        self._history.append(step)
        self._count(step, 1)
        self.pending.append(Write(step, undo=False))
        if grade is not None:
            self._times.append(at)

    def undo(self) -> JudgingStep | None:
        """Undo the last answer; None when there is none."""
        if not self._history:
            return None
        step = self._history.pop()
        self.items.appendleft(step.item)
        self._count(step, -1)
        self.pending.append(Write(step, undo=True))
        return step

    def stored(self) -> None:
        """The first pending write is stored."""
        self.pending.popleft()

    def revert(self, *, for_good: bool) -> None:
        """The first pending write failed. `for_good`: a failed undo must not be retried."""
        first = self.pending[0]
        while self.pending:
            write = self.pending.pop()
            if write.undo:
                self.items.popleft()
                self._history.append(write.step)
                self._count(write.step, 1)
            else:
                self._history.remove(write.step)
                self.items.appendleft(write.step.item)
                self._count(write.step, -1)
        if first.undo and for_good:
            self._history.remove(first.step)

    # -- figures ------------------------------------------------------------------------------------------

    def counted(self, counts: Iterable[Count]) -> None:
        """Use these counts as the current ones."""
        self._counts = {(one.kind, one.segment): [one.done, one.remaining] for one in counts}

    def _count(self, step: JudgingStep, by: int) -> None:
        counts = self._counts.get((step.item.kind, step.item.segment))
        if step.grade is not None and counts is not None:
            counts[0] += by
            counts[1] -= by

    @property
    def left(self) -> dict[tuple[ItemKind, str], int]:
        """Open pairs by kind and segment."""
        return {key: remaining for key, (_, remaining) in self._counts.items()}

    def by_kind(self, kind: ItemKind | None, segment: str) -> dict[ItemKind, tuple[int, int]]:
        """(done, remaining) of each kind in a segment; of one kind only when it is given."""
        found: dict[ItemKind, tuple[int, int]] = {}
        for (of_kind, of_segment), (done, remaining) in self._counts.items():
            if kind in (None, of_kind) and segment in (WHOLE_SET, of_segment):
                before = found.get(of_kind, (0, 0))
                found[of_kind] = (before[0] + done, before[1] + remaining)
        return found

    @property
    def pace(self) -> float | None:
        """Seconds for a grade; None before there are some."""
        if len(self._times) < 4:
            return None
        return max(0.05, statistics.median(after - before for before, after in itertools.pairwise(self._times)))
