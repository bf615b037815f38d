"""The demo's story, step by step: ingest, backfill, shadow, compare, cut over, search, roll back, search."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from psycopg import errors as pg
from psycopg import sql

from revector.console.commands.backfill.run import run_backfill
from revector.console.commands.evaluation.evaluate import leave_with
from revector.console.commands.versions import CountedVersion, counted_version
from revector.console.context import Context, answer, counted, note, pipe, plain
from revector.console.progress import progress_bar
from revector.core import cutover, index, shadow
from revector.core.cutover import Flip, Guard
from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.errors import RefusedError
from revector.core.evaluation.document import Evaluation, MeasureResult
from revector.core.evaluation.evaluate import Asked, evaluate
from revector.core.evaluation.files.qrels import read_qrels
from revector.core.evaluation.files.topics import read_queries
from revector.core.evaluation.gates.gate_file import read_gates
from revector.core.evaluation.judged_sets.judgements import Judgement, ensure_judge, save_judgements
from revector.core.evaluation.judged_sets.query_sets import get_query_set, query_sets, save_queries
from revector.core.registry import add_version, chunk_count, create_table, get_version, version_statuses, versions
from revector.core.retrieval import SearchResult, VersionSearcher
from revector.core.revisions import DEVELOPMENT_REVISIONS
from revector.screens.wording.text import MARKS

if TYPE_CHECKING:
    from revector.core.database import Progress

FIRST, SECOND = "demo-64", "demo-256"
ENCODERS = {FIRST: "static:wordllama-64", SECOND: "static:wordllama-256"}
QUERY = "run a command and get its output as a string"

_HERE = Path(__file__).parent

QUERY_SET = "demo"
GATES = _HERE / "gates.toml"
"""The gates for the second version."""


@dataclass(frozen=True)
class StoryShadow:
    """The result of the shadow."""

    queries: Annotated[int, "answered by both versions"]
    overlap: Annotated[float | None, "the mean"]
    rbo: Annotated[float | None, "the mean"]


@dataclass(frozen=True)
class StorySegment(MeasureResult):
    """The first measure in a segment, with the overlap of the rankings."""

    overlap: Annotated[float, "the mean"]
    rbo: Annotated[float, "the mean"]


@dataclass(frozen=True, kw_only=True)
class StoryRollback(Flip):
    """A flip, and a search afterwards."""

    search: Annotated[SearchResult, "afterwards"]


@dataclass(frozen=True, kw_only=True)
class StoryCutover(StoryRollback):
    """A cutover, and a search afterwards."""

    guards: Annotated[tuple[Guard, ...], "as they were before"]


@dataclass(frozen=True)
class Story:
    """What happened."""

    chunks: Annotated[int, "of the documentation of Python's standard library"]
    versions: Annotated[list[CountedVersion], "both of them, at the end"]
    shadow: Annotated[StoryShadow, "of the demo's queries"]
    evaluation: Annotated[list[StorySegment], "the first measure, by segment"]
    cutover: Annotated[StoryCutover, "to the second version"]
    rollback: Annotated[StoryRollback, "to the first one"]
    seconds: Annotated[dict[str, float], "that each step took, by its name"]


Shown = Callable[[], "AbstractContextManager[Progress]"]
"""Opens a display of progress."""


def prepare(own: Context, shown: Shown = progress_bar) -> dict[str, float]:
    """Bring the collection to the start of the story, keeping what exists; returns seconds by step.

    Afterwards `demo-64` is complete, `demo-256` is registered, and a version is active. `shown` displays the
    progress. Raises RefusedError when the collection holds anything but the demo: it may be in production.
    """
    clock = _Clock()
    with clock.step("server"):
        database = _database(own)
    with database.session("demo") as connection:
        _require_demo(connection, database)
        known = {version.version_key for version in versions(connection)}
        if FIRST not in known or chunk_count(connection) == 0:  # otherwise the ingest was complete
            with clock.step("ingest"), shown() as progress:
                _ingest(connection, own.settings.chunk_characters, progress)
        if not any(found.name == QUERY_SET for found in query_sets(connection)):
            _judge(connection)
        for key in (FIRST, SECOND):
            if key not in known:
                add_version(connection, key, open_encoder(ENCODERS[key]), ENCODERS[key], notes="the demo's")
        first = get_version(connection, FIRST)
        create_table(connection, first)
        if first.completed_at is None:
            with clock.step(f"backfill {FIRST}"):
                _embed(own, connection, FIRST, shown)
        if not any(version.active for version in versions(connection)):
            cutover.run(connection, FIRST, confirm=FIRST, reason="the demo's first version")
        if get_version(connection, SECOND).completed_at is not None:
            with clock.step("shadow"):
                mirror_queries(database, connection)
    return clock.seconds


def begin_anew(connection: Connection) -> None:
    """Back to the first version, if an earlier run left the second one active."""
    if get_version(connection, SECOND).active:
        if cutover.rollback_target(connection) is None:  # it was itself rolled back to
            cutover.run(connection, FIRST, confirm=FIRST, reason="the demo starts over")
        else:
            cutover.rollback(connection, confirm=FIRST, reason="the demo starts over")


def tell(own: Context, as_json: bool) -> None:
    """Run the whole story without the console, printing each step, or one JSON document at the end."""
    seconds = prepare(own)
    clock = _Clock(seconds)
    database = own.database
    say: Callable[[str], None] = (lambda _text: None) if as_json else _aloud
    with database.session("demo") as connection:
        begin_anew(connection)
        chunks = chunk_count(connection)
        say(f"{chunks:,} chunks of the standard library's documentation; {FIRST} is active.")
        with clock.step(f"backfill {SECOND}"):
            _embed(own, connection, SECOND)
        say(f"{SECOND} is backfilled, proven and indexed.")

        with clock.step("shadow"):
            mirror_queries(database, connection)
            mirrored = shadow.report(connection)
        say(
            f"Shadow: {mirrored.queries} queries answered by both, mean overlap {mirrored.overlap or 0:.2f}, "
            f"RBO {mirrored.rbo or 0:.2f}."
        )

        with clock.step("compare"), progress_bar() as progress:
            found = evaluate(
                database, get_query_set(connection, QUERY_SET), get_version(connection, FIRST),
                get_version(connection, SECOND), Asked(gates=read_gates(GATES)), on_progress=progress,
            )  # fmt: skip
        say(_table(found))
        for gate in found.gates:
            say(f"{MARKS[gate.verdict]} {gate.name}: {gate.detail}")

        with clock.step("cutover"):
            guards = cutover.check(connection, SECOND).guards
            flip = cutover.run(connection, SECOND, confirm=SECOND, reason="better on the demo's judged queries")
        for guard in guards:
            say(f"{MARKS[guard.verdict]} {guard.name}: {guard.detail}")
        say(f"Cut over: {flip.previous} → {flip.version_key} in {flip.seconds * 1000:.1f} ms.")

        searcher = VersionSearcher(connection)
        with clock.step("search"):
            after_cutover = searcher.search(QUERY)
        say(f"“{QUERY}” by {after_cutover.version_key}: {', '.join(h.source_id for h in after_cutover.hits[:3])}")

        with clock.step("rollback"):
            back = cutover.rollback(connection, confirm=FIRST, reason="the demo shows the rollback")
        with clock.step("search again"):
            after_rollback = searcher.search(QUERY)
        missing = counted(back.missing, "chunk")
        say(f"Rolled back to {back.version_key} in {back.seconds * 1000:.1f} ms, {missing} missing.")
        say(
            f"“{QUERY}” by {after_rollback.version_key}: {', '.join(h.source_id for h in after_rollback.hits[:3])}"
        )

        story = Story(
            chunks,
            [counted_version(status) for status in version_statuses(connection)],
            StoryShadow(mirrored.queries, mirrored.overlap, mirrored.rbo),
            _segments(found),
            StoryCutover(**vars(flip), guards=guards, search=after_cutover),
            StoryRollback(**vars(back), search=after_rollback),
            {name: round(value, 3) for name, value in clock.seconds.items()},
        )
    program = f"revector --schema {own.schema}" if own.schema else "revector"
    answer(story, as_json, f"Open the console and try it yourself: {program}")
    if found.verdict != "pass":
        note(f"{SECOND} does not pass the demo's gates. For details: revector evaluations show {found.id}")
    leave_with(found.verdict)


class _Clock:
    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds = seconds if seconds is not None else {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def _database(own: Context) -> Database:
    from revector.core.database import server_info
    from revector.core.migrations import upgrade

    database = own.database
    with database.connect("demo") as connection:
        revision = server_info(connection, database.schema).schema_revision
        if revision in DEVELOPMENT_REVISIONS and database.embedded:
            _drop(connection, database)
            note(f"The demo's collection was made by a development version ({revision}). It is being made again.")
            revision = None
    if revision is None:
        upgrade(database)
    return database


def _drop(connection: Connection, database: Database) -> None:
    """Drop the demo's collection of a development version. Raises RefusedError when it holds anything else."""
    from revector.core.models import Base, is_version_table
    from revector.core.revisions import TABLE

    _require_demo(connection, database)
    rows = connection.execute(
        """
        SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname = %s AND relkind = ANY ('{r,p,f,v,m}') AND relname <> 'chunk_embeddings'
        """,
        [database.schema],
    ).fetchall()
    tables = {row[0] for row in rows}
    strangers = [
        f"table {name}"
        for name in sorted(tables - {*Base.metadata.tables, "alembic_version", TABLE})
        if not is_version_table(name)
    ]
    if "query_sets" in tables:
        strangers += [f"query set {one.name}" for one in query_sets(connection) if one.name != QUERY_SET]
    if strangers:
        raise _not_the_demo(database, strangers[0])
    names = [sql.Identifier(database.schema, name) for name in sorted(tables)]
    try:
        with connection.transaction():
            for statement in (
                "DROP VIEW {schema}.chunk_embeddings",
                *("DROP FUNCTION IF EXISTS {schema}." + name for name in _OF_ROWS),
                "DROP TABLE {tables}",  # without CASCADE: objects that others built on them do not belong to the demo
                "DROP SCHEMA {schema} CASCADE",
            ):
                parts = {"schema": sql.Identifier(database.schema), "tables": sql.SQL(", ").join(names)}
                connection.execute(sql.SQL(statement).format(**parts))
    except pg.DependentObjectsStillExist as error:
        found = (error.diag.message_detail or str(error)).partition("\n")[0]
        raise _not_the_demo(database, found) from None


