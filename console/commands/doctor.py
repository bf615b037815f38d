"""`revector doctor`: what is wrong, or soon will be."""

from __future__ import annotations

import typer

from revector.console.commands.options import Json
from revector.console.commands.verdicts import verdict_lines
from revector.console.context import answer, context_of
from revector.console.contract import answering

app = typer.Typer()
_VERDICTS = {"ok": "pass", "warning": "warn", "error": "fail"}


@app.command(cls=answering("core.doctor:Diagnosis"))
def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Check the server, the extension, the schema and the versions.

    Exit status 1 when something needs to be fixed.
    """
    from revector.core.database import readable_errors
    from revector.core.doctor import examine

    own = context_of(context)
    with readable_errors(own.database):
        found = examine(own.database, own.settings)
    rows = [(_VERDICTS[one.severity], one.check, one.detail, one.remedy) for one in found.findings]
    answer(found, as_json, verdict_lines(rows))
    if not found.ok:
        raise typer.Exit(1)
