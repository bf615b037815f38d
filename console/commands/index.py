"""`revector index`: the HNSW index of a version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from revector.console.commands.options import Json, Key
from revector.console.commands.versions import Dropped
from revector.console.context import answer, context_of, counted
from revector.console.contract import answering
from revector.console.progress import progress_bar

app = typer.Typer(name="index", help="The HNSW index of a version.")


@app.command(cls=answering("core.index:IndexPlan"))
def plan(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """What a build would do, and the memory that it needs."""
    from revector.core import index
    from revector.screens.wording.text import size

    with context_of(context).version(key) as which:
        found = index.plan(*which)

    def show() -> Iterator[str]:
        yield f"{found.name} on {found.kind}, m {found.m}, ef_construction {found.ef_construction}"
        yield f"{counted(found.rows, 'row')}, about {size(found.memory_bytes)} of maintenance_work_mem"
        yield found.statement

    answer(found, as_json, show())


@app.command(cls=answering("core.index:IndexState"))
def build(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Build the index beside running writes, then ANALYZE."""
    from revector.core import index
    from revector.screens.wording.text import size

    own = context_of(context)
    with own.version(key, changes=True) as which:
        state = index.build(*which, own.settings)
    text = f"{state.name}: valid, {size(state.bytes)}{f'; {state.note}' if state.note else ''}"
    answer(state, as_json, text)


@app.command(cls=answering("core.index:IndexState", "core.index:IndexUse"))
def check(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Whether the index exists, is valid, and is used by the planner."""
    from revector.core import index
    from revector.core.keys import document

    with context_of(context).version(key) as (connection, version):
        state = index.inspect(connection, version)
        use = index.use(connection, version) if state.exists else index.IndexUse(False, "no index")
    text = f"{state.name}: {state.problem or 'valid'}; {use.node}"
    answer(document(state) | document(use), as_json, text)
    if not (state.valid and use.used):
        raise typer.Exit(1)


@app.command("set", cls=answering("core.index:IndexSettings"))
def set_(
    context: typer.Context,
    key: Key,
    ef_search: Annotated[
        int | None, typer.Option("--ef-search", metavar="N", help="HNSW: candidates at search, from now on.")
    ] = None,
    m: Annotated[
        int | None, typer.Option("--m", metavar="N", help="HNSW: neighbours a node, at the next build.")
    ] = None,
    ef_construction: Annotated[
        int | None, typer.Option("--ef-construction", metavar="N", help="HNSW: candidates, at the next build.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show or change the HNSW settings of a version."""
    from revector.core import index
    from revector.core.registry import get_version

    changes = any(value is not None for value in (ef_search, m, ef_construction))
    with context_of(context).session(changes=changes) as connection:
        found = index.change_settings(
            connection, get_version(connection, key), m=m, ef_construction=ef_construction, ef_search=ef_search
        )
    text = f"m {found.m}, ef_construction {found.ef_construction}, ef_search {found.ef_search}"
    answer(found, as_json, text)


@app.command(cls=answering("core.index.warming:Prewarmed"))
def prewarm(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Load table and index into the server's buffers, so that the first searches do not wait for the disk.

    By pg_prewarm where the database has that extension and this role may use it, else by reading and searching.
    """
    from revector.core.index import warming

    with context_of(context).version(key) as which, progress_bar() as progress:
        done = warming.prewarm(*which, progress)

    def show() -> Iterator[str]:
        yield (
            f"{key}: {counted(done.pages, 'page')} by {done.how} in {done.seconds:.1f} s; searches find "
            f"{done.share:.0%} of their pages in the server's cache."
        )
        if done.left_out:
            yield f"Too large for shared_buffers: {', '.join(done.left_out)}"

    answer(done, as_json, show())


@app.command(cls=answering("console.commands.versions:Dropped"))
def drop(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Drop the index of a version that is not active."""
    from revector.core import index

    with context_of(context).version(key, changes=True) as which:
        index.drop(*which)
    answer(Dropped(key), as_json, "The index was deleted.")
