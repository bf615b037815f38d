"""The Ray engine: the same worker loop as Ray actors, on a Ray started here or on a cluster that is there.

Ray places the workers (each with its share of CPUs and GPUs) and says when one is gone. Everything else stays in
Postgres: what to do, progress, throttles, pause and cancel. So two engines may work on one job, and whatever dies
loses nothing.

Ray's own driver is a process of its own (core.backfill.engines.ray.driver) and not this one, for reasons that were all
met: Ray shows the driver's command line to the whole cluster, and `--dsn` may be in it with a password; it prints
on the driver's stdout and stderr when a worker dies, whatever it is told; it takes over signals and the
environment; and it ends its driver when it loses its head node.

What the nodes of a cluster need: revector, of the same release, in the environment of Ray's workers (installed
there, or by the cluster's own runtime_env), what the encoder needs (packages, model files, the variable with the
API key), and a way to the database under the host name that is used here. The connection string goes from the
driver to each worker as an argument of one call: it is in no name, log, listing or variable of Ray's, but it
crosses the network in the clear unless the cluster has TLS (RAY_USE_TLS).
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
from dataclasses import dataclass, field, replace
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
"""Longer than a Ray takes to start on a busy machine."""
_LOOK_S = 1.0
"""Between two looks at how many workers there should be."""
_ANSWER_S = 0.2
_LAST_WORDS_S = 45.0
"""How long the driver may take to end in order: it gives its workers 30 s for the batch in hand."""

_SECRET_VARIABLES = ("REVECTOR_DSN", "DATABASE_URL", "PGPASSWORD")
"""Ray's processes have no use for them: the connection string they need is complete."""


@dataclass(frozen=True)
class RaySettings:
    """Where the workers run, and what each asks of its node.

    `address` is None for a Ray of our own on this machine, which ends with the run; `auto`, `host:port` or
    `ray://host:port` (needs `ray[client]`) for a cluster that is there, which is left as it was. `gpus_per_worker`
    may be a fraction: with 0.25 four workers share a GPU. `max_restarts` is how often a worker may die in a row,
    without the job having moved between, before the run ends with the reason.

    Raises UsageError for amounts that Ray cannot place.
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
    """What the driver is told at its start."""

    database: Database = field(repr=False)
    version: Version
    job_settings: JobSettings
    ray: RaySettings
    wanted: int
    again: bool = False
    """A driver before this one died: what somebody asked of the job since then holds."""


@dataclass(frozen=True)
class Told:
    """What the driver is told while it runs: how many workers there should be now, and whether to end."""

    wanted: int
    stop: bool = False


@dataclass(frozen=True)
class Heard:
    """What the driver says: a note for a person, how many chunks are done with, or how the run ended."""

    note: str | None = None
    progress: int | None = None
    result: JobStatus | RevectorError | None = None


class Deaths:
    """Deaths in a row without the job having moved between."""

    def __init__(self, limit: int) -> None:
        self.count = 0
        self._limit = limit
        self._progress = -1

    def one_more(self, progress: int) -> bool:
        """Count one; False when that was one too many. `progress` is how many chunks are done with by now."""
        if progress > self._progress >= 0:
            self.count = 0
        self._progress = progress
        self.count += 1
        return self.count <= self._limit


class _DriverDiedError(Exception):
    """The driver's process ended without saying how the run ended; the message is what it last wrote."""


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

    `settings` are those of a new job; `changes` are made to the one that is there as well. `on_status` is called
    about once a second. Raises as `run_on_ray` does.
    """
    from revector.core.backfill.job import job
    from revector.core.backfill.job.status import status as job_status

    if changes:
        with database.session("backfill engine") as connection:
            if job.find_job(connection, version) is not None:
                job.change_settings(connection, version, changes)

    def wanted() -> int:
        """Asked about once a second: the moment to tell how things stand as well."""
        with database.session("backfill engine") as connection:
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
    """Raise UsageError when Ray is not installed. It is looked for, and not imported."""
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

    `wanted()` says how many workers there should be now and is asked about once a second: workers are added, or
    finish the batch in hand and give their range back. A worker that dies is replaced. `on_note` is told, in
    words for a person, what happens to workers. `stop` ends the run as Ctrl-C does: in order, and with the job
    interrupted.

    Raises UsageError when Ray is not installed, RefusedError when the cluster cannot run such a worker or not
    reach the database, UnreachableError when there is no cluster at the address, the database or the encoder is
    lost, or workers die again and again, and EncoderError when the encoder is at fault.
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
    """The database with everything in its connection string that libpq took from this machine's environment.

    Other processes have other variables and password files.
    """
    with database.connect("ray") as connection:
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
    """One run, seen from the process that asked for it."""

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
                # Once more, and the driver is killed, and its workers with it.
                with contextlib.suppress(_DriverDiedError):
                    _send(channel, Told(0, stop=True))
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
                _send(channel, Told(0, stop=True))
            elif wanted != self._told and not stopped:
                _send(channel, Told(wanted))
            self._told = wanted

    def _listen(
        self, channel: Channel, seconds: float, wake: threading.Event | None = None
    ) -> JobStatus | RevectorError | None:
        """Take in what the driver says for so long; less when it is the end, or `wake` is set."""
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
            return self._told  # workers live through a restart of the server, and so do we


def _send(channel: Channel, what: Order | Told) -> None:
    try:
        channel.send(what)
    except OSError:
        raise _DriverDiedError from None


def _receive(channel: Channel, seconds: float) -> Heard | None:
    try:
        return channel.recv() if channel.poll(seconds) else None
    except (OSError, EOFError):
        raise _DriverDiedError from None


@contextlib.contextmanager
def _driver() -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], Channel]]:
    """The driver's process, what it writes, and the channel to it. Gone at the end, whatever happens.

    In a session of its own, so that Ctrl-C reaches us alone and we end it in order. When we are killed, the
    channel closes, and the driver ends its workers by itself.
    """
    ours, theirs = Pipe()
    environment = {name: text for name, text in os.environ.items() if name not in _SECRET_VARIABLES}
    environment |= logs.environment()
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    with ours, theirs, tempfile.TemporaryFile() as written:
        process = subprocess.Popen(  # noqa: S603  (our own interpreter and module)
            # -P: a folder `core` where the user happens to be is not ours.
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
