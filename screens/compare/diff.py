"""The two lists as one column, like a diff: hits that are gone, new or moved, with both ranks."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group
from rich.text import Text

from revector.core.evaluation.judged_sets.judged_hits import JudgedHits
from revector.core.overlap import Move
from revector.core.retrieval import Comparison, Hit
from revector.screens.widgets.page import LivePage
from revector.screens.wording.grades import star
from revector.screens.wording.text import first_line, printable
from revector.screens.wording.theme import BAD, FAINT, GOOD, TITLE


@dataclass(frozen=True)
class DiffLine:
    """A hit of either list, with its ranks in both."""

    hit: Hit
    move: Move

    @property
    def sign(self) -> str:
        """`-` gone, `+` new, `~` moved, a blank where nothing changed."""
        label = self.move.label
        return {"gone": "-", "new": "+", "=": " "}.get(label, "~")


def diff_lines(comparison: Comparison) -> list[DiffLine]:
    """In the candidate's order; a hit that is gone follows the one that now has its rank."""
    lines = [
        DiffLine(hit, move)
        for hit, move in zip(comparison.candidate.hits, comparison.candidate_moves, strict=True)
    ]
    lines += [
        DiffLine(hit, move)
        for hit, move in zip(comparison.primary.hits, comparison.primary_moves, strict=True)
        if move.after is None
    ]
    return sorted(lines, key=lambda line: (line.move.after or line.move.before or 0, line.move.after is None))


def diff_page(comparison: Comparison, judged: JudgedHits | None = None) -> LivePage:
    """The page, with the counts above."""
    lines = diff_lines(comparison)
    signs = [line.sign for line in lines]
    head = Text()
    head.append(
        f"{printable(comparison.primary.version_key)} → {printable(comparison.candidate.version_key)}", TITLE
    )
    head.append(f"  “{printable(comparison.query)}”, first {comparison.k}\n")
    head.append(
        f"{signs.count('-')} gone, {signs.count('+')} new, {signs.count('~')} moved, {signs.count(' ')} unchanged",
        FAINT,
    )
    return LivePage("diff", Group(head, Text(""), *(_text(line, judged) for line in lines)))


def _text(line: DiffLine, judged: JudgedHits | None) -> Text:
    move = line.move
    style = {"-": BAD, "+": GOOD, " ": FAINT}.get(line.sign, "")
    grade = star(judged.grades.get(line.hit.chunk_id)) if judged else ""
    ranks = f"{move.before or '':>3} → {move.after or '':<3}"
    text = Text(f"{line.sign} {ranks} {move.label:>4}  ", style, no_wrap=True, overflow="ellipsis")
    if judged:
        text.append(f"{grade:<3} ")
    text.append(first_line(line.hit.content))
    return text.append(f"  {printable(line.hit.source_id)}", FAINT)
