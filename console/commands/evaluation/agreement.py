"""`revector queries agreement`, and printing an agreement of judges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from revector.console.commands.options import Json, QuerySetName
from revector.console.context import aligned, answer, context_of, counted, plain, right

if TYPE_CHECKING:
    from revector.core.evaluation.judged_sets.agreement import Agreement


@dataclass(frozen=True)
class AgreementList:
    """The agreement of the judges of a set."""

    name: Annotated[str, "the query set"]
    agreements: Annotated[list[Agreement], "every pair of judges"]


def agreement(
    context: typer.Context,
    name: QuerySetName,
    judge: Annotated[
        list[str] | None,
        typer.Option("--judge", metavar="NAME", help="One of two to compare. Default: every pair."),
    ] = None,
    as_json: Json = False,
) -> None:
    """How far judges agree: quadratic weighted kappa on what both judged, and the segment that disagrees most."""
    from itertools import combinations

    from revector.core.errors import UsageError
    from revector.core.evaluation.judged_sets.agreement import agreement as agreement_of
    from revector.core.evaluation.judged_sets.judgements import get_judge, given_judgements
    from revector.core.evaluation.judged_sets.query_sets import get_query_set

    with context_of(context).session() as connection:
        query_set = get_query_set(connection, name)
        if judge:
            if len(set(judge)) != 2:
                raise UsageError("Agreement needs two judges.", "Use --judge twice, or leave it out.")
            for one in judge:
                get_judge(connection, one)
        else:
            judge = sorted({row.judge for row in given_judgements(connection, query_set)})
        found = [agreement_of(connection, query_set, *pair) for pair in combinations(judge, 2)]

    def show() -> Iterator[str]:
        if not found:
            yield f"{name} has fewer than two judges."
        for one in found:
            yield from agreement_lines(one)

    answer(AgreementList(name, found), as_json, show())


def agreement_lines(found: Agreement) -> Iterator[str]:
    """Print an agreement: the figures, the confusion matrix, the segments, and the one that disagrees most."""
    from rich.table import Column

    if not found.pairs:
        yield f"{found.first} and {found.second} have no judgements in common."
        return
    yield (
        f"{found.first} and {found.second}: weighted kappa {_kappa(found.kappa)}, "
        f"{found.exact:.0%} of {found.pairs:,} {found.level} pairs with the same grade."
    )
    if found.binarised:
        first, second = found.scales
        yield (
            f"Their scales differ ({found.first} 0 to {first}, {found.second} 0 to {second}): "
            "compared as relevant (1 and above) or not."
        )
    for name in found.of_one_grade:
        yield f"{name} gave all of these pairs the same grade, so kappa is undefined."
    if found.unplaced:
        yield f"{counted(found.unplaced, 'judged chunk')} no longer in the collection skipped."
    rows = [(grade, *counts) for grade, counts in zip(found.grades, found.confusion, strict=True)]
    corner = Column(f"{plain(found.first)} ↓ {plain(found.second)} →", justify="right")
    yield from aligned(rows, corner, *right(*map(str, found.grades)))
    yield from aligned(
        [(s.segment, f"{s.pairs:,}", _kappa(s.kappa), f"{s.exact:.0%}") for s in found.segments],
        Column("segment", overflow="fold"),
        *right("pairs", "kappa", "same grade"),
    )
    if worst := found.worst_segment:
        yield f"They disagree most in segment {worst.segment} (kappa {_kappa(worst.kappa)})."


def _kappa(kappa: float | None) -> str:
    return "undefined" if kappa is None else f"{kappa:.2f}"
