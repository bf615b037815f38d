"""`revector load`: loads vectors made elsewhere into a version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from revector.console.commands.options import Json, Key
from revector.console.context import answer, context_of, note
from revector.console.contract import answering
from revector.console.progress import progress_bar

app = typer.Typer()


@app.command(cls=answering("core.vectors.load:LoadReport"))
def load(
    context: typer.Context,
    key: Key,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Vectors as .npy (n, d), or Parquet.")],
    ids: Annotated[
        Path | None,
        typer.Option(
            "--ids",
            metavar="FILE",
            help="Ids of a .npy file's rows: .npy, or text with one per line. Default: NAME.ids.npy or NAME.ids.txt.",
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option("--id-column", metavar="NAME", help="Of a Parquet file. Default: chunk_id or semantic_key."),
    ] = None,
    vector_column: Annotated[
        str | None, typer.Option("--vector-column", metavar="NAME", help="Of a Parquet file. Default: embedding.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip and count vectors that are zero or not finite.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Load vectors that were made elsewhere.

    Ids are chunk ids or semantic keys. A chunk that has a vector keeps it. Killed at any moment, the same command
    continues where it stopped.
    """
    from revector.core.registry import get_version
    from revector.core.vectors.files import open_vectors
    from revector.core.vectors.load import load as load_vectors
    from revector.screens.wording.load import next_words, report_lines

    own = context_of(context)
    with own.session(changes=True) as connection:
        version = get_version(connection, key)
    vectors = open_vectors(file, ids=ids, id_column=id_column, vector_column=vector_column)
    try:
        with progress_bar() as progress:
            report = load_vectors(own.database, version, vectors, skip_bad=skip_bad, on_progress=progress)
    except KeyboardInterrupt:
        note("Interrupted; nothing is lost. Run the same command to continue.")
        raise
    if report.resumed_at:
        note(f"Resumed at row {report.resumed_at:,}.")
    answer(report, as_json, report_lines(report))
    note(f"{next_words(report)} revector backfill run {key}")
