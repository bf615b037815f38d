"""How a judgement is shown beside a hit: ★ with the grade if relevant, ✗ if not."""

from __future__ import annotations

from rich.text import Text

from revector.core.evaluation.judged_sets.judged_hits import JudgedHits
from revector.screens.wording.theme import CAUTION, FAINT


def star(grade: int | None) -> str:
    """`★2`, `✗` for grade 0, nothing for an unjudged hit."""
    return "" if grade is None else f"★{grade}" if grade else "✗"


def star_cell(judged: JudgedHits, chunk_id: int) -> Text:
    """The star of a chunk, padded to the widest of the hits and followed by a blank."""
    width = max((len(star(grade)) for grade in judged.grades.values()), default=0)
    grade = judged.grades.get(chunk_id)
    text = Text(star(grade).ljust(width), CAUTION if grade else FAINT)
    return text.append(" ") if width else text


def ndcg_words(judged: JudgedHits) -> tuple[str, str, str]:
    """`nDCG@10`, `0.61 → 0.78`, and how many relevant targets are known, or why there is no value."""
    name = f"nDCG@{judged.k}"
    if judged.primary_ndcg is None or judged.candidate_ndcg is None:
        return name, "—", "nothing relevant is known" if judged.grades else "not judged"
    what = "documents" if judged.level == "document" else "chunks"
    known = f"{judged.relevant} relevant {what if judged.relevant != 1 else what[:-1]} known"
    return name, f"{judged.primary_ndcg:.2f} → {judged.candidate_ndcg:.2f}", known
