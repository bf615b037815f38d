"""`revector evaluations`: stored evaluations, and comparing stored runs again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from revector.console.commands.evaluation import evaluate
from revector.console.commands.options import Json
from revector.console.context import aligned, answer, context_of
from revector.console.contract import answering

app = typer.Typer(name="evaluations", help="Stored evaluations.")

Number = Annotated[int, typer.Option("-n", "--number", metavar="N", help="How many.", min=1, max=10_000)]


@app.command("list", cls=answering(evaluations="core.evaluation.document:EvaluationSummary"))
def list_(
    context: typer.Context,
    candidate: Annotated[str | None, typer.Option("--candidate", metavar="KEY", help="Only of this one.")] = None,
    number: Number = 50,
    as_json: Json = False,
) -> None:
    """The evaluations, newest first."""
    from revector.core.evaluation.document import evaluations

    with context_of(context).session() as connection:
        found = evaluations(connection, candidate=candidate, limit=number)

    def show() -> Iterator[str]:
        if not found:
            yield f"No evaluation{f' of {candidate}' if candidate else ''} is stored yet."
            yield "Make one: revector evaluate QUERY-SET --candidate KEY"
            return
        rows = [
            (
                e.id,
                e.query_set,
                e.primary,
                e.candidate,
                e.verdict or "—",
                f"{e.created_at:%Y-%m-%d %H:%M}",
                e.created_by,
            )
            for e in found
        ]
        yield from aligned(rows, "id", "query set", "primary", "candidate", "verdict", "at", "by")

    answer({"evaluations": found}, as_json, show())


@app.command(cls=answering(runs="core.evaluation.document:Run"))
def runs(
    context: typer.Context,
    query_set: Annotated[str | None, typer.Option("--query-set", metavar="NAME", help="Only of this one.")] = None,
    number: Number = 50,
    as_json: Json = False,
) -> None:
    """The runs that are kept, newest first: one version's results for a query set."""
    from revector.core.evaluation.runs.store import runs as stored

    with context_of(context).session() as connection:
        found = stored(connection, query_set=query_set, limit=number)

    def show() -> Iterator[str]:
        if not found:
            yield f"No run{f' for {query_set}' if query_set else ''} is stored yet."
            yield "An evaluation makes them: revector evaluate QUERY-SET --candidate KEY"
            return
        rows = [
            (
                run.id,
                f"{run.query_set} {run.query_set_revision[:8]}",
                run.version_key,
                run.k,
                f"{'exact' if run.exact else run.ef_search or 'as set'}{', hybrid' if run.hybrid else ''}",
                "pilot" if run.sample else f"{run.chunks:,}",
                f"{run.seconds:.1f}",
                f"{run.started_at:%Y-%m-%d %H:%M}",
            )
            for run in found
        ]
        yield from aligned(rows, "id", "query set", "version", "k", "ef_search", "chunks", "seconds", "at")

    answer({"runs": found}, as_json, show())


@app.command(cls=answering("core.evaluation.document:Evaluation"))
def show(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="ID", help="The number from `list`.")],
    junit: evaluate.JUnit = None,
    markdown: evaluate.Markdown = None,
    html: evaluate.Html = None,
    as_json: Json = False,
) -> None:
    """An evaluation as it was when it was made, and its reports."""
    from revector.core.evaluation.document import get_evaluation

    with context_of(context).session() as connection:
        found = get_evaluation(connection, number)
    evaluate.write_reports(found, junit=junit, markdown=markdown, html=html)
    answer(found, as_json, evaluate.evaluation_lines(found))


@app.command(cls=answering("core.evaluation.document:Evaluation"))
def compare(
    context: typer.Context,
    primary: Annotated[int, typer.Argument(metavar="RUN", help="The run to compare with.")],
    candidate: Annotated[int, typer.Argument(metavar="RUN", help="The run to evaluate.")],
    gates: evaluate.Gates = None,
    measure: evaluate.Measures = None,
    judge: evaluate.Judges = None,
    k: evaluate.Depth = 10,
    confidence: evaluate.Confidence = 0.95,
    junit: evaluate.JUnit = None,
    markdown: evaluate.Markdown = None,
    html: evaluate.Html = None,
    as_json: Json = False,
) -> None:
    """Compare two stored runs: of two versions, or of one at two index settings.

    Judgements count as they are now. Exit status as of `revector evaluate`.
    """
    from revector.core.evaluation.evaluate import Asked, evaluate_runs
    from revector.core.evaluation.gates.gate_file import read_gates
    from revector.core.evaluation.judged_sets.query_sets import get_query_set
    from revector.core.evaluation.runs.store import get_run

    own = context_of(context)
    gate_file = read_gates(gates) if gates else None
    with own.session(changes=True) as connection:
        pair = get_run(connection, primary), get_run(connection, candidate)
        found = evaluate_runs(
            connection, get_query_set(connection, pair[1].query_set), *pair,
            Asked(judge or (), measure or (), gate_file, k, confidence),
        )  # fmt: skip
    evaluate.write_reports(found, junit=junit, markdown=markdown, html=html)
    answer(found, as_json, evaluate.evaluation_lines(found))
    evaluate.leave_with(found.verdict)
