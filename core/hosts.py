"""Hosts that encoders may send texts to, and the keys that they may send: the owner's list in the database.

A version's row names an address and an environment variable. Every process that opens its encoder looks both up in
the list, so that nobody else's row sends a service's secrets or its users' queries anywhere. A provider's own address
with its own key, and this machine with that key, need no entry. Judges and rerankers run here, and have no address.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, LiteralString
from urllib.parse import urlsplit

from revector.core.database import Connection, fetch_as, fetch_column
from revector.core.errors import RefusedError, UsageError
from revector.core.roles.rights import require

if TYPE_CHECKING:
    from revector.core.encoders.kinds import Setting
    from revector.core.encoders.spec import EncoderSpec

READ_ALLOWED: LiteralString = "SELECT host || ' ' || key_env FROM encoder_hosts"
"""SQL of the list as `require_allowed` takes it."""


@dataclass(frozen=True)
class AllowedHost:
    """One entry of the list."""

    host: Annotated[str, "HOST, HOST:PORT, or a provider for its own address"]
    key_env: Annotated[str, "the variable whose key may be sent there; empty for none"]
    added_at: Annotated[datetime.datetime, "when"]
    created_by: Annotated[str, "by whom"]


def allowed_hosts(connection: Connection) -> list[AllowedHost]:
    """The list, by host."""
    query = "SELECT host, key_env, added_at, created_by FROM encoder_hosts ORDER BY host, key_env"
    return fetch_as(connection, AllowedHost, query)


def allow(connection: Connection, host: str, key_env: str = "", *, reason: str = "") -> None:
    """Let encoders send texts, and the key in that variable, to a host. Idempotent.

    Raises UsageError for what is no host, RefusedError when the role is not the owner's.
    """
    _require_host(host)
    require(connection, "administer", "encoders allow")
    with connection.transaction():
        connection.execute("SELECT set_config('revector.reason', %s, true)", [reason])
        connection.execute(
            "INSERT INTO encoder_hosts (host, key_env) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [host.lower(), key_env],
        )


def deny(connection: Connection, host: str, key_env: str = "", *, reason: str = "") -> None:
    """Take an entry off the list. Searches stop at once; a backfill that runs keeps its encoder.

    Raises UsageError when there is no such entry, naming those that there are; RefusedError as `allow` does.
    """
    require(connection, "administer", "encoders deny")
    with connection.transaction():
        connection.execute("SELECT set_config('revector.reason', %s, true)", [reason])
        gone = connection.execute(
            "DELETE FROM encoder_hosts WHERE host = %s AND key_env = %s", [host.lower(), key_env]
        ).rowcount
        if not gone:
            there = ", ".join(_shown(one.host, one.key_env) for one in allowed_hosts(connection)) or "none"
            raise UsageError(f"{_shown(host, key_env)} is not on the list of hosts.", f"On it: {there}.")


def read_allowed(connection: Connection) -> tuple[str, ...]:
    """The list as a version has it: see `require_allowed`."""
    return tuple(fetch_column(connection, READ_ALLOWED))


@lru_cache(maxsize=64)  # asked for each query
def require_allowed(spec: str, allowed: tuple[str, ...]) -> None:
    """Raise RefusedError when the spec names a host or a key that is not in `allowed`: texts `HOST KEY_ENV`."""
    if missing := missing_entry(spec, allowed):
        host, key = missing
        option = f" --key {key}" if key else ""
        raise RefusedError(
            f"Encoders may not send texts to {_shown(host, key)}: it is not on the owner's list.",
            f"The owner of the schema can allow it: revector encoders allow {host}{option}",
        )


def missing_entry(spec: str, allowed: Iterable[str]) -> tuple[str, str] | None:
    """The host and key that the spec needs on the list and that are not there; None when nothing is.

    Raises UsageError for a spec that is none, and for an address that is none.
    """
    from revector.core.encoders.kinds import ENVIRONMENT_NAME, SERVICE_URL, find_kind, is_this_machine
    from revector.core.encoders.providers import find_provider
    from revector.core.encoders.spec import read_spec

    if not spec:  # of a version that plain SQL registered
        return None
    parsed = read_spec(spec)
    try:
        provider = find_provider(parsed.provider)
    except UsageError:  # of a package that is not here: nothing can open it
        return None
    known = getattr(provider, "settings", {})
    own_urls = {"", getattr(provider, "public_url", "")}
    kinds = {name: find_kind(name, known) for name in parsed.settings}
    urls = ["" if text.rstrip("/") in own_urls else text for text in _of_kind(parsed, kinds, SERVICE_URL)]
    keys = _of_kind(parsed, kinds, ENVIRONMENT_NAME) or [""]
    entries = set(allowed)
    for url in urls or [""]:
        try:
            address = urlsplit(url)
            host, port = (address.hostname or parsed.provider).lower(), address.port
        except ValueError as error:
            raise UsageError(
                f"The encoder {parsed.name} has the address {url!r}, which is none: {error}.",
                "Expected http://HOST:PORT/PATH. For a version: revector versions change KEY --encoder SPEC",
            ) from None
        with_port = f"{host}:{port}" if port else host
        for key in keys:
            if not key and (not url or is_this_machine(host)):
                continue
            if not entries & {f"{host} {key}", f"{with_port} {key}"}:
                return with_port, key
    return None


def _of_kind(spec: EncoderSpec, kinds: Mapping[str, Setting | None], kind: Setting) -> list[str]:
    return [text for name, text in spec.settings.items() if kinds[name] is kind]


def _shown(host: str, key_env: str) -> str:
    return f"{host} with the key in {key_env}" if key_env else host


def _require_host(host: str) -> None:
    try:
        address = urlsplit(f"//{host}")
        good = bool(address.hostname) and address.port != 0 and address.netloc == host and "@" not in host
    except ValueError:
        good = False
    if not good or any(character.isspace() for character in host):
        raise UsageError(f"{host!r} is no host.", "Expected HOST or HOST:PORT, such as embeddings.example.com.")
