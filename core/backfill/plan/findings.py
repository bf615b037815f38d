"""What would make a backfill fail, or needs attention before it starts: each with a figure and a remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from psycopg import sql

from revector.core import index
from revector.core.backfill.job.job import worker_lives
from revector.core.backfill.plan.footprint import Footprint, index_kind_note
from revector.core.backfill.plan.probe import Probe
from revector.core.backfill.plan.sample import Demand, Estimate, examples
from revector.core.database import (
    MINIMUM_PGVECTOR,
    SOUND_PGVECTOR,
    Connection,
    fetch_column,
    fetch_one,
    version_tuple,
)
from revector.core.errors import UnreachableError, UsageError
from revector.core.registry import Version, embedded_count
from revector.core.retrieval.query_text import UNSPACED_NOTE, is_unspaced
from revector.core.roles.kinds import OPERATOR_CALLS

if TYPE_CHECKING:
    from revector.core.encoders import Encoder
    from revector.core.settings import Settings

Verdict = Literal["pass", "warn", "fail"]

_MAX_FAILED_SHARE = 0.05
_LONG_TRANSACTION_S = 600.0


@dataclass(frozen=True)
class PlanFinding:
    """One thing that was looked at."""

    name: Annotated[str, "what was looked at"]
    verdict: Annotated[Verdict, "pass, warn or fail"]
    detail: Annotated[str, "what was found"]
    remedy: Annotated[str, "what to do about it; empty when nothing is"] = ""


@dataclass(frozen=True)
class PlanFacts:
    """All that is known when findings are made. `encoder` is None when it could not be opened."""

    version: Version
    encoder: Encoder | None
    demand: Demand
    probe: Probe | None
    cost_usd: Estimate | None
    price: float | None
    storage: Footprint
    settings: Settings


def find(connection: Connection, situation: PlanFacts) -> list[PlanFinding]:
    """Check everything, in the order in which it would go wrong."""
    job = _job(connection, situation)
    return [
        *_encoder(situation),
        *_revision(connection, situation),
        *_texts(situation),
        *_vectors(situation, job),
        *_spending(situation, job),
        *_jobs(connection, situation),
        *_server(connection),
        *_rights(connection, situation.version),
        *_index(connection, situation),
        *_disk(situation),
        *_transactions(connection, job),
    ]


@dataclass(frozen=True)
class _Job:
    """The settings and the spend of the job that a run would continue, or of a new one."""

    settings: dict[str, Any]
    spent_usd: float

    def limit(self, name: str) -> float | None:
        """A limit from the job's settings, which other programs may write too."""
        found = self.settings.get(name)
        return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def _job(connection: Connection, situation: PlanFacts) -> _Job:
    version = situation.version
    row = connection.execute(
        "SELECT settings, spent_usd FROM backfill_jobs WHERE embedding_version_id = %s", [version.id]
    ).fetchone()
    if row is None or not isinstance(row[0], dict):
        return _Job(situation.settings.backfill, 0.0)
    # A registered or retired version gets a new job, for which earlier spending does not count.
    return _Job(row[0], 0.0 if version.state in ("registered", "retired") else float(row[1]))


# -- encoder and texts -------------------------------------------------------------------------------------


def _encoder(situation: PlanFacts) -> Iterable[PlanFinding]:
    probe, version = situation.probe, situation.version
    if probe is None:
        yield PlanFinding("encoder", "warn", "was not called", "Leave out --no-probe to try it.")
        return
    if probe.error is not None:
        problem, remedy = probe.error.problem, probe.error.remedy
        yield PlanFinding("encoder", "fail", problem, remedy)
        return
    yield PlanFinding("encoder", "pass", f"answers with {version.dimensions:,} dimensions")
    if probe.waited_s > 0:
        yield PlanFinding(
            "throttling", "warn", f"the provider made the probe wait for {probe.waited_s:.1f} s",
            "Others may be using its quota now; without them the backfill is faster.",
        )  # fmt: skip
    if probe.refused:
        yield PlanFinding(
            "refused", "warn",
            f"{len(probe.refused)} of the probe's batches were refused: {probe.refused[0]}",
            "The backfill splits such a batch until the bad chunk is alone, and continues without it.",
        )  # fmt: skip
    if probe.encode is None and situation.demand.texts and not probe.refused:
        yield PlanFinding("probe", "warn", "not measured", "Allow it to send more texts.")


