"""Connection strings as people and platforms give them: read as libpq reads them, and shown without secrets."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from revector.core.errors import UsageError

_SECRET_PARAMETERS = {
    "password",
    "sslpassword",
    "passfile",
    "oauth_client_secret",
    "scram_client_key",
    "scram_server_key",
}
_SECRET_TEXT = re.compile(r"://|password\s*=", re.IGNORECASE)
_URL = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")
"""Also with a driver's name, as SQLAlchemy writes it."""
_PLAIN_URL = re.compile(r"(?:[^/@]*@)?[^/@#]*(?:/[^@#]*)?", re.DOTALL)
"""What follows the scheme when the only raw @ ends the user and the password. Otherwise libpq takes a part of an
unencoded password for a host, a port or a database, which are shown."""
_UNKNOWN = re.compile(r'(?:invalid connection option|invalid URI query parameter:) "(\w{1,40})"')
_OF_OTHER_DRIVERS = {
    "command_timeout",
    "connection_limit",
    "max_overflow",
    "pgbouncer",
    "pool_size",
    "pool_timeout",
    "prepareThreshold",
    "prepared_statement_cache_size",
    "schema",
    "server_settings",
    "socket_timeout",
    "sslaccept",
    "sslfactory",
    "sslidentity",
    "statement_cache_size",
    "supa",
    "workaround",
}
"""What platforms put into a URL for Prisma, asyncpg, JDBC and SQLAlchemy: nothing that concerns revector."""
_SSL = {
    "true": "require",
    "1": "require",
    "": "require",
    "false": "disable",
    "0": "disable",
    "no-verify": "require",
}


def parts_of(dsn: str) -> dict[str, Any]:
    """The parameters of a connection string, for libpq.

    Of a URL, those of other drivers are left out, and `ssl` becomes `sslmode`. Raises UsageError, which names a
    parameter that nobody knows, and quotes nothing else: it may be a part of a password.
    """
    url = _URL.match(dsn)
    try:
        if url and not _PLAIN_URL.fullmatch(dsn, url.end()):
            raise psycopg.ProgrammingError("a character of this URL must be percent-encoded")
        parts = conninfo_to_dict(_for_libpq(dsn, url.end()) if url else dsn)
        if not re.fullmatch("[0-9,]*", str(parts.get("port") or "")):
            raise psycopg.ProgrammingError("a port must be a number")
    except psycopg.ProgrammingError as error:
        unknown = _UNKNOWN.search(str(error))
        if unknown and not re.search(r"password|passfile|secret", dsn.partition("?")[2] if url else dsn):
            raise UsageError(
                f"The connection string has the parameter {unknown[1]!r}, which libpq does not know.",
                "Leave it out, or see libpq's parameter key words.",
            ) from None
        raise UsageError(
            "The connection string is malformed.",
            "Expected postgresql://user@host:port/database or libpq's 'host=… dbname=…'. In a URL, write @ / # as "
            "%40 %2F %23 within a password or another value.",
        ) from None
    return parts


def public_parts(dsn: str) -> dict[str, Any]:
    """The parameters that are no secrets. Raises UsageError as `parts_of` does."""
    return {
        k: v for k, v in parts_of(dsn).items() if k not in _SECRET_PARAMETERS and not _SECRET_TEXT.search(str(v))
    }


def secrets_of(parts: dict[str, Any]) -> list[str]:
    """The values that must not be shown."""
    return [str(parts[name]) for name in _SECRET_PARAMETERS & parts.keys()]


def without_secrets(dsn: str) -> str:
    """A connection string (URL or key=value) as libpq reads it, without passwords; '' when it cannot be parsed."""
    try:
        parts = public_parts(dsn)
    except UsageError:
        return ""
    if not _URL.match(dsn):
        return make_conninfo("", **parts)
    user, host, port, name = (str(parts.get(key) or "") for key in ("user", "host", "port", "dbname"))
    place = ""
    if re.fullmatch(r"[\w.-]+", host, re.ASCII) and "," not in port:  # not a socket, IPv6, or several servers
        place = f"{host}:{port}" if port else host
    shown = {"user", "dbname", "host", "port"} if place else {"user", "dbname"}
    query = urlencode({k: v for k, v in parts.items() if k not in shown}, safe="/", quote_via=quote)
    at = f"{quote(user, safe='')}@" if user else ""
    return f"postgresql://{at}{place}/{quote(name, safe='')}{'?' if query else ''}{query}"


def _for_libpq(dsn: str, start: int) -> str:
    place, mark, query = dsn[start:].partition("?")
    if "@" in query:  # the mark is one of the password
        credentials, _, rest = dsn[start:].rpartition("@")
        place, mark, query = rest.partition("?")
        place = f"{credentials}@{place}"
    kept = []
    for pair in query.split("&") if mark else ():
        name, _, value = pair.partition("=")
        if name == "ssl":
            kept.append(f"sslmode={_SSL.get(value.lower(), value)}")
        elif name not in _OF_OTHER_DRIVERS:
            kept.append(pair)
    return f"postgresql://{place}{'?' if kept else ''}{'&'.join(kept)}"
