"""`revector info`: versions, folders, and which settings are in force. It needs no database, and starts none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revector.console.commands.options import Json
from revector.console.context import aligned, answer, context_of
from revector.console.contract import answering

if TYPE_CHECKING:
    from revector.core.settings import Settings

app = typer.Typer()


@dataclass(frozen=True)
class SettingInForce:
    """A setting, and where it was set."""

    name: Annotated[str, "as in revector.toml"]
    value: Annotated[Any, "in force; without a password"]
    source: Annotated[str, "default, a file, a variable, or command line"]


@dataclass(frozen=True)
class Information:
    """What a question about revector should include."""

    platform: Annotated[str, "the operating system"]
    packages: Annotated[dict[str, str], "versions of Python, of revector and of what it stands on"]
    database: Annotated[str, "host/database"]
    dsn: Annotated[str | None, "the connection string, without a password; null for the embedded server"]
    schema: Annotated[str, "the schema, which is the collection"]
    data: Annotated[Path, "the folder of the embedded server"]
    logs: Annotated[Path, "the folder of log files and crash reports"]
    crashes: Annotated[list[Path], "reports of crashes, the newest first"]
    settings: Annotated[list[SettingInForce], "all settings"]


@app.command(cls=answering("console.commands.info:Information"))
def info(context: typer.Context, as_json: Json = False) -> None:
    """Versions, folders, the database and the settings in force.

    It connects to no database, and starts none.
    """
    import platform

    from revector.core import logs
    from revector.core.opening import named_database
    from revector.core.settings import configured_dsn, value_in_words

    own = context_of(context)
    dsn = configured_dsn(own.settings)
    database = named_database(own.settings, dsn or "", embedded=dsn is None)
    found = Information(
        platform.platform(),
        logs.versions(),
        database.name,
        None if dsn is None else database.public_dsn,
        own.settings.schema,
        own.settings.home,
        own.settings.logs,
        logs.reports(own.settings),
        _in_force(own.settings, own.given, database.public_dsn),
    )

    def show() -> Iterator[str]:
        rows = [
            ("versions", ", ".join(f"{name} {version}" for name, version in found.packages.items())),
            ("platform", found.platform),
            ("database", found.database),
            ("schema", found.schema),
            ("data", found.data),
            ("logs", found.logs),
            ("last crash", found.crashes[0] if found.crashes else "none"),
        ]
        yield from aligned(rows, "", "", header=False, wrap=False)
        yield ""
        settings = [(one.name, value_in_words(one.value), one.source) for one in found.settings]
        yield from aligned(settings, "setting", "value", "from", wrap=False)

    answer(found, as_json, show())


def _in_force(settings: Settings, given: dict[str, Any], dsn: str) -> list[SettingInForce]:
    from revector.core.settings import configured_dsn, sources

    origins = {}
    if configured_dsn(settings) is not None:
        origins["dsn"] = "DATABASE_URL" if os.environ.get("DATABASE_URL") else "PG*"
    for source, values in sources(**given).items():
        origins |= {name: f"REVECTOR_{name.upper()}" if source == "environment" else source for name in values}
    return [
        SettingInForce(
            one.name,
            dsn or None if one.name == "dsn" else getattr(settings, one.name),
            origins.get(one.name, "default"),
        )
        for one in fields(settings)
    ]
