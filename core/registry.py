"""Embedding versions: registering them, their tables and their states."""

from __future__ import annotations

import datetime
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, LiteralString, get_args

from psycopg import sql
from psycopg.types.json import Jsonb

from revector.core import audit
from revector.core.database import Connection, fetch_as, fetch_one
from revector.core.errors import RefusedError, UsageError, unknown_name
from revector.core.hosts import READ_ALLOWED, read_allowed, require_allowed

if TYPE_CHECKING:
    from revector.core.encoders import Encoder

log = logging.getLogger(__name__)

Metric = Literal["cosine", "l2", "ip"]
Storage = Literal["vector", "halfvec"]

MAX_DIMENSIONS = 16_000
"""The limit of pgvector's vector and halfvec."""

# For STORAGE PLAIN a tuple must fit a page of 8 kB: beside header, chunk_id and the vector's own 8 bytes, 2,000
# float32 or 4,000 float16 do. (These are also pgvector's limits for an HNSW index on either type.)
PLAIN_DIMENSIONS = {"vector": 2_000, "halfvec": 4_000}

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

KEPT_COUNT = sql.SQL("least(greatest(coalesce(sum(delta), 0), 0), 9223372036854775807)::bigint")
"""The sum of rows of row_counts. Operators write them: no sum of theirs is below zero or out of a bigint's range."""

_FOLD_COUNTS = 1_000
"""Up to this many deltas of one scope are read as quickly as one."""


@dataclass(frozen=True)
class Version:
    """One row of embedding_versions."""

    id: Annotated[int, "its table is chunk_embeddings_<id>"]
    version_key: Annotated[str, "its key"]
    encoder_name: Annotated[str, "what the encoder calls itself"]
    encoder_revision: str
    dimensions: Annotated[int, "of its vectors"]
    distance_metric: Metric
    active: Annotated[bool, "whether it answers users"]
    created_at: Annotated[datetime.datetime, "when it was registered"]
    state: Annotated[str, "registered, backfilling, loaded, ready, active, previous or retired"]
    encoder_spec: Annotated[str, "how the encoder is opened; empty when plain SQL registered it"]
    storage: Annotated[Storage, "vector or halfvec"]
    index_settings: Annotated[dict[str, Any], "of its index: m, ef_construction"]
    created_by: Annotated[str, "who registered it"]
    notes: Annotated[str, "what others should know"]
    completed_at: Annotated[datetime.datetime | None, "when its backfill was done"]
    proven_at: Annotated[datetime.datetime | None, "when a proof last found no chunk missing"]
    activated_at: Annotated[datetime.datetime | None, "when it last became active"]
    deactivated_at: Annotated[datetime.datetime | None, "when another last took its place"]
    encoder_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoder_hosts", tuple(self.encoder_hosts))

    @property
    def table(self) -> sql.Identifier:
        """The version's own table, for composing SQL."""
        return sql.Identifier(self.table_name)

    @property
    def table_name(self) -> str:
        """`chunk_embeddings_7`."""
        return f"chunk_embeddings_{self.id}"


@dataclass(frozen=True)
class VersionStatus:
    """A version and its counts: chunks embedded, missing, and failed (dead letters, not waived)."""

    version: Version
    embedded: int
    missing: int
    failed: int


VERSION_COLUMNS = sql.SQL(", ").join(
    sql.SQL(f"ARRAY({READ_ALLOWED}) AS encoder_hosts") if name == "encoder_hosts" else sql.Identifier(name)
    for name in Version.__dataclass_fields__
)
"""The columns of a Version, in field order; with it come the hosts that its encoder may send texts to (core.hosts)."""


def versions(connection: Connection) -> list[Version]:
    """All versions, oldest first."""
    return _versions(connection, "ORDER BY id")


def find_version(connection: Connection, key: str) -> Version | None:
    """The version with that key, or None."""
    return next(iter(_versions(connection, "WHERE version_key = %s", [key])), None)


def get_version(connection: Connection, key: str) -> Version:
    """The version with that key. Raises UsageError naming near matches when there is none."""
    found = find_version(connection, key)
    if found is None:
        raise unknown_name("embedding version", key, (v.version_key for v in versions(connection)))
    return found


