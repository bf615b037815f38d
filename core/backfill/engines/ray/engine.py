"""The Ray engine: the same worker loop as Ray actors, on a Ray started here or on an existing cluster.

Ray places the workers (each with its share of CPUs and GPUs) and reports when one dies. Everything else stays in
Postgres: what to do, progress, throttles, pause and cancel. So two engines may work on one job, and no crash loses
work.

Ray's driver runs in a separate process (core.backfill.engines.ray.driver), for reasons all seen in practice: Ray
shows the driver's command line to the whole cluster, and `--dsn` in it may hold a password; it prints to the
driver's stdout and stderr when a worker dies, even when told not to; it takes over signals and the environment;
and it ends its driver when it loses its head node.

What the nodes of a cluster need: revector, of the same release, in the environment of Ray's workers (installed
there, or by the cluster's own runtime_env), what the encoder needs (packages, model files, the variable with the
API key), and a route to the database under the host name used here. The connection string goes from the driver to
each worker as an argument of one call: it appears in no name, log, listing or variable of Ray, but crosses the
network in the clear unless the cluster uses TLS (RAY_USE_TLS).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing import Pipe
from typing import IO, TYPE_CHECKING

from psycopg.conninfo import make_conninfo

from revector.core import logs
from revector.core.database import Database
from revector.core.errors import RevectorError, UnreachableError, UsageError
from revector.core.secrets import hide, scrub

if TYPE_CHECKING:
    from multiprocessing.connection import Connection as Channel

    from revector.core.backfill.job.settings import JobSettings
    from revector.core.backfill.job.status import JobStatus
    from revector.core.registry import Version

log = logging.getLogger(__name__)

CONNECT_S = 120
"""Longer than Ray takes to start on a busy machine."""
_LOOK_S = 1.0
"""Between two checks of how many workers there should be."""
_ANSWER_S = 0.2
_LAST_WORDS_S = 45.0
"""How long the driver may take to end cleanly: it gives its workers 30 s for their current batch."""

_SECRET_VARIABLES = ("REVECTOR_DSN", "DATABASE_URL", "PGPASSWORD")
"""Not passed to Ray's processes: the connection string that they get is complete."""


@dataclass(frozen=True)
class RaySettings:
    """Where the workers run, and what each asks of its node.

    `address` is None for a Ray started on this machine, which ends with the run; `auto`, `host:port` or
    `ray://host:port` (needs `ray[client]`) for an existing cluster, which is left as it was. `gpus_per_worker` may
    be a fraction: with 0.25 four workers share a GPU. `max_restarts` is how many workers may die in a row, without
    progress in between, before the run ends with the reason.

    Raises UsageError for amounts that Ray does not accept.
    """

    address: str | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    namespace: str = "revector"
    max_restarts: int = 3

    def __post_init__(self) -> None:
        for name in ("cpus_per_worker", "gpus_per_worker"):
            amount = getattr(self, name)
            # Ray counts in ten-thousandths.
            if not (math.isfinite(amount) and amount >= 0 and round(amount, 4) == amount):
                raise UsageError(
                    f"{name} is {amount:g}.", "Expected 0 or more, with at most four digits after the point."
                )
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise UsageError(
                f"gpus_per_worker is {self.gpus_per_worker:g}.", "Expected a fraction up to 1, or a whole number."
            )
        if self.max_restarts < 0:
            raise UsageError(f"max_restarts is {self.max_restarts}.", "Expected 0 or more.")
        if self.address is not None and not self.address.strip():
            raise UsageError(
                "The address of the Ray cluster is empty.", "Expected auto, host:port or ray://host:port."
            )


@dataclass(frozen=True)
class Order:
    """Sent to the driver at its start."""

    database: Database
    version: Version
    job_settings: JobSettings
    ray: RaySettings
    wanted: int
    again: bool = False
    """An earlier driver died: requests made to the job since then still apply."""


@dataclass(frozen=True)
class ToDriver:
    """Sent to the driver while it runs: how many workers there should be now, and whether to end."""

    wanted: int
    stop: bool = False


@dataclass(frozen=True)
class FromDriver:
    """Sent by the driver: a note for a person, how many chunks are finished, or how the run ended."""

    note: str | None = None
    progress: int | None = None
    result: JobStatus | RevectorError | None = None


