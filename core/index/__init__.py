"""The HNSW index of a version: which kind, building it after the load, and whether searches use it.

Limits of pgvector's HNSW: vector 2,000 dimensions, halfvec 4,000, bit 64,000; m 2 to 100, ef_construction 4 to
1,000 and at least 2 m. A version above 2,000 dimensions is indexed as halfvec, above 4,000 by binary
quantisation, whose candidates the search ranks again by their full vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from revector.core import audit
from revector.core.database import Connection, fetch_one, lacks_shared_memory
from revector.core.errors import RefusedError, UsageError
from revector.core.index.expressions import BIT_CANDIDATES as BIT_CANDIDATES
from revector.core.index.expressions import Kind as Kind
from revector.core.index.expressions import candidates_query as candidates_query
from revector.core.index.expressions import distance_expression as distance_expression
from revector.core.index.expressions import index_name as index_name
from revector.core.index.expressions import indexed_expression as indexed_expression
from revector.core.index.expressions import kind_of as kind_of
from revector.core.index.expressions import operator as operator
from revector.core.index.expressions import query_vector as query_vector
from revector.core.locks import name_holders
from revector.core.registry import Version, embedded_count
from revector.core.sessions import require_own_session
from revector.core.settings import Settings

log = logging.getLogger(__name__)

DEFAULTS = {"m": 16, "ef_construction": 64, "ef_search": 100}
_TRIES = 800
_LEAST_MEMORY = 16 * 2**20
_BUILD_LOCK = sql.SQL("hashtext('index build ' || current_schema()), %s::int")


@dataclass(frozen=True)
class IndexPlan:
    """How a version is indexed: the type in the index, HNSW settings, and an estimate of the build's memory."""

    version_key: Annotated[str, "whose index"]
    name: Annotated[str, "of the index"]
    kind: Annotated[Kind, "the type that it holds: vector, halfvec or bit"]
    m: Annotated[int, "HNSW: neighbours a node"]
    ef_construction: Annotated[int, "HNSW: candidates at build"]
    rows: Annotated[int, "vectors to be indexed"]
    memory_bytes: Annotated[int, "that the graph takes while it is built, about"]
    statement: Annotated[str, "the SQL"]


@dataclass(frozen=True)
class IndexSettings:
    """HNSW settings of a version."""

    version_key: Annotated[str, "whose index"]
    m: Annotated[int, "HNSW: neighbours a node"]
    ef_construction: Annotated[int, "HNSW: candidates at build"]
    ef_search: Annotated[int, "HNSW: candidates at search"]


@dataclass(frozen=True)
class IndexState:
    """The state of a version's index."""

    name: Annotated[str, "of the index"]
    exists: Annotated[bool, "whether it is there"]
    valid: Annotated[bool, "whether it is finished, of the version's metric, and over all its vectors"]
    bytes: Annotated[int, "on disk"]
    version_key: Annotated[str, "whose index"] = ""
    problem: Annotated[str, "why it is not valid; empty when it is"] = ""
    note: Annotated[str, "what its build had to do without; empty when nothing"] = ""


@dataclass(frozen=True)
class IndexUse:
    """Whether the planner answers a top-k search of this version from its index, by EXPLAIN."""

    used: Annotated[bool, "whether the planner answers a search from it"]
    node: Annotated[str, "what the plan reads"]


def check_settings(m: int, ef_construction: int) -> dict[str, int]:
    """The HNSW settings, checked; raises UsageError outside pgvector's limits."""
    if not 2 <= m <= 100:
        raise UsageError(f"m is {m}; pgvector takes 2 to 100.")
    if not (4 <= ef_construction <= 1000 and ef_construction >= 2 * m):
        raise UsageError(
            f"ef_construction is {ef_construction}; pgvector takes 4 to 1000, and at least twice m ({2 * m})."
        )
    return {"m": m, "ef_construction": ef_construction}


