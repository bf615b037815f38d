"""`revector versions`: register embedding versions, look at them, retire them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from revector.console.commands.options import Confirm, Json, Key, Reason
from revector.console.confirmation import require_yes
from revector.console.context import aligned, answer, context_of, fold, note, open_aloud, right
from revector.console.contract import answering

if TYPE_CHECKING:
    from revector.core.database import Connection
    from revector.core.registry import Version, VersionStatus

app = typer.Typer(name="versions", help="Embedding versions: an encoder at one revision, and its vectors.")

EncoderOption = Annotated[
    str,
    typer.Option(
        "--encoder", metavar="SPEC",
        help="static:wordllama-256, sentence-transformers:NAME, openai:MODEL?dimensions=512&base_url=…",
    ),
]  # fmt: skip

Force = Annotated[
    bool,
    typer.Option("--force", help="For the owner of the schema, with a reason, though a rollback may need it."),
]


@dataclass(frozen=True)
class VersionRow:
    """A version in a list."""

    version_key: Annotated[str, "its key"]
    encoder: Annotated[str, "the encoder's spec, or its name when plain SQL registered the version"]
    revision: Annotated[str, "the encoder's revision"]
    dimensions: Annotated[int, "of its vectors"]
    metric: Annotated[str, "cosine, l2 or ip"]
    state: Annotated[str, "registered, backfilling, loaded, ready, active, previous or retired"]
    active: Annotated[bool, "whether it is active"]


@dataclass(frozen=True)
class CountedVersion(VersionRow):
    """A version with its chunks."""

    embedded: Annotated[int, "chunks that have a vector in it"]
    missing: Annotated[int, "chunks that have none"]


@dataclass(frozen=True)
class FullVersion(CountedVersion):
    """A version with all its chunks."""

    failed: Annotated[int, "chunks that could not be embedded"]


@dataclass(frozen=True)
class Dropped:
    """What was deleted."""

    version_key: Annotated[str, "whose vectors or index"]
    dropped: Annotated[bool, "true"] = True


_Row = TypeVar("_Row", bound=VersionRow)
_ONE = answering("console.commands.versions:VersionRow")


@app.command(cls=_ONE)
def add(
    context: typer.Context,
    key: Key,
    encoder: EncoderOption,
    metric: Annotated[str, typer.Option("--metric", metavar="METRIC", help="cosine, l2 or ip.")] = "cosine",
    storage: Annotated[
        str, typer.Option("--storage", metavar="TYPE", help="vector, or halfvec at half the size.")
    ] = "vector",
    m: Annotated[int, typer.Option("--m", metavar="N", help="HNSW: neighbours a node.")] = 16,
    ef_construction: Annotated[
        int, typer.Option("--ef-construction", metavar="N", help="HNSW: candidates at build.")
    ] = 64,
    notes: Annotated[str, typer.Option("--notes", metavar="TEXT", help="Notes for others.")] = "",
    as_json: Json = False,
) -> None:
    """Register a version. Probes the encoder's real dimensions; embeds nothing yet."""
    from revector.core.encoders import parse_spec
    from revector.core.index import check_settings
    from revector.core.registry import add_version

    index_settings = check_settings(m, ef_construction)
    spec = str(parse_spec(encoder))
    with context_of(context).session(changes=True) as connection:
        _ask_for_host(connection, spec)
        version = add_version(
            connection, key, open_aloud(spec), spec, metric=metric, storage=storage,  # type: ignore[arg-type]
            index_settings=index_settings, notes=notes,
        )  # fmt: skip
    text = f"Registered {key}: {version.dimensions} dimensions, {version.distance_metric}."
    answer(_row(VersionRow, version), as_json, text)
    note(f"Next: revector backfill run {key}")


def _ask_for_host(connection: Connection, spec: str) -> None:
    """Ask the owner who is alone in the database whether the encoder's host belongs on the list."""
    import sys

    from revector.core import hosts
    from revector.core.roles import granting, rights

    missing = hosts.missing_entry(spec, hosts.read_allowed(connection))
    alone = len(granting.granted(connection)) == 1 and rights.read_rights(connection).administer
    if missing is None or not alone or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    host, key = missing
    note(f"Texts and queries will be sent to {host}" + (f", with the key in {key}." if key else "."))
    require_yes("The host was not allowed: nothing was changed.")
    hosts.allow(connection, host, key, reason=f"for {spec}")