class Deaths:
    """Deaths in a row, without progress in between."""

    def __init__(self, limit: int) -> None:
        self.count = 0
        self._limit = limit
        self._progress = -1

    def one_more(self, progress: int) -> bool:
        """Count one; False when that was one too many. `progress` is how many chunks are finished by now."""
        if progress > self._progress >= 0:
            self.count = 0
        self._progress = progress
        self.count += 1
        return self.count <= self._limit


class _DriverDiedError(Exception):
    """The driver's process ended without reporting how the run ended; the message is its last output."""


def serve_on_ray(
    database: Database,
    version: Version,
    ray: RaySettings,
    settings: JobSettings,
    changes: Mapping[str, object] | None = None,
    *,
    on_status: Callable[[JobStatus], None] | None = None,
    on_note: Callable[[str], None],
    stop: threading.Event | None = None,
) -> JobStatus:
    """Work on the version's backfill with as many actors as the job's settings say, as the local engine does.

    `settings` apply to a new job; `changes` apply to an existing job as well. `on_status` is called
    about once a second. Raises as `run_on_ray` does.
    """
    from revector.core.backfill.job import job
    from revector.core.backfill.job.status import status as job_status

    if changes:
        with database.session("backfill engine", own_session=True) as connection:
            if job.find_job(connection, version) is not None:
                job.change_settings(connection, version, changes)

    def wanted() -> int:
        """Called about once a second; reports the status too."""
        with database.session("backfill engine", own_session=True) as connection:
            found = job_status(connection, version)
            if found is None:
                return settings.workers
            if on_status is not None:
                on_status(found)
            return job.job_settings(connection, job.require_job(connection, version)).workers

    return run_on_ray(
        database, version, settings=ray, job_settings=settings, wanted=wanted, on_note=on_note, stop=stop
    )


def require_ray() -> None:
    """Raise UsageError when Ray is not installed. Does not import it."""
    if find_spec("ray") is None:
        raise UsageError("The engine ray needs Ray, which is not installed.", "pip install 'revector[ray]'")


def run_on_ray(
    database: Database,
    version: Version,
    *,
    settings: RaySettings,
    job_settings: JobSettings,
    wanted: Callable[[], int],
    on_note: Callable[[str], None],
    stop: threading.Event | None = None,
) -> JobStatus:
    """Work on the version's backfill with Ray actors until it is done, paused or cancelled; returns its status.

    `wanted()` is called about once a second and returns how many workers there should be: workers are added, or
    finish their current batch and give their range back. Dead workers are replaced. `on_note` gets messages for
    people about the workers. `stop` ends the run as Ctrl-C does: cleanly, and with the job interrupted.

    Raises UsageError when Ray is not installed, RefusedError when the cluster cannot run such a worker or cannot
    reach the database, UnreachableError when there is no cluster at the address, the database or encoder is lost,
    or workers keep dying, and EncoderError when the encoder is at fault.
    """
    require_ray()
    stop = stop or threading.Event()
    order = Order(_complete(database), version, job_settings, settings, wanted=1)
    run = _Run(order, wanted, on_note, stop)
    deaths = Deaths(settings.max_restarts)
    while True:
        try:
            return run.once(again=deaths.count > 0)
        except _DriverDiedError as death:
            reason = str(death)
            log.warning("Ray's driver for %s ended without a result", version.version_key)
            if stop.is_set() or not deaths.one_more(run.progress):
                raise UnreachableError(
                    f"Ray's driver ended without a result: {reason}",
                    "Nothing is lost. Check the Ray cluster, then resume: "
                    f"revector backfill run {version.version_key}",
                ) from None
            on_note(f"Ray's driver ended and is being restarted: {reason}")


def _complete(database: Database) -> Database:
    """The database, its connection string completed with what libpq takes from this machine's environment.

    Other processes have other variables and password files.
    """
    with database.connect("ray", own_session=True) as connection:
        info = connection.info
        parts = {"host": info.host, "port": str(info.port), "dbname": info.dbname, "user": info.user}
        parts |= info.get_parameters()
        if info.password:
            hide(info.password)  # of a file of passwords, maybe
            parts["password"] = info.password
    for name in ("application_name", "fallback_application_name", "service", "servicefile", "passfile"):
        parts.pop(name, None)
    return replace(database, dsn=make_conninfo("", **parts))