def active_version(connection: Connection) -> Version | None:
    """The version that answers users, or None before the first cutover."""
    return next(iter(_versions(connection, "WHERE active")), None)


def _versions(connection: Connection, which: LiteralString, params: Any = None) -> list[Version]:
    query = sql.SQL("SELECT {} FROM embedding_versions {}").format(VERSION_COLUMNS, sql.SQL(which))
    return fetch_as(connection, Version, query, params)


def require_active(connection: Connection) -> Version:
    """The active version. Raises RefusedError when no version is active yet."""
    version = active_version(connection)
    if version is None:
        raise no_active_version()
    return version


def no_active_version() -> RefusedError:
    """The error for a collection without an active version."""
    return RefusedError(
        "No embedding version is active yet.",
        "Backfill one and cut over to it: revector backfill run KEY, revector cutover run KEY.",
    )


def version_statuses(connection: Connection) -> list[VersionStatus]:
    """Every version with its counts. Costs the same at ten thousand and at a hundred million chunks."""
    query = sql.SQL("SELECT scope, {} FROM row_counts GROUP BY scope").format(KEPT_COUNT)
    counts: dict[int, int] = dict(connection.execute(query).fetchall())
    failed: dict[int, int] = dict(
        connection.execute(
            """
            SELECT embedding_version_id, count(*) FROM dead_letters
            WHERE waived_reason IS NULL GROUP BY embedding_version_id
            """
        ).fetchall()
    )
    chunks = counts.get(0, 0)
    return [
        VersionStatus(v, counts.get(v.id, 0), max(0, chunks - counts.get(v.id, 0)), failed.get(v.id, 0))
        for v in versions(connection)
    ]


def chunk_count(connection: Connection) -> int:
    """The number of chunks in the collection, from stored counts."""
    return _kept_count(connection, 0)


def embedded_count(connection: Connection, version: Version) -> int:
    """The number of chunks with a vector in the version, from stored counts."""
    return _kept_count(connection, version.id)


def _kept_count(connection: Connection, scope: int) -> int:
    query = sql.SQL("SELECT {} FROM row_counts WHERE scope = %s").format(KEPT_COUNT)
    return int(fetch_one(connection, query, [scope])[0])


def fold_counts(connection: Connection, *scopes: int) -> None:
    """Replace the many deltas of each scope by one row, so that reading the counts stays cheap.

    Safe to run concurrently, also with writers: one statement deletes rows and inserts their sum, and skips rows
    that another session has locked.
    """
    for scope in scopes:
        connection.execute(
            """
            WITH mine AS (
                SELECT id FROM row_counts
                WHERE scope = %(scope)s
                  AND (SELECT count(*) FROM row_counts WHERE scope = %(scope)s) > %(most)s
                ORDER BY id FOR UPDATE SKIP LOCKED),
            gone AS (DELETE FROM row_counts r USING mine WHERE r.id = mine.id RETURNING r.delta)
            INSERT INTO row_counts (scope, delta)
            SELECT %(scope)s, least(greatest(sum(delta), -1000000000000), 1000000000000)
            FROM gone HAVING count(*) > 0
            """,
            {"scope": scope, "most": _FOLD_COUNTS},
        )


