"""A hit in full, over the comparison that it was found in."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from core.retrieval import Comparison, Hit
from screens.facts import facts
from screens.reading import Page
from screens.text import first_line, printable


def hit_page(hit: Hit, of_candidate: bool, comparison: Comparison) -> Page:
    """The page: where the chunk comes from, its rank and distance in each version, and its whole text."""
    lines = [("document", f"{hit.source_id}, chunk {hit.chunk_no}")]
    sides = [("primary", comparison.primary), ("candidate", comparison.candidate)]
    for role, result in reversed(sides) if of_candidate else sides:
        key = result.version_key
        found = next((other for other in result.hits if other.chunk_id == hit.chunk_id), None)
        if found is None:
            lines.append((role, f"{key}: not among the first {comparison.k}"))
        else:
            distance = f"distance {found.distance:.4f} within its own version"
            lines.append((role, f"{key}: rank {found.rank}, {distance}"))
    lines += [("chunk id", str(hit.chunk_id)), ("semantic key", hit.semantic_key), ("text", "")]
    text = Text(printable(hit.content, lines=True))
    return Page(first_line(hit.content), Group(facts(lines), text))
