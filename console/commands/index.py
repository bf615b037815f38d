"""`revector index`: the HNSW index of a version."""

from __future__ import annotations

from dataclasses import asdict

import typer

from console.commands.versions import Key
from console.context import Json, answer, context_of, plain

app = typer.Typer(name="index", help="The HNSW index of a version.", no_args_is_help=True)


@app.command()
def plan(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """What a build would do, and the memory that it needs."""
    from core import index
    from core.registry import get_version

    with context_of(context).session() as connection:
        found = index.plan(connection, get_version(connection, key))
    text = (
        f"{found.name} on {found.kind}, m {found.m}, ef_construction {found.ef_construction}\n"
        f"{found.rows:,} rows, about {found.memory_bytes / 1e6:,.0f} MB of maintenance_work_mem\n{found.statement}"
    )
    answer(asdict(found), as_json, lambda console: console.print(plain(text)))


@app.command()
def build(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Build the index beside running writes, then ANALYZE."""
    from core import index
    from core.registry import get_version

    own = context_of(context)
    with own.session() as connection:
        state = index.build(connection, get_version(connection, key), own.settings)
    text = f"{state.name}: valid, {state.bytes / 1e6:,.1f} MB"
    answer({"version_key": key, **asdict(state)}, as_json, lambda console: console.print(plain(text)))


@app.command()
def check(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Whether the index is there, valid, and used by the planner."""
    from core import index
    from core.registry import get_version

    with context_of(context).session() as connection:
        version = get_version(connection, key)
        state = index.inspect(connection, version)
        use = index.use(connection, version) if state.exists else index.IndexUse(False, "no index")
    text = f"{state.name}: {'valid' if state.valid else 'missing' if not state.exists else 'invalid'}, {use.node}"
    answer(
        {"version_key": key, **asdict(state), "used": use.used, "node": use.node},
        as_json,
        lambda console: console.print(plain(text)),
    )
    if not (state.valid and use.used):
        raise typer.Exit(1)


@app.command()
def drop(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Drop the index of a version that is not active."""
    from core import index
    from core.registry import get_version

    with context_of(context).session() as connection:
        version = get_version(connection, key)
        index.drop(connection, version)
    answer({"version_key": key, "dropped": True}, as_json, lambda console: console.print("The index is gone."))