class _Run:
    """One run, as seen by the calling process."""

    def __init__(
        self, order: Order, wanted: Callable[[], int], on_note: Callable[[str], None], stop: threading.Event
    ) -> None:
        self.progress = 0
        self._order = order
        self._wanted = wanted
        self._on_note = on_note
        self._stop = stop
        self._told = order.wanted

    def once(self, *, again: bool) -> JobStatus:
        """Start a driver and follow it to its end. Raises _DriverDiedError when it dies."""
        self._told = self._ask_wanted()
        with _driver() as (process, written, channel):
            try:
                _send(channel, replace(self._order, wanted=self._told, again=again))
                result = self._follow(channel)
            except KeyboardInterrupt:
                # A second interrupt kills the driver and its workers.
                with contextlib.suppress(_DriverDiedError):
                    _send(channel, ToDriver(0, stop=True))
                    self._listen(channel, _LAST_WORDS_S)
                raise
            except _DriverDiedError:
                process.wait()
                if process.returncode == -signal.SIGALRM:
                    raise UnreachableError(
                        f"Ray at {self._order.ray.address or 'this machine'} did not answer within {CONNECT_S} s.",
                        "Look at the cluster's head node.",
                    ) from None
                last = scrub(_last_line(written, process.returncode))
                raise _DriverDiedError(last) from None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LAST_WORDS_S)
        if isinstance(result, RevectorError):
            raise result
        return result

    def _follow(self, channel: Channel) -> JobStatus | RevectorError:
        stopped = False
        while True:
            result = self._listen(channel, _LOOK_S, wake=None if stopped else self._stop)
            if result is not None:
                return result
            wanted = self._ask_wanted()
            if self._stop.is_set() and not stopped:
                stopped = True
                _send(channel, ToDriver(0, stop=True))
            elif wanted != self._told and not stopped:
                _send(channel, ToDriver(wanted))
            self._told = wanted

    def _listen(
        self, channel: Channel, seconds: float, wake: threading.Event | None = None
    ) -> JobStatus | RevectorError | None:
        """Handle the driver's messages for that long, or until the run ends or `wake` is set."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not (wake and wake.is_set()):
            heard = _receive(channel, min(left, _ANSWER_S))
            if heard is None:
                continue
            if heard.note is not None:
                self._on_note(heard.note)
            if heard.progress is not None:
                self.progress = heard.progress
            if heard.result is not None:
                return heard.result
        return None

    def _ask_wanted(self) -> int:
        try:
            return max(0, self._wanted())
        except UnreachableError:
            return self._told  # workers survive a restart of the server, and so do we


def _send(channel: Channel, what: Order | ToDriver) -> None:
    try:
        channel.send(what)
    except OSError:
        raise _DriverDiedError from None


def _receive(channel: Channel, seconds: float) -> FromDriver | None:
    try:
        return channel.recv() if channel.poll(seconds) else None
    except (OSError, EOFError):
        raise _DriverDiedError from None


@contextlib.contextmanager
def _driver() -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], Channel]]:
    """The driver's process, its output file, and the channel to it. The process is always ended.

    It has its own session, so that Ctrl-C reaches only us and we end it cleanly. When we are killed, the channel
    closes and the driver ends its workers.
    """
    ours, theirs = Pipe()
    environment = {name: text for name, text in os.environ.items() if name not in _SECRET_VARIABLES}
    environment |= logs.environment()
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    with ours, theirs, tempfile.TemporaryFile() as written:
        process = subprocess.Popen(  # noqa: S603  (our own interpreter and module)
            # -P: the user's working directory must not come first on the path.
            [sys.executable, "-P", "-m", "revector.core.backfill.engines.ray.driver", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            pass_fds=[theirs.fileno()],
            env=environment,
            start_new_session=True,
        )
        try:
            theirs.close()
            yield process, written, ours
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def _last_line(written: IO[bytes], status: int) -> str:
    written.seek(0)
    lines = [line.strip() for line in written.read().decode(errors="replace").splitlines() if line.strip()]
    ended = f"signal {-status}" if status < 0 else f"exit status {status}"
    return f"{ended}; its last output: {lines[-1][:300]}" if lines else ended