def _revision(connection: Connection, situation: PlanFacts) -> Iterable[PlanFinding]:
    encoder, version = situation.encoder, situation.version
    if encoder is None or (situation.probe is not None and isinstance(situation.probe.error, UnreachableError)):
        return
    if encoder.revision == version.encoder_revision:
        yield PlanFinding("revision", "pass", encoder.revision)
        return
    has_vectors = embedded_count(connection, version) > 0
    yield PlanFinding(
        "revision",
        "fail" if has_vectors else "warn",
        f"the encoder is now {encoder.revision}, the version was registered with {version.encoder_revision}"
        + (": the version would mix vectors of two models" if has_vectors else ""),
        "Register a new version for this encoder: revector versions add",
    )


def _texts(situation: PlanFacts) -> Iterable[PlanFinding]:
    demand = situation.demand
    if demand.chunks == 0:
        yield PlanFinding("chunks", "warn", "the collection has none", "revector ingest PATH")
        return
    if demand.to_embed == 0:
        yield PlanFinding("chunks", "pass", "nothing is missing")
    if demand.failed:
        yield PlanFinding(
            "dead letters", "warn", f"{demand.failed:,} chunks failed before and are left out",
            f"revector backfill failures {situation.version.version_key} --retry",
        )  # fmt: skip
    if demand.to_embed and demand.sampled < min(30, demand.to_embed):
        yield PlanFinding(
            "sample", "warn", f"only {demand.sampled} missing chunks could be sampled: the figures are rough",
            "Try again when the server is less busy.",
        )  # fmt: skip
    if demand.too_long:
        ids = [chunk_id for chunk_id, _ in demand.too_long]
        yield PlanFinding(
            "long texts", "warn",
            f"{_share(len(ids), demand)} have more than the {demand.max_tokens:,} tokens that the model reads, "
            f"{demand.too_long[0][1]:,} at most: {examples(ids)}",
            "They would be cut, or refused by a service. Ingest with smaller chunks (REVECTOR_CHUNK_CHARACTERS).",
        )  # fmt: skip
    if len(unspaced := [text for text in demand.texts if is_unspaced(text)]) > len(demand.texts) / 20:
        yield PlanFinding(
            "full text", "warn", f"{len(unspaced)} of {len(demand.texts)} looked at are in a script without spaces",
            f"Search them without hybrid. {UNSPACED_NOTE}",
        )  # fmt: skip
    if demand.blank:
        yield PlanFinding(
            "empty texts", "warn", f"{_share(len(demand.blank), demand)} are blank: {examples(demand.blank)}",
            "They get no useful vector and become dead letters: delete or waive them.",
        )  # fmt: skip


def _share(count: int, demand: Demand) -> str:
    if demand.exact:
        return f"{count:,} of {demand.to_embed:,} chunks"
    return f"{count:,} of {demand.sampled:,} sampled chunks ({count / demand.sampled:.1%})"


def _vectors(situation: PlanFacts, job: _Job) -> Iterable[PlanFinding]:
    probe = situation.probe
    if probe is None or not probe.bad:
        return
    share = len(probe.bad) / probe.vectors
    limit = job.limit("max_failed_share")
    over = share > (limit or _MAX_FAILED_SHARE)
    half = any("halfvec" in reason for reason in probe.bad)
    yield PlanFinding(
        "vectors", "fail" if over or half else "warn",
        f"{len(probe.bad)} of {probe.vectors} cannot be stored: the first {probe.bad[0]}",
        "Register a version with storage vector, or an encoder that normalises." if half
        else "They become dead letters. If there are many, check the encoder.",
    )  # fmt: skip


