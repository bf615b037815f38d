"""Finds what runs on a folder, by its postmaster.pid, its socket, and the processes that use it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote


@dataclass(frozen=True)
class EmbeddedServer:
    """A server that accepts connections; `started` says whether this call started it."""

    dsn: str
    data_dir: Path
    pid: int
    started: bool


class PidFile(NamedTuple):
    """The content of postmaster.pid. Postgres writes it in steps, and a killed server leaves it behind."""

    pid: int | None = None
    socket: Path | None = None
    ready: bool = False


def data_dir_of(home: Path) -> Path:
    """The folder of the cluster."""
    return (home.resolve() / "postgres").resolve()


def pid_file(data: Path, name: str = "postmaster.pid") -> PidFile:
    """Read postmaster.pid as far as it is written; all fields are unknown if there is none."""
    try:
        lines = os.fsdecode((data / name).read_bytes()).split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return PidFile()
    pid = int(lines[0]) if lines[0].isdecimal() else None
    if len(lines) < 8:
        return PidFile(pid)
    _, folder, _, port, socket_folder, _, _, state, *_ = lines
    # A moved folder still contains its socket; a copy must not use the original's.
    own = socket_folder == folder or folder != str(data)
    return PidFile(pid, (data if own else Path(socket_folder)) / f".s.PGSQL.{port}", state.strip() == "ready")


def listens(path: Path | None) -> bool:
    """Whether a process accepts connections on that socket."""
    if path is None:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fsencode(path))
        except BlockingIOError:
            return True  # with a full backlog
        except OSError:
            return False
    return True


def ready_server(data: Path) -> EmbeddedServer | None:
    """The server that postmaster.pid calls ready, if its socket answers: the pid may belong to another program by
    now."""
    pid, path, ready = pid_file(data)
    if pid is None or path is None or not ready or not listens(path):
        return None
    port = path.name.rpartition(".")[2]  # given in the DSN, or libpq would use PGPORT
    dsn = f"postgresql://postgres@/postgres?host={quote(os.fsencode(path.parent))}&port={port}"
    return EmbeddedServer(dsn=dsn, data_dir=data, pid=pid, started=False)


def mark_of(data: Path) -> str:
    """A name for the folder (moved or not) that every process of its server has in its command line.

    Their working folder would do too, but root without CAP_SYS_PTRACE (as in Docker) may not read it.
    """
    folder = data.stat()
    return f"revector({folder.st_dev:x}-{folder.st_ino:x})"


def living_processes(data: Path) -> list[Any]:
    """Every live process of a server on this folder: the postmaster, and what a killed one left behind."""
    import psutil

    if not data.is_dir():
        return []
    mark = mark_of(data)
    return [
        process
        for process in psutil.process_iter(["name", "cmdline", "cwd"])  # a zombie has none of the latter two
        if process.info["name"] == "postgres"
        and (mark in " ".join(process.info["cmdline"] or []) or process.info["cwd"] == str(data))
    ]


def send_signal(processes: list[Any], number: signal.Signals) -> None:
    """Send a signal to those that still exist."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
