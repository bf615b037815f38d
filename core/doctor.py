"""What is wrong with a collection and its server, or will be: figures and remedies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

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
from revector.core.evaluation.document import Verdict
from revector.core.registry import VersionStatus, version_statuses
from revector.core.revisions import HEAD
from revector.core.settings import Settings


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: Annotated[str, "what was looked at"]
    verdict: Annotated[Verdict, "pass, warn or fail"]
    detail: Annotated[str, "what was found"]
    remedy: Annotated[str, "what to do about it; empty when nothing is"] = ""


def examine(database: Database, settings: Settings) -> list[Finding]:
    """Look at server, extension, schema and every version. Raises UnreachableError when there is no server."""
    with database.connect("doctor") as connection:
        info = server_info(connection, database.schema)
        found = [Finding("server", "pass", f"PostgreSQL {info.server} at {database.name}, as {info.user}")]
        found.append(_pgvector(info.pgvector))
        wrong = schema_error(info, database.schema)
        if wrong:
            found.append(Finding("schema", "fail", wrong.problem, wrong.remedy))
            return found
        found.append(Finding("schema", "pass", f"{database.schema} at revision {HEAD}"))
        statuses = version_statuses(connection)
        found.append(_active(statuses))
        for status in statuses:
            found += _version(connection, settings, status)
        return found


def _pgvector(installed: str | None) -> Finding:
    if installed is None:
        return Finding("pgvector", "fail", "not installed in this database", "revector db upgrade")
    limits: tuple[tuple[tuple[int, ...], Verdict, str], ...] = (
        (MINIMUM_PGVECTOR, "fail", "halfvec needs"),
        (SOUND_PGVECTOR, "inconclusive", "vacuum can damage HNSW indexes before"),
    )
    for needed, verdict, why in limits:
        if version_tuple(installed) < needed:
            detail = f"{installed}: {why} {'.'.join(map(str, needed))}"
            return Finding("pgvector", verdict, detail, "ALTER EXTENSION vector UPDATE")
    return Finding("pgvector", "pass", installed)


def _active(statuses: list[VersionStatus]) -> Finding:
    active = next((status.version.version_key for status in statuses if status.version.active), None)
    if active is None:
        return Finding("active version", "inconclusive", "none: no search is answered", "revector cutover run KEY")
    return Finding("active version", "pass", active)


def _version(connection: Connection, settings: Settings, status: VersionStatus) -> list[Finding]:
    version = status.version
    name = f"version {version.version_key}"
    if version.state in ("registered", "retired"):
        return [Finding(name, "pass", version.state)]
    found = []
    if status.missing:
        found.append(
            Finding(
                name,
                "fail" if version.active else "inconclusive",
                f"chunks missing: {status.missing:,}",
                f"revector backfill run {version.version_key}",
            )
        )
    state = index.inspect(connection, version)
    if not state.valid and version.state != "backfilling":
        found.append(
            Finding(
                name,
                "fail" if version.active else "inconclusive",
                "its index is invalid" if state.exists else "it has no index",
                f"revector index build {version.version_key}",
            )
        )
    plan = index.plan(connection, version)
    (memory,) = fetch_one(connection, "SELECT pg_size_bytes(%s)", [settings.maintenance_work_mem.replace(" ", "")])
    if not state.valid and plan.memory_bytes > memory:
        found.append(
            Finding(
                name,
                "inconclusive",
                f"the index needs about {plan.memory_bytes / 1e9:.1f} GB of maintenance_work_mem, "
                f"{settings.maintenance_work_mem} is set",
                "Set REVECTOR_MAINTENANCE_WORK_MEM higher for the build.",
            )
        )
    return found or [Finding(name, "pass", f"{version.state}, {status.embedded:,} chunks")]
