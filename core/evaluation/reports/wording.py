"""How figures look in every report, and the sentences that every report must have."""

from __future__ import annotations

from revector.core.evaluation.document import Evaluation, Run, Verdict
from revector.core.text import counted, printable, shorten

WORDS: dict[Verdict | None, str] = {
    "pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive", None: "No gates"
}  # fmt: skip

NOTHING = "–"
_MOST_TARGETS = 5


def number(value: float | None) -> str:
    """Three decimals, a real minus sign, and a dash for None."""
    return NOTHING if value is None else f"{value:z.3f}".replace("-", "−")


def signed(value: float | None) -> str:
    """Like `number`, with a sign."""
    return NOTHING if value is None else f"{value:+z.3f}".replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    """The bounds of a difference."""
    return NOTHING if low is None or high is None else f"{signed(low)} to {signed(high)}"


def p_value(value: float | None) -> str:
    """Three decimals, and never a p of 0."""
    return NOTHING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def percent(share: float) -> str:
    """`95 %`, `98.33 %`."""
    return f"{100 * share:.4g} %"


def run_settings(run: Run) -> str:
    """How a run searched, in one line."""
    index = {} if run.exact else dict(run.index_settings)
    used = index.pop("used", True)
    how = "exact, without an index" if run.exact else "by the index" if used else "no index used"
    ef_search = "" if run.exact or run.ef_search is None else f", ef_search {run.ef_search}"
    how = f"hybrid, {how}" if run.hybrid else how
    settings = "".join(f", {name} {value}" for name, value in index.items())
    drawn = ", ".join(f"{name} {value}" for name, value in (run.sample or {}).items())
    sample = f", a sample of the collection ({drawn})" if drawn else ""
    return f"top {run.k} of {counted(run.chunks, 'chunk')}, {how}{settings}{ef_search}{sample}"


def caveats(e: Evaluation) -> tuple[str, ...]:
    """What a reader must know before trusting the figures: warnings, judged targets not found, and found targets
    not judged.
    """
    return tuple(printable(sentence) for sentence in (*e.warnings, *_unknown(e), *_unjudged(e)))


def _unknown(e: Evaluation) -> list[str]:
    if not e.unknown_targets:
        return []
    named = ", ".join(
        f"{shorten(target, 80)} (query {shorten(query, 40)})"
        for query, target in e.unknown_targets[:_MOST_TARGETS]
    )
    more = len(e.unknown_targets) - _MOST_TARGETS
    rest = f" and {more:,} more" if more > 0 else ""
    are, them = ("target is", "it") if len(e.unknown_targets) == 1 else ("targets are", "them")
    missing = f"{len(e.unknown_targets):,} judged {are} not in the collection"
    return [f"{missing}, so no version can find {them}: {named}{rest}."]


def _unjudged(e: Evaluation) -> list[str]:
    found = []
    if e.unjudged_queries:
        without = counted(e.unjudged_queries, "query", "queries")
        found.append(f"{without} without any judgement: in the overlap, and in no measure.")
    judged = [query for query in e.queries if query.judged]
    primary = sum(query.primary_unjudged for query in judged)
    candidate = sum(query.candidate_unjudged for query in judged)
    if primary or candidate:
        found.append(
            f"Of the top {e.k} of {counted(len(judged), 'judged query', 'judged queries')}, on average "
            f"{primary / len(judged):.1f} results per query of the primary and {candidate / len(judged):.1f} of the "
            "candidate are unjudged. They count as not relevant, which favours the version with fewer."
        )
    return found
