"""`revector judge`: a cross-encoder labels what two versions find."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from revector.console.commands.evaluation.agreement import agreement_lines
from revector.console.commands.options import Candidate, Json, Primary, QuerySetName
from revector.console.commands.search import K, chosen_versions
from revector.console.context import answer, context_of, counted, note
from revector.console.contract import answering
from revector.console.progress import progress_bar

if TYPE_CHECKING:
    from revector.core.evaluation.judged_sets.agreement import Agreement

app = typer.Typer()


@dataclass(frozen=True)
class LabelledPool:
    """The results that a model labelled, and its agreement with people."""

    name: Annotated[str, "the query set"]
    judge: Annotated[str, "what the model is called as a judge"]
    spec: Annotated[str, "how the model is opened"]
    revision: Annotated[str, "of the model"]
    primary: Annotated[str, "the version whose results were labelled"]
    candidate: Annotated[str, "the other"]
    agreement: Annotated[Agreement | None, "with people; null when no person has judged"]


@app.command(
    cls=answering("console.commands.evaluation.judge:LabelledPool", "core.evaluation.judging.by_model:PoolLabels")
)
def judge(
    context: typer.Context,
    name: QuerySetName,
    spec: Annotated[
        str,
        typer.Option(
            "--judge", metavar="SPEC", help="cross-encoder:PATH-OR-NAME?thresholds=0.3,0.7&batch_size=32"
        ),
    ],
    own_name: Annotated[
        str | None,
        typer.Option("--name", metavar="JUDGE", help="Name of the judge. Default: the model's name."),
    ] = None,
    primary: Primary = None,
    candidate: Candidate = None,
    k: K = 10,
    as_json: Json = False,
) -> None:
    """Have a cross-encoder label the top-k of two versions, and say how far it agrees with people.

    The labels are a separate judge's, on chunks, and never mixed with people's unless requested. After an
    interruption, the same command makes the missing ones.
    """
    from revector.core.evaluation.judged_sets.agreement import agreement_with_people
    from revector.core.evaluation.judged_sets.query_sets import get_query_set
    from revector.core.evaluation.judging.by_model import judge_pool
    from revector.core.evaluation.judging.cross_encoder import CrossEncoderJudge, parse_judge_spec
    from revector.core.evaluation.runs.make_run import stored_or_made_run
    from revector.core.keys import document

    parse_judge_spec(spec)
    own = context_of(context)
    with own.session(changes=True) as connection:
        query_set = get_query_set(connection, name)
        versions = chosen_versions(connection, primary, candidate)
    model = CrossEncoderJudge(spec)
    try:
        with progress_bar() as progress:
            first, second = (
                stored_or_made_run(own.database, query_set, version, k=k, on_progress=progress)
                for version in versions
            )
            done = judge_pool(
                own.database, query_set, model, first, second, k=k, name=own_name, on_progress=progress
            )
    except KeyboardInterrupt:
        note("Interrupted; nothing is lost. Run the same command to continue.")
        raise
    with own.session() as connection:
        found = agreement_with_people(connection, query_set, done.judge.name)

    def show() -> Iterator[str]:
        yield (
            f"{done.judge.name}: {counted(done.made, 'label')} made, {done.kept:,} kept, for the top {k} of "
            f"{done.primary.version_key} and {done.candidate.version_key} on {name}."
        )
        if done.gone:
            yield f"{counted(done.gone, 'chunk')} of the runs left the collection and got no label."
        if found is None:
            yield "No person has judged this set, so the model's grades are unchecked."
        else:
            yield from agreement_lines(found)

    judged, keys = done.judge, (done.primary.version_key, done.candidate.version_key)
    pool = LabelledPool(name, judged.name, judged.spec, judged.revision, *keys, found)
    answer(document(pool) | document(done), as_json, show())
