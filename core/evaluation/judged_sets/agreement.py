"""How much two judges agree: quadratic weighted kappa, on the whole set and by segment.

A cross-encoder is trusted as far as it agrees with people, and people as far as they agree with each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from revector.core.evaluation.judged_sets import judgements
from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from revector.core.database import Connection
    from revector.core.evaluation.judged_sets.query_sets import QuerySet

PEOPLE = "people"
"""What a model is compared with by default: the lower median of all people who judged a pair."""

RELEVANT = 1
"""The lowest relevant grade, used to make grades of different scales binary."""

_FEW = 10
"""A segment with fewer pairs is named as the one that disagrees only when no segment has more."""


@dataclass(frozen=True)
class SegmentAgreement:
    """Two judges on the pairs of one segment."""

    segment: Annotated[str, "its name"]
    pairs: Annotated[int, "that both judged"]
    exact: Annotated[float, "the share of equal grades"]
    kappa: Annotated[float | None, "weighted kappa; null where it is undefined"]


@dataclass(frozen=True)
class Agreement:
    """Two judges on the (query, target) pairs that both judged."""

    first: Annotated[str, "one judge"]
    second: Annotated[str, "the other"]
    level: Annotated[judgements.TargetKind, "document or chunk"]
    pairs: Annotated[int, "that both judged"]
    exact: Annotated[float | None, "the share of equal grades; null without a pair"]
    kappa: Annotated[float | None, "weighted kappa; null where it is undefined"]
    grades: Annotated[tuple[int, ...], "the rows and columns of `confusion`"]
    confusion: Annotated[tuple[tuple[int, ...], ...], "pairs by the grade of the first, then of the second"]
    binarised: Annotated[bool, "whether grades became relevant or not, since the scales differ"]
    scales: Annotated[tuple[int, int], "the highest grade of each"]
    unplaced: Annotated[int, "judged chunks no longer in the collection"]
    segments: Annotated[tuple[SegmentAgreement, ...], "by name"]

    @property
    def of_one_grade(self) -> tuple[str, ...]:
        """The judges who gave all common pairs the same grade, as happens when only relevant documents are judged.

        Kappa is then 0 or undefined, whatever the other judge says.
        """
        rows = sum(any(row) for row in self.confusion)
        columns = sum(any(column) for column in zip(*self.confusion, strict=True))
        return tuple(name for name, used in ((self.first, rows), (self.second, columns)) if used == 1)

    @property
    def most_disagreeing(self) -> Annotated[str | None, "the segment with the lowest kappa, if one stands out"]:
        """The name of `worst_segment`."""
        return self.worst_segment.segment if self.worst_segment else None

    @property
    def worst_segment(self) -> SegmentAgreement | None:
        """The segment with the lowest kappa; None when there are fewer than two, or none stands out."""
        comparable = [segment for segment in self.segments if segment.kappa is not None]
        if len({(segment.kappa, segment.exact) for segment in comparable}) < 2:
            return None
        large = [segment for segment in comparable if segment.pairs >= _FEW]
        return min(large or comparable, key=lambda segment: (segment.kappa or 0.0, segment.exact, segment.segment))


def weighted_kappa(first: ArrayLike, second: ArrayLike) -> float | None:
    """Cohen's kappa with quadratic weights, of two judges' grades (n,) for the same n targets.

    1 is agreement, 0 is what chance would give with both judges' frequencies, below 0 is less than chance.
    Weighted kappa is 1 − Σ w·observed / Σ w·expected over the cells of the confusion matrix (Cohen 1968,
    Psychological Bulletin 70). With w = (i − j)², the sums are means of squares: observed is E(a − b)², and
    expected, where a and b are independent, is Var a + Var b + (E a − E b)².

    None without pairs, and when both judges gave the same single grade to all: chance then agrees fully too.
    """
    import numpy as np

    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"expected two rows of grades of one length, not {a.shape} and {b.shape}")
    if a.size == 0:
        return None
    expected = float(np.var(a) + np.var(b) + (np.mean(a) - np.mean(b)) ** 2)
    if expected == 0:
        return None
    return 1 - float(np.mean((a - b) ** 2)) / expected


def agreement(connection: Connection, query_set: QuerySet, first: str, second: str) -> Agreement:
    """Two judges by name, on what both judged of this set.

    Chunks are compared with chunks; if one of the two judged documents, a document has the best grade of its
    chunks. Raises UsageError for an unknown judge.
    """
    rows = []
    for name in (first, second):
        judgements.get_judge(connection, name)
        rows.append(judgements.given_judgements(connection, query_set, judge=name))
    return _agreement(connection, query_set, (first, second), rows)


def agreement_with_people(connection: Connection, query_set: QuerySet, judge: str) -> Agreement | None:
    """A judge against all other people as one (the lower median of their grades); None when there are none.

    Raises UsageError for an unknown judge.
    """
    judgements.get_judge(connection, judge)
    given = judgements.given_judgements(connection, query_set)
    people = [row for row in given if row.judge_kind == "person" and row.judge != judge]
    if not people:
        return None
    names = {row.judge for row in people}
    second = names.pop() if len(names) == 1 else PEOPLE
    return _agreement(
        connection, query_set, (judge, second), ([row for row in given if row.judge == judge], people)
    )


def _agreement(
    connection: Connection,
    query_set: QuerySet,
    names: tuple[str, str],
    rows: Sequence[Sequence[judgements.GivenJudgement]],
) -> Agreement:
    level = judgements.level_of(row for given in rows for row in given)
    (first, first_gone), (second, second_gone) = (
        judgements.merged_grades(connection, given, level) for given in rows
    )
    segments = {query.id: query.segment for query in query_set.queries}
    common = [
        (segments[query], grade, second[query][target])
        for query, by_target in first.items()
        if query in second and query in segments
        for target, grade in by_target.items()
        if target in second[query]
    ]
    scales = _top_grade(first), _top_grade(second)
    binarised = bool(common) and _differ(*scales)
    if binarised:
        common = [(segment, int(a >= RELEVANT), int(b >= RELEVANT)) for segment, a, b in common]
    grades = tuple(sorted({grade for _, *pair in common for grade in pair}))
    by_segment = [
        _of_segment(name, [row for row in common if row[0] == name]) for name in sorted({row[0] for row in common})
    ]
    whole = _of_segment(WHOLE_SET, common) if common else None
    counts = Counter((a, b) for _, a, b in common)
    return Agreement(
        *names,
        level,
        len(common),
        whole.exact if whole else None,
        whole.kappa if whole else None,
        grades,
        tuple(tuple(counts[row, column] for column in grades) for row in grades),
        binarised,
        scales,
        sum(len(them) for gone in (first_gone, second_gone) for them in gone.values()),
        tuple(by_segment),
    )


def _top_grade(found: Mapping[str, Mapping[str, int]]) -> int:
    return max((grade for by_target in found.values() for grade in by_target.values()), default=0)


def _differ(first: int, second: int) -> bool:
    """Whether two judges use different scales, by the highest grade that each ever gave in the set.

    Grades of 0 and 1 mean relevant or not, and a highest grade of more than twice the other's is another scale.
    With closer maxima, both use one scale and one judge never gave its top grade.
    """
    low, high = sorted((max(first, 1), max(second, 1)))
    return (low == 1 and high > 1) or high > 2 * low


def _of_segment(name: str, common: Sequence[tuple[str, int, int]]) -> SegmentAgreement:
    first, second = [row[1] for row in common], [row[2] for row in common]
    exact = sum(a == b for _, a, b in common) / len(common)
    return SegmentAgreement(name, len(common), exact, weighted_kappa(first, second))
