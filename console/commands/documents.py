"""`revector ingest`: documents into chunks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from revector.console.commands.options import Json
from revector.console.context import answer, context_of, counted, note, plain
from revector.console.contract import answering
from revector.console.progress import progress_bar

if TYPE_CHECKING:
    from revector.core.documents import Rejection

app = typer.Typer()
_SHOWN_REJECTIONS = 20


@app.command(cls=answering("core.ingest:IngestReport"))
def ingest(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="Text, Markdown, JSONL or CSV files, folders, BEIR collections."),
    ],
    prune: Annotated[bool, typer.Option("--prune", help="Remove documents that are not in this run.")] = False,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", metavar="FOLDER", help="Make ids of the paths below this folder, whatever PATH is."
        ),
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="Put this before every id.")] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace documents of the same id that came from another folder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ingest documents.

    Running it twice changes nothing; an edited document replaces its changed chunks. The id of a file is its path
    inside PATH. Exit status 1 when something was rejected: the rest is stored all the same.
    """
    from revector.core.documents import KINDS, Naming, read_documents
    from revector.core.ingest import ingest as ingest_documents

    own = context_of(context)
    own.require_writable()
    rejected = 0

    def reject(rejection: Rejection) -> None:
        nonlocal rejected
        rejected += 1
        if rejected <= _SHOWN_REJECTIONS:
            note(plain(f"rejected {rejection.where}: {rejection.problem}"))

    documents = read_documents(
        paths, max_bytes=own.settings.max_document_bytes, on_reject=reject, root=root, naming=Naming(prefix=prefix)
    )
    with own.session(changes=True) as connection:
        try:
            with progress_bar() as progress:
                report = ingest_documents(
                    connection, documents, chunk_characters=own.settings.chunk_characters, prune=prune,
                    replace=replace, on_progress=progress, on_wait=note,
                )  # fmt: skip
        finally:
            if rejected > _SHOWN_REJECTIONS:
                note(f"… and {rejected - _SHOWN_REJECTIONS:,} more were rejected")
        waiting = connection.execute(
            """
            SELECT v.version_key, count(*)
            FROM chunk_outbox o JOIN embedding_versions v ON v.id = o.embedding_version_id
            GROUP BY v.version_key ORDER BY v.version_key
            """
        ).fetchall()
    if not report.documents + report.rejected:
        note(f"No document was found. In a folder, these files are read: {', '.join(sorted(KINDS))}.")
    for key, count in waiting:
        note(f"{counted(count, 'chunk')} not in version {key} yet: revector backfill run {key}")

    def show() -> Iterator[str]:
        yield (
            f"{counted(report.documents, 'document')}, {counted(report.chunks, 'chunk')}: "
            f"{report.inserted:,} inserted, {report.unchanged:,} unchanged, {report.deleted:,} deleted, "
            f"{report.rejected:,} rejected."
        )
        for number, thing, what in (
            (report.cleaned, "document", "had NUL characters or lone surrogates, which were removed"),
            (report.empty, "document", "without any text"),
            (report.left_out, "file", "of other types skipped"),
            (report.carried, "vector", "copied from chunks with the same text"),
        ):
            if number:
                yield f"{counted(number, thing)} {what}."

    answer(report, as_json, show())
    if report.rejected:
        raise typer.Exit(1)
