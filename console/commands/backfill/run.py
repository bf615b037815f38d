"""Runs a backfill from the command line: asks for the cost, picks the engine, shows progress, ends cleanly."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from revector.console.confirmation import require_yes
from revector.console.context import Context, note, open_aloud
from revector.console.progress import progress_bar
from revector.core.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from revector.core.backfill.engines.ray.engine import RaySettings
    from revector.core.backfill.job.status import JobStatus
    from revector.core.database import Progress
    from revector.core.registry import Version


def confirm_cost(own: Context, key: str, *, yes: bool) -> None:
    """At a terminal, show the cost of a new backfill, and ask. Raises RefusedError when the answer is no.

    In a script the command itself is the consent, and max_spend_usd the limit.
    """
    if not sys.stderr.isatty():
        return
    from revector.core.backfill.plan.plan import cost_to_begin

    with own.version(key, changes=True) as found:
        cost = cost_to_begin(*found, open_aloud)
    if cost is None:
        return
    note(cost)
    if yes or not sys.stdin.isatty():
        return
    require_yes("Nothing was embedded.", f"For details: revector backfill plan {key}")


def ray_settings(engine: str, address: str | None, cpus: float, gpus: float) -> RaySettings | None:
    """The settings of the engine ray, None for the local one. Raises UsageError for an unknown engine."""
    if engine == "local":
        if address is not None or gpus:
            raise UsageError("--ray-address and --gpus-per-worker are for --engine ray.")
        return None
    if engine != "ray":
        raise unknown_name("engine", engine, ["local", "ray"])
    from revector.core.backfill.engines.ray.engine import RaySettings

    return RaySettings(address=address, cpus_per_worker=cpus, gpus_per_worker=gpus)


def run_backfill(
    own: Context,
    version: Version,
    changes: dict[str, str] | None = None,
    *,
    stay: bool = False,
    ray: RaySettings | None = None,
    on_done: Callable[[], None] | None = None,
    shown: Callable[[], AbstractContextManager[Progress]] = progress_bar,
) -> JobStatus:
    """Work on the version's backfill in processes of this machine or on Ray, with a progress bar."""
    from revector.core.backfill.engines.local import LocalEngine
    from revector.core.backfill.job.settings import changed, default_settings

    settings = changed(default_settings(own.settings), changes or {})

    with shown() as progress:
        throttle: str | None = None

        def report(found: JobStatus) -> None:
            nonlocal throttle
            progress(f"embedding {version.version_key}", found.done, found.total)
            if found.throttle and found.throttle != throttle:
                note(f"held: {found.throttle}")
            throttle = found.throttle

        if ray is not None:
            from revector.core.backfill.engines.ray.engine import serve_on_ray

            return serve_on_ray(own.database, version, ray, settings, changes, on_status=report, on_note=note)
        return LocalEngine(
            own.database,
            version,
            settings,
            changes,
            stay=stay,
            on_status=report,
            on_note=note,
            on_done=on_done,
        ).run()
