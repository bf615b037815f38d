"""`revector shadow`: a sample of users' queries, searched by a candidate too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revector.console.commands.options import Confirm, Json, Key, Reason
from revector.console.confirmation import confirmed_key
from revector.console.context import aligned, answer, context_of, right
from revector.console.contract import answering
from revector.screens.wording.text import date_and_time, figure

if TYPE_CHECKING:
    from revector.core.shadow import Latency, ShadowReport, ShadowRun

app = typer.Typer(name="shadow", help="Also send a sample of users' queries to a candidate, off the users' path.")


@dataclass(frozen=True)
class Bin:
    """Queries of the same overlap."""

    overlap: Annotated[float, "0 to 1"]
    queries: Annotated[int, "in the bin"]


@dataclass(frozen=True)
class ShadowFailure:
    """Why queries failed."""

    error: Annotated[str, "the text"]
    queries: Annotated[int, "that failed with it"]


@dataclass(frozen=True)
class ShadowOutcome:
    """The parts of a report that are lists."""

    histogram: Annotated[list[Bin], "queries by their overlap"]
    errors: Annotated[list[ShadowFailure], "the newest texts of failures"]


@dataclass(frozen=True)
class Running:
    """Whether a shadow runs."""

    running: Annotated[bool, "false, and nothing else is said, when none does"]


_RUN, _COUNTS = "core.shadow.runs:ShadowRun", "core.shadow.report:ShadowCounts"

Limit = Annotated[
    int, typer.Option("--limit", metavar="N", help="How many of the worst disagreements.", min=1, max=1000)
]
Number = Annotated[
    int | None, typer.Option("--shadow", metavar="N", help="Default: the running one, or the last.")
]

_BAR_COLUMNS = 40


@app.command(cls=answering(_RUN))
def start(
    context: typer.Context,
    key: Key,
    sample: Annotated[
        float, typer.Option("--sample", metavar="SHARE", help="The share of queries, above 0 and up to 1.")
    ] = 0.1,
    query_text: Annotated[
        str,
        typer.Option(
            "--query-text", metavar="HOW", help="What to store of a query's text: stored, hashed or omitted."
        ),
    ] = "hashed",
    retention_days: Annotated[
        float, typer.Option("--retention-days", metavar="DAYS", help="After that its queries are deleted.")
    ] = 14.0,
    reason: Reason = "",
    confirm: Confirm = None,
    as_json: Json = False,
) -> None:
    """Begin to mirror users' queries to a candidate. Users always get the active version's answer."""
    from revector.core import shadow

    own = context_of(context)
    with own.session(changes=True) as connection:
        confirmed_key(
            own, key, confirm, f"Shadow: {sample:.3g} of users' queries also go to the encoder of {key}; "
            f"query text is {query_text}.",
        )  # fmt: skip
        run = shadow.start(
            connection, key, sample=sample, query_text=query_text, retention_days=retention_days, reason=reason
        )
    answer(run, as_json, f"Started: {_run_words(run)}.")


@app.command(cls=answering(_RUN))
def stop(context: typer.Context, reason: Reason = "", as_json: Json = False) -> None:
    """Stop the running shadow. Its results are kept for the retention time."""
    from revector.core import shadow

    with context_of(context).session(changes=True) as connection:
        run = shadow.stop(connection, reason=reason)
    answer(run, as_json, f"Stopped: {_run_words(run)}.")


@app.command(cls=answering("console.commands.shadow:Running", _RUN, _COUNTS))
def status(context: typer.Context, as_json: Json = False) -> None:
    """Whether a shadow runs, and how many queries its processes saw, searched and dropped. Exit status 1 when none
    runs."""
    from revector.core import shadow
    from revector.core.keys import document

    with context_of(context).session() as connection:
        run = shadow.running(connection)
        found = shadow.report(connection, shadow_id=run.id, limit=1) if run else None

    def show() -> Iterator[str]:
        if found is None:
            yield "No shadow is running. Start one: revector shadow start KEY"
        else:
            yield from _head_lines(found)

    running = document(Running(found is not None))
    if found is not None:
        running |= document(found.run) | document(found, shadow.ShadowCounts)
    answer(running, as_json, show())
    if found is None:
        raise typer.Exit(1)


@app.command(cls=answering(_RUN, "core.shadow.report:ShadowReport", "console.commands.shadow:ShadowOutcome"))
def report(
    context: typer.Context,
    number: Number = None,
    limit: Limit = 10,
    as_json: Json = False,
) -> None:
    """How alike both versions answer users, how long both take, and where they disagree most."""
    from revector.core import shadow

    with context_of(context).session() as connection:
        found = shadow.report(connection, shadow_id=number, limit=limit)
    answer(report_document(found), as_json, _report_lines(found))


@app.command(cls=answering("core.shadow.judging:SentToJudging"))
def judge(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SET", help="The query set; created if new.")] = "shadow",
    number: Number = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Make the worst disagreements queries of a query set, for the judging queue (J in the console).

    Needs a shadow that stores the text of queries.
    """
    from revector.core import shadow

    with context_of(context).session(changes=True) as connection:
        found = shadow.report(connection, shadow_id=number, limit=limit)
        sent = shadow.send_to_judging(connection, [one.id for one in found.worst], name)
    text = f"{sent.added} {'query' if sent.added == 1 else 'queries'} added to {name}"
    text += f", {sent.there_already} already there" if sent.there_already else ""
    text += f", {sent.without_text} without text skipped" if sent.without_text else ""
    answer(sent, as_json, f"{text}.")


