"""`revector evaluate` and `revector thresholds`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from revector.console.commands.options import Candidate, Json, Primary, QuerySetName
from revector.console.commands.search import chosen_versions
from revector.console.commands.verdicts import verdict_lines
from revector.console.confirmation import require_yes
from revector.console.context import (
    Context,
    aligned,
    answer,
    context_of,
    counted,
    note,
    open_aloud,
    right,
)
from revector.console.contract import answering
from revector.console.progress import progress_bar

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from revector.core.database import Progress
    from revector.core.encoders import Encoder
    from revector.core.evaluation.document import Evaluation, MeasureResult, Verdict
    from revector.core.evaluation.measures.thresholds import Thresholds
    from revector.core.evaluation.runs.pilot import Pilot
    from revector.core.registry import Version
    from revector.core.retrieval import EncoderCache

app = typer.Typer()
Judges = Annotated[
    list[str] | None, typer.Option("--judge", metavar="NAME", help="Whose judgements count. Default: everybody's.")
]
Measures = Annotated[
    list[str] | None,
    typer.Option("--measure", "-m", metavar="MEASURE", help="Such as P@10; may be repeated."),
]
Gates = Annotated[Path | None, typer.Option("--gates", metavar="FILE", help="Gates in TOML, for a verdict.")]
Depth = Annotated[int, typer.Option("-k", metavar="K", help="Depth of the rank overlap.", min=1, max=1000)]
Confidence = Annotated[
    float, typer.Option("--confidence", metavar="SHARE", help="Confidence of the intervals.", min=0.5, max=0.9999)
]
JUnit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write the gates as JUnit XML.")]
Markdown = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Write Markdown for a pull request.")
]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write an HTML page with charts.")]

_WORST_QUERIES = 10


@dataclass(frozen=True)
class ThresholdPair:
    """The versions and the query set of a table of thresholds."""

    query_set: Annotated[str, "the query set"]
    primary: Annotated[str, "the version that the number was made for"]
    candidate: Annotated[str, "the version that needs another"]


@app.command(cls=answering("core.evaluation.document:Evaluation"))
def evaluate(
    context: typer.Context,
    name: QuerySetName,
    candidate: Candidate = None,
    primary: Primary = None,
    gates: Gates = None,
    measure: Measures = None,
    judge: Judges = None,
    k: Depth = 10,
    exact: Annotated[bool, typer.Option("--exact", help="Search without the index: the model alone.")] = False,
    ef_search: Annotated[
        int | None, typer.Option("--ef-search", metavar="N", help="For both versions' indexes.", min=1, max=1000)
    ] = None,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Search full text too, as users with hybrid search do.")
    ] = False,
    confidence: Confidence = 0.95,
    pilot: Annotated[
        bool, typer.Option("--pilot", help="Embed only judged chunks and a random sample, and evaluate on those.")
    ] = False,
    distractors: Annotated[
        int, typer.Option("--distractors", metavar="N", help="Random chunks for a pilot.", min=0)
    ] = 5_000,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Seed of the pilot's random sample.", min=0)
    ] = 2026,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a pilot that costs money.")] = False,
    junit: JUnit = None,
    markdown: Markdown = None,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Search two versions for every query of a set; compare measures by segment, rank overlap and gates.

    Exit status 0 when every gate passes (or none was asked for), 1 when one fails, 3 when none fails and one cannot
    tell: the data is not enough.
    """
    from revector.core.errors import UsageError
    from revector.core.evaluation.evaluate import Asked, evaluate_runs
    from revector.core.evaluation.evaluate import evaluate as run_evaluation
    from revector.core.evaluation.gates.gate_file import read_gates
    from revector.core.evaluation.judged_sets.judgements import load_qrels
    from revector.core.evaluation.judged_sets.query_sets import get_query_set
    from revector.core.evaluation.runs.pilot import embed_pilot, plan_pilot, run_pilot
    from revector.core.retrieval import EncoderCache

    own = context_of(context)
    own.require_writable()
    gate_file = read_gates(gates) if gates else None
    with own.session(changes=True) as connection:
        query_set = get_query_set(connection, name)
        if pilot and candidate is None:
            raise UsageError("A pilot needs the name of the candidate.", "Name it: --candidate KEY")
        if pilot and hybrid:
            raise UsageError("A pilot compares vectors alone.", "Leave out --hybrid, or --pilot.")
        first, second = chosen_versions(connection, primary, candidate)
    cache = EncoderCache(open_aloud)
    asked = Asked(judge or (), measure or (), gate_file, k, confidence)
    with progress_bar() as progress:
        if pilot:
            encoder = cache.encoder(second)
            with own.session(changes=True) as connection:
                qrels = load_qrels(connection, query_set, asked.judges)
                plan = plan_pilot(connection, qrels, first, second, encoder, distractors=distractors, seed=seed)
                _ask(plan, encoder, yes=yes)
                embed_pilot(connection, second, encoder, plan, on_progress=progress)
            runs = run_pilot(own.database, query_set, (first, second), plan, encoders=cache, on_progress=progress)
            with own.session() as connection:
                found = evaluate_runs(connection, query_set, *runs, asked)
        else:
            found = run_evaluation(
                own.database, query_set, first, second, asked,
                exact=exact, ef_search=ef_search, hybrid=hybrid, encoders=cache, on_progress=progress,
            )  # fmt: skip
    write_reports(found, junit=junit, markdown=markdown, html=html)
    answer(found, as_json, evaluation_lines(found))
    leave_with(found.verdict)


