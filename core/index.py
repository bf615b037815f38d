"""The HNSW index of a version: which kind, building it after the load, whether searches use it, and warming it.

Limits of pgvector's HNSW: vector 2,000 dimensions, halfvec 4,000, bit 64,000; m 2 to 100, ef_construction 4 to
1,000 and at least 2 m. A version above 2,000 dimensions is indexed as halfvec, above 4,000 by binary
quantisation, whose candidates the search ranks again by their full vectors.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import sql

from core import audit
from core.database import Connection, Progress, fetch_one
from core.errors import RefusedError, UsageError
from core.registry import Version, embedded_count
from core.settings import Settings

Kind = Literal["vector", "halfvec", "bit"]

DEFAULTS = {"m": 16, "ef_construction": 64, "ef_search": 100}
_BUILD_LOCK = sql.SQL("hashtext('index build ' || current_schema()), %s::int")
BIT_CANDIDATES = 20
"""How many times k the binary index is asked for before the ranking by full vectors."""


@dataclass(frozen=True)
class IndexPlan:
    """How a version is indexed: the type in the index, HNSW settings, and an estimate of the build's memory."""

    version_key: str
    name: str
    kind: Kind
    m: int
    ef_construction: int
    rows: int
    memory_bytes: int
    statement: str


@dataclass(frozen=True)
class IndexState:
    """What is there: `exists`, `valid` (a build that was cut off leaves an invalid one), bytes on disk."""

    name: str
    exists: bool
    valid: bool
    bytes: int


@dataclass(frozen=True)
class IndexUse:
    """Whether the planner answers a top-k search of this version from its index, by EXPLAIN."""

    used: bool
    node: str


@dataclass(frozen=True)
class PagesRead:
    """What searches read: pages that were in the server's buffers (`hit`) and that were not (`read`).

    `median_s` is the median of their times on the server, in seconds. A page that is `read` may still come from the
    operating system's cache, which Postgres does not see.
    """

    searches: int
    hit: int
    read: int
    median_s: float

    @property
    def share(self) -> float:
        """The share of pages that were in the buffers, 0 to 1; 1 when nothing was read."""
        return self.hit / (self.hit + self.read) if self.hit + self.read else 1.0


@dataclass(frozen=True)
class Prewarmed:
    """What a prewarming did: by what means, how many pages it went through, and what did not fit.

    `share` is the share of pages in the buffers that searches found afterwards, 0 to 1.
    """

    version_key: str
    how: Literal["pg_prewarm", "reading"]
    pages: int
    seconds: float
    share: float
    left_out: tuple[str, ...]


def kind_of(version: Version) -> Kind:
    """The type that the version's index holds."""
    if version.dimensions <= 2_000 and version.storage == "vector":
        return "vector"
    return "halfvec" if version.dimensions <= 4_000 else "bit"


def index_name(version: Version) -> str:
    """`chunk_embeddings_7_hnsw`."""
    return f"{version.table_name}_hnsw"


def check_settings(m: int, ef_construction: int) -> dict[str, int]:
    """The HNSW settings as stored; raises UsageError outside of pgvector's limits."""
    if not 2 <= m <= 100:
        raise UsageError(f"m is {m}; pgvector takes 2 to 100.")
    if not (4 <= ef_construction <= 1000 and ef_construction >= 2 * m):
        raise UsageError(
            f"ef_construction is {ef_construction}; pgvector takes 4 to 1000, and at least twice m ({2 * m})."
        )
    return {"m": m, "ef_construction": ef_construction}


def indexed_expression(version: Version) -> sql.Composable:
    """What the index is built on; a search has to order by exactly this to be answered from it."""
    column = sql.Identifier("embedding")
    dimensions = sql.Literal(version.dimensions)
    match kind_of(version):
        case "vector":
            return column
        case "halfvec" if version.storage == "halfvec":
            return column
        case "halfvec":
            return sql.SQL("({}::halfvec({}))").format(column, dimensions)
        case "bit":
            return sql.SQL("(binary_quantize({})::bit({}))").format(column, dimensions)


def operator(version: Version) -> sql.SQL:
    """pgvector's operator of the version's metric, such as `<=>`."""
    return {"cosine": sql.SQL("<=>"), "l2": sql.SQL("<->"), "ip": sql.SQL("<#>")}[version.distance_metric]


def query_vector(version: Version) -> sql.Composed:
    """The parameter `vector`, of the type that the version stores."""
    return sql.SQL("%(vector)s::{}({})").format(sql.Identifier(version.storage), sql.Literal(version.dimensions))


def distance_expression(version: Version) -> sql.Composed:
    """SQL of the distance between a stored `embedding` and the parameter `vector`."""
    return sql.SQL("embedding {} {}").format(operator(version), query_vector(version))