def change_settings(
    connection: Connection,
    version: Version,
    *,
    m: int | None = None,
    ef_construction: int | None = None,
    ef_search: int | None = None,
) -> IndexSettings:
    """Change those that are given: ef_search for searches from now on, the other two for the next build.

    Raises UsageError outside pgvector's limits.
    """
    asked = {"m": m, "ef_construction": ef_construction, "ef_search": ef_search}
    given = {name: value for name, value in asked.items() if value is not None}
    found = IndexSettings(version.version_key, **{**DEFAULTS, **version.index_settings, **given})
    check_settings(found.m, found.ef_construction)
    if not 1 <= found.ef_search <= 1000:
        raise UsageError(f"ef_search is {found.ef_search}; pgvector takes 1 to 1000.")
    if given:
        connection.execute(
            "UPDATE embedding_versions SET index_settings = index_settings || %s WHERE id = %s",
            [Jsonb(given), version.id],
        )
    return found


def plan(connection: Connection, version: Version) -> IndexPlan:
    """What `build` would do, with the memory that the graph needs during the build."""
    settings = {**DEFAULTS, **version.index_settings}
    rows = embedded_count(connection, version)
    return IndexPlan(
        version.version_key,
        index_name(version),
        kind_of(version),
        settings["m"],
        settings["ef_construction"],
        rows,
        graph_bytes(version, rows),
        create_statement(connection, version),
    )


def graph_bytes(version: Version, rows: int) -> int:
    """The memory in bytes that a graph of that many rows takes during the build.

    Each element holds its value, its neighbours (2 m at the ground layer and m in each of the 1/(m−1) layers
    above, 16 bytes each in memory: HnswCandidate in pgvector's src/hnsw.h) and about 180 bytes of overhead,
    derived from the memory at which pgvector reports that the graph no longer fits.
    """
    m = int({**DEFAULTS, **version.index_settings}["m"])
    neighbours = 16 * m * (2 + 1 / (m - 1))
    return round(rows * (value_bytes(version) + neighbours + 180))


