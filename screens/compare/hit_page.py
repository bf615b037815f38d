"""A hit in full, with the words of the query marked."""

from __future__ import annotations

import json
from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.text import Text

from revector.core.evaluation.judged_sets.judged_hits import JudgedHits
from revector.core.explain import ChunkFacts
from revector.core.retrieval import Comparison, Hit
from revector.screens.widgets.page import LivePage
from revector.screens.wording.facts import facts
from revector.screens.wording.grades import star
from revector.screens.wording.marking import marked
from revector.screens.wording.text import date_and_time, first_line, printable


def hit_page(
    hit: Hit,
    of_candidate: bool,
    comparison: Comparison,
    judged: JudgedHits | None = None,
    read: Callable[[], ChunkFacts | None] | None = None,
) -> LivePage:
    """The page: the chunk's source, its rank and distance in each version, and its whole text.

    `read` reads the chunk's metadata from the database, while the rest is already shown.
    """
    ranks = _ranks(hit, of_candidate, comparison)
    if judged is not None:
        ranks.append(("judged", _judged(hit, judged)))

    def body(known: list[tuple[str, str]]) -> RenderableType:
        lines = [("document", f"{hit.source_id}, chunk {hit.chunk_no}"), *ranks]
        lines += [("chunk id", str(hit.chunk_id)), ("semantic key", hit.semantic_key), *known]
        return Group(facts(lines), Text(""), marked(printable(hit.content, lines=True), comparison.query))

    def work() -> RenderableType:
        return body(_known(read() if read else None))

    return LivePage(first_line(hit.content), body([]), work if read else None)


def _ranks(hit: Hit, of_candidate: bool, comparison: Comparison) -> list[tuple[str, str]]:
    lines = []
    sides = [("primary", comparison.primary), ("candidate", comparison.candidate)]
    for role, result in reversed(sides) if of_candidate else sides:
        key = result.version_key
        found = next((other for other in result.hits if other.chunk_id == hit.chunk_id), None)
        if found is None:
            lines.append((role, f"{key}: not among the first {comparison.k}"))
        else:
            distance = f"distance {found.distance:.4f} within its own version"
            lines.append((role, f"{key}: rank {found.rank}, {distance}"))
    return lines


def _judged(hit: Hit, judged: JudgedHits) -> str:
    grade = judged.grades.get(hit.chunk_id)
    if grade is None:
        return f"not judged (query {judged.query.id} of {judged.query_set})"
    what = "its document" if judged.level == "document" else "this chunk"
    return f"{star(grade)} grade {grade}, of {what}, by {', '.join(judged.judges)} ({judged.query_set})"


def _known(chunk: ChunkFacts | None) -> list[tuple[str, str]]:
    if chunk is None:
        return [("", "The chunk is no longer in the collection.")]
    metadata = json.dumps(chunk.metadata, ensure_ascii=False) if chunk.metadata else "none"
    return [
        ("document id", str(chunk.document_id)),
        ("ingested", date_and_time(chunk.created_at)),
        ("metadata", metadata),
    ]