def report_document(found: ShadowReport) -> dict[str, Any]:
    """The report in JSON."""
    from revector.core.keys import document

    most = len(found.histogram) - 1
    outcome = ShadowOutcome(
        [Bin(place / most, queries) for place, queries in enumerate(found.histogram)],
        [ShadowFailure(error, queries) for error, queries in found.errors],
    )
    return document(found.run) | document(found) | document(outcome)  # type: ignore[no-any-return]


def _run_words(run: ShadowRun) -> str:
    return (
        f"shadow {run.id} of {run.candidate}, sample {run.sample:.3g}, query text {run.query_text}, kept "
        f"{run.retention_days:g} days, since {date_and_time(run.started_at)} by {run.started_by}"
        + (f", stopped {date_and_time(run.stopped_at)}" if run.stopped_at else "")
    )


def _head_lines(found: ShadowReport) -> Iterator[str]:
    yield _run_words(found.run)
    yield (
        f"{found.seen:,} seen, {found.drawn:,} drawn, {found.done:,} done, {found.dropped:,} dropped, "
        f"{found.failed:,} failed"
    )
    for breaker in found.breaker:
        yield f"paused by {breaker.process} since {date_and_time(breaker.since)}: {breaker.why}"
    for error, queries in found.errors:
        yield f"failed ×{queries:,}: {error}"


def _report_lines(found: ShadowReport) -> Iterator[str]:
    from rich.table import Column

    yield from _head_lines(found)
    if not found.queries:
        yield "Both versions have not yet answered the same query."
        return
    yield ""
    yield (
        f"overlap {figure(found.overlap)}  Jaccard {figure(found.jaccard)}  RBO {figure(found.rbo)}  "
        f"tau {figure(found.kendall_tau)}  of {found.queries:,} queries"
    )
    most = max(found.histogram)
    rows = [
        (f"{place / (len(found.histogram) - 1):.1f}", f"{queries:,}", "█" * round(_BAR_COLUMNS * queries / most))
        for place, queries in enumerate(found.histogram)
    ]
    yield from aligned(rows, "overlap", Column("queries", justify="right"), "")
    yield ""
    figures = [("all", found.queries, found.overlap, found.rbo, found.primary_ms, found.candidate_ms)] + [
        (one.segment or "(none)", one.queries, one.overlap, one.rbo, one.primary_ms, one.candidate_ms)
        for one in found.segments
        if len(found.segments) > 1 or one.segment
    ]
    yield from aligned(
        [
            (segment, f"{queries:,}", figure(overlap), figure(rbo), _latency(primary), _latency(candidate))
            for segment, queries, overlap, rbo, primary, candidate in figures
        ],
        Column("segment", no_wrap=True),
        *right("queries", "overlap", "RBO", "active p50/p95/p99 ms", "candidate p50/p95/p99 ms"),
    )
    if found.worst:
        yield ""
        yield from aligned(
            [(one.id, figure(one.overlap), figure(one.rbo), one.segment, one.name) for one in found.worst],
            *right("id", "overlap", "RBO"),
            Column("segment", no_wrap=True),
            Column("worst disagreements", no_wrap=True, overflow="ellipsis"),
        )


def _latency(found: Latency) -> str:
    return "/".join("—" if value is None else f"{value:.1f}" for value in (found.p50, found.p95, found.p99))