@app.command(cls=_ONE)
def adopt(context: typer.Context, key: Key, encoder: EncoderOption, as_json: Json = False) -> None:
    """Give an encoder to a version that was inserted by plain SQL."""
    from revector.core.encoders import parse_spec
    from revector.core.registry import adopt_version

    spec = str(parse_spec(encoder))
    with context_of(context).session(changes=True) as connection:
        version = adopt_version(connection, key, open_aloud(spec), spec)
    answer(_row(VersionRow, version), as_json, f"{key} now has the encoder {version.encoder_spec}.")


@app.command(cls=_ONE)
def change(
    context: typer.Context,
    key: Key,
    encoder: EncoderOption,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Change the way to a version's encoder: its address, the key's name, price and pace; nothing of its vectors."""
    from revector.core.encoders import parse_spec
    from revector.core.registry import change_encoder

    spec = str(parse_spec(encoder))
    with context_of(context).session(changes=True) as connection:
        version = change_encoder(connection, key, spec, reason=reason)
    text = f"{key} now has the encoder {spec}. Processes that have it open keep the old way."
    answer(_row(VersionRow, version), as_json, text)


@app.command("list", cls=answering(versions="console.commands.versions:CountedVersion"))
def list_versions(context: typer.Context, as_json: Json = False) -> None:
    """All versions with their states and counts."""
    from revector.core.registry import version_statuses

    with context_of(context).session() as connection:
        statuses = version_statuses(connection)

    found = [counted_version(status) for status in statuses]

    def show() -> Iterator[str]:
        if not statuses:
            yield "No embedding version is registered yet."
            yield "Register one: revector versions add KEY --encoder static:wordllama-256"
            return
        from revector.screens.wording.version import COLUMNS, cells

        keys = ("version_key", "encoder", "dimensions", "state", "embedded", "missing")
        key, encoder, dimensions, state, *counts = (COLUMNS[name].label for name in keys)
        yield from aligned(
            [("●" if one.version.active else "", *cells(one, *keys)) for one in statuses],
            "", fold(key), fold(encoder), *right(dimensions), state, *right(*counts),
        )  # fmt: skip

    answer({"versions": found}, as_json, show())


@app.command(cls=answering("console.commands.versions:FullVersion", "core.registry:Version"))
def show(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Everything about one version."""
    from revector.core.keys import document
    from revector.core.registry import version_statuses
    from revector.screens.wording.version import facts_of

    with context_of(context).version(key) as (connection, _):  # names near matches when there is none
        status = next(s for s in version_statuses(connection) if s.version.version_key == key)
    found = _row(
        FullVersion, status.version, embedded=status.embedded, missing=status.missing, failed=status.failed
    )
    lines = aligned(facts_of(status), "", fold(), header=False)
    answer(document(status.version) | document(found), as_json, lines)


@app.command(cls=_ONE)
def retire(
    context: typer.Context,
    key: Key,
    confirm: Confirm = None,
    reason: Reason = "",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Stop keeping a version up to date. Its vectors stay until it is dropped."""
    from revector.console.confirmation import confirmed_key
    from revector.core.registry import get_version, retire_version

    own = context_of(context)
    with own.session(changes=True) as connection:
        get_version(connection, key)
        confirmed_key(own, key, confirm, f"New chunks no longer reach {key}, and no rollback can return to it.")
        version = retire_version(connection, key, reason=reason, force=force)
    answer(_row(VersionRow, version), as_json, f"{key} is retired. New chunks no longer reach it.")


@app.command(cls=answering("console.commands.versions:Dropped"))
def drop(
    context: typer.Context,
    key: Key,
    confirm: Confirm = None,
    reason: Reason = "",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Delete a retired version with its vectors and its index, permanently."""
    from revector.console.confirmation import confirmed_key
    from revector.core.registry import drop_version, get_version

    own = context_of(context)
    with own.session(changes=True) as connection:
        get_version(connection, key)
        confirmed_key(own, key, confirm, f"This deletes the vectors of {key} permanently.")
        drop_version(connection, key, reason=reason, force=force)
    answer(Dropped(key), as_json, f"{key} was deleted.")


def counted_version(status: VersionStatus) -> CountedVersion:
    """A version with its chunks."""
    return _row(CountedVersion, status.version, embedded=status.embedded, missing=status.missing)


def _row(kind: type[_Row], version: Version, **counts: int) -> _Row:
    return kind(
        version.version_key,
        version.encoder_spec or version.encoder_name,
        version.encoder_revision,
        version.dimensions,
        version.distance_metric,
        version.state,
        version.active,
        **counts,
    )