def _spending(situation: PlanFacts, job: _Job) -> Iterable[PlanFinding]:
    if situation.encoder is None or situation.demand.to_embed == 0:
        return
    cap = job.limit("max_spend_usd")
    if situation.price is None:
        capped = " The spend cap cannot limit it." if cap is not None else ""
        yield PlanFinding(
            "price", "warn", f"no price is known for {situation.encoder.name}.{capped}",
            "Set it in the spec of a new version: price=0.02 (US dollars per million tokens), or price=0 if free.",
        )  # fmt: skip
        return
    if cap is None or situation.cost_usd is None or situation.cost_usd.high == 0:
        return
    left = max(0.0, cap - job.spent_usd)
    figures = f"${left:,.2f} of ${cap:,.2f} are left"
    if left >= situation.cost_usd.high:
        yield PlanFinding("spend cap", "pass", figures)
        return
    share = left / situation.cost_usd.estimate if situation.cost_usd.estimate else 1.0
    short = left < situation.cost_usd.low
    yield PlanFinding(
        "spend cap", "fail" if short else "warn",
        f"{figures}, and it costs ${situation.cost_usd.low:,.2f} to ${situation.cost_usd.high:,.2f}: "
        + (f"the job would be held at about {share:.0%}" if short else "the job may be held near the end"),
        f"revector backfill set {situation.version.version_key} with a higher max_spend_usd",
    )  # fmt: skip


# -- the version and other jobs ----------------------------------------------------------------------------


def _jobs(connection: Connection, situation: PlanFacts) -> Iterable[PlanFinding]:
    if situation.version.state == "retired":
        yield PlanFinding(
            "version", "warn", "is retired: a backfill makes it usable again and keeps it up to date",
            "If you do not want that, backfill another version.",
        )  # fmt: skip
    query = sql.SQL(
        """
        SELECT v.version_key, count(*)
        FROM backfill_workers w JOIN backfill_jobs j ON j.id = w.job_id
             JOIN embedding_versions v ON v.id = j.embedding_version_id
        WHERE {} GROUP BY v.version_key ORDER BY v.version_key
        """
    ).format(worker_lives(sql.SQL("w.id")))
    for key, workers in connection.execute(query).fetchall():
        own = key == situation.version.version_key
        yield PlanFinding(
            "running", "warn",
            f"{workers} worker{'s' * (workers != 1)} already working on this backfill: a run joins"
            if own
            else f"the backfill of {key} is running, and shares the disk and maybe the encoder",
            f"revector backfill status {key}",
        )  # fmt: skip


# -- the server --------------------------------------------------------------------------------------------


def _server(connection: Connection) -> Iterable[PlanFinding]:
    standby, read_only, pgvector = fetch_one(
        connection,
        """
        SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::bool,
               (SELECT extversion FROM pg_extension WHERE extname = 'vector')
        """,
    )
    if standby:
        yield PlanFinding("server", "fail", "is a standby: it cannot be written to", "Name the primary in --dsn.")
    elif read_only:
        yield PlanFinding(
            "session", "warn", "is read-only: writing was not measured",
            "Leave out --read-only (REVECTOR_READ_ONLY); the backfill needs to write.",
        )  # fmt: skip
    found = version_tuple(pgvector or "0")
    if found < MINIMUM_PGVECTOR:
        needed = ".".join(map(str, MINIMUM_PGVECTOR))
        yield PlanFinding(
            "pgvector", "fail", f"{pgvector}: halfvec needs {needed}", "ALTER EXTENSION vector UPDATE"
        )
    elif found < SOUND_PGVECTOR:
        needed = ".".join(map(str, SOUND_PGVECTOR))
        yield PlanFinding(
            "pgvector", "warn", f"{pgvector}: vacuum can damage HNSW indexes before {needed}",
            "ALTER EXTENSION vector UPDATE",
        )  # fmt: skip


_WRITTEN = {
    "audit_log": ("INSERT",),
    "backfill_jobs": ("INSERT", "UPDATE", "DELETE"),
    "backfill_ranges": ("INSERT", "UPDATE"),
    "backfill_samples": ("INSERT",),
    "backfill_workers": ("INSERT", "UPDATE"),
    "chunk_outbox": ("INSERT", "UPDATE", "DELETE"),
    "dead_letters": ("INSERT",),
    "embedding_versions": ("UPDATE",),
    "row_counts": ("INSERT", "DELETE"),
}


