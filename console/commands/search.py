"""`revector search`, `revector compare` and `revector serving`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated

import typer

from revector.console.commands.options import Candidate, Json, Primary
from revector.console.context import aligned, answer, context_of, note, open_aloud, plain, width
from revector.console.contract import answering

if TYPE_CHECKING:
    from revector.core.database import Connection
    from revector.core.evaluation.judged_sets.judged_hits import JudgedHits
    from revector.core.overlap import Move
    from revector.core.registry import Version
    from revector.core.retrieval import SearchResult
    from revector.core.serving import Process

app = typer.Typer()
K = Annotated[int, typer.Option("-k", metavar="K", help="How many results.", min=1, max=1000)]
Query = Annotated[str, typer.Argument(metavar="TEXT", help="The query.")]

_SNIPPET = 100
_SOURCE_WIDTH = 36


@app.command(cls=answering("core.retrieval.result:SearchResult"))
def search(
    context: typer.Context,
    text: Query,
    k: K = 10,
    version: Annotated[
        str | None, typer.Option("--version", metavar="KEY", help="Default: the active one.")
    ] = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="Also search full text, and fuse by rank.")] = False,
    rerank: Annotated[
        str | None,
        typer.Option("--rerank", metavar="SPEC", help="Rerank with a cross-encoder: cross-encoder:PATH-OR-NAME."),
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="NAME=VALUE",
            help="Only chunks with this in their metadata; VALUE is JSON, or else text. May be repeated.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search by the active version, as users get it."""
    from revector.core.registry import get_version
    from revector.core.retrieval import EncoderCache, VersionSearcher
    from revector.core.retrieval.query_text import UNSPACED_NOTE, is_unspaced

    where = _read_filters(filters or [])
    with context_of(context).session() as connection:
        searcher = VersionSearcher(connection, EncoderCache(open_aloud))
        named = get_version(connection, version) if version is not None else None
        result = searcher.search(text, k, version=named, hybrid=hybrid, rerank=rerank, where=where)
    if hybrid and is_unspaced(text):
        note(UNSPACED_NOTE)

    def show() -> Iterator[str]:
        from rich.cells import cell_len
        from rich.table import Column

        yield f"{result.version_key}, {result.search_s * 1000:.1f} ms"
        rows = [(hit.rank, hit.source_id, " ".join(hit.content.split())[:_SNIPPET]) for hit in result.hits]
        source = min(_SOURCE_WIDTH, max((cell_len(plain(hit.source_id)) for hit in result.hits), default=0))
        yield from aligned(
            rows,
            Column(justify="right", min_width=3, no_wrap=True),
            Column(no_wrap=True, overflow="ellipsis", max_width=source),
            Column(no_wrap=True, overflow="ellipsis", max_width=width() - source - 8),
            header=False,
        )
        if not rows:
            yield "No results."

    answer(replace(result, where=where), as_json, show())


def _read_filters(filters: Sequence[str]) -> dict[str, object]:
    from revector.core.errors import UsageError

    found: dict[str, object] = {}
    for text in filters:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(f"{text!r} is not a filter.", "Expected NAME=VALUE, such as language=en.")
        if name in found:
            raise UsageError(
                f"The filter {name!r} is given twice.",
                f"A list requires all of its values, $in one of them: {name}='{{\"$in\": [1, 2]}}'.",
            )
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            if value.lstrip().startswith(("{", "[")):
                raise UsageError(
                    f"The value of the filter {name!r} is not JSON: {value}",
                    "Check its quotes, commas and brackets.",
                ) from None
            found[name] = value
    return found


@app.command(cls=answering(processes="core.serving:Process"))
def serving(context: typer.Context, as_json: Json = False) -> None:
    """Show which processes search this collection, and by which version.

    The exit status is 1 when one of them has not followed the last flip within 5 seconds, or is pinned to a version
    that does not exist.
    """
    from revector.core import serving as processes

    with context_of(context).session() as connection:
        found = processes.serving(connection)

    def show() -> Iterator[str]:
        rows = [
            (
                one.program,
                f"{one.host}:{one.pid}",
                one.version_key or "none",
                _state(one),
                f"since {one.since:%Y-%m-%d %H:%M}" if one.since else "",
            )
            for one in found
        ]
        yield from aligned(rows, "program", "process", "version", "", "", header=bool(rows))
        if not rows:
            yield "No search service is connected."

    answer({"processes": found}, as_json, show())
    if any(one.late or one.gone for one in found):
        raise typer.Exit(1)