def value_bytes(version: Version) -> int:
    """The bytes of one value in the index: a header of 8, then 4, 2 or 1/8 for each dimension."""
    bits = {"vector": 32, "halfvec": 16, "bit": 1}[kind_of(version)]
    return 8 + -(-version.dimensions * bits // 8)


def inspect(connection: Connection, version: Version) -> IndexState:
    """The state of the version's index, from the catalogue alone, so that it says the same at any size.

    Valid is a finished HNSW index over all the version's vectors, of its metric, made of pgvector's own operators
    and functions.
    """
    row = connection.execute(
        """
        WITH own AS (SELECT d.classid, d.objid FROM pg_depend d
                     JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
                     WHERE d.deptype = 'e' AND e.extname = 'vector')
        SELECT pg_relation_size(i.indexrelid), i.indisvalid AND i.indisready AND i.indislive,
               i.indrelid = to_regclass(%s), a.amname, o.opcname, i.indpred IS NULL,
               replace(pg_get_indexdef(i.indexrelid, 1, false), quote_ident(x.nspname) || '.', ''), i.indnatts,
               ('pg_opclass'::regclass, o.oid) IN (TABLE own) AND NOT EXISTS (
                   SELECT FROM pg_depend f WHERE f.classid = 'pg_class'::regclass AND f.objid = i.indexrelid
                   AND f.refclassid = 'pg_proc'::regclass AND (f.refclassid, f.refobjid) NOT IN (TABLE own))
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
        JOIN pg_opclass o ON o.oid = i.indclass[0]
        CROSS JOIN pg_extension e JOIN pg_namespace x ON x.oid = e.extnamespace
        WHERE i.indexrelid = to_regclass(%s) AND e.extname = 'vector'
        """,
        [version.table_name, index_name(version)],
    ).fetchone()
    if row is None:
        return IndexState(index_name(version), False, False, 0, version.version_key, "there is none")
    problem = _problem(version, *row[1:])
    return IndexState(index_name(version), True, not problem, row[0], version.version_key, problem)


def _problem(
    version: Version, built: bool, its: bool, method: str, operators: str, whole: bool, indexed: str, columns: int,
    own: bool,
) -> str:  # fmt: skip
    """What is wrong with an index of the version's name, in words; empty when nothing is."""
    kind, dimensions = kind_of(version), version.dimensions
    converted = {
        "halfvec": f"((embedding)::halfvec({dimensions}))",
        "bit": f"((binary_quantize(embedding))::bit({dimensions}))",
    }
    expected = "embedding" if kind == version.storage else converted[kind]
    problems = {
        "its build was interrupted": built,
        f"it is not an index of {version.table_name}": its,
        f"its method is {method}, not hnsw": method == "hnsw",
        f"its operators are {operators}, not {_operators(version)}": operators == _operators(version),
        "it is partial: searches do not find the vectors that it leaves out": whole,
        f"it is over {indexed}, not over {expected} alone": indexed == expected and columns == 1,
        "it has operators or functions that are not pgvector's": own,
    }
    return next((problem for problem, right in problems.items() if not right), "")


def use(connection: Connection, version: Version, k: int = 10) -> IndexUse:
    """Ask the planner how it would answer a top-k search; the query vector does not matter."""
    probe = "[" + ",".join(["1"] * version.dimensions) + "]"
    query = sql.SQL("EXPLAIN (FORMAT JSON) {}").format(candidates_query(version, k))
    nodes = list(_walk(fetch_one(connection, query, {"vector": probe})[0][0]["Plan"]))
    if any(node.get("Index Name") == index_name(version) for node in nodes):
        return IndexUse(True, f"Index Scan using {index_name(version)}")
    scans = [node["Node Type"] for node in nodes if "Scan" in node["Node Type"]]
    return IndexUse(False, scans[0] if scans else nodes[0]["Node Type"])


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _walk(child)


def progress(connection: Connection, version: Version) -> tuple[str, int, int] | None:
    """(phase, done, total) of a build running in any session, else None; total is 0 when unknown."""
    row = connection.execute(
        """
        SELECT phase, greatest(blocks_done, tuples_done), greatest(blocks_total, tuples_total)
        FROM pg_stat_progress_create_index WHERE relid = to_regclass(%s)
        """,
        [version.table_name],
    ).fetchone()
    return (row[0], row[1] or 0, row[2] or 0) if row else None


def build(connection: Connection, version: Version, settings: Settings) -> IndexState:
    """Build the version's index while writes continue, then ANALYZE; a valid index is kept.

    CONCURRENTLY, so outside a transaction; the remains of an interrupted build are dropped first. Raises
    RefusedError when the version has no table yet or is not complete, or a build is already running.
    """
    state = inspect(connection, version)
    if state.valid:
        _indexed(connection, version)
        return state
    if fetch_one(connection, "SELECT to_regclass(%s)", [version.table_name])[0] is None:
        raise RefusedError(
            f"Version {version.version_key} has no vectors yet.", f"revector backfill run {version.version_key}"
        )
    (complete,) = fetch_one(
        connection, "SELECT completed_at IS NOT NULL FROM embedding_versions WHERE id = %s", [version.id]
    )
    if not complete:
        raise RefusedError(
            f"Version {version.version_key} is not complete, and loading into an index takes many times as long.",
            f"Finish the load first; it then builds the index: revector backfill run {version.version_key}",
        )
    require_own_session(connection, "index build")
    with _one_build(connection, version):
        log.info("index build %s: begins, %d rows", version.version_key, embedded_count(connection, version))
        memory = _memory(connection, version, settings)
        note = ""
        try:
            _build(connection, version, memory, settings.index_workers)
        except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory) as error:
            if not lacks_shared_memory(error) or settings.index_workers == 0:
                raise
            note = (
                f"built without parallel workers: the server has too little shared memory for {memory} "
                "(Docker: --shm-size, in a compose file shm_size)"
            )
            log.warning("index build %s: again without workers, %s", version.version_key, error)
            _build(connection, version, memory, 0)
        _indexed(connection, version)
    detail = {"name": index_name(version)} | ({"note": note} if note else {})
    audit.record(connection, "index build", version.version_key, detail=detail)
    return replace(inspect(connection, version), note=note)


def drop(connection: Connection, version: Version) -> None:
    """Drop the version's index. Raises RefusedError for the active version: its searches would scan the table."""
    if version.active:
        raise RefusedError(
            f"Version {version.version_key} is active. Without its index every search scans the table."
        )
    if _owns(connection, version):
        require_own_session(connection, "index drop")
        connection.execute(
            sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(index_name(version)))
        )
        connection.execute("SELECT note_index(%s)", [version.id])
    else:
        _between_writers(connection, "SELECT drop_index(%s)", version)
    audit.record(connection, "index drop", version.version_key)


