"""`revector load` and `revector export`: vectors made elsewhere, and the texts to make them of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from revector.console.commands.options import Json, Key
from revector.console.context import answer, context_of, counted, note
from revector.console.contract import answering
from revector.console.progress import progress_bar
from revector.core.errors import UsageError

app = typer.Typer()


@app.command(cls=answering("core.vectors.report:LoadReport"))
def load(
    context: typer.Context,
    key: Key,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…",
            help="Vectors as .npy (n, d), .safetensors, Parquet, Arrow, or a provider's batch answers (JSONL). Also "
            "folders, and patterns such as 'out/part-*'.",
        ),
    ],
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
        typer.Option(
            "--id-column", metavar="NAME", help="Or array. Default: chunk_id, semantic_key or source_id."
        ),
    ] = None,
    vector_column: Annotated[
        str | None, typer.Option("--vector-column", metavar="NAME", help="Or array. Default: embedding.")
    ] = None,
    ids_are: Annotated[
        str | None,
        typer.Option(
            "--ids-are",
            metavar="chunk_id|semantic_key|source_id",
            help="source_id: your own ids of documents that have one chunk.",
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip and count vectors that are zero or not finite.")
    ] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not compare a sample of each file with the encoder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Load vectors that were made elsewhere.

    Ids are chunk ids, semantic keys or source ids. A chunk that has a vector keeps it. A sample of each file is
    compared with what the version's encoder makes. Killed at any moment, the same command continues where it stopped.
    """
    from revector.core.cutover.policy import read_policy
    from revector.core.encoders.again import Limits
    from revector.core.registry import get_version
    from revector.core.vectors.files import find_files, open_vectors
    from revector.core.vectors.load import load as load_vectors
    from revector.screens.wording.load import next_words, report_lines

    own = context_of(context)
    with own.session(changes=True) as connection:
        version, policy = get_version(connection, key), read_policy(connection)
    found = find_files(paths)
    if ids is not None and len(found) > 1:
        raise UsageError(
            f"--ids names the ids of one file, and there are {len(found):,}.",
            "Put each file's ids beside it, as NAME.ids.npy or NAME.ids.txt.",
        )
    options = {"id_column": id_column, "vector_column": vector_column, "ids_are": ids_are}
    files = [open_vectors(path, ids=ids, **options) for path in found]
    limits = None if no_check else Limits(policy.encoder_cosine, policy.encoder_timeout_s, policy.encoder_usd)
    try:
        with progress_bar() as progress:
            report = load_vectors(
                own.database, version, files, skip_bad=skip_bad, limits=limits, on_progress=progress
            )
    except KeyboardInterrupt:
        note("Interrupted; nothing is lost. Run the same command to continue.")
        raise
    for one in report.files:
        if one.resumed_at:
            which = f" {one.source}" if len(report.files) > 1 else ""
            note(f"Resumed{which} at row {one.resumed_at:,}.")
    answer(report, as_json, report_lines(report))
    note(f"{next_words(report)} revector backfill run {key}")


@app.command(cls=answering("core.vectors.export:ExportReport"))
def export(
    context: typer.Context,
    key: Key,
    form: Annotated[
        str,
        typer.Option("--format", metavar="openai-batch|parquet", help="Requests of a batch, or a table."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE|DIR", help="A file, or a folder for several.")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    as_json: Json = False,
) -> None:
    """Write the texts that a version still lacks, to be encoded elsewhere and loaded.

    Each with the encoder's document prefix, and under an id that `load` understands. A text that several chunks have
    is written once.
    """
    from revector.core.vectors.export import export as write

    with context_of(context).version(key, changes=True) as (connection, version), progress_bar() as progress:
        report = write(connection, version, form, output, overwrite=overwrite, on_progress=progress)
    names = report.files[0] if len(report.files) == 1 else f"{len(report.files):,} files in {output}"
    lines = [f"{key}: {counted(report.texts, 'text')} written to {names}, {report.repeated:,} repeated left out."]
    answer(report, as_json, lines)
    note(f"When they are encoded: revector load {key} FILE…")
