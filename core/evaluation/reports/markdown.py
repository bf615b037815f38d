"""A page as Markdown, short enough for a comment on a pull request.

GitHub's dialect. Names and texts from outside are escaped: they cannot create table cells, links, mentions or
markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from revector.core.evaluation.reports.page import Note, ReportCell, ReportPage, ReportTable
from revector.core.text import printable, shorten

_SIGNS = {"pass": "✅", "fail": "❌", "inconclusive": "❔"}
_MOST_CHARACTERS = 10_000
"""Characters for each table and for the warnings: a comment on GitHub holds 65,536."""
_HARMLESS = " ,.'-+%()"
_MOST_OF_A_CELL, _MOST_OF_A_NOTE = 500, 1_000


def markdown(page: ReportPage) -> str:
    """Headline, notes and tables; long tables are cut and charts are left out."""
    sign = _SIGNS.get(page.kind, "")
    title = page.title[2:] if sign else page.title
    warnings = [part for part in page.parts if isinstance(part, Note) and part.kind == "inconclusive"]
    parts = [f"## {sign} {_escaped(title)}".replace("  ", " ")]
    for part in page.parts:
        if part is next(iter(warnings), None):
            parts += _within([f"> ⚠ {_text(one)}" for one in warnings], "> … and {} more warnings.")
        elif isinstance(part, Note) and part not in warnings:
            parts.append(_text(part))
        elif isinstance(part, ReportTable):
            parts += [f"### {_escaped(part.caption)}", _table(part)]
    return "\n\n".join(parts) + "\n"


def _within(lines: Sequence[str], rest: str) -> list[str]:
    """The first lines that fit, and how many more there are."""
    room = _MOST_CHARACTERS
    for shown, line in enumerate(lines):
        room -= len(line) + 2
        if room < 0:
            return [*lines[:shown], rest.format(f"{len(lines) - shown:,}")]
    return list(lines)


def _table(table: ReportTable) -> str:
    head = [_escaped(column.title) for column in table.columns]
    marks = ["--:" if column.figures else "---" for column in table.columns]
    rows = [_row(map(_cell, row)) for row in table.rows]
    return "\n".join([_row(iter(head)), _row(iter(marks)), *_within(rows, "\n… and {} more rows.")])


def _row(cells: Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: ReportCell) -> str:
    words = _escaped(shorten(cell.text, _MOST_OF_A_CELL))
    words = f"**{words}**" if cell.kind in ("better", "worse") else words
    mark = _SIGNS.get(cell.kind, _escaped(cell.mark))
    return " ".join(part for part in (mark, words, _escaped(cell.below)) if part)


def _text(note: Note) -> str:
    return _escaped(shorten(note.text, _MOST_OF_A_NOTE))


def _escaped(text: str) -> str:
    """Punctuation as numeric entities, which CommonMark never treats as structure.

    The empty comments keep @name and #1 from being mentions and links.
    """
    return (
        "".join(
            character
            if character.isalnum() or character in _HARMLESS or not character.isascii()
            else f"&#{ord(character)};"
            for character in printable(text)
        )
        .replace("www.", "www&#46;")
        .replace("&#64;", "&#64;<!-- -->")
        .replace("&#35;", "&#35;<!-- -->")
        .replace("&#58; ", ": ")
    )
