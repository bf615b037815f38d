"""`revector encoders`: the hosts that encoders may send texts to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from revector.console.commands.options import Json, Reason
from revector.console.context import aligned, answer, context_of
from revector.console.contract import answering

app = typer.Typer(name="encoders", help="Hosts that encoders may send texts to. The owner's list.")

Host = Annotated[
    str, typer.Argument(metavar="HOST", help="HOST, HOST:PORT, or a provider's name for its own address.")
]
KeyName = Annotated[
    str, typer.Option("--key", metavar="NAME", help="The variable whose key may be sent; else the provider's own.")
]


@dataclass(frozen=True)
class HostEntry:
    """A host, and whether encoders may send texts to it."""

    host: Annotated[str, "the host"]
    key_env: Annotated[str, "the variable whose key may be sent there; empty for the provider's own"]
    allowed: Annotated[bool, "whether it is on the list now"]


@app.command(cls=answering("console.commands.encoders:HostEntry"))
def allow(
    context: typer.Context, host: Host, key: KeyName = "", reason: Reason = "", as_json: Json = False
) -> None:
    """Let encoders send texts, and the key in one variable, to a host."""
    from revector.core import hosts

    with context_of(context).session(needs="administer") as connection:
        hosts.allow(connection, host, key, reason=reason)
    text = f"Encoders may send texts to {host}" + (f", with the key in {key}." if key else ".")
    answer(HostEntry(host, key, True), as_json, text)


@app.command(cls=answering("console.commands.encoders:HostEntry"))
def deny(
    context: typer.Context, host: Host, key: KeyName = "", reason: Reason = "", as_json: Json = False
) -> None:
    """Take a host off the list. Searches stop at once; a backfill that runs keeps its encoder."""
    from revector.core import hosts

    with context_of(context).session(needs="administer") as connection:
        hosts.deny(connection, host, key, reason=reason)
    text = f"Encoders may no longer send texts to {host}" + (f" with the key in {key}." if key else ".")
    answer(HostEntry(host, key, False), as_json, text)


@app.command("list", cls=answering(hosts="core.hosts:AllowedHost"))
def list_hosts(context: typer.Context, as_json: Json = False) -> None:
    """The hosts on the list. A provider's own address, and this machine, need no entry."""
    from revector.core.hosts import allowed_hosts

    with context_of(context).session() as connection:
        found = allowed_hosts(connection)

    def show() -> Iterator[str]:
        if not found:
            yield "No host is on the list: encoders use their providers' own addresses, and this machine."
            return
        rows = [(one.host, one.key_env, f"{one.added_at:%Y-%m-%d %H:%M}", one.created_by) for one in found]
        yield from aligned(rows, "host", "key", "since", "by")

    answer({"hosts": found}, as_json, show())
