"""The texts of the Shadow screen: head line, counts, histogram, and table rows."""

from __future__ import annotations

from itertools import zip_longest

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from revector.core.shadow.report import Disagreement, Latency, SegmentFigures, ShadowReport
from revector.core.shadow.runs import ShadowRun
from revector.screens.situation import Situation
from revector.screens.widgets.table import Column, Row
from revector.screens.wording.facts import facts
from revector.screens.wording.text import clock, date_and_time, figure, printable
from revector.screens.wording.theme import BAD, CAUTION, FAINT, GOOD, TITLE

ALL = "all"
SEGMENTS = (
    Column("segment"),
    Column("queries", 7, right=True),
    Column("overlap", 7, right=True),
    Column("RBO", 5, right=True),
    Column("active p50/p95/p99", 18, right=True),
    Column("candidate", 18, right=True),
)
WORST = (
    Column("query"),
    Column("segment", 14, from_width=70),
    Column("overlap", 7, right=True),
    Column("RBO", 5, right=True),
    Column("at", 16, from_width=100),
)
_TROUBLES = 2


def head_line(run: ShadowRun) -> Text:
    """The candidate, the sample, what is stored, since when and by whom."""
    text = Text(no_wrap=True, overflow="ellipsis")
    if run.stopped_at is None:
        text.append("● ", GOOD).append("shadow of ", FAINT)
    else:
        text.append("■ ", FAINT).append("stopped ", CAUTION).append("shadow of ", FAINT)
    text.append(printable(run.candidate), "bold")
    text.append(f"  sample {run.sample:.3g}  text {run.query_text}  kept {run.retention_days:g} days", FAINT)
    text.append(f"  since {date_and_time(run.started_at)} by {printable(run.started_by)}", FAINT)
    if run.stopped_at is not None:
        text.append(f" to {date_and_time(run.stopped_at)}", FAINT)
    return text


def counts_line(found: ShadowReport) -> Text:
    """The counts: how many queries were seen, sampled, searched, dropped and failed."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for number, name, style in (
        (found.seen, "seen", ""),
        (found.drawn, "drawn", ""),
        (found.done, "done", GOOD),
        (found.dropped, "dropped", CAUTION if found.dropped else ""),
        (found.failed, "failed", BAD if found.failed else ""),
    ):
        text.append(f"{number:,}", f"bold {style}".strip()).append(f" {name}  ", FAINT)
    return text


def trouble_lines(found: ShadowReport) -> Text:
    """Open breakers and why, else the last errors; empty when all is well."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for one in found.breaker[:_TROUBLES]:
        text.append("✗ breaker open ", f"bold {BAD}")
        text.append(f"{printable(one.process)} since {clock(one.since)}: {printable(one.why)}\n", BAD)
    if len(found.breaker) > _TROUBLES:
        text.append(f"… and {len(found.breaker) - _TROUBLES} more processes\n", BAD)
    if not found.breaker:
        for error, queries in found.errors[:1]:
            text.append(f"! failed ×{queries:,}: {printable(error)}", CAUTION)
    text.rstrip()
    return text


def overlap_title(found: ShadowReport) -> str:
    """The mean overlap of the answers."""
    return f" overlap {figure(found.overlap)} ─ RBO {figure(found.rbo)} "


def histogram(found: ShadowReport, width: int) -> Text:
    """One line for each tenth of overlap: the number of queries and a bar; lines are at most `width` columns
    wide."""
    most = max(found.histogram)
    digits = max(7, len(f"{most:,}"))
    room = max(4, width - digits - 7)
    text = Text(f"overlap{'queries':>{digits + 1}}\n", FAINT, no_wrap=True)
    for place in reversed(range(len(found.histogram))):
        queries = found.histogram[place]
        bar = "█" * round(room * queries / most) if most else ""
        text.append(f"{place / (len(found.histogram) - 1):>5.1f}", "default")
        text.append(f"{queries:>{digits + 3},} ", "default" if queries else FAINT)
        text.append(bar or ("▏" if queries else ""), TITLE.removeprefix("bold "))
        text.append("\n" if place else "")
    return text


def segment_rows(found: ShadowReport) -> list[Row]:
    """All queries, then each segment, lowest overlap first."""
    parts: list[tuple[str, str, ShadowReport | SegmentFigures]] = [(ALL, ALL, found)]
    if len(found.segments) > 1 or any(one.segment for one in found.segments):
        parts += [(f"={one.segment}", one.segment or "(none)", one) for one in found.segments]
    return [
        Row(
            key,
            (
                name,
                f"{one.queries:,}",
                figure(one.overlap),
                figure(one.rbo),
                latency(one.primary_ms),
                latency(one.candidate_ms),
            ),
        )
        for key, name, one in parts
    ]


def worst_rows(found: ShadowReport) -> list[Row]:
    """The worst disagreements; a query without stored text is shown by its hash, in another colour."""
    return [
        Row(
            str(one.id),
            (
                one.query if one.query is not None else Text(printable(one.name), FAINT),
                one.segment,
                figure(one.overlap),
                figure(one.rbo),
                date_and_time(one.at),
            ),
        )
        for one in found.worst
    ]


def latency(found: Latency) -> str:
    """`1.8/3.2/4.0`, in milliseconds."""
    parts = (found.p50, found.p95, found.p99)
    return "/".join("—" if part is None else f"{part:,.0f}" if part >= 100 else f"{part:.1f}" for part in parts)


def both_rankings(one: Disagreement, candidate: str) -> RenderableType:
    """A query without stored text: its hash, and both rankings as semantic keys."""
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right")
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    grid.add_row("", Text(printable(one.primary_version), TITLE), Text(printable(candidate), TITLE))
    for rank, keys in enumerate(zip_longest(one.primary_keys, one.candidate_keys), 1):
        grid.add_row(str(rank), *(Text("—", FAINT) if key is None else Text(printable(key)) for key in keys))
    about = [
        ("query", one.query or "its text is not stored"),
        ("keyed hash", one.sha256 or "not kept"),
        ("segment", one.segment or "none"),
        ("at", date_and_time(one.at)),
        ("overlap", f"{one.overlap:.2f}, RBO {one.rbo:.2f}, of the first {one.k}"),
    ]
    return Group(facts(about), "", grid)


def what_to_do(situation: Situation, found: ShadowReport | None) -> Text:
    """The next step when there is nothing to show."""
    if found is not None:
        return Text(
            "No query has been answered by both versions yet.\n\n"
            "Queries come from applications that search with a mirror: Retriever(database, mirror=Mirror(database)), "
            "or from revector serve."
        )
    if situation.active is None:
        return Text("No version is active yet. A shadow compares a candidate with what users get (6: cut over).")
    if not any(status.embedded and not status.version.active for status in situation.versions):
        return Text("A shadow needs a candidate with vectors. Register one and backfill it (2).")
    lines = (
        "No shadow yet.\n\n"
        "A shadow also sends a sample of users' queries to a candidate, off the users' path. Users always get the "
        "active version's answer at once. Here you see how similar both answers are, how long both "
        "take, and where they disagree most.\n\n"
    )
    if situation.state.read_only:
        return Text(lines + "This console is read-only. Start a shadow elsewhere: revector shadow start KEY")
    return Text(lines + "Choose a candidate with [ and ], then press s.")
