"""Judgements in files: BEIR's qrels with their header, and TREC's four columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from revector.core.errors import UsageError
from revector.core.evaluation.files.lines import (
    QUERY_ID_NAMES,
    bad_line,
    columns,
    comma_columns,
    header_names,
    look_ahead,
    read_lines,
)
from revector.core.evaluation.judged_sets.judgements import Judgement, check_judgement
from revector.core.text import quote

BEIR_HEADER = ("query-id", "corpus-id", "score")

_WHOLE = re.compile(r"([+-]?[0-9]{1,9})(?:\.0{1,9})?", re.ASCII)
_TARGETS = frozenset({"corpusid", "doc", "docid", "docno", "document", "documentid", "did", "pid", "passageid"})
_GRADES = frozenset({"score", "rel", "relevance", "relevancy", "grade", "label", "judgement", "judgment"})


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

    - BEIR: query-id, corpus-id and score, by tabs or as CSV; the header may be missing, or use other names.
    - TREC: query, iteration (which is not kept), document and grade, by blanks or tabs.

    Raises UsageError naming file and line for what cannot be parsed, a grade that is not a whole number up to 100
    (1.0 is one), and a target judged twice with different grades.
    """
    first, lines = look_ahead(read_lines(path))
    commas = "\t" not in first and len(columns(first)) == 1 and first.count(",") >= 2
    tabs = len(first.split("\t")) == 3
    width = 3 if tabs else 4
    expected = (
        "Expected query-id, corpus-id and a whole number, by tabs."
        if tabs
        else "Expected query, iteration, document and a whole number; or BEIR's three columns, by tabs or commas."
    ) + " Grades with fractions: multiply them first."
    places = [0, -2, -1]
    grades: dict[str, dict[str, int]] = {}
    negative = repeated = 0
    for position, (number, line) in enumerate(lines):
        parts = comma_columns(line) if commas else line.split("\t") if tabs else columns(line)
        if position == 0:
            found = _places(parts)
            width = len(parts) if found or commas else width
            if found:
                places = found
                continue
        if len(parts) != width:
            raise bad_line(path, number, f"is not a judgement: it has {len(parts)} columns.", expected)
        query, target, grade = (parts[place] for place in places)
        if not (whole := _WHOLE.fullmatch(grade.strip())):
            raise bad_line(
                path, number, f"is not a judgement: {quote(grade.strip())} is not a whole number.", expected
            )
        value = int(whole[1])
        negative += value < 0
        row = Judgement(query, "document", target, max(0, value))
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


def _places(parts: list[str]) -> list[int] | None:
    """Where a header has query, document and grade; None for what is no header."""
    names = header_names(parts)
    if not names or names[0] not in QUERY_ID_NAMES:
        return None
    places = [next((n for n, name in enumerate(names) if name in known), None) for known in (_TARGETS, _GRADES)]
    return [0, *(place for place in places if place is not None)] if None not in places else None
