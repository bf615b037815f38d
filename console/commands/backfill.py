"""`revector backfill`: run, watch and steer the backfill of a version."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from console.commands.options import Json
from console.commands.versions import Key
from console.context import Context, answer, context_of, counted, note, plain, say_throttled
from console.progress import progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from core.backfill.job import JobStatus
    from core.registry import Version

app = typer.Typer(
    name="backfill",
    help="Embed every chunk with a version's encoder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_BAR_S = 0.5
"""Between two looks at the job for the progress bar."""

NoIndex = Annotated[bool, typer.Option("--no-index", help="Do not build the index after the load.")]


@app.command()
def run(context: typer.Context, key: Key, no_index: NoIndex = False, as_json: Json = False) -> None:
    """Start a backfill, or go on where it stopped.

    Builds the index afterwards. Exit status 1 when it was paused or cancelled meanwhile, or chunks failed.
    """
    from core.registry import get_version

    own = context_of(context)
    with own.session(changes=True) as connection:
        version = get_version(connection, key)
    try:
        result = run_backfill(own, version)
        if result.state == "done" and not no_index:
            _build_index(own, version)
    except KeyboardInterrupt:
        note(f"Interrupted; nothing is lost. Go on with it: revector backfill run {key}")
        raise
    _answer_status(result, as_json)
    if result.state == "failed":
        note(f"Look at them: revector backfill failures {key}")
    elif result.state != "done":
        note(f"Go on with it: revector backfill run {key}")
    if result.state != "done":
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
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why a chunk may be missing; stays in the log.")
    ] = "",
    as_json: Json = False,
) -> None:
    """The chunks that could not be embedded, with their errors."""
    from core.backfill import job
    from core.registry import get_version

    with context_of(context).session(changes=retry or waive is not None) as connection:
        version = get_version(connection, key)
        if waive is not None:
            job.waive_failure(connection, version, waive, reason)
        queued = job.retry_failures(connection, version) if retry else 0
        found = job.failures(connection, version)

    def show(console: Console) -> None:
        for failure in found:
            waived = f" (waived: {failure.waived_reason})" if failure.waived_reason else ""
            console.print(plain(f"chunk {failure.chunk_id} of {failure.source_id}: {failure.error}{waived}"))
        if queued:
            console.print(f"{counted(queued, 'chunk')} queued once more: revector backfill run {key}")
        if not found:
            console.print("No chunk failed.")

    answer({"version_key": key, "queued": queued, "failures": [asdict(f) for f in found]}, as_json, show)


def run_backfill(own: Context, version: Version) -> JobStatus:
    """Work on the version's backfill in this process, with a progress bar."""
    from core.backfill.job import status as job_status
    from core.backfill.worker import Worker, WorkerSettings
    from core.encoders import Throttled
    from core.retrieval import open_version_encoder

    settings = WorkerSettings(batch_size=own.settings.batch_size, lease_s=own.settings.lease_s)
    encoder = open_version_encoder(version)
    with own.session(changes=True) as connection, progress_bar() as progress:
        shown = 0.0

        def report(_stored: int) -> None:
            nonlocal shown
            # In the writer's thread: a look at the job after each batch would hold up the next one.
            if time.monotonic() - shown < _BAR_S:
                return
            shown = time.monotonic()
            found = job_status(connection, version)
            if found is not None:
                progress(f"embedding {version.version_key}", found.done, found.total)

        worker = Worker(own.database, version, encoder, settings, on_batch=report)
        if isinstance(encoder, Throttled):
            hold = encoder.on_throttle  # the worker's: it writes the reason into the job's row

            def hold_aloud(seconds: float, reason: str) -> None:
                say_throttled(seconds, reason)
                hold(seconds, reason)

            encoder.on_throttle = hold_aloud
        return worker.run()


def _build_index(own: Context, version: Version) -> None:
    from core import index

    with own.session() as connection:
        if not index.inspect(connection, version).valid:
            note(f"building the index of {version.version_key}")
        index.build(connection, version, own.settings)


def _request(own: Context, key: str, action: str, as_json: bool) -> None:
    from core.backfill import job
    from core.registry import get_version

    with own.session(changes=True) as connection:
        _answer_status(job.request(connection, get_version(connection, key), action), as_json)


def _answer_status(status: JobStatus, as_json: bool) -> None:
    def show(console: Console) -> None:
        pace = ""
        if status.state == "running":
            pace = (
                f", {status.rate:,.0f} chunks/s, {counted(status.workers, 'worker')}, ETA {duration(status.eta_s)}"
            )
        elif status.started_at and status.finished_at:
            pace = f", took {duration((status.finished_at - status.started_at).total_seconds())}"
        console.print(plain(f"{status.version_key}: {status.state}{pace}"))
        console.print(
            f"{status.done:,} of {counted(status.total, 'chunk')} done, {status.failed:,} failed, "
            f"{status.pending:,} pending"
        )
        for text in (status.throttle, status.error):
            if text:
                console.print(plain(text))

    from screens.text import duration

    answer(asdict(status), as_json, show)
