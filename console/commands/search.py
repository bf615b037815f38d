"""`revector search` and `revector compare`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.context import Json, answer, context_of, plain

if TYPE_CHECKING:
    from core.database import Connection
    from core.overlap import Move
    from core.registry import Version
    from core.retrieval import Hit, SearchResult

K = Annotated[int, typer.Option("-k", help="How many results.", min=1, max=1000)]
Query = Annotated[str, typer.Argument(metavar="TEXT", help="The query.")]

_SNIPPET = 100


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(search)
    app.command()(compare)


def search(
    context: typer.Context,
    text: Query,
    k: K = 10,
    version: Annotated[str | None, typer.Option("--version", metavar="KEY", help="Not the active one.")] = None,
    as_json: Json = False,
) -> None:
    """Search by the active version, as users get it."""
    from core.registry import get_version
    from core.retrieval import Retriever

    with context_of(context).session() as connection:
        retriever = Retriever(connection)
        if version is None:
            result = retriever.search(text, k)
        else:
            result = retriever.search_version(text, get_version(connection, version), k)

    def show(console: Any) -> None:
        console.print(plain(f"{result.version_key}, {result.search_s * 1000:.1f} ms"))
        for hit in result.hits:
            console.print(f"{hit.rank:>3}  {plain(hit.source_id)}  {plain(_snippet(hit))}", overflow="ellipsis",
                          no_wrap=True)  # fmt: skip

    answer(result_document(result), as_json, show)


def compare(
    context: typer.Context,
    text: Query,
    k: K = 10,
    candidate: Annotated[str | None, typer.Option("--candidate", metavar="KEY")] = None,
    primary: Annotated[str | None, typer.Option("--primary", metavar="KEY", help="Else the active one.")] = None,
    as_json: Json = False,
) -> None:
    """The top-k of two versions side by side, with rank moves and overlap."""
    from core.retrieval import Retriever

    with context_of(context).session() as connection:
        first, second = chosen_versions(connection, primary, candidate)
        found = Retriever(connection).compare(text, first, second, k)

    def show(console: Any) -> None:
        from rich.table import Table

        table = Table("", found.primary.version_key, "", found.candidate.version_key, box=None, expand=True)
        left, right = (
            [
                (plain(f"{move.rank:>2} {move.label}"), plain(hit.source_id))
                for move, hit in zip(moves, hits, strict=True)
            ]
            for moves, hits in (
                (found.primary_moves, found.primary.hits),
                (found.candidate_moves, found.candidate.hits),
            )
        )
        for row in range(max(len(left), len(right))):
            table.add_row(
                *(left[row] if row < len(left) else ("", "")), *(right[row] if row < len(right) else ("", ""))
            )
        console.print(table)
        o = found.overlap
        tau = "—" if o.kendall_tau is None else f"{o.kendall_tau:.2f}"
        console.print(f"overlap@{o.k} {o.overlap:.2f}  Jaccard {o.jaccard:.2f}  RBO {o.rbo:.2f}  tau {tau}")

    document = {
        "query": found.query,
        "primary": _with_moves(found.primary, found.primary_moves),
        "candidate": _with_moves(found.candidate, found.candidate_moves),
        "overlap": asdict(found.overlap),
    }
    answer(document, as_json, show)


def chosen_versions(connection: Connection, primary: str | None, candidate: str | None) -> tuple[Version, Version]:
    """The two versions to compare: the active one, and the newest other one that has vectors, unless named."""
    from core.errors import UsageError
    from core.registry import get_version, require_active, versions

    first = get_version(connection, primary) if primary else require_active(connection)
    if candidate:
        return first, get_version(connection, candidate)
    others = [
        v
        for v in versions(connection)
        if v.id != first.id and v.state in ("loaded", "ready", "active", "previous")
    ]
    if not others:
        raise UsageError(
            f"There is no version to compare {first.version_key} with.",
            "Register and backfill one: revector versions add, revector backfill run.",
        )
    return first, others[-1]


def result_document(result: SearchResult) -> dict[str, Any]:
    """A search result in JSON, with the keys of the command line's contract."""
    return {
        "query": result.query,
        "version_key": result.version_key,
        "hits": [asdict(hit) for hit in result.hits],
        "encode_ms": round(result.encode_s * 1000, 3),
        "search_ms": round(result.search_s * 1000, 3),
    }


def _with_moves(result: SearchResult, moves: list[Move]) -> dict[str, Any]:
    document = result_document(result)
    for hit, move in zip(document["hits"], moves, strict=True):
        hit["other_rank"] = move.other_rank
    return document


def _snippet(hit: Hit) -> str:
    return " ".join(hit.content.split())[:_SNIPPET]
