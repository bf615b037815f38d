"""`revector ingest`: documents into chunks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.context import Json, answer, context_of, note, plain
from console.progress import progress_bar

if TYPE_CHECKING:
    from core.database import Connection
    from core.documents import Rejection

_SHOWN_REJECTIONS = 20


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(ingest)


def ingest(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH…", help="Text, Markdown, JSONL or CSV files, folders, BEIR collections."),
    ],
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove documents of the collection that are not in this run.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take documents in. Running it twice changes nothing; an edited document replaces its changed chunks."""
    from dataclasses import asdict

    from core.documents import read_documents
    from core.ingest import ingest as ingest_documents

    own = context_of(context)
    rejections: list[Rejection] = []
    with own.session() as connection:
        with progress_bar() as progress:
            documents = read_documents(
                paths, max_bytes=own.settings.max_document_bytes, on_reject=rejections.append
            )
            report = ingest_documents(
                connection, documents, chunk_characters=own.settings.chunk_characters,
                prune=prune, on_progress=progress, rejections=rejections,
            )  # fmt: skip
        waiting = _waiting(connection)
    for rejection in rejections[:_SHOWN_REJECTIONS]:
        note(plain(f"rejected {rejection.where}: {rejection.problem}"))
    if len(rejections) > _SHOWN_REJECTIONS:
        note(f"… and {len(rejections) - _SHOWN_REJECTIONS} more")
    for key, count in waiting:
        note(f"{count:,} chunks wait for version {key}: revector backfill run {key}")

    def show(console: Any) -> None:
        console.print(
            f"{report.documents:,} documents, {report.chunks:,} chunks: {report.inserted:,} inserted, "
            f"{report.unchanged:,} unchanged, {report.deleted:,} deleted, {report.rejected:,} rejected."
        )
        if report.cleaned:
            console.print(f"{report.cleaned:,} documents had NUL bytes or lone surrogates, which were left out.")
        if report.empty:
            console.print(f"{report.empty:,} documents have no text.")

    answer(asdict(report), as_json, show)
    if report.rejected:
        raise typer.Exit(1)


def _waiting(connection: Connection) -> list[tuple[str, int]]:
    return connection.execute(
        """
        SELECT v.version_key, count(*) FROM chunk_outbox o JOIN embedding_versions v ON v.id = o.embedding_version_id
        GROUP BY v.version_key ORDER BY v.version_key
        """
    ).fetchall()