@app.command(
    cls=answering(
        "console.commands.evaluation.evaluate:ThresholdPair", "core.evaluation.measures.thresholds:Thresholds"
    )
)
def thresholds(
    context: typer.Context,
    name: QuerySetName,
    candidate: Candidate = None,
    primary: Primary = None,
    cut: Annotated[
        float | None, typer.Option("--cut", metavar="SCORE", help="The number in your application.")
    ] = None,
    depth: Annotated[
        int, typer.Option("--depth", metavar="N", help="Results per query that the threshold applies to.", min=1)
    ] = 1,
    as_json: Json = False,
) -> None:
    """Translate an absolute score threshold: the candidate's value that keeps the same share of results.

    Scores of two encoders cannot be compared; shares can. Takes the newest runs of the query set, or makes them.
    """
    from revector.core.keys import document
    from revector.core.retrieval import EncoderCache

    own = context_of(context)
    found, pair = threshold_table(own, name, primary, candidate, EncoderCache(open_aloud), cut=cut, depth=depth)
    about = ThresholdPair(name, *(version.version_key for version in pair))
    answer(document(about) | document(found), as_json, _threshold_lines(found, pair))


# -- what the commands of evaluations share, and the notebook ------------------------------------------------


def threshold_table(
    own: Context,
    name: str,
    primary: str | None,
    candidate: str | None,
    encoders: EncoderCache,
    *,
    cut: float | None,
    depth: int,
    shown: Callable[[], AbstractContextManager[Progress]] = progress_bar,
) -> tuple[Thresholds, tuple[Version, Version]]:
    """The table from the query set's newest runs, made if missing, and its versions."""
    from revector.core.evaluation.judged_sets.query_sets import get_query_set
    from revector.core.evaluation.measures.thresholds import thresholds as table_of
    from revector.core.evaluation.runs.make_run import stored_or_made_run
    from revector.core.evaluation.runs.store import load_results

    with own.session() as connection:
        query_set = get_query_set(connection, name)
        pair = chosen_versions(connection, primary, candidate)
    with shown() as progress:
        made = [
            stored_or_made_run(own.database, query_set, version, k=depth, encoders=encoders, on_progress=progress)
            for version in pair
        ]
    with own.session() as connection:
        sides = [load_results(connection, run) for run in made]
    metrics = (pair[0].distance_metric, pair[1].distance_metric)
    return table_of(sides[0], sides[1], metrics, cut=cut, depth=depth), pair


def write_reports(found: Evaluation, *, junit: Path | None, markdown: Path | None, html: Path | None) -> None:
    """Write the requested reports. Raises UsageError for a file that cannot be written."""
    from revector.core.errors import UsageError
    from revector.core.evaluation.reports import Kind, report

    wanted: dict[Kind, Path | None] = {"junit": junit, "markdown": markdown, "html": html}
    for kind, path in wanted.items():
        if path is None:
            continue
        try:
            path.write_text(report(found, kind), encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written: {error.strerror}.",
                f"The evaluation is stored: revector evaluations show {found.id}",
            ) from None
        note(f"Written to {path}")


