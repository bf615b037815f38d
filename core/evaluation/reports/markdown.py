"""An evaluation as Markdown, short enough for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from revector.core.evaluation.document import Evaluation, QueryResult, Verdict
from revector.core.evaluation.reports.wording import (
    NOTHING,
    WORDS,
    caveats,
    counted,
    interval,
    number,
    p_value,
    percent,
    run_settings,
    shortened,
    signed,
    visible,
)

_SIGNS = {"pass": "✅", "fail": "❌", "inconclusive": "❔", None: ""}
_MOST_CHARACTERS = 10_000
"""Of each table and of the warnings: a comment on GitHub holds 65,536."""
_MOST_JUDGES = 10
_HARMLESS = " ,.'-+%()"
_MOST_QUERIES = 10
_MOST_OF_A_NAME = 100


def markdown(e: Evaluation) -> str:
    """Verdict, what qualifies it, gates, measures by segment, overlap, and the ten queries that moved most.

    GitHub's dialect. Names and texts from outside are escaped: they make no table cell, link, mention or markup.
    """
    judges = ", ".join(_code(judge) for judge in e.judges[:_MOST_JUDGES]) or "nobody"
    if len(e.judges) > _MOST_JUDGES:
        judges += f" and {len(e.judges) - _MOST_JUDGES} others"
    queries = counted(e.judged_queries, "judged query", "judged queries")
    notes = [f"> ⚠ {_escaped(shortened(note, 1_000))}" for note in caveats(e)]
    parts = [
        f"## {_verdict(e.verdict)}: {_code(e.candidate.version_key)} against {_code(e.primary.version_key)}",
        f"Query set {_code(e.query_set)} (revision {_code(e.query_set_revision)}), {queries}, "
        f"{counted(e.judgements, 'judgement')} by {judges}. Evaluation {e.id}, {e.created_at:%Y-%m-%d %H:%M %Z}, "
        f"by {_code(e.created_by)}.",
        *_within(notes, "> … and {} more warnings."),
        *_gates(e),
        *_measures(e),
        *_overlaps(e),
        *_queries(e),
        f"Primary: {_escaped(shortened(run_settings(e.primary), 300))}. "
        f"Candidate: {_escaped(shortened(run_settings(e.candidate), 300))}.",
    ]
    return "\n\n".join(parts) + "\n"


def _within(lines: Sequence[str], rest: str) -> list[str]:
    """The first lines, as many as there is room for, and how many more there are."""
    room = _MOST_CHARACTERS
    for shown, line in enumerate(lines):
        room -= len(line) + 2
        if room < 0:
            return [*lines[:shown], rest.format(f"{len(lines) - shown:,}")]
    return list(lines)


def _verdict(verdict: Verdict | None) -> str:
    return f"{_SIGNS[verdict]} {WORDS[verdict]}".strip()


def _gates(e: Evaluation) -> list[str]:
    if not e.gates:
        return []
    rows = [
        (
            _verdict(gate.verdict),
            _code(gate.name),
            _escaped(shortened(gate.detail, 500)),
        )
        for gate in sorted(e.gates, key=lambda gate: ("fail", "inconclusive", "pass").index(gate.verdict))
    ]
    return ["### Gates", _table(("Verdict", "Gate", "Because"), rows)]


def _measures(e: Evaluation) -> list[str]:
    rows = [
        (
            _code(row.measure),
            _code(row.segment),
            f"{row.queries:,}",
            number(row.primary),
            number(row.candidate),
            f"**{signed(row.difference)}**" if _excludes_zero(row.low, row.high) else signed(row.difference),
            interval(row.low, row.high),
            p_value(row.p_value),
        )
        for row in e.measures
    ]
    head = (
        "Measure", "Segment", "Queries", "Primary", "Candidate", "Difference", f"{percent(e.confidence)} interval", "p"
    )  # fmt: skip
    return ["### Measures", _table(head, rows, numbers_from=2)] if rows else []


def _excludes_zero(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and (low > 0 or high < 0)


def _overlaps(e: Evaluation) -> list[str]:
    by_segment: dict[str, dict[str, str]] = {}
    for result in e.overlaps:
        cells = by_segment.setdefault(result.segment, {"queries": f"{result.queries:,}"})
        cells[result.measure] = (
            f"{number(result.mean)} ({number(result.quantiles[1])}–{number(result.quantiles[5])})"
        )
    rows = [
        (
            _code(segment),
            cells["queries"],
            *(cells.get(name, NOTHING) for name in ("overlap", "jaccard", "rbo", "kendall_tau")),
        )
        for segment, cells in by_segment.items()
    ]
    head = ("Segment", "Queries", f"overlap@{e.k}", "Jaccard", f"RBO, p {e.rbo_p:g}", "Kendall's tau")
    return ["### Rank overlap: mean (5 % to 95 % of queries)", _table(head, rows, numbers_from=1)] if rows else []


def _queries(e: Evaluation) -> list[str]:
    measure = e.measures[0].measure if e.measures else ""
    rows = [
        (
            _code(query.id),
            _code(query.text),
            _code(query.segment),
            _change(query, measure),
            number(query.overlap),
            number(query.rbo),
            f"{query.primary_unjudged} / {query.candidate_unjudged}",
        )
        for query in e.queries[:_MOST_QUERIES]
    ]
    head = (
        "Query",
        "Text",
        "Segment",
        _code(measure) if measure else "Measure",
        f"overlap@{e.k}",
        "RBO",
        "Unjudged",
    )
    return ["### The queries that moved most", _table(head, rows, numbers_from=3)] if rows else []


def _change(query: QueryResult, measure: str) -> str:
    if measure not in query.primary or measure not in query.candidate:
        return NOTHING
    return f"{number(query.primary[measure])} → {number(query.candidate[measure])}"


def _table(head: Sequence[str], rows: Sequence[Iterable[str]], numbers_from: int | None = None) -> str:
    marks = [
        "--:" if numbers_from is not None and column >= numbers_from else "---" for column in range(len(head))
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return (
        "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks))
        + "\n"
        + "\n".join(_within(lines, "\n… and {} more rows."))
    )


def _code(text: str) -> str:
    """Foreign text in a `code` element, in which nobody is mentioned and nothing linked."""
    return f"<code>{_entities(visible(shortened(text, _MOST_OF_A_NAME)))}</code>"


def _escaped(text: str) -> str:
    """A sentence with foreign names in it. The empty comments keep @name and #1 from being mentions and links."""
    return _entities(visible(text)).replace("&#64;", "&#64;<!-- -->").replace("&#35;", "&#35;<!-- -->")


def _entities(text: str) -> str:
    """Punctuation as numeric entities: by CommonMark's rules these are text and never structure."""
    return "".join(
        character
        if character.isalnum() or character in _HARMLESS or not character.isascii()
        else f"&#{ord(character)};"
        for character in text
    ).replace("www.", "www&#46;")
