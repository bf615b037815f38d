"""`revector versions`: register embedding versions, look at them, retire them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.context import Json, answer, context_of, note, plain

if TYPE_CHECKING:
    from core.registry import Version, VersionStatus

app = typer.Typer(name="versions", help="Embedding versions: an encoder at one revision, and its vectors.",
                  no_args_is_help=True)  # fmt: skip

Key = Annotated[str, typer.Argument(metavar="KEY", help="The version key, such as embed-v2026-03.")]
EncoderOption = Annotated[
    str,
    typer.Option(
        "--encoder", metavar="SPEC",
        help="static:wordllama-256, sentence-transformers:NAME, openai:MODEL?dimensions=512&base_url=…",
    ),
]  # fmt: skip


@app.command()
def add(
    context: typer.Context,
    key: Key,
    encoder: EncoderOption,
    metric: Annotated[str, typer.Option("--metric", help="cosine, l2 or ip.")] = "cosine",
    storage: Annotated[str, typer.Option("--storage", help="vector, or halfvec at half the size.")] = "vector",
    m: Annotated[int, typer.Option("--m", help="HNSW: neighbours a node.")] = 16,
    ef_construction: Annotated[int, typer.Option("--ef-construction", help="HNSW: candidates at build.")] = 64,
    notes: Annotated[str, typer.Option("--notes")] = "",
    as_json: Json = False,
) -> None:
    """Register a version. Probes the encoder's real dimensions; embeds nothing yet."""
    from core.encoders import open_encoder, parse_spec
    from core.index import check_settings
    from core.registry import add_version

    index_settings = check_settings(m, ef_construction)
    spec = str(parse_spec(encoder))
    with context_of(context).session() as connection:
        version = add_version(
            connection, key, open_encoder(spec), spec, metric=metric, storage=storage,  # type: ignore[arg-type]
            index_settings=index_settings, notes=notes,
        )  # fmt: skip
    _answer_one(version, as_json, f"Registered {key}: {version.dimensions} dimensions, {version.distance_metric}.")
    note(f"Next: revector backfill run {key}")


@app.command()
def adopt(context: typer.Context, key: Key, encoder: EncoderOption, as_json: Json = False) -> None:
    """Give an encoder to a version that was inserted by plain SQL."""
    from core.encoders import open_encoder, parse_spec
    from core.registry import adopt_version

    spec = str(parse_spec(encoder))
    with context_of(context).session() as connection:
        version = adopt_version(connection, key, open_encoder(spec), spec)
    _answer_one(version, as_json, f"{key} has the encoder {spec} now.")


@app.command("list")
def list_versions(context: typer.Context, as_json: Json = False) -> None:
    """All versions with their states and counts."""
    from core.registry import version_statuses

    with context_of(context).session() as connection:
        statuses = version_statuses(connection)

    def show(console: Any) -> None:
        if not statuses:
            console.print("No embedding version is registered yet.")
            console.print("Register one: revector versions add KEY --encoder static:wordllama-256", markup=False)
            return
        from rich.table import Table

        table = Table("", "version", "encoder", "dims", "metric", "state", "embedded", "missing", box=None)
        for column in table.columns[-2:]:
            column.justify = "right"
        for status in statuses:
            row = status_document(status)
            table.add_row(
                "●" if row["active"] else "", *(plain(row[name]) for name in (
                    "version_key", "encoder", "dimensions", "metric", "state")),
                f"{row['embedded']:,}", f"{row['missing']:,}",
            )  # fmt: skip
        console.print(table)

    answer({"versions": [status_document(status) for status in statuses]}, as_json, show)


@app.command()
def show(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Everything about one version."""
    from core.registry import get_version, version_statuses

    with context_of(context).session() as connection:
        get_version(connection, key)  # says which keys are near when there is none
        status = next(s for s in version_statuses(connection) if s.version.version_key == key)
    document = status_document(status) | {
        "failed": status.failed,
        **{name: value for name, value in asdict(status.version).items() if name not in ("version_key", "active")},
    }
    answer(
        document,
        as_json,
        lambda console: [
            console.print(f"{name.replace('_', ' '):<18}{plain('—' if value in (None, '', {}) else value)}")
            for name, value in document.items()
        ],
    )


@app.command()
def retire(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Stop keeping a version up to date. Its vectors stay until it is dropped."""
    from core.registry import retire_version

    with context_of(context).session() as connection:
        version = retire_version(connection, key)
    _answer_one(version, as_json, f"{key} is retired: new chunks no longer reach it.")


@app.command()
def drop(
    context: typer.Context,
    key: Key,
    confirm: Annotated[str, typer.Option("--confirm", metavar="KEY", help="The key again.")] = "",
    as_json: Json = False,
) -> None:
    """Delete a retired version with its vectors and its index, for good."""
    from console.confirmation import confirmed_key
    from core.registry import drop_version, get_version

    with context_of(context).session() as connection:
        get_version(connection, key)
        confirmed_key(key, confirm, f"This deletes the vectors of {key} for good.")
        drop_version(connection, key)
    answer({"version_key": key, "dropped": True}, as_json, lambda console: console.print(plain(f"{key} is gone.")))


def status_document(status: VersionStatus) -> dict[str, Any]:
    """A version in JSON, with the keys of the command line's contract."""
    version = status.version
    return {
        "version_key": version.version_key,
        "encoder": version.encoder_spec or version.encoder_name,
        "revision": version.encoder_revision,
        "dimensions": version.dimensions,
        "metric": version.distance_metric,
        "state": version.state,
        "active": version.active,
        "embedded": status.embedded,
        "missing": status.missing,
    }


def _answer_one(version: Version, as_json: bool, text: str) -> None:
    document = {
        "version_key": version.version_key,
        "encoder": version.encoder_spec or version.encoder_name,
        "revision": version.encoder_revision,
        "dimensions": version.dimensions,
        "metric": version.distance_metric,
        "state": version.state,
        "active": version.active,
    }
    answer(document, as_json, lambda console: console.print(plain(text)))
