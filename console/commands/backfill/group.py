"""`revector backfill`: plan, run, watch and steer the backfill of a version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revector.console.commands.backfill.plan import PLAN, plan
from revector.console.commands.backfill.run import confirm_cost, ray_settings, run_backfill
from revector.console.commands.backfill.status import detail_lines, status_lines
from revector.console.commands.options import Json, Key, job_settings_options
from revector.console.context import Context, aligned, answer, context_of, counted, note
from revector.console.contract import answering
from revector.core.errors import UsageError

if TYPE_CHECKING:
    from revector.core.backfill.engines.ray.engine import RaySettings
    from revector.core.backfill.job.dead_letters import Failure
    from revector.core.backfill.job.status import JobDetail, JobStatus
    from revector.core.registry import Version

app = typer.Typer(name="backfill", help="Embed every chunk with a version's encoder.")
app.command(cls=answering(*PLAN))(plan)

_STATUS = answering("core.backfill.job.status:JobStatus", "console.commands.backfill.group:StatusDetail")


@dataclass(frozen=True)
class StatusDetail:
    """The keys that --detail adds."""

    detail: Annotated[JobDetail | None, "null without --detail"]


@dataclass(frozen=True)
class SettingsInForce:
    """The settings of a backfill."""

    version_key: Annotated[str, "the version that is backfilled"]
    settings: Annotated[dict[str, Any], "those in force, by name; null is no limit"]
    measured: Annotated[dict[str, Any], "the figures behind the limits that are set, by name"]


@dataclass(frozen=True)
class FailureList:
    """The chunks that could not be embedded."""

    version_key: Annotated[str, "the version that lacks them"]
    queued: Annotated[int, "chunks that --retry queued once more"]
    failures: Annotated[list[Failure], "the newest first"]


NoIndex = Annotated[bool, typer.Option("--no-index", help="Do not build the index after the load.")]
Stay = Annotated[
    bool,
    typer.Option(
        "--stay",
        help="Keep running: wait through pauses and embed new chunks, until stopped. For a service manager.",
    ),
]


@app.command(cls=_STATUS)
@job_settings_options
def run(
    context: typer.Context,
    key: Key,
    changes: dict[str, str],
    no_index: NoIndex = False,
    stay: Stay = False,
    engine: Annotated[
        str, typer.Option("--engine", metavar="local|ray", help="Worker processes here, or actors on Ray.")
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", metavar="ADDRESS", help="A cluster: auto, host:port or ray://host:port."),
    ] = None,
    cpus_per_worker: Annotated[float, typer.Option("--cpus-per-worker", min=0, help="On Ray.")] = 1.0,
    gpus_per_worker: Annotated[
        float, typer.Option("--gpus-per-worker", min=0, help="On Ray; 0.25 places four workers on a GPU.")
    ] = 0.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before spending money.")] = False,
    as_json: Json = False,
) -> None:
    """Start a backfill, or continue where it stopped.

    Says what it will cost, and asks at a terminal before it spends. Builds the index afterwards. Exit status 1
    when it was paused or cancelled meanwhile, or chunks failed.
    """
    own = context_of(context)
    confirm_cost(own, key, yes=yes)
    ray = ray_settings(engine, ray_address, cpus_per_worker, gpus_per_worker)
    if ray and stay:
        raise UsageError(
            "A run on Ray cannot keep running (--stay).", "Leave out --stay, or use the local engine."
        )
    _run_here(own, key, changes, no_index, stay, as_json, ray)


@app.command(cls=_STATUS)
def resume(
    context: typer.Context, key: Key, no_index: NoIndex = False, stay: Stay = False, as_json: Json = False
) -> None:
    """Continue a paused or interrupted backfill: where `run --stay` waits for it, or else in this process."""
    from revector.core.backfill.job import job

    own = context_of(context)
    with own.version(key, changes=True) as (connection, version):
        resumed = job.request_resume(connection, version)
    if resumed:
        note("The process that keeps running continues.")
        _show_status(own, key, as_json)
    else:
        _run_here(own, key, {}, no_index, stay, as_json)


@app.command(cls=_STATUS)
def status(
    context: typer.Context,
    key: Key,
    detail: Annotated[
        bool, typer.Option("--detail", help="Also workers, proofs and changes of state; with --json also ranges.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the status of the backfill. Costs the same at any size."""
    _show_status(context_of(context), key, as_json, detail)