def _rights(connection: Connection, version: Version) -> Iterable[PlanFinding]:
    """The rights to write the job's rows, and to create and own the version's table (key, index, storage)."""
    pairs = [(table, right) for table, rights in _WRITTEN.items() for right in rights]
    lacking = [
        f"{right} on {table}"
        for table, right in connection.execute(
            """
            SELECT t.name, t.privilege
            FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS t(name, privilege, place)
            WHERE NOT CASE t.privilege WHEN 'DELETE' THEN has_table_privilege(to_regclass(t.name), 'DELETE')
                                       ELSE has_any_column_privilege(to_regclass(t.name), t.privilege) END
            ORDER BY t.place
            """,
            [[table for table, _ in pairs], [right for _, right in pairs]],
        ).fetchall()
    ]
    lacking += [
        f"EXECUTE on {function}"
        for function in fetch_column(
            connection,
            "SELECT name FROM unnest(%s::text[]) AS name WHERE NOT has_function_privilege(name, 'EXECUTE')",
            [list(OPERATOR_CALLS)],
        )
    ]
    if lacking:
        shown = ", ".join(lacking[:4]) + (f" and {len(lacking) - 4} more" if len(lacking) > 4 else "")
        yield PlanFinding(
            "rights",
            "fail",
            f"the role is missing {shown}",
            "Connect as an operator. The owner makes one: revector db grant ROLE operator.",
        )
    else:
        yield PlanFinding("rights", "pass", "to write the job and the version's table, and to build its index")


# -- index and disk ----------------------------------------------------------------------------------------


def _index(connection: Connection, situation: PlanFacts) -> Iterable[PlanFinding]:
    version, settings = situation.version, situation.settings
    chosen = {**index.DEFAULTS, **version.index_settings}
    try:
        index.check_settings(chosen["m"], chosen["ef_construction"])
    except UsageError as error:
        yield PlanFinding("index", "fail", error.problem, "Register a version with other index settings.")
        return
    if note := index_kind_note(version):
        yield PlanFinding("index", "warn" if index.kind_of(version) == "bit" else "pass", note)
    if index.inspect(connection, version).valid:
        return
    configured = settings.maintenance_work_mem
    (memory,) = fetch_one(connection, "SELECT pg_size_bytes(%s)", [configured.replace(" ", "")])
    needed = situation.storage.index_memory
    if needed > memory:
        enough = -(-needed * 11 // 10 // 2**20)
        asked = f"{-(-enough // 1024)}GB" if enough > 1024 else f"{enough}MB"
        yield PlanFinding(
            "index memory", "warn",
            f"the graph needs {_size(needed)}, maintenance_work_mem is {configured}: the build takes "
            "many times as long",
            f"REVECTOR_MAINTENANCE_WORK_MEM={asked}, if the server has that much; or storage halfvec",
        )  # fmt: skip
    else:
        yield PlanFinding("index memory", "pass", f"{_size(needed)} of {configured}")


def _disk(situation: PlanFacts) -> Iterable[PlanFinding]:
    storage = situation.storage
    needed = f"{_size(storage.needed)} needed for table, index and WAL"
    if storage.free is None:
        yield PlanFinding(
            "disk", "warn", f"{needed}; the server's free space cannot be seen from here",
            "Check it on the server.",
        )  # fmt: skip
        return
    figures = f"{needed}, {_size(storage.free)} free"
    if storage.needed > storage.free:
        yield PlanFinding("disk", "fail", figures, "Make room, or register a version with storage halfvec.")
    elif 2 * storage.needed > storage.free:
        yield PlanFinding("disk", "warn", figures, "Less than twice that, and others write too: watch the disk.")
    else:
        yield PlanFinding("disk", "pass", figures)


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _transactions(connection: Connection, job: _Job) -> Iterable[PlanFinding]:
    """Other transactions whose snapshot holds back vacuum and keeps an index build waiting."""
    limit = job.limit("max_transaction_s") or _LONG_TRANSACTION_S
    rows = connection.execute(
        """
        SELECT pid, application_name, extract(epoch FROM clock_timestamp() - xact_start)::float8
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
          AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
          AND xact_start < clock_timestamp() - %s * interval '1 second'
        ORDER BY xact_start
        """,
        [limit],
    ).fetchall()
    if rows:
        pid, name, seconds = rows[0]
        who = f"process {pid}" + (f" ({name})" if name else "")
        yield PlanFinding(
            "transactions", "warn",
            f"{len(rows)} open for more than {limit:g} s, the oldest for {seconds / 60:,.0f} min by {who}",
            "They block vacuum, and the index build waits for them.",
        )  # fmt: skip