def create_statement(connection: Connection, version: Version) -> str:
    """The SQL that builds the version's index, for a session on any search path."""
    return str(fetch_one(connection, "SELECT index_statement(%s)", [version.id])[0])


def _operators(version: Version) -> str:
    """pgvector's operator class for what the index holds and the version's metric."""
    kind = kind_of(version)
    return "bit_hamming_ops" if kind == "bit" else f"{kind}_{version.distance_metric}_ops"


def _owns(connection: Connection, version: Version) -> bool:
    """Whether the session may build CONCURRENTLY, which needs the table's owner and fits no function."""
    query = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass(%s)"
    return bool(fetch_one(connection, query, [version.table_name])[0])


def _memory(connection: Connection, version: Version, settings: Settings) -> str:
    """What the build asks for: room for the graph and for chunks that come meanwhile, and not more than the setting.

    A parallel build takes all that it asks for at once, as shared memory, of which Docker gives a server 64 MB.
    """
    enough = round(1.25 * graph_bytes(version, embedded_count(connection, version))) + _LEAST_MEMORY
    query = "SELECT least(pg_size_bytes(%s), %s) / 1024"
    return f"{fetch_one(connection, query, [settings.maintenance_work_mem.replace(' ', ''), enough])[0]}kB"


def _build(connection: Connection, version: Version, memory: str, workers: int) -> None:
    if _owns(connection, version):
        _build_concurrently(connection, version, memory, workers)
        return
    if inspect(connection, version).exists:  # the remains of an interrupted build
        _between_writers(connection, "SELECT drop_index(%s)", version)
    _between_writers(connection, "SELECT unkey_version_table(%s)", version)
    connection.execute("SELECT build_index(%s, %s, %s)", [version.id, memory, workers])


def _build_concurrently(connection: Connection, version: Version, memory: str, workers: int) -> None:
    if inspect(connection, version).exists:  # the remains of an interrupted build
        connection.execute(
            sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(index_name(version)))
        )
    # On the session: SET LOCAL only warns outside a transaction, and CONCURRENTLY cannot run in one.
    connection.execute(
        """
        SELECT set_config('maintenance_work_mem', %s, false),
               set_config('max_parallel_maintenance_workers', %s, false)
        """,
        [memory, str(workers)],
    )
    try:
        connection.execute(create_statement(connection, version).encode())
    finally:
        if not connection.closed:
            connection.execute("RESET maintenance_work_mem")
            connection.execute("RESET max_parallel_maintenance_workers")
    connection.execute(sql.SQL("ANALYZE {}").format(version.table))


def _indexed(connection: Connection, version: Version) -> None:
    connection.execute("SELECT note_index(%s)", [version.id])
    key_table(connection, version)


def key_table(connection: Connection, version: Version) -> None:
    """Give the version's table its foreign key, which takes vectors away with their chunks, unless it has it.

    Raises RefusedError when it gets no lock of document_chunks for an instant, within two minutes.
    """
    _between_writers(connection, "SELECT key_version_table(%s)", version)
    connection.execute("SELECT validate_version_table(%s)", [version.id])


def _between_writers(connection: Connection, call: LiteralString, version: Version) -> None:
    """Call a function that needs a lock of document_chunks for an instant, again and again until it gets it.

    Each try waits 50 ms at most, so that no writer of chunks queues behind it for longer.
    """
    for _ in range(_TRIES):
        try:
            connection.execute(call, [version.id])
            return
        except psycopg.errors.LockNotAvailable:
            connection.execute("SELECT pg_sleep(0.1)")
    held, remedy = name_holders(
        connection, dict.fromkeys(("document_chunks", version.table_name), "AccessShareLock")
    )
    raise RefusedError(
        f"The table of version {version.version_key} did not get a lock for two minutes, {held}.",
        f"Try again later. {remedy}",
    )


@contextmanager
def _one_build(connection: Connection, version: Version) -> Iterator[None]:
    """A session lock: two CONCURRENTLY builds of one index would wait for each other, and one would fail."""
    key = [version.id]
    if not fetch_one(connection, sql.SQL("SELECT pg_try_advisory_lock({})").format(_BUILD_LOCK), key)[0]:
        raise RefusedError(f"The index of version {version.version_key} is already being built.")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(sql.SQL("SELECT pg_advisory_unlock({})").format(_BUILD_LOCK), key)
