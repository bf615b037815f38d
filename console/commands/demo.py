"""`revector demo`: the whole story on a corpus that every engineer can judge."""

from __future__ import annotations

from typing import Annotated

import typer

from revector.console.commands.options import Json
from revector.console.context import context_of
from revector.console.contract import answering

app = typer.Typer()


@app.command(cls=answering("console.demo.story:Story"))
def demo(
    context: typer.Context,
    headless: Annotated[
        bool, typer.Option("--headless", help="Run the whole story without the console, and print it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Try revector on a demo corpus.

    Ingests the documentation of Python's standard library and embeds it twice; compare, cut over and roll back
    in the console, or have it done and printed with --headless.
    """
    own = context_of(context)
    own.require_writable()
    if headless:
        from revector.console.demo.story import tell

        tell(own, as_json)
        return
    from revector.console.terminal import open_console, require_terminal
    from revector.core.errors import UsageError

    if as_json:
        raise UsageError("The console prints no document.", "Add --headless.")
    require_terminal()
    from revector.console.demo.story import prepare

    prepare(own)
    open_console(own)