def _state(process: Process) -> str:
    if process.gone:
        return f"pinned to {process.pinned_to or 'a version'}, which does not exist"
    return f"behind for {process.behind_s:.1f} s" if process.behind_s is not None else "pinned" * process.pinned


@app.command(cls=answering("screens.compare.export:ComparisonDocument"))
def compare(
    context: typer.Context,
    text: Query,
    k: K = 10,
    candidate: Candidate = None,
    primary: Primary = None,
    as_json: Json = False,
) -> None:
    """The top-k of two versions side by side.

    With rank moves (▲2: two ranks better than in the other version) and the overlap of both. A query that is one of a
    query set has its judgements beside the hits (★2 relevant, ✗ not) and nDCG of both versions.
    """
    from revector.core.evaluation.judged_sets.judged_hits import judge_comparison
    from revector.core.retrieval import EncoderCache, VersionSearcher
    from revector.screens.compare.export import comparison_document
    from revector.screens.wording.grades import ndcg_words

    with context_of(context).session() as connection:
        first, second = chosen_versions(connection, primary, candidate)
        searcher = VersionSearcher(connection, EncoderCache(open_aloud))
        found = searcher.compare(text, first, second, k)
        judged = judge_comparison(connection, searcher, found, first, second)

    def show() -> Iterator[str]:
        from rich.table import Column

        sides = zip_longest(
            _side(found.primary, found.primary_moves, judged),
            _side(found.candidate, found.candidate_moves, judged),
            fillvalue=("", "", ""),
        )
        ranks = max(len(found.primary.hits), len(found.candidate.hits))
        rank, move = len(str(ranks)), len("new")
        source = (width() - 2 * (rank + move) - 10) // 2
        columns: list[Column] = []
        for result in (found.primary, found.candidate):
            columns += (
                Column(justify="right", no_wrap=True),
                Column(no_wrap=True),
                Column(plain(result.version_key), no_wrap=True, overflow="ellipsis", max_width=source),
            )
        yield from aligned((left + right for left, right in sides), *columns)
        o = found.overlap
        tau = "—" if o.kendall_tau is None else f"{o.kendall_tau:.2f}"
        yield f"overlap@{o.k} {o.overlap:.2f}  Jaccard {o.jaccard:.2f}  RBO {o.rbo:.2f}  tau {tau}"
        if judged is not None:
            name, values, known = ndcg_words(judged)
            yield f"{name} {values}  ({known}, query {judged.query.id} of {judged.query_set})"

    answer(comparison_document(found, judged), as_json, show())


def chosen_versions(connection: Connection, primary: str | None, candidate: str | None) -> tuple[Version, Version]:
    """The two versions to compare: by default the active one, and the newest other one that has vectors."""
    from revector.core.errors import UsageError
    from revector.core.registry import get_version, require_active, versions

    second = get_version(connection, candidate) if candidate else None
    first = get_version(connection, primary) if primary else require_active(connection)
    if second:
        return first, second
    filled = ("loaded", "ready", "active", "previous")
    others = [v for v in versions(connection) if v.id != first.id and v.state in filled]
    if not others:
        raise UsageError(
            f"There is no version to compare {first.version_key} with.",
            "Register and backfill one: revector versions add, revector backfill run.",
        )
    return first, others[-1]


def _side(result: SearchResult, moves: Sequence[Move], judged: JudgedHits | None) -> list[tuple[object, str, str]]:
    from revector.screens.wording.grades import star_cell

    return [
        (hit.rank, move.label, (star_cell(judged, hit.chunk_id).plain if judged else "") + hit.source_id)
        for move, hit in zip(moves, result.hits, strict=True)
    ]