def candidates_query(version: Version, k: int, condition: sql.Composable | None = None) -> sql.Composed:
    """SQL of the k nearest chunks: columns chunk_id and distance. The query vector is the parameter `vector`.

    `condition` is on the columns of the version's table. LIMIT is a literal: as a parameter, a generic plan would
    guess it as a tenth of the table and leave the index.
    """
    vector = query_vector(version)
    distance = distance_expression(version)
    where = sql.SQL("WHERE {} ").format(condition) if condition is not None else sql.SQL("")
    if kind_of(version) == "bit":
        return sql.SQL(
            "SELECT chunk_id, {distance} AS distance FROM "
            "(SELECT chunk_id, embedding FROM {table} {where}"
            "ORDER BY {indexed} <~> binary_quantize({vector})::bit({dimensions}) LIMIT {many}) AS nearest "
            "ORDER BY distance, chunk_id LIMIT {k}"
        ).format(
            distance=distance,
            table=version.table,
            where=where,
            indexed=indexed_expression(version),
            vector=vector,
            dimensions=sql.Literal(version.dimensions),
            many=sql.Literal(k * BIT_CANDIDATES),
            k=sql.Literal(k),
        )
    nearest = sql.SQL("{} {} {}").format(
        indexed_expression(version), operator(version), _as_indexed(version, vector)
    )
    return sql.SQL(
        "SELECT chunk_id, {distance} AS distance FROM {table} {where}ORDER BY {nearest} LIMIT {k}"
    ).format(distance=distance, table=version.table, where=where, nearest=nearest, k=sql.Literal(k))


def _as_indexed(version: Version, vector: sql.Composable) -> sql.Composable:
    if kind_of(version) == "halfvec" and version.storage == "vector":
        return sql.SQL("{}::halfvec({})").format(vector, sql.Literal(version.dimensions))
    return vector


def plan(connection: Connection, version: Version) -> IndexPlan:
    """What `build` would do, with the memory that the graph needs while it is built."""
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
        _create_statement(version).as_string(connection),
    )


def graph_bytes(version: Version, rows: int) -> int:
    """The memory in bytes that a graph of so many rows takes while it is built.

    Each element holds its value, its neighbours (2 m at the ground layer and m in each of the 1/(m−1) layers
    above, 16 bytes each in memory: HnswCandidate in pgvector's src/hnsw.h) and about 180 bytes of its own, which
    is what is left of the memory at which pgvector says that the graph no longer fits.
    """
    m = int({**DEFAULTS, **version.index_settings}["m"])
    neighbours = 16 * m * (2 + 1 / (m - 1))
    return round(rows * (value_bytes(version) + neighbours + 180))


def value_bytes(version: Version) -> int:
    """The bytes of one value in the index: 8 of header, then 4, 2 or 1/8 a dimension."""
    bits = {"vector": 32, "halfvec": 16, "bit": 1}[kind_of(version)]
    return 8 + -(-version.dimensions * bits // 8)


def inspect(connection: Connection, version: Version) -> IndexState:
    """The state of the version's index as the catalogue has it."""
    row = connection.execute(
        """
        SELECT i.indisvalid AND i.indisready, pg_relation_size(i.indexrelid)
        FROM pg_index i WHERE i.indexrelid = to_regclass(%s)
        """,
        [index_name(version)],
    ).fetchone()
    return IndexState(index_name(version), row is not None, bool(row and row[0]), row[1] if row else 0)


def use(connection: Connection, version: Version, k: int = 10) -> IndexUse:
    """Ask the planner how it would answer a top-k search; the vector itself does not matter for that."""
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
    """(phase, done, total) of a build that is running in any session, else None; total 0 when unknown."""
    row = connection.execute(
        """
        SELECT phase, greatest(blocks_done, tuples_done), greatest(blocks_total, tuples_total)
        FROM pg_stat_progress_create_index WHERE relid = to_regclass(%s)
        """,
        [version.table_name],
    ).fetchone()
    return (row[0], row[1] or 0, row[2] or 0) if row else None


def build(connection: Connection, version: Version, settings: Settings) -> IndexState:
    """Build the version's index beside running writes, then ANALYZE; a valid one is kept as it is.

    CONCURRENTLY, so outside a transaction; what a build that was cut off left behind is dropped first.
    Raises RefusedError when the version has no table yet or is not complete, or a build is running already.
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
            f"Version {version.version_key} is not complete: loading into an index takes many times as long.",
            f"Finish the load, which builds the index after it: revector backfill run {version.version_key}",
        )
    with _one_build(connection, version):
        if inspect(connection, version).exists:
            connection.execute(
                sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(index_name(version)))
            )
        with _session_settings(connection, settings):
            connection.execute(_create_statement(version))
        connection.execute(sql.SQL("ANALYZE {}").format(version.table))
        _indexed(connection, version)
    audit.record(connection, "index build", version.version_key, detail={"name": index_name(version)})
    return inspect(connection, version)


def drop(connection: Connection, version: Version) -> None:
    """Drop the version's index. Raises RefusedError for the active version: its searches would scan."""
    if version.active:
        raise RefusedError(f"Version {version.version_key} is active: without its index every search is a scan.")
    connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(index_name(version))))
    connection.execute(
        "UPDATE embedding_versions SET state = 'loaded' WHERE id = %s AND state = 'ready'", [version.id]
    )
    audit.record(connection, "index drop", version.version_key)