_OF_ROWS = ("request_obstacle", "request_void", "check_removal", "begin_removal")
"""Functions that take or return a row of a table, and go before it."""


def _require_demo(connection: Connection, database: Database) -> None:
    strangers = [v.version_key for v in versions(connection) if v.version_key not in ENCODERS]
    documents = connection.execute(
        "SELECT source_id FROM document_chunks WHERE NOT (metadata ? 'demo') LIMIT 1"
    ).fetchone()
    if strangers or documents:
        found = f"version {strangers[0]}" if strangers else f"document {documents[0] if documents else ''}"
        raise _not_the_demo(database, found)


def _not_the_demo(database: Database, found: str) -> RefusedError:
    return RefusedError(
        f"The schema {database.schema!r} contains more than the demo ({found}): nothing was changed.",
        "Give the demo its own schema: revector --schema demo demo",
    )


def _ingest(connection: Connection, chunk_characters: int, progress: Progress) -> None:
    from revector.console.demo.corpus import standard_library
    from revector.core.documents import Document
    from revector.core.ingest import ingest

    documents = (
        Document(
            entry.id, f"{entry.title}\n{entry.text}", {"title": entry.title, "kind": entry.kind, "demo": True}
        )
        for entry in standard_library()
    )
    ingest(connection, documents, chunk_characters=chunk_characters, on_progress=progress)