def leave_with(verdict: Verdict | None) -> None:
    """End with the exit status of a verdict."""
    status = {"fail": 1, "inconclusive": 3}.get(verdict or "pass", 0)
    if status:
        raise typer.Exit(status)


def evaluation_lines(found: Evaluation) -> Iterator[str]:
    """Print an evaluation."""
    primary, candidate = found.primary.version_key, found.candidate.version_key
    how = "without an index" if found.candidate.exact else f"ef_search {found.candidate.ef_search or 'as set'}"
    if found.primary.hybrid or found.candidate.hybrid:
        kinds = ["hybrid search" if run.hybrid else "vectors alone" for run in (found.primary, found.candidate)]
        how = f"{' against '.join(dict.fromkeys(kinds))}, {how}"
    yield (
        f"{found.query_set}: {found.judged_queries:,} of {found.judged_queries + found.unjudged_queries:,} queries "
        f"judged, by {', '.join(found.judges) or 'nobody'}; {how}."
    )
    for warning in found.warnings:
        yield f"! {warning}"
    if found.index_recall is not None:
        yield f"The index finds {found.index_recall:.1%} of the exact top {found.k}."
    if found.measures:
        yield ""
        yield from aligned(
            [_measure_row(row) for row in found.measures],
            "measure",
            "segment",
            *right("queries", primary, candidate, "difference"),
            f"{found.confidence:.0%} interval",
            *right("p"),
        )
    yield ""
    yield from aligned(
        [
            (
                f"overlap@{found.k}" if row.measure == "overlap" else row.measure,
                row.segment,
                row.queries,
                f"{row.mean:.3f}",
                *(f"{row.quantiles[place]:.2f}" for place in (1, 3, 5)),
            )
            for row in found.overlaps
            if row.measure in ("overlap", "rbo")
        ],
        "rankings",
        "segment",
        *right("queries", "mean", "5 %", "median", "95 %"),
    )
    moved = [query for query in found.queries if query.overlap < 1 or query.rbo < 1][:_WORST_QUERIES]
    if moved:
        yield ""
        yield from aligned(
            [(query.id, query.segment, f"{query.rbo:.2f}", f"{query.overlap:.2f}", query.text) for query in moved],
            "moved most",
            "segment",
            *right("RBO", "overlap"),
            "query",
        )
    if found.gates:
        yield ""
        yield from verdict_lines((gate.verdict, gate.name, gate.detail, "") for gate in found.gates)
    yield ""
    verdict = {None: "No gates", "pass": "Every gate passes", "fail": "A gate fails"}
    said = verdict.get(found.verdict, "Not enough data")
    yield f"{said}: {candidate} against {primary}, evaluation {found.id}."


def _measure_row(row: MeasureResult) -> tuple[object, ...]:
    interval = "—" if row.low is None or row.high is None else f"{row.low:+.3f} to {row.high:+.3f}"
    p_value = "—" if row.p_value is None else "<0.001" if row.p_value < 0.001 else f"{row.p_value:.3f}"
    return (
        row.measure,
        row.segment,
        f"{row.queries:,}",
        f"{row.primary:.3f}",
        f"{row.candidate:.3f}",
        f"{row.difference:+.3f}",
        interval,
        p_value,
    )


def _ask(plan: Pilot, encoder: Encoder, *, yes: bool) -> None:
    """Show what a pilot costs; at a terminal, ask. In a script the command itself is the consent."""
    note(plan.says)
    if not plan.to_embed or encoder.price == 0:
        return
    cost = "at an unknown price" if plan.cost_usd is None else f"for about ${plan.cost_usd:.4f}"
    note(f"{counted(plan.to_embed, 'chunk')}, {plan.tokens:,} tokens, go to {encoder.name} {cost}.")
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    require_yes("Nothing was embedded.")


def _threshold_lines(found: Thresholds, pair: tuple[Version, Version]) -> Iterator[str]:
    primary, candidate = (version.version_key for version in pair)
    yield found.says
    yield from aligned(
        [(f"{r.kept:.1%}", f"{r.primary:.4f}", f"{r.candidate:.4f}", f"{r.if_copied:.1%}") for r in found.rows],
        *right("kept", f"cut of {primary}", f"same for {candidate}", "kept if copied"),
    )
    if words := found.answer(primary, candidate):
        yield f"{words} Store the threshold with the version, or decide by rank instead."
