"""The doctor: what is wrong with a collection and its server, or soon will be, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import psycopg
from psycopg import sql

from revector.core import index
from revector.core.database import (
    MINIMUM_PGVECTOR,
    SOUND_PGVECTOR,
    Connection,
    Database,
    fetch_one,
    schema_error,
    server_info,
    version_tuple,
)
from revector.core.migrations.drift import Difference, differences
from revector.core.registry import VersionStatus, version_statuses
from revector.core.revisions import HEAD
from revector.core.roles.granting import foreign_creators
from revector.core.settings import Settings
from revector.core.text import counted

_NAMED = 5

Severity = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    severity: Annotated[Severity, "ok, warning or error"]
    check: Annotated[
        str, "server, pgvector, schema, search path, active version, version, chunks, index or index memory"
    ]
    object: Annotated[
        str, "the server, extension, schema, version, index or setting, or what of the schema differs"
    ]
    detail: Annotated[str, "what was found"]
    remedy: Annotated[str, "what to do about it; empty when nothing is"] = ""
    sql: Annotated[str, "the statement that mends it; empty when none does alone"] = ""


@dataclass(frozen=True)
class Diagnosis:
    """The results of all checks."""

    findings: Annotated[tuple[Finding, ...], "each thing that was looked at, also what is ok"]

    @property
    def ok(self) -> Annotated[bool, "whether no finding is an error"]:
        """Whether nothing needs to be fixed now; warnings can wait."""
        return all(finding.severity != "error" for finding in self.findings)


def examine(database: Database, settings: Settings) -> Diagnosis:
    """Check the server, the extension, the schema and every version. Raises UnreachableError without a server."""
    with database.connect("doctor") as connection:
        info = server_info(connection, database.schema)
        found = [
            Finding(
                "ok",
                "server",
                database.name,
                f"PostgreSQL {info.server} at {database.name}, as {info.user}"
                + ("; a standby: searches and reads, nothing else" if info.standby else ""),
            ),
            _pgvector(info.pgvector),
        ]
        wrong = schema_error(connection, info, database.schema)
        if wrong:
            found.append(Finding("error", "schema", database.schema, wrong.problem, wrong.remedy))
            return Diagnosis(tuple(found))
        differing = differences(connection)
        found += _differences(differing)
        if not differing:
            found.append(Finding("ok", "schema", database.schema, f"{database.schema} at revision {HEAD}"))
        found += [
            Finding(
                "warning", "search path", schema, f"{role} may create functions in it, which every session may run",
                "Close it.", f"REVOKE CREATE ON SCHEMA {schema} FROM {role}",
            )
            for schema, role in foreign_creators(connection)
        ]  # fmt: skip
        try:
            found += _versions(connection, database.schema, settings)
        except psycopg.ProgrammingError as error:
            if not differing:
                raise
            problem = f"not looked at while the schema differs: {error.diag.message_primary}"
            found.append(Finding("warning", "version", "", problem, "Mend the schema first."))
        return Diagnosis(tuple(found))


def _differences(found: list[Difference]) -> Iterator[Finding]:
    """What is wrong with many objects alike is said once: a renamed schema, say, changes every function."""
    alike: dict[tuple[Severity, str, str, str], list[str]] = {}
    for one in found:
        remedy = "revector db upgrade" if one.repair else one.remedy
        alike.setdefault((one.severity, one.detail, remedy, one.statement), []).append(one.object)
    for (severity, detail, remedy, statement), names in alike.items():
        few = names if len(names) <= _NAMED + 1 else [*names[:_NAMED], f"{len(names) - _NAMED:,} more"]
        objects = ", ".join(few)
        yield Finding(severity, "schema", objects, f"{objects}: {detail}", remedy, statement)


def _versions(connection: Connection, schema: str, settings: Settings) -> list[Finding]:
    statuses = version_statuses(connection)
    none = Finding("warning", "active version", "", "none: no search is answered", "revector cutover run KEY")
    keys = (status.version.version_key for status in statuses if status.version.active)
    found = [next((Finding("ok", "active version", key, key) for key in keys), none)]
    for status in statuses:
        found += _version(connection, schema, settings, status)
    return found


def _pgvector(installed: str | None) -> Finding:
    if installed is None:
        return Finding(
            "error",
            "pgvector",
            "vector",
            "not installed in this database",
            "revector db upgrade",
            "CREATE EXTENSION vector",
        )
    limits: tuple[tuple[tuple[int, ...], Severity, str], ...] = (
        (MINIMUM_PGVECTOR, "error", "halfvec needs"),
        (SOUND_PGVECTOR, "warning", "vacuum can damage HNSW indexes before"),
    )
    for needed, severity, why in limits:
        if version_tuple(installed) < needed:
            detail = f"{installed}: {why} {'.'.join(map(str, needed))}"
            update = "ALTER EXTENSION vector UPDATE"
            remedy = f"Install a newer pgvector on the server, then: {update}"
            return Finding(severity, "pgvector", "vector", detail, remedy, update)
    return Finding("ok", "pgvector", "vector", installed)


def _version(connection: Connection, schema: str, settings: Settings, status: VersionStatus) -> list[Finding]:
    version = status.version
    key = version.version_key
    if version.state in ("registered", "retired"):
        return [Finding("ok", "version", key, f"{key}: {version.state}")]
    severity: Severity = "error" if version.active else "warning"
    found = []
    if status.missing:
        lacks = f"{key} lacks {counted(status.missing, 'chunk')}"
        found.append(Finding(severity, "chunks", key, lacks, f"revector backfill run {key}"))
    state = index.inspect(connection, version)
    plan = index.plan(connection, version)
    if not state.valid and version.state != "backfilling":
        if state.exists:
            detail = f"the index of {key} is invalid"
            rebuild = sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(sql.Identifier(schema, state.name))
            statement = rebuild.as_string(connection)
        else:
            detail = f"{key} has no index"
            statement = index.create_statement(connection, version)
        remedy = f"revector index build {key}"
        found.append(Finding(severity, "index", state.name, detail, remedy, statement))
    (memory,) = fetch_one(connection, "SELECT pg_size_bytes(%s)", [settings.maintenance_work_mem.replace(" ", "")])
    if not state.valid and plan.memory_bytes > memory:
        found.append(
            Finding(
                "warning",
                "index memory",
                state.name,
                f"the index of {key} needs about {plan.memory_bytes / 1e9:.1f} GB of maintenance_work_mem, "
                f"{settings.maintenance_work_mem} is set",
                "Set REVECTOR_MAINTENANCE_WORK_MEM higher for the build.",
            )
        )
    return found or [Finding("ok", "version", key, f"{key}: {version.state}, {status.embedded:,} chunks")]
