"""`revector backfill`: run, watch and steer the backfill of a version."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands.versions import Key
from console.context import Context, Json, answer, context_of, note, plain
from console.progress import progress_bar

if TYPE_CHECKING:
    from core.backfill.job import JobStatus
    from core.registry import Version

app = typer.Typer(name="backfill", help="Embed every chunk with a version's encoder.", no_args_is_help=True)

NoIndex = Annotated[bool, typer.Option("--no-index", help="Do not build the index after the load.")]


@app.command()
def run(context: typer.Context, key: Key, no_index: NoIndex = False, as_json: Json = False) -> None:
    """Start a backfill or go on where it stopped; then build the index."""
    from core.registry import get_version

    own = context_of(context)
    with own.session() as connection:
        version = get_version(connection, key)
    result = run_backfill(own, version)
    if result.state == "done" and not no_index:
        from core import index

        with own.session() as connection:
            if not index.inspect(connection, version).valid:
                note(f"building the index of {key}")
            index.build(connection, version, own.settings)
    _answer_status(result, as_json)
    if result.state == "failed":
        note(f"Look at them: revector backfill failures {key}")
        raise typer.Exit(1)


@app.command()
def resume(context: typer.Context, key: Key, no_index: NoIndex = False, as_json: Json = False) -> None:
    """Go on with a paused or interrupted backfill, in this process."""
    run(context, key, no_index, as_json)


@app.command()
def status(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Where the backfill stands. Costs the same at any size."""
    from core.backfill import job
    from core.errors import UsageError
    from core.registry import get_version

    with context_of(context).session() as connection:
        found = job.status(connection, get_version(connection, key))
    if found is None:
        raise UsageError(f"Version {key} has no backfill yet.", f"Start it: revector backfill run {key}")
    _answer_status(found, as_json)


@app.command()
def pause(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Let the workers finish the batch in hand and stop."""
    _request(context_of(context), key, "pause", as_json)


@app.command()
def cancel(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Stop the backfill. What was embedded stays; `run` goes on with it."""
    _request(context_of(context), key, "cancel", as_json)


@app.command()
def failures(
    context: typer.Context,
    key: Key,
    retry: Annotated[bool, typer.Option("--retry", help="Queue them once more.")] = False,
    waive: Annotated[
        int | None, typer.Option("--waive", metavar="CHUNK", help="Accept that it is missing.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why a chunk may be missing; stays in the log.")] = "",
    as_json: Json = False,
) -> None:
    """The chunks that could not be embedded, with their errors."""
    from core.backfill import job
    from core.registry import get_version

    with context_of(context).session() as connection:
        version = get_version(connection, key)
        if waive is not None:
            job.waive_failure(connection, version, waive, reason)
        queued = job.retry_failures(connection, version) if retry else 0
        found = job.failures(connection, version)

    def show(console: Any) -> None:
        for failure in found:
            waived = f" (waived: {failure.waived_reason})" if failure.waived_reason else ""
            console.print(plain(f"chunk {failure.chunk_id} of {failure.source_id}: {failure.error}{waived}"))
        if queued:
            console.print(f"{queued} queued once more: revector backfill run {key}")
        if not found:
            console.print("No chunk failed.")

    answer({"version_key": key, "queued": queued, "failures": [asdict(f) for f in found]}, as_json, show)


def run_backfill(own: Context, version: Version) -> JobStatus:
    """Work on the version's backfill in this process, with a progress bar."""
    from core.backfill.job import status as job_status
    from core.backfill.worker import Worker, WorkerSettings
    from core.retrieval import open_version_encoder

    settings = WorkerSettings(batch_size=own.settings.batch_size, lease_s=own.settings.lease_s)
    encoder = open_version_encoder(version)
    with own.session() as connection, progress_bar() as progress:

        def report(_stored: int) -> None:
            found = job_status(connection, version)
            if found is not None:
                progress(f"embedding {version.version_key}", found.done, found.total)

        return Worker(own.database, version, encoder, settings, on_batch=report).run()


def _request(own: Context, key: str, action: str, as_json: bool) -> None:
    from core.backfill import job
    from core.registry import get_version

    with own.session() as connection:
        _answer_status(job.request(connection, get_version(connection, key), action), as_json)


def _answer_status(status: JobStatus, as_json: bool) -> None:
    document = asdict(status)

    def show(console: Any) -> None:
        eta = "—" if status.eta_s is None else f"{status.eta_s:.0f} s"
        console.print(
            plain(
                f"{status.version_key}: {status.state}, {status.done:,} of {status.total:,} done, "
                f"{status.failed:,} failed, {status.pending:,} pending"
            )
        )
        if status.state == "running":
            console.print(f"{status.rate:,.0f} chunks/s, ETA {eta}, {status.workers} workers")
        for text in (status.throttle, status.error):
            if text:
                console.print(plain(text))

    answer(document, as_json, show)
