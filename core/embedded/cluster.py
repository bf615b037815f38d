"""Creates a cluster, and starts its postmaster."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from revector.core.embedded.processes import mark_of, pid_file
from revector.core.embedded.programs import binary, let_through, new_file, own_folder, run
from revector.core.embedded.waiting import Wait
from revector.core.errors import UnreachableError

if TYPE_CHECKING:
    from pwd import struct_passwd

# Included by postgresql.conf, so that ALTER SYSTEM wins. What identifies the server is on its command line.
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
_SOCKET_PATH_BYTES = 103  # the limit of a socket's address on macOS; Linux allows 107
_LOG_S, _LOG_BYTES = 6 * 86_400, 50_000_000  # older or larger log files are deleted at the next start


def create_cluster(data: Path, user: struct_passwd | None, wait: Wait) -> None:
    """Create the cluster in a temporary folder, then rename it: a folder `data` is always complete."""
    if data.is_dir() and any(data.iterdir()):
        raise FileExistsError(f"{data} contains something other than a Postgres cluster")
    wait.tell(f"creating the database cluster in {data}")
    for unfinished in data.parent.glob(f".{data.name}-initdb-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    new = data.with_name(f".{data.name}-initdb-{os.getpid()}")
    try:
        own_folder(new, user)
        # Postgres's builtin locale: no update of the operating system can change the sort order of an index.
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        access = ["--username=postgres", "--auth-local=trust", "--auth-host=reject"]
        run([str(binary("initdb")), "-D", str(new), *locale, *access], user, wait)
        with (new / "postgresql.conf").open("a") as settings:
            settings.write("\ninclude_if_exists = 'revector.conf'\n")
        new.rename(data)
        parent = os.open(data.parent, os.O_RDONLY)
        os.fsync(parent)  # or a power cut could undo the rename, and the next start would find it unfinished
        os.close(parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def check_version(data: Path, user: struct_passwd | None, wait: Wait) -> None:
    """Raise UnreachableError for a cluster of another major version."""
    found = (data / "PG_VERSION").read_text().strip()
    ours = run([str(binary("postgres")), "--version"], user, wait).split()[-1]
    if found != ours.partition(".")[0]:
        raise UnreachableError(
            f"The database in {data} was created by Postgres {found}; this is Postgres {ours}.",
            f"Dump it with Postgres {found} (pg_dumpall), move the folder away, start again, and load the dump.",
        )


def launch(data: Path, user: struct_passwd | None, wait: Wait) -> int:
    """Start a detached postmaster, and return its pid."""
    import psutil

    control = run([str(binary("pg_controldata")), str(data)], user, wait).splitlines()
    clean = any(line.startswith("Database cluster state:") and line.endswith(" shut down") for line in control)
    wait.tell("starting the server" if clean else "recovering the database, which was not shut down cleanly")
    sockets = _socket_folder(data, user)
    for folder, name in ((data, "postmaster.pid"), (sockets, ".s.PGSQL.5432.lock")):
        stale = pid_file(folder, name).pid
        if stale is not None and psutil.pid_exists(stale):
            # The pid now belongs to another program, or a zombie: Postgres would not start, though nothing uses
            # the folder.
            (folder / name).unlink()
    logs = data / "log"
    logs.mkdir(mode=0o700, exist_ok=True)
    if user is not None:
        let_through(user, sockets)
        os.chown(logs, user.pw_uid, user.pw_gid, follow_symlinks=False)
    for log in logs.iterdir():
        if log.lstat().st_mtime < time.time() - _LOG_S or log.lstat().st_size > _LOG_BYTES:
            log.unlink()
    with new_file(data / "revector.conf", user) as settings:
        settings.write(_SETTINGS)
    fixed = ["-clisten_addresses=", "-cport=5432", f"-cunix_socket_directories={sockets}"]
    command = [str(binary("postgres")), "-D", str(data), *fixed, f"-ccluster_name={mark_of(data)}"]
    with new_file(logs / "start.log", user) as log_file:
        # In its own session, and adopted by init when the shell ends: signals to the caller's terminal or process
        # group do not reach it.
        detach = ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *command]
        return int(run(detach, user, wait, stderr=log_file, start_new_session=True))


def _socket_folder(data: Path, user: struct_passwd | None) -> Path:
    """The data folder, or a short one if its path is too long for a socket or has a comma, which separates
    hosts."""
    if len(os.fsencode(data / ".s.PGSQL.5432")) <= _SOCKET_PATH_BYTES and "," not in str(data):
        return data
    # Not the user's runtime folder: it is deleted when the user logs out, while the server keeps running.
    folder = data.stat()
    name = f"revector-{folder.st_dev:x}-{folder.st_ino:x}"
    return own_folder(Path(tempfile.gettempdir()).resolve() / name, user)
