"""`revector ingest`: documents into chunks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
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
_SHOWN_KINDS = 8


@app.command(cls=answering("core.ingest:IngestReport"))
def ingest(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            help="Files, folders, BEIR collections; - is stdin. Text, Markdown, JSON, JSONL, CSV, TSV, notebooks; "
            "with the extra `documents` HTML, reStructuredText, PDF and office files. Compressed ones too.",
        ),
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
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="KIND", help="What stdin and named files are: jsonl, csv, md, html …"),
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", metavar="NAME", help="Where records have their ids; else id or _id.")
    ] = None,
    text: Annotated[str, typer.Option("--text", metavar="NAME", help="Where records have their texts.")] = "text",
    all_rejections: Annotated[
        bool, typer.Option("--all-rejections", help=f"Show every rejection, not only {_SHOWN_REJECTIONS}.")
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
    suffix = f".{format_.lower().removeprefix('.')}" if format_ else None
    if suffix is not None and suffix not in KINDS:
        known = ", ".join(sorted(kind[1:] for kind in KINDS))
        raise typer.BadParameter(f"{format_!r} is not one of {known}.", context, param_hint="--format")
    rejected = 0
    shown = sys.maxsize if all_rejections else _SHOWN_REJECTIONS

    def reject(rejection: Rejection) -> None:
        nonlocal rejected
        rejected += 1
        if rejected <= shown:
            note(plain(f"rejected {rejection.where}: {rejection.problem}"))

    documents = read_documents(
        paths, max_bytes=own.settings.max_document_bytes, on_reject=reject, root=root,
        naming=Naming(id_, text, prefix), suffix=suffix,
    )  # fmt: skip
    with own.session(changes=True) as connection:
        try:
            with progress_bar() as progress:
                report = ingest_documents(
                    connection, documents, chunk_characters=own.settings.chunk_characters, prune=prune,
                    replace=replace, on_progress=progress, on_wait=note,
                )  # fmt: skip
        finally:
            if rejected > shown:
                note(f"… and {rejected - shown:,} more were rejected: --all-rejections shows them")
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
            (report.left_out, "file", f"of other types skipped: {_kinds(report.left_out_kinds)}"),
            (report.carried, "vector", "copied from chunks with the same text"),
        ):
            if number:
                yield f"{counted(number, thing)} {what}."

    answer(report, as_json, show())
    if report.rejected:
        raise typer.Exit(1)


def _kinds(left_out: Mapping[str, int]) -> str:
    """`12 .png, 3 .py, 1 without an ending`: the most frequent ones."""
    most = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{number:,} {plain(kind) or 'without an ending'}" for kind, number in most[:_SHOWN_KINDS]]
    return ", ".join(named) + (", …" if len(most) > _SHOWN_KINDS else "")