@app.command(cls=_STATUS)
def pause(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Let the workers finish their current batches and stop."""
    from revector.core.backfill.job.job import request_pause

    _request(context_of(context), key, request_pause, as_json)


@app.command(cls=_STATUS)
def cancel(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Stop the backfill. Embedded chunks stay; `run` continues it."""
    from revector.core.backfill.job.job import request_cancel

    _request(context_of(context), key, request_cancel, as_json)


@app.command(name="set", cls=answering("console.commands.backfill.group:SettingsInForce"))
@job_settings_options
def set_(context: typer.Context, key: Key, changes: dict[str, str], as_json: Json = False) -> None:
    """Change settings of a backfill while it runs; its workers follow within two seconds. `none` lifts a limit.

    Without an option it shows the settings in force, and what the limits measure.
    """
    from revector.core.backfill.job import job
    from revector.core.backfill.job.settings import HELP, shown

    with context_of(context).version(key, changes=bool(changes)) as (connection, version):
        if changes:
            job.change_settings(connection, version, changes)
        found = job.require_job(connection, version)
        settings, measured = job.job_settings(connection, found), job.measured(connection, found)

    def show() -> Iterator[str]:
        rows = []
        for name, text in HELP.items():
            value = (measured.get(name) or {}).get("value", "")
            figure = f"{value:,.1f}" if isinstance(value, float) else value
            rows.append((name, shown(settings, name), figure, text))
        yield from aligned(rows, "setting", "value", "measured", "")

    answer(SettingsInForce(key, vars(settings), measured), as_json, show())


@app.command(cls=answering("console.commands.backfill.group:FailureList"))
def failures(
    context: typer.Context,
    key: Key,
    retry: Annotated[bool, typer.Option("--retry", help="Queue them again.")] = False,
    waive: Annotated[
        int | None, typer.Option("--waive", metavar="CHUNK", help="Accept that it stays missing.")
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why the chunk may be missing; it is logged.")
    ] = "",
    as_json: Json = False,
) -> None:
    """The chunks that could not be embedded, with their errors."""
    from revector.core.backfill.job import dead_letters

    with context_of(context).version(key, changes=retry or waive is not None) as (connection, version):
        if waive is not None:
            dead_letters.waive_failure(connection, version, waive, reason)
        queued = dead_letters.retry_failures(connection, version) if retry else 0
        found = dead_letters.failures(connection, version)

    def show() -> Iterator[str]:
        for failure in found:
            waived = f" (waived: {failure.waived_reason})" if failure.waived_reason else ""
            tries = f"{counted(failure.attempts, 'attempt')}, {failure.failed_at:%Y-%m-%d %H:%M:%S}"
            yield f"chunk {failure.chunk_id} of {failure.source_id}: {failure.error}{waived} ({tries})"
        if queued:
            yield f"{counted(queued, 'chunk')} queued again: revector backfill run {key}"
        if not found:
            yield "No chunk failed."

    answer(FailureList(key, queued, found), as_json, show())


def _run_here(
    own: Context,
    key: str,
    changes: dict[str, str],
    no_index: bool,
    stay: bool,
    as_json: bool,
    ray: RaySettings | None = None,
) -> None:
    from revector.core.registry import get_version

    with own.session(changes=True) as connection:
        version = get_version(connection, key)
    try:
        result = run_backfill(
            own,
            version,
            changes,
            stay=stay,
            ray=ray,
            on_done=None if no_index else lambda: _build_index(own, version),
        )
        if result.state == "done" and not no_index:
            _build_index(own, version)
    except KeyboardInterrupt:
        note(f"Interrupted; nothing is lost. Resume: revector backfill run {key}")
        raise
    _answer_status(result, as_json)
    if result.state == "failed":
        note(f"See them: revector backfill failures {key}")
    elif result.state != "done":
        note(f"Resume: revector backfill run {key}")
    if result.state != "done":
        raise typer.Exit(1)


def _build_index(own: Context, version: Version) -> None:
    from revector.core import index

    with own.session() as connection:
        if not index.inspect(connection, version).valid:
            note(f"building the index of {version.version_key}")
        built = index.build(connection, version, own.settings)
        if built.note:
            note(f"{built.name}: {built.note}")


def _request(own: Context, key: str, action: Callable[[Any, Version], None], as_json: bool) -> None:
    with own.version(key, changes=True) as found:
        action(*found)
    _show_status(own, key, as_json)


def _show_status(own: Context, key: str, as_json: bool, detail: bool = False) -> None:
    from revector.core.backfill.job.status import job_detail
    from revector.core.backfill.job.status import status as job_status

    with own.version(key) as (connection, version):
        found = job_status(connection, version)
        more = job_detail(connection, version) if detail else None
    if found is None:
        raise UsageError(f"Version {key} has no backfill yet.", f"Start it: revector backfill run {key}")
    _answer_status(found, as_json, more)


def _answer_status(found: JobStatus, as_json: bool, more: JobDetail | None = None) -> None:
    from revector.core.keys import document

    def show() -> Iterator[str]:
        yield from status_lines(found)
        if more:
            yield from detail_lines(more)

    parts = more and document(more) | {"settings": vars(more.settings)}
    answer(document(found) | {"detail": parts}, as_json, show())
