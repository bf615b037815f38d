"""Loads files of vectors into a version, slice by slice: each is a transaction that moves the load's cursor.

So a killed load loses and repeats nothing: started again with the same file, it continues at its cursor. It only
adds vectors to chunks that have none, and so may run beside a backfill of the version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from psycopg import OperationalError, sql
from psycopg import errors as pg

from revector.core import audit
from revector.core.database import Connection, Database, Progress, fetch_one
from revector.core.errors import RefusedError, RevectorError, UsageError
from revector.core.loader import copy_vectors, insert_missing, lock_for_writing
from revector.core.registry import Version, chunk_count, create_table, embedded_count, get_version
from revector.core.vectors.lookup import have_vectors, lock_chunks, look_up
from revector.core.vectors.report import FileReport, LoadReport, add_up
from revector.core.vectors.sample import Compared, Sampler, as_spec
from revector.core.vectors.seen import Seen
from revector.core.vectors.slices import Slice, VectorFile, id_text, split_bad

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from revector.core.encoders.again import Limits

_LOCK = sql.SQL("hashtext('vector load ' || current_schema()), {}::int")
_LOCK_WAIT = "3s"
"""A killed session releases its lock only when the server notices."""

_ATTEMPTS = 5
_CONFLICTS = (pg.UniqueViolation, pg.ForeignKeyViolation, pg.DeadlockDetected)


@dataclass(frozen=True)
class _Part:
    """A slice with the chunks of its good rows: unique ascending `chunk_ids` (m,), with `vectors` (m, d).

    `present` are those that had a vector at lookup. `rows` counts all rows, `bad` ones included.
    """

    first: int
    rows: int
    chunk_ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    present: NDArray[np.bool_]
    bad: int
    unknown: int


def load(
    database: Database,
    version: Version,
    files: Sequence[VectorFile],
    *,
    skip_bad: bool = False,
    limits: Limits | None = None,
    on_progress: Progress | None = None,
) -> LoadReport:
    """Load the files' vectors into the version, one after another, for chunks that have none in it.

    First a sample of each file is compared with what the version's encoder makes of the same chunks, within
    `limits` (None: not at all). Continues an unfinished load of a file; a finished one starts over, which finds
    chunks that were added since. New chunks reach the version from now on. Chunks that are in no file are left to a
    backfill, which also proves the version complete. Calls on_progress(step, rows done, rows) after each slice.

    Raises UsageError for a file that does not fit the version or becomes unreadable, RefusedError for a version
    that takes no vectors, for a file that another session is loading or whose vectors are not the encoder's, and for
    a non-finite or zero vector (with `skip_bad` such rows are only counted). What was stored before the error stays.
    """
    tell = on_progress or (lambda *_: None)
    with (
        database.session("load", own_session=True) as connection,
        closing(database.connect("load", own_session=True)) as reading,
    ):
        _require_loadable(connection, version)
        for file in files:
            if file.dimensions not in (None, version.dimensions):
                raise UsageError(
                    f"{file.name} has vectors of {file.dimensions:,} dimensions; "
                    f"version {version.version_key} has {version.dimensions:,}.",
                    "Load it into a version that was registered with those.",
                )
        compared = [Compared(reason="not asked to")] * len(files)
        if limits is not None:
            with closing(Sampler(reading, version, limits)) as sampler:
                for number, file in enumerate(files):
                    tell("comparing with the encoder", number, len(files))
                    compared[number] = sampler.compare(file)
        create_table(connection, version)
        reports = [
            _load_one(connection, reading, version, file, sample.rows, skip_bad, tell)
            for file, sample in zip(files, compared, strict=True)
        ]
        return add_up(version, files, reports, compared)


def _load_one(
    connection: Connection,
    reading: Connection,
    version: Version,
    file: VectorFile,
    compared: int,
    skip_bad: bool,
    tell: Progress,
) -> FileReport:
    with _Load(connection, reading, version, file, compared, skip_bad, tell).held() as run:
        try:
            return run.finish()
        except RevectorError as error:
            _record(connection, run.report, "failed", error.problem)
            raise
        except pg.UndefinedTable:
            raise RefusedError(
                f"Version {version.version_key} was dropped while {file.name} was loaded.",
                "Nothing is left of it.",
            ) from None


class _Load:
    """One run over a file. `connection` writes; `reading` prepares the next slice meanwhile."""

    def __init__(
        self,
        connection: Connection,
        reading: Connection,
        version: Version,
        file: VectorFile,
        compared: int,
        skip_bad: bool,
        on_progress: Progress,
    ) -> None:
        self._connection = connection
        self._reading = reading
        self._version = version
        self._file = file
        self._skip_bad = skip_bad
        self._on_progress = on_progress
        self.report = FileReport(version.version_key, file.name, file.rows, compared=compared)
        bounds = fetch_one(connection, "SELECT coalesce(min(id), 0), coalesce(max(id), -1) FROM document_chunks")
        self._seen = Seen(*bounds)
        self._last = np.empty(0, np.int64)

    @contextmanager
    def held(self) -> Iterator[_Load]:
        """Lock the file for this session, and have its row in vector_loads."""
        with self._connection.transaction():
            # Before the first slice: from here on, the trigger queues new chunks for this version.
            if self._version.state == "registered":
                self._connection.execute("SELECT begin_filling(%s)", [self._version.id])
            self._id = int(
                fetch_one(
                    self._connection,
                    """
                    INSERT INTO vector_loads (embedding_version_id, source, fingerprint, total)
                    VALUES (%s, %s, %s, %s)
                    ON CONFLICT (embedding_version_id, fingerprint) DO UPDATE SET source = excluded.source
                    RETURNING id
                    """,
                    [self._version.id, self._file.name, self._file.fingerprint, self._file.rows],
                )[0]
            )
        lock = _LOCK.format(sql.Literal(self._id))
        try:
            with self._connection.transaction():
                self._connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_WAIT)))
                self._connection.execute(sql.SQL("SELECT pg_advisory_lock({})").format(lock))
        except pg.LockNotAvailable:
            raise RefusedError(
                f"{self._file.name} is being loaded into {self._version.version_key} by another session.",
                "Wait until it is done; if it dies, run this again to go on.",
            ) from None
        try:
            self._take_up()
            yield self
        finally:
            with suppress(OperationalError):  # lost, and the lock with it
                self._connection.execute(sql.SQL("SELECT pg_advisory_unlock({})").format(lock))

    def _take_up(self) -> None:
        """Read how far the file was loaded, or start over when that load was finished."""
        state, cursor, stored, present, unknown = fetch_one(
            self._connection,
            "SELECT state, cursor, stored, present, unknown FROM vector_loads WHERE id = %s",
            [self._id],
        )
        if state == "done":
            cursor = stored = present = unknown = 0
            self._connection.execute(
                """
                UPDATE vector_loads SET state = 'running', cursor = 0, stored = 0, present = 0, unknown = 0,
                       total = %s, started_at = now(), updated_at = now(), finished_at = NULL
                WHERE id = %s
                """,
                [self._file.rows, self._id],
            )
        rest = cursor - stored - present - unknown
        bad = self._count_bad(cursor) if rest else 0
        self.report = replace(
            self.report, stored=stored, present=present, unknown=unknown, duplicates=rest - bad, bad=bad,
            resumed_at=cursor,
        )  # fmt: skip
        audit.record(
            self._connection, "load start", self._version.version_key,
            detail={"source": self._file.name, "rows": self._file.rows, "first": cursor},
        )  # fmt: skip

    def _count_bad(self, cursor: int) -> int:
        """The bad rows before the cursor, which vector_loads does not count (as it does not count duplicates)."""
        bad = 0
        for part in self._file.slices(0):
            if part.first >= cursor:
                break
            self._on_progress("reading again", part.first, cursor)
            found = split_bad(as_spec(part, self._version), self._version.storage)[1]
            bad += sum(part.first + row < cursor for row in found)
        return bad

    def finish(self) -> FileReport:
        """Store the rest of the file and close the load."""
        slices = self._file.slices(self.report.cursor)
        with ThreadPoolExecutor(1, "load-ahead") as ahead:
            coming = ahead.submit(self._next, slices)
            while (part := coming.result()) is not None:
                # One thread reads and looks up while the other stores.
                coming = ahead.submit(self._next, slices)
                self._store(part)
                self._on_progress(f"loading {self._version.version_key}", self.report.cursor, self._file.rows)
        self._connection.execute(
            "UPDATE vector_loads SET state = 'done', finished_at = now() WHERE id = %s", [self._id]
        )
        version = get_version(self._connection, self._version.version_key)
        missing = max(0, chunk_count(self._connection) - embedded_count(self._connection, version))
        self.report = replace(self.report, missing=missing, state=version.state)
        _record(self._connection, self.report, "done")
        return self.report

    # -- one slice ----------------------------------------------------------------------------------------

    def _next(self, slices: Iterator[Slice]) -> _Part | None:
        """The next slice, with the chunks of its good rows looked up."""
        if (part := next(slices, None)) is None:
            return None
        vectors, bad = split_bad(as_spec(part, self._version), self._version.storage)
        ids = part.ids
        if bad:
            if not self._skip_bad:
                raise self._bad_row(part, min(bad), bad[min(bad)])
            good = np.ones(len(ids), np.bool_)
            good[list(bad)] = False
            ids, vectors = ids[good], vectors[good]
        chunk_ids, known = look_up(self._reading, ids)
        unknown = len(ids) - int(known.sum())
        if unknown:
            chunk_ids, vectors = chunk_ids[known], vectors[known]
        if not (chunk_ids[1:] > chunk_ids[:-1]).all():
            # In ascending order, like a backfill, so that two writers of the same chunks do not deadlock. Of
            # several rows for one chunk, keep the first.
            chunk_ids, rows = np.unique(chunk_ids, return_index=True)
            vectors = vectors[rows]
        present = have_vectors(self._reading, self._version, chunk_ids)
        return _Part(part.first, len(part.ids), chunk_ids, vectors, present, len(bad), unknown)

    def _bad_row(self, part: Slice, row: int, reason: str) -> RefusedError:
        its = f"{self._file.id_kind.removesuffix('s')} {id_text(part.ids[row])}"
        return RefusedError(
            f"{self._file.name}: the vector of row {part.first + row:,} (counted from 0), {its}, {reason}.",
            f"The rows before {part.first:,} are loaded. Mend the file and load it again, or leave such rows out: "
            "--skip-bad",
        )

    def _store(self, part: _Part) -> None:
        """Store a slice and move the cursor, in one transaction.

        Another session may have stored or deleted one of its chunks since the lookup. That is rare, and handled
        only when the COPY fails.
        """
        # The previous slice was not yet stored when this one was looked up.
        part = replace(part, present=part.present | np.isin(part.chunk_ids, self._last))
        if part.present.any():
            self._catch_up(part.first)
        try:
            with self._slice_transaction():
                # A slice of all rows costs no copy of the vectors.
                wanted = ~part.present if part.present.any() else slice(None)
                chunk_ids = part.chunk_ids[wanted]
                copy_vectors(self._connection, self._version, chunk_ids, part.vectors[wanted])
                report = self._moved(part, chunk_ids, part.unknown)
        except _CONFLICTS:
            self._catch_up(part.first)
            report = self._store_carefully(part)
        if self._seen.rows == part.first:
            self._seen.add(part.chunk_ids, part.rows)
        self._last = part.chunk_ids
        self.report = report

    @contextmanager
    def _slice_transaction(self) -> Iterator[None]:
        with self._connection.transaction():
            # Commits do not wait for the disk: a server crash may lose the last slices together with their cursor
            # moves. The end of the load is committed as usual, and makes all slices durable.
            self._connection.execute("SET LOCAL synchronous_commit = off")
            yield

    def _store_carefully(self, part: _Part) -> FileReport:
        """Store a slice while others store and delete the same chunks."""
        for _ in range(_ATTEMPTS):
            try:
                with self._slice_transaction():
                    lock_for_writing(self._connection, self._version)
                    # From here on, none of them can be deleted.
                    alive = np.isin(part.chunk_ids, lock_chunks(self._connection, part.chunk_ids))
                    wanted = alive & ~part.present
                    chunk_ids = insert_missing(
                        self._connection, self._version, part.chunk_ids[wanted], part.vectors[wanted]
                    )
                    return self._moved(part, chunk_ids, part.unknown + int((~alive).sum()))
            except pg.DeadlockDetected:
                continue
        raise RefusedError(
            f"The load of {self._file.name} met another session's locks {_ATTEMPTS} times in a row.",
            "Run it again: it goes on where it stopped.",
        )

    def _moved(self, part: _Part, stored: NDArray[np.int64], unknown: int) -> FileReport:
        """Record a slice and move the cursor, in the transaction that stored these chunks' vectors."""
        before, version = self.report, self._version.id
        good = part.rows - part.bad - unknown
        had = len(part.chunk_ids) - len(stored) - (unknown - part.unknown)
        again = 0
        if had:
            others = part.chunk_ids[np.isin(part.chunk_ids, stored, invert=True, assume_unique=True)]
            again = min(had, int(self._seen.has(others).sum()))
        present = had - again
        after = replace(
            before,
            stored=before.stored + len(stored),
            present=before.present + present,
            unknown=before.unknown + unknown,
            duplicates=before.duplicates + good - len(stored) - present,
            bad=before.bad + part.bad,
        )
        if len(stored):
            for queue in ("chunk_outbox", "dead_letters"):
                self._take_out(queue, stored)
            self._connection.execute(
                "INSERT INTO row_counts (scope, delta) VALUES (%s, %s)", [version, len(stored)]
            )
        moved = self._connection.execute(
            """
            UPDATE vector_loads l
            SET cursor = %(cursor)s, stored = %(stored)s, present = %(present)s, unknown = %(unknown)s,
                first_chunk_id = least(l.first_chunk_id, %(low)s),
                last_chunk_id = greatest(l.last_chunk_id, %(high)s), updated_at = now()
            FROM embedding_versions v
            WHERE l.id = %(load)s AND l.cursor = %(first)s AND l.state = 'running'
              AND v.id = l.embedding_version_id AND v.state <> 'retired'
            """,
            asdict(after)
            | {"cursor": after.cursor, "load": self._id, "first": part.first}
            | {
                "low": int(stored.min()) if len(stored) else None,
                "high": int(stored.max()) if len(stored) else None,
            },
        )
        if moved.rowcount != 1:
            raise RefusedError(
                f"The load of {self._file.name} was stopped: {self._version.version_key} was retired, "
                "or another session went on with the file.",
                f"Look at it: revector versions show {self._version.version_key}",
            )
        return after

    def _take_out(self, queue: str, chunk_ids: NDArray[np.int64]) -> None:
        """Remove chunks from the version's outbox or dead letters. Checks first whether any exist, since passing
        thousands of ids is slower."""
        its = sql.SQL("FROM {} WHERE embedding_version_id = %s").format(sql.Identifier(queue))
        (any_there,) = fetch_one(
            self._connection, sql.SQL("SELECT EXISTS (SELECT {})").format(its), [self._version.id]
        )
        if any_there:
            self._connection.execute(
                sql.SQL("DELETE {} AND chunk_id = ANY(%s)").format(its),
                [self._version.id, chunk_ids.tolist()],
                prepare=False,
            )

    def _catch_up(self, first: int) -> None:
        """Mark the chunks of the rows before `first` as seen, for a load that continues."""
        if self._seen.rows == first:
            return
        for ids in self._file.ids(self._seen.rows, first):
            self._on_progress("reading again", self._seen.rows, first)
            chunk_ids, known = look_up(self._connection, ids)
            self._seen.add(chunk_ids[known], len(ids))


def _require_loadable(connection: Connection, version: Version) -> None:
    found = get_version(connection, version.version_key)
    if found.state == "retired":
        raise RefusedError(
            f"Version {found.version_key} is retired: new chunks no longer reach it.",
            "Load the file into another version: revector versions add KEY --encoder SPEC",
        )
    if found.active and embedded_count(connection, found) >= chunk_count(connection):
        raise RefusedError(
            f"Version {found.version_key} is active and complete: nothing was loaded.",
            "A load never replaces a vector. Load the file into another version: "
            "revector versions add KEY --encoder SPEC",
        )


def _record(connection: Connection, report: FileReport, outcome: audit.Outcome, reason: str = "") -> None:
    detail = {name: value for name, value in asdict(report).items() if name != "version_key"}
    audit.record(connection, "load", report.version_key, outcome, reason=reason, detail=detail)