def _embed(own: Context, connection: Connection, key: str, shown: Shown = progress_bar) -> None:
    version = get_version(connection, key)
    if version.completed_at is None or cutover.missing_chunks(connection, version):
        run_backfill(own, version, shown=shown)
    index.build(connection, get_version(connection, key), own.settings)


def mirror_queries(database: Database, connection: Connection) -> None:
    """Mirror the demo's queries as if users had asked them, once."""
    if shadow.latest(connection) is not None or get_version(connection, SECOND).active:
        return
    queries = get_query_set(connection, QUERY_SET).queries
    shadow.start(connection, SECOND, sample=1, query_text="stored", reason="the demo's queries")
    searcher = VersionSearcher(connection)
    with shadow.Mirror(database, queue_size=len(queries)) as mirror:
        if mirror.wait():
            for query in queries:
                mirror(searcher.search(query.text), query.segment)
            mirror.flush()
    shadow.stop(connection, reason="the demo's queries are through")


def _judge(connection: Connection) -> None:
    """Import the demo's judged queries as a query set."""
    with connection.transaction():
        save_queries(connection, QUERY_SET, read_queries(_HERE / "queries.jsonl"))
        save_judgements(
            connection,
            get_query_set(connection, QUERY_SET),
            ensure_judge(connection, QUERY_SET, "person"),
            [
                Judgement(query, "document", document, grade)
                for query, grades in read_qrels(_HERE / "qrels.tsv").grades.items()
                for document, grade in grades.items()
            ],
        )


def _segments(found: Evaluation) -> list[StorySegment]:
    """The first measure by segment, with the overlap of the rankings."""
    means = {(row.measure, row.segment): row.mean for row in found.overlaps}
    return [
        StorySegment(**vars(row), overlap=means["overlap", row.segment], rbo=means["rbo", row.segment])
        for row in found.measures
        if row.measure == found.measures[0].measure
    ]


def _table(found: Evaluation) -> str:
    lines = [f"{'segment':<14}{'queries':>8}{FIRST:>10}{SECOND:>10}{'difference':>12}{'overlap@10':>12}{'RBO':>7}"]
    lines += [
        f"{row.segment:<14}{row.queries:>8}{row.primary:>10.3f}{row.candidate:>10.3f}"
        f"{row.difference:>+12.3f}{row.overlap:>12.2f}{row.rbo:>7.2f}"
        for row in _segments(found)
    ]
    return f"{found.measures[0].measure} on the judged queries\n" + "\n".join(lines)


def _aloud(text: str) -> None:
    with pipe(sys.stdout):
        for line in text.splitlines():
            sys.stdout.write(plain(line) + "\n")
        sys.stdout.flush()