def add_version(
    connection: Connection,
    key: str,
    encoder: Encoder,
    spec: str,
    *,
    metric: Metric = "cosine",
    storage: Storage = "vector",
    index_settings: dict[str, Any] | None = None,
    notes: str = "",
) -> Version:
    """Register a version under `key`, with its table, after probing the encoder's real dimensions.

    Embeds nothing yet. Raises UsageError for a malformed or taken key and for what pgvector cannot store,
    RefusedError for a host or key that the owner has not allowed, EncoderError when the probe finds other
    dimensions than the encoder states.
    """
    from revector.core.encoders import completed_spec, probe

    if not _KEY.fullmatch(key):
        raise UsageError(
            f"{key!r} cannot be a version key.",
            "Use 1 to 63 letters, digits, dots, dashes and underscores, such as embed-v2026-03.",
        )
    _check_choice("metric", metric, Metric)
    _check_choice("storage", storage, Storage)
    if any(v.version_key == key for v in versions(connection)):
        raise UsageError(
            f"The version key {key!r} is taken.", "A version never changes its encoder. Choose another key."
        )
    require_allowed(spec, read_allowed(connection))
    dimensions = probe(encoder)
    spec = completed_spec(spec, encoder)
    if dimensions > MAX_DIMENSIONS:
        raise UsageError(
            f"The encoder {encoder.name} returns {dimensions} dimensions; pgvector stores at most {MAX_DIMENSIONS}."
        )
    with connection.transaction():
        connection.execute(
            """
            INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions,
                                            distance_metric, encoder_spec, storage, index_settings, notes)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            [
                key,
                encoder.name,
                encoder.revision,
                dimensions,
                metric,
                spec,
                storage,
                Jsonb(index_settings or {}),
                notes,
            ],
        )
        version = get_version(connection, key)
        create_table(connection, version)
        audit.record(
            connection, "versions add", key, detail={"encoder": spec, "dimensions": dimensions, "metric": metric}
        )
    return version


def adopt_version(connection: Connection, key: str, encoder: Encoder, spec: str) -> Version:
    """Set the encoder of a version that was inserted by plain SQL without one.

    Raises RefusedError when the version already has an encoder, EncoderError when the dimensions differ.
    """
    from revector.core.encoders import completed_spec, probe

    version = get_version(connection, key)
    if version.encoder_spec:
        raise RefusedError(
            f"Version {key} already has the encoder {version.encoder_spec}.", "Register a new version instead."
        )
    require_allowed(spec, version.encoder_hosts)
    dimensions = probe(encoder)
    spec = completed_spec(spec, encoder)
    if dimensions != version.dimensions:
        raise RefusedError(
            f"The encoder {encoder.name} returns {dimensions} dimensions; "
            f"version {key} was registered with {version.dimensions}.",
            "Use the encoder that the version was registered with.",
        )
    with connection.transaction():
        connection.execute("UPDATE embedding_versions SET encoder_spec = %s WHERE id = %s", [spec, version.id])
        create_table(connection, version)
    return get_version(connection, key)


def change_encoder(connection: Connection, key: str, spec: str, *, reason: str = "") -> Version:
    """Change the way to a version's encoder: its address, the key's name, price and pace. The log has the reason.

    Raises RefusedError for a change that could change vectors, and for a host or key that the owner has not allowed.
    """
    version = get_version(connection, key)
    require_allowed(spec, version.encoder_hosts)
    with audit.refusals(connection, "versions change", key, reason=reason), connection.transaction():
        connection.execute("SELECT set_config('revector.reason', %s, true)", [reason])
        connection.execute("UPDATE embedding_versions SET encoder_spec = %s WHERE id = %s", [spec, version.id])
    return get_version(connection, key)


def create_table(connection: Connection, version: Version) -> None:
    """Create the version's table unless it exists, and rebuild the view over all version tables."""
    connection.execute("SELECT create_version_table(%s)", [version.id])


def retire_version(connection: Connection, key: str, *, reason: str = "", force: bool = False) -> Version:
    """Stop keeping a version up to date; its vectors stay until it is dropped.

    The owner of the schema can `force` it, with a reason that is logged. Raises RefusedError, and logs it, for the
    active version, for the one that a rollback needs while the watch lasts, and for one that is requested, being
    backfilled or pinned.
    """
    _remove(connection, "retire", key, reason, force)
    return get_version(connection, key)


def drop_version(connection: Connection, key: str, *, reason: str = "", force: bool = False) -> None:
    """Delete a version, its vectors and its index, for good.

    Raises RefusedError as `retire_version` does, and unless the version is registered or retired.
    """
    _remove(connection, "drop", key, reason, force)


def _remove(connection: Connection, deed: Literal["retire", "drop"], key: str, reason: str, force: bool) -> None:
    get_version(connection, key)  # names near matches when there is none
    call = sql.SQL("SELECT {}(%s, %s, %s)").format(sql.Identifier(f"{deed}_version"))
    with audit.refusals(connection, f"versions {deed}", key, reason=reason), connection.transaction():
        connection.execute(call, [key, reason, force])
    log.info("versions %s %s: done", deed, key)


def _check_choice(kind: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise UsageError(f"There is no {kind} {value!r}.", f"Expected one of {', '.join(get_args(choices))}.")
