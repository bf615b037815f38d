"""Guards and findings as the command line prints them, and the option that waives a guard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from revector.console.context import aligned, fold
from revector.core.errors import UsageError
from revector.screens.wording.text import MARKS

if TYPE_CHECKING:
    from revector.core.cutover import Check

Waive = Annotated[
    list[str] | None,
    typer.Option(
        "--waive",
        metavar="GUARD[=REASON]",
        help="A guard to waive, and why (or --reason); may be repeated.",
    ),
]


def waivers_of(given: Sequence[str] | None, reason: str = "") -> dict[str, str]:
    """The values of --waive by guard; `reason` is the command's, for those without their own."""
    return pairs([text if "=" in text or not reason else f"{text}={reason}" for text in given or []], "--waive")


def pairs(given: Sequence[str], what: str) -> dict[str, str]:
    """`["a=b"]` as `{"a": "b"}`. Raises UsageError for one without a name or given twice."""
    found: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        name = name.strip()
        if not separator or not name:
            raise UsageError(f"{text!r} cannot be read as {what}.", "Expected NAME=VALUE.")
        if name in found:
            raise UsageError(f"{name!r} is given twice.", f"{what}: once for each name.")
        found[name] = value.strip()
    return found


def check_lines(result: Check) -> Iterator[str]:
    """The guards, a line or two each, and whether the version is ready."""
    rows = []
    for one in result.guards:
        detail, remedy = (f"{one.detail}; waived: {one.waived}", "") if one.waived else (one.detail, one.remedy)
        rows.append((one.verdict, one.name, detail, remedy))
    yield from verdict_lines(rows)
    yield f"{result.version_key} is {'ready' if result.ready else 'not ready'}."


def exit_unless_ready(result: Check) -> None:
    """Exit with 1 when a guard fails that is not waived, with 3 when none fails and one is inconclusive."""
    if not result.ready:
        raise typer.Exit(1 if any(one.verdict == "fail" and not one.waived for one in result.guards) else 3)


def verdict_lines(found: Iterable[tuple[str, str, str, str]]) -> Iterator[str]:
    """Verdict, name, detail and remedy: each with its mark, the remedy on a line of its own."""
    rows = []
    for verdict, name, detail, remedy in found:
        rows.append((MARKS[verdict], name, detail))
        if remedy:
            rows.append(("", "", remedy))
    yield from aligned(rows, "", "", fold(), header=False)