def _create_statement(version: Version) -> sql.Composed:
    settings = {**DEFAULTS, **version.index_settings}
    kind = kind_of(version)
    operators = "bit_hamming_ops" if kind == "bit" else f"{kind}_{version.distance_metric}_ops"
    return sql.SQL(
        "CREATE INDEX CONCURRENTLY {} ON {} USING hnsw ({} {}) WITH (m = {}, ef_construction = {})"
    ).format(
        sql.Identifier(index_name(version)),
        version.table,
        indexed_expression(version),
        sql.Identifier(operators),
        sql.Literal(settings["m"]),
        sql.Literal(settings["ef_construction"]),
    )


def _indexed(connection: Connection, version: Version) -> None:
    connection.execute(
        "UPDATE embedding_versions SET state = 'ready' WHERE id = %s AND state = 'loaded'", [version.id]
    )


@contextmanager
def _one_build(connection: Connection, version: Version) -> Iterator[None]:
    """A session lock: two CONCURRENTLY builds of one index would only wait for each other and one would fail."""
    key = [version.id]
    if not fetch_one(connection, sql.SQL("SELECT pg_try_advisory_lock({})").format(_BUILD_LOCK), key)[0]:
        raise RefusedError(f"The index of version {version.version_key} is being built already.")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(sql.SQL("SELECT pg_advisory_unlock({})").format(_BUILD_LOCK), key)


@contextmanager
def _session_settings(connection: Connection, settings: Settings) -> Iterator[None]:
    # On the session: SET LOCAL only warns outside a transaction, and CONCURRENTLY cannot run in one.
    connection.execute(
        """
        SELECT set_config('maintenance_work_mem', %s, false),
               set_config('max_parallel_maintenance_workers', %s, false)
        """,
        [settings.maintenance_work_mem.replace(" ", ""), str(settings.index_workers)],
    )
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("RESET maintenance_work_mem")
            connection.execute("RESET max_parallel_maintenance_workers")


# -- warming -----------------------------------------------------------------------------------------------

_K = 10
_READING_S = 120.0
_SEARCHES_AT_ONCE = 25
_WARM = 0.98
"""From here on, further searches bring next to nothing."""


def stored_vectors(connection: Connection, version: Version, wanted: int) -> list[tuple[int, str]]:
    """(chunk id, vector as text) of so many chunks of the version, or of fewer when it has no more.

    At random: each is the first at or after an id drawn from the whole span, so that the primary key finds it. A
    chunk after a gap in the ids is drawn more often than others.
    """
    span = fetch_one(connection, sql.SQL("SELECT min(chunk_id), max(chunk_id) FROM {}").format(version.table))
    if span[0] is None:
        return []
    numbers = [random.randint(*span) for _ in range(4 * wanted)]  # noqa: S311
    query = sql.SQL(
        """
        SELECT DISTINCT ON (e.chunk_id) e.chunk_id, e.embedding::text
        FROM unnest(%s::bigint[]) AS drawn(id) CROSS JOIN LATERAL (
            SELECT chunk_id, embedding FROM {} WHERE chunk_id >= drawn.id ORDER BY chunk_id LIMIT 1) AS e
        """
    ).format(version.table)
    found = connection.execute(query, [numbers]).fetchall()
    return [(row[0], row[1]) for row in random.sample(found, min(wanted, len(found)))]


def pages_of_searches(
    connection: Connection, version: Version, vectors: Sequence[str], *, timeout_s: float = 10.0
) -> PagesRead:
    """Make a top-10 search for each of these vectors, and count the pages that they read (EXPLAIN ANALYZE, BUFFERS).

    Of the index and of the version's table; the texts of the hits are not fetched. Raises psycopg's QueryCanceled
    when one search takes longer than the timeout.
    """
    explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {}").format(
        candidates_query(version, _K)
    )
    hit, read, times = 0, 0, []
    ef_search = max(int({**DEFAULTS, **version.index_settings}["ef_search"]), _K)
    with connection.transaction(force_rollback=True):  # which takes the settings back too
        connection.execute(
            "SELECT set_config('hnsw.ef_search', %s, true), set_config('statement_timeout', %s, true)",
            [str(ef_search), f"{round(timeout_s * 1000)}ms"],
        )
        for vector in vectors:
            found = fetch_one(connection, explain, {"vector": vector})[0][0]
            hit += found["Plan"]["Shared Hit Blocks"]
            read += found["Plan"]["Shared Read Blocks"]
            times.append(found["Execution Time"] / 1000)
    return PagesRead(len(times), hit, read, statistics.median(times) if times else 0.0)


