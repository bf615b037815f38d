"""Why a hit has its rank in each version: distances, ranks with and without the index, plan and times."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from revector.core.explain import Explanation
from revector.core.retrieval import Hit
from revector.screens.widgets.page import LivePage
from revector.screens.wording.facts import facts
from revector.screens.wording.text import first_line, milliseconds, printable, size
from revector.screens.wording.theme import FAINT, TITLE


def explain_page(hit: Hit, work: Callable[[], Sequence[tuple[str, Explanation]]], k: int) -> LivePage:
    """The page; `work` returns the explanations by role, primary first."""

    def found() -> RenderableType:
        explained = work()
        parts: list[RenderableType] = []
        for role, one in explained:
            parts += [_heading(role, one), facts(_lines(one, k)), Text("")]
        for role, one in explained:  # plans are long, so their summary comes first
            plan = Text("\n".join(map(printable, one.plan)), FAINT)
            parts += [_heading(f"plan of the {role}", one), plan, Text("")]
        return Group(*parts)

    return LivePage(f"explain: {first_line(hit.content)}", Text("Searching once more …", FAINT), found)


def _heading(role: str, one: Explanation) -> Text:
    return Text(f"{role} {printable(one.version.version_key)}", TITLE)


def _lines(one: Explanation, k: int) -> list[tuple[str, str]]:
    version, result = one.version, one.result
    state = one.state
    index = "none"
    if state.exists:
        valid = "valid" if state.valid else "NOT VALID: a build was interrupted"
        index = (
            f"{state.name}: HNSW over {one.kind}, m {one.m}, ef_construction {one.ef_construction}, "
            f"{size(state.bytes)}, {valid}"
        )
    total = result.encode_s + result.search_s
    times = (
        f"encode {milliseconds(result.encode_s)} + search {milliseconds(result.search_s)} = {milliseconds(total)}"
    )
    return [
        ("encoder", f"{version.encoder_name} at {version.encoder_revision}, {version.dimensions} dimensions"),
        ("distance", _distance(one)),
        ("rank", f"{one.rank} of {len(result.hits)}" if one.rank else f"not among the first {k}"),
        ("without index", _exact(one, k)),
        ("search", "by its index" if one.uses_index else "a scan of all vectors: no index is used"),
        ("ef_search", f"ef_search {one.ef_search}"),
        ("index", index),
        ("time", f"{times}; comparing all vectors {milliseconds(one.exact_s)}"),
    ]


def _distance(one: Explanation) -> str:
    if one.distance is None:
        return "none: this version has no vector of the chunk"
    metric, key = one.version.distance_metric, one.version.version_key
    return f"{one.distance:.4f} ({metric}) in {key}; not comparable across versions"


def _exact(one: Explanation, k: int) -> str:
    """The effect of the index on this hit, separate from the model's ranking."""
    if one.distance is None:
        return "—"
    if one.exact_rank is None:
        return "unknown: comparing all vectors took longer than read_timeout_s"
    place = f"rank {one.exact_rank} of all vectors"
    if one.rank is None:
        lost = one.exact_rank <= k
        return f"{place}: the index lost it" if lost else f"{place}: ranked there by the model, not by the index"
    if one.exact_rank > one.rank:
        missed = one.exact_rank - one.rank
        return f"{place}: the index missed {missed} nearer {'one' if missed == 1 else 'ones'}"
    return f"{place}: the index missed nothing before it"
