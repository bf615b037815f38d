"""The watch after a cutover on the Cutover screen, and the history of all flips."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from revector.core.cutover import CutoverEntry, Policy, Watch
from revector.core.retrieval.counts import SearchFigures
from revector.screens.widgets.table import Column, Row
from revector.screens.wording.facts import facts as fact_lines
from revector.screens.wording.text import chunks, date_and_time, duration, milliseconds, printable
from revector.screens.wording.theme import BAD, CAUTION, FAINT, GOOD

HISTORY = (
    Column("at", 16),
    Column("", 8),
    Column("from → to"),
    Column("by", 10),
    Column("approved by", 16, from_width=130),
    Column("reason", 0, from_width=80),
    Column("watch", 15, from_width=110),
)
_WORDS: Mapping[str, str] = {
    "max_error_rate": "errors",
    "max_empty_rate_rise": "searches that find nothing",
    "max_latency_ratio": "latency",
    "min_overlap": "overlap",
}


def watch_title(watch: Watch, now: datetime.datetime) -> str:
    """Which version is watched and for how much longer, or that a limit is broken."""
    left = duration(max(0.0, (watch.until - now).total_seconds()))
    broken = "✗ LIMIT BROKEN ─ " if watch.breaches else ""
    return f" {broken}watch of {printable(watch.version_key)} ─ {left} left "


def watch_lines(watch: Watch, policy: Policy, now: datetime.datetime, *, can_roll_back: bool) -> RenderableType:
    """The result of the cutover: limits, the rollback target, and searches before and since."""
    parts: list[RenderableType] = []
    for one in watch.breaches:
        text = Text(f"✗ {_WORDS.get(one.limit, one.limit)}: {printable(one.detail)}", f"bold {BAD}")
        parts.append(text.append(f" ({one.limit})", FAINT))
    back: list[tuple[str, str | Text]] = [("way back", _way_back(watch))]
    if can_roll_back:
        key = Text.assemble(("R", "bold reverse"), f" and type {printable(watch.previous)}: no guard is checked")
        back.append(("", key))
    parts += [fact_lines(back), _figures(watch)]
    lines: list[tuple[str, str | Text]] = [("overlap", _overlap(watch)), ("limits", _limits(watch, policy))]
    ago = duration(max(0.0, (now - watch.began).total_seconds()))
    when = f"{date_and_time(watch.began)}, {ago} ago; watched until {date_and_time(watch.until)}"
    lines.append(("flip", Text(when, FAINT)))
    return Group(*parts, fact_lines(lines))


def _way_back(watch: Watch) -> Text:
    if watch.missing is None:
        return Text(f"✗ {printable(watch.previous)} is retired or gone", BAD)
    if watch.missing:
        text = Text(f"! {chunks(watch.missing)} missing in {printable(watch.previous)}", CAUTION)
        return text.append(": run its backfill (2, r)", FAINT)
    return Text(f"✓ {printable(watch.previous)} is complete: a rollback loses nothing", GOOD)


def _figures(watch: Watch) -> RenderableType:
    """Searches before and since, side by side."""
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style=FAINT)
    names = ("searches", "empty", "failed", "median", "p95", "p99")
    for _ in names:
        grid.add_column(no_wrap=True, justify="right", min_width=7)
    grid.add_row("", *(Text(name, FAINT) for name in names))
    broken = {one.limit for one in watch.breaches}
    for title, found in (("before", watch.before), ("since", watch.since)):
        since = found is watch.since
        empty = BAD if since and "max_empty_rate_rise" in broken else ""
        failed = BAD if since and "max_error_rate" in broken else ""
        slow = BAD if since and "max_latency_ratio" in broken else ""
        grid.add_row(
            title,
            f"{found.searches:,}",
            Text(_rate(found.empty_rate), empty),
            Text(_rate(found.error_rate), failed),
            *(
                Text(_time(found, name), slow if name != "p99_ms" else "")
                for name in ("median_ms", "p95_ms", "p99_ms")
            ),
        )
    return grid


def _rate(share: float | None) -> str:
    return "—" if share is None else f"{share:.1%}"


def _time(found: SearchFigures, name: str) -> str:
    value: float | None = getattr(found, name)
    return "—" if value is None else milliseconds(value / 1_000)


def _overlap(watch: Watch) -> Text:
    if watch.overlap is None:
        return Text("not compared by a shadow since", FAINT)
    broken = any(one.limit == "min_overlap" for one in watch.breaches)
    text = Text(f"{watch.overlap:.2f} over {watch.compared:,} queries", BAD if broken else "")
    if watch.overlap_before is not None:
        text.append(f", {watch.overlap_before:.2f} before the cutover", FAINT)
    return text


def _limits(watch: Watch, policy: Policy) -> Text:
    limits = [name for name in _WORDS if getattr(policy, name) is not None]
    if not limits:
        return Text("none in the policy", FAINT)
    held = [name for name in limits if name not in {one.limit for one in (*watch.breaches, *watch.unjudged)}]
    text = Text()
    if held:
        text.append(f"✓ {len(held)} of {len(limits)} hold", GOOD)
    for one in watch.unjudged:
        text.append("; " if text else "").append(f"? {one.limit}: {printable(one.detail)}", CAUTION)
    if watch.breaches:
        text.append("; " if text else "").append(f"✗ {len(watch.breaches)} broken", BAD)
    if policy.auto_rollback:
        text.append("; `revector cutover watch` rolls back by itself", FAINT)
    elif watch.breaches and watch.way_back:
        text.append(f"; auto_rollback is off: it would roll back to {printable(watch.previous)}", CAUTION)
    return text


# -- history -----------------------------------------------------------------------------------------------


def history_row(one: CutoverEntry) -> Row:
    """A flip."""
    return Row(
        str(one.id),
        (
            date_and_time(one.at),
            Text(printable(one.action), GOOD if one.action == "cutover" else CAUTION),
            f"{one.from_version or '—'} → {one.to_version}",
            one.made_by,
            ", ".join(one.approved_by),
            "; ".join([one.reason, *(f"waived {name}" for name in one.waived)]).strip("; "),
            _watched(one),
        ),
    )


def _watched(one: CutoverEntry) -> str:
    if one.watch_until is None:
        return ""
    return f"ended: {one.watch_ended_why}" if one.watch_ended_at else f"to {date_and_time(one.watch_until)[5:]}"


def entry_page(one: CutoverEntry) -> RenderableType:
    """All of a flip."""
    lines: list[tuple[str, str | Text]] = [
        ("at", date_and_time(one.at)),
        ("action", one.action),
        ("from", one.from_version or "no version"),
        ("to", one.to_version),
        ("by", one.made_by),
        ("reason", one.reason or "—"),
    ]
    if one.request_id is not None:
        lines.append(("request", f"{one.request_id} by {one.requested_by or '—'}"))
        lines.append(("approved by", ", ".join(one.approved_by) or "nobody"))
    lines += [
        ("waived", Text(f"{printable(name)}: {printable(str(why))}", CAUTION)) for name, why in one.waived.items()
    ]
    if one.watch_until is not None:
        lines.append(("watched until", date_and_time(one.watch_until)))
    if one.watch_ended_at is not None:
        lines.append(("watch ended", f"{date_and_time(one.watch_ended_at)}: {one.watch_ended_why or '—'}"))
    return fact_lines(lines)
