"""The server's disk, which can only be looked at when the server runs on this machine."""

from __future__ import annotations

import ipaddress
import shutil
from pathlib import Path

import psycopg

from revector.core.database import Connection, fetch_one


def is_local(connection: Connection) -> bool:
    """Whether the server runs on this machine: connected by a Unix socket, or by loopback as both ends see it.

    A forwarded port looks like loopback only from here; a server in a container sees another address.
    """
    if connection.info.host.startswith(("/", "@")):
        return True
    (seen,) = fetch_one(connection, "SELECT host(inet_server_addr())")
    try:
        ends = [ipaddress.ip_address(address) for address in (connection.info.hostaddr, seen)]
    except (ValueError, psycopg.Error):
        return False
    return all(end.is_loopback for end in ends)


def data_folder(connection: Connection) -> Path | None:
    """The server's data folder when it is on this machine."""
    if not is_local(connection):
        return None
    row = connection.execute("SELECT current_setting('data_directory', true)").fetchone()
    folder = Path(row[0]) if row and row[0] else None
    try:
        return folder if folder is not None and folder.is_dir() else None
    except OSError:
        return None


def disks(folder: Path) -> list[Path]:
    """The folders of a data folder that may be on disks of their own."""
    wal = folder / "pg_wal"  # often a link to another disk
    try:
        return [folder, wal] if wal.is_dir() else [folder]
    except OSError:
        return [folder]


def free_bytes(connection: Connection) -> int | None:
    """Free bytes on the disk of the version's table when the server runs on this machine, else None.

    None also when the role may not see the server's data directory (that takes pg_read_all_settings).
    """
    if not is_local(connection):
        return None
    (folder,) = fetch_one(
        connection,
        """
        SELECT coalesce(
            (SELECT nullif(pg_tablespace_location(t.oid), '')
             FROM pg_database d LEFT JOIN pg_tablespace named
                      ON named.spcname = nullif(current_setting('default_tablespace'), '')
                  JOIN pg_tablespace t ON t.oid = coalesce(named.oid, d.dattablespace)
             WHERE d.datname = current_database()),
            (SELECT setting FROM pg_settings WHERE name = 'data_directory'))
        """,
    )
    if folder is None or not Path(folder).is_absolute():
        return None
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
