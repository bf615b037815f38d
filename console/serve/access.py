"""Access control: a bearer token from the environment, or only this machine.

The token is compared in constant time and appears in no answer, log or error.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from revector.core.errors import UsageError
from revector.core.secrets import hide

if TYPE_CHECKING:
    from starlette.datastructures import Headers

SHORT_TOKEN = 16
"""A shorter token gets a warning, since it can be guessed."""

_LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Access:
    """What a request must present. Without a token only host names of this machine are accepted.

    (Otherwise a web page could reach the server by a host name of its own that resolves to 127.0.0.1.)
    """

    token: str | None = field(repr=False)

    def allows(self, headers: Headers) -> bool:
        """Whether a request with these headers is allowed."""
        given = headers.getlist("host" if self.token is None else "authorization")
        if len(given) != 1:
            return False
        if self.token is None:
            return _host_name(given[0]) in _LOCAL_NAMES
        scheme, _, secret = given[0].partition(" ")
        # Compare digests, since compare_digest leaks the length.
        same = hmac.compare_digest(_digest(secret.encode("latin-1").strip()), _digest(self.token.encode()))
        return same and scheme.lower() == "bearer"


def read_access(variable: str, host: str, *, no_token: bool) -> Access:
    """The access that the environment sets.

    Raises UsageError without a token unless `no_token` says so and the host is this machine's own, and for a
    token that no header can carry.
    """
    token = os.environ.get(variable, "")
    if no_token:
        if not is_loopback(host):
            raise UsageError(
                f"{host} can be reached from other machines, so a token is required.",
                f"Leave out --no-token and set {variable}, or serve on 127.0.0.1.",
            )
        return Access(None)
    if not token:
        raise UsageError(
            f"No token is set: the environment variable {variable} is empty.",
            f"Set it: export {variable}=$(openssl rand -hex 32). On this machine alone, --no-token works without one.",
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UsageError(
            f"The token in {variable} has a blank or a character that no HTTP header can carry.",
            f"Choose another: export {variable}=$(openssl rand -hex 32)",
        )
    hide(token)
    return Access(token)


def is_loopback(host: str) -> bool:
    """Whether all addresses of a host are loopback."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)  # noqa: S104  ('' is every one)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def _host_name(host: str) -> str:
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
