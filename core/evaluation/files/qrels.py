"""Judgements in files: BEIR's qrels with their header, and TREC's four columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from revector.core.errors import UsageError
from revector.core.evaluation.files.lines import bad_line, columns, look_ahead, read_lines
from revector.core.evaluation.judged_sets.judgements import Judgement, check_judgement
from revector.core.text import quote

BEIR_HEADER = ("query-id", "corpus-id", "score")

_WHOLE = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True)
class JudgementFile:
    """Query id → target → grade, and what was noticed while reading.

    `negative` counts grades below 0 (judged not relevant, or spam), which became 0; `repeated` counts duplicate
    lines.
    """

    grades: Mapping[str, Mapping[str, int]]
    negative: int = 0
    repeated: int = 0


def read_qrels(path: Path) -> JudgementFile:
    """The judgements of a file; none of an empty one.

    - BEIR: query-id, corpus-id and score, by tabs; the header may be missing.
    - TREC: query, iteration (which is not kept), document and grade, by blanks or tabs.

    Raises UsageError naming file and line for what cannot be parsed, a grade that is not a whole number up to 100,
    and a target judged twice with different grades.
    """
    first, lines = look_ahead(read_lines(path))
    beir = len(first.split("\t")) == 3
    expected = (
        "Expected query-id, corpus-id and a whole number, by tabs."
        if beir
        else "Expected query, iteration, document and a whole number; or BEIR's three columns, by tabs."
    )
    grades: dict[str, dict[str, int]] = {}
    negative = repeated = 0
    header = first.split("\t")[0] == BEIR_HEADER[0]
    for number, line in lines:
        if header:
            header = False
            continue
        parts = line.split("\t") if beir else columns(line)
        if len(parts) != (3 if beir else 4):
            raise bad_line(path, number, f"is not a judgement: it has {len(parts)} columns.", expected)
        query, target, grade = parts[0], parts[-2], parts[-1].strip()
        if not _WHOLE.fullmatch(grade):
            raise bad_line(path, number, f"is not a judgement: {quote(grade)} is not a whole number.", expected)
        negative += int(grade) < 0
        row = Judgement(query, "document", target, max(0, int(grade)))
        try:
            check_judgement(row)
        except UsageError as error:
            raise bad_line(path, number, f"cannot be read. {error.problem}") from None
        by_target = grades.setdefault(query, {})
        if target not in by_target:
            by_target[target] = row.grade
        elif by_target[target] == row.grade:
            repeated += 1
        else:
            raise bad_line(
                path, number,
                f"judges {quote(target)} for query {quote(query)} again, with {row.grade} after "
                f"{by_target[target]}.",
                "Keep one of the two lines: a judge gives each target one grade.",
            )  # fmt: skip
    return JudgementFile(grades, negative, repeated)