def prewarm(connection: Connection, version: Version, on_progress: Progress | None = None) -> Prewarmed:
    """Bring the version's table and index into the server's buffers, as far as they fit.

    By the extension pg_prewarm where the database has it and this role may call it; else by reading the table in the
    order of its key and by searches for stored vectors, until they find their pages in the buffers or two minutes are
    over. Raises RefusedError when the version has no valid index.
    """
    if not inspect(connection, version).valid:
        raise RefusedError(
            f"Version {version.version_key} has no valid index to warm.",
            f"revector index build {version.version_key}",
        )
    began = time.monotonic()
    relations, left_out = _what_fits(connection, version)
    tell = on_progress or (lambda _step, _done, _total: None)
    if _has_pg_prewarm(connection):
        how: Literal["pg_prewarm", "reading"] = "pg_prewarm"
        pages = 0
        for number, name in enumerate(relations):
            tell(f"prewarm {name}", number, len(relations))
            pages += fetch_one(connection, "SELECT pg_prewarm(to_regclass(%s)::oid::regclass)", [name])[0]
    else:
        how = "reading"
        pages = _prewarm_by_reading(connection, version, relations, tell)
    vectors = [vector for _, vector in stored_vectors(connection, version, _SEARCHES_AT_ONCE)]
    share = pages_of_searches(connection, version, vectors).share
    return Prewarmed(version.version_key, how, pages, time.monotonic() - began, share, left_out)


def _what_fits(connection: Connection, version: Version) -> tuple[list[str], tuple[str, ...]]:
    """The relations to warm, the index last: what comes later may push out what came before; and those too large."""
    rows = connection.execute(
        """
        SELECT name, pg_relation_size(to_regclass(name)), pg_size_bytes(current_setting('shared_buffers'))
        FROM unnest(%s::text[]) WITH ORDINALITY AS relations(name, number) ORDER BY number
        """,
        [[index_name(version), version.table_name]],
    ).fetchall()
    fitting: list[str] = []
    left_out: list[str] = []
    room = rows[0][2]
    for name, size, _ in rows:
        (fitting if size <= room else left_out).append(name)
        room -= size if size <= room else 0
    return fitting[::-1], tuple(left_out)


def _has_pg_prewarm(connection: Connection) -> bool:
    row = connection.execute(
        """
        SELECT has_function_privilege(p.oid, 'EXECUTE') AND pg_function_is_visible(p.oid)
        FROM pg_extension e JOIN pg_depend d ON d.refobjid = e.oid AND d.classid = 'pg_proc'::regclass
        JOIN pg_proc p ON p.oid = d.objid AND p.proname = 'pg_prewarm'
        WHERE e.extname = 'pg_prewarm'
        """
    ).fetchone()
    return bool(row and row[0])


def _prewarm_by_reading(connection: Connection, version: Version, relations: Sequence[str], tell: Progress) -> int:
    """Pages that the reading went through, those that were in the buffers already included."""
    pages = 0
    if version.table_name in relations:
        tell(f"read {version.table_name}", 0, 0)
        # By its key: a scan of a large table goes through a ring of few buffers, and leaves nothing in them.
        with connection.transaction(force_rollback=True):
            for name in ("enable_seqscan", "enable_bitmapscan", "enable_indexonlyscan", "jit"):
                connection.execute("SELECT set_config(%s, 'off', true)", [name])
            connection.execute("SELECT set_config('max_parallel_workers_per_gather', '0', true)")
            connection.execute(
                "SELECT set_config('statement_timeout', %s, true)", [f"{round(_READING_S * 1000)}ms"]
            )
            query = sql.SQL(
                """
                EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON)
                SELECT count(vector_dims(embedding)) FROM {} WHERE chunk_id > 0
                """
            ).format(version.table)
            plan = fetch_one(connection, query)[0][0]["Plan"]
            pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    until = time.monotonic() + _READING_S
    done = 0
    while time.monotonic() < until:
        vectors = [vector for _, vector in stored_vectors(connection, version, _SEARCHES_AT_ONCE)]
        found = pages_of_searches(connection, version, vectors)
        pages += found.hit + found.read
        done += found.searches
        tell("search stored vectors", done, 0)
        if found.share >= _WARM:
            break
    return pages
