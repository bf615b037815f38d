"""Ingest: repeated, edited, pruned, carried over, killed half-way and run against itself, on a real server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from revector.core import ingest as module
from revector.core import registry
from revector.core.chunks import content_sha256, document_uuid, semantic_key, split
from revector.core.database import Connection, Database
from revector.core.documents import Document, Rejection, read_documents
from revector.core.errors import RefusedError
from revector.core.ingest import IngestReport, ingest
from revector.core.registry import chunk_count

CHARACTERS = 64


def paragraphs(*names: str) -> str:
    """A text of which each paragraph becomes one chunk."""
    return "\n\n".join(f"{name} {'x' * (60 - len(name))}" for name in names)


def take(connection: Connection, *documents: Document, **options: Any) -> IngestReport:
    """Ingest, and check what always has to hold afterwards."""
    report = ingest(connection, documents, chunk_characters=CHARACTERS, **options)
    check_counts(connection)
    assert report.chunks == report.inserted + report.unchanged
    return report


def check_counts(connection: Connection) -> None:
    """The stored counts equal those of the tables."""
    kept: dict[int, int] = dict(
        connection.execute("SELECT scope, sum(delta)::int FROM row_counts GROUP BY scope").fetchall()
    )
    tables = connection.execute(
        """
        SELECT id, 'chunk_embeddings_' || id FROM embedding_versions
        WHERE to_regclass('chunk_embeddings_' || id) IS NOT NULL
        """
    ).fetchall()
    for scope, table in [(0, "document_chunks"), *tables]:
        found = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
        assert found == (kept.get(scope, 0),), table


def stored(connection: Connection) -> dict[str, list[str]]:
    """The chunks of every document, by their numbers."""
    rows = connection.execute("SELECT source_id, chunk_no, content FROM document_chunks ORDER BY 1, 2").fetchall()
    found: dict[str, list[str]] = {}
    for source_id, number, content in rows:
        assert number == len(found.setdefault(source_id, [])), f"{source_id} is not whole"
        found[source_id].append(content)
    return found


def chunk_ids(connection: Connection) -> dict[tuple[str, int], int]:
    rows = connection.execute("SELECT source_id, chunk_no, id FROM document_chunks").fetchall()
    return {(source_id, number): chunk_id for source_id, number, chunk_id in rows}


def cut(document: Document) -> list[str]:
    return split(document.text, markdown=document.markdown, characters=CHARACTERS)


def waiting(connection: Connection, count: int, still_running: Callable[[], bool]) -> None:
    """Wait until that many sessions wait for a lock. Fails when what should wait has ended instead."""
    query = """
        SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND application_name LIKE 'revector%' AND datname = current_database()
        """
    while connection.execute(query).fetchone()[0] < count:  # type: ignore[index]
        assert still_running()


class Running:
    """A call in its own thread, whose error is raised in `result`."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=[call], daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._result = call()
        except BaseException as error:  # noqa: BLE001 (raised in the other thread)
            self._error = error

    def alive(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result


def in_thread(database: Database, documents: Iterable[Document], setting: LiteralString = "") -> Running:
    def run() -> IngestReport:
        with database.session("thread") as own:
            if setting:
                own.execute(setting)
            return ingest(own, documents, chunk_characters=CHARACTERS)

    return Running(run)


@pytest.fixture
def other(database: Database) -> Iterator[Connection]:
    """A second session, for what others do meanwhile."""
    with database.session("other") as found:
        yield found


# What is stored ---------------------------------------------------------------------------------------------


def test_chunks_are_stored_with_their_keys(connection: Connection) -> None:
    text = paragraphs("one", "two")
    report = take(connection, Document("guide/a.md", text, {"k": ["é", {"n": 1.5}]}), Document("b", "B"))
    assert report == IngestReport(documents=2, chunks=3, inserted=3)
    rows = connection.execute(
        """
        SELECT semantic_key, document_id, chunk_no, content, content_sha256, source_id, metadata
        FROM document_chunks ORDER BY id
        """
    ).fetchall()
    assert rows == [
        (
            semantic_key(document_uuid(source), number, content),
            document_uuid(source),
            number,
            content,
            content_sha256(content),
            source,
            metadata,
        )
        for source, number, content, metadata in [
            ("guide/a.md", 0, paragraphs("one"), {"k": ["é", {"n": 1.5}]}),
            ("guide/a.md", 1, paragraphs("two"), {"k": ["é", {"n": 1.5}]}),
            ("b", 0, "B", {}),
        ]
    ]


def test_ids_follow_the_order_of_the_documents(connection: Connection) -> None:
    take(connection, *(Document(f"d{n}", paragraphs("b", "a", str(n))) for n in (5, 3, 9, 1)))
    rows = connection.execute("SELECT source_id, chunk_no FROM document_chunks ORDER BY id").fetchall()
    assert rows == [(f"d{n}", number) for n in (5, 3, 9, 1) for number in range(3)]


def test_markdown_is_cut_as_markdown(connection: Connection) -> None:
    text = "# One\n\nthe first paragraph of them all\n\n# Two\n\nand the second paragraph of them"
    take(connection, Document("m", text, markdown=True), Document("t", text))
    assert stored(connection) == {
        "m": ["# One\n\nthe first paragraph of them all", "# Two\n\nand the second paragraph of them"],
        "t": ["# One\n\nthe first paragraph of them all\n\n# Two", "and the second paragraph of them"],
    }


def test_odd_text_is_stored_as_it_is(connection: Connection) -> None:
    text = 'tab\tquote" backslash \\ \\N \\. \x1b[31m\x01 \ufeff 😀\r\nline'
    take(connection, Document("o\\N\t'", text, {"k\\": "\\N\n\t\x7f'"}))
    assert stored(connection) == {"o\\N\t'": [text]}
    assert connection.execute("SELECT metadata FROM document_chunks").fetchone() == ({"k\\": "\\N\n\t\x7f'"},)


def test_a_run_over_files_counts_what_was_cleaned_rejected_empty_and_left_out(
    connection: Connection, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"id": "a\\u0000", "text": "A\\ud800"}\n{"id": "b", "text": NaN}\n{"id": "c", "text": " "}\nno json\n'
        '{"id": "d", "text": "D", "k": "\\u0000"}\n{"id": "d", "text": "again"}\n'
    )
    (tmp_path / "b.png").touch()
    rejections: list[Rejection] = []
    report = ingest(
        connection,
        read_documents([tmp_path], max_bytes=1_000, on_reject=rejections.append),
        chunk_characters=CHARACTERS,
    )
    assert report == IngestReport(
        documents=3, chunks=2, inserted=2, rejected=3, cleaned=2, empty=1, left_out=1, left_out_kinds={".png": 1}
    )
    assert [r.where.rpartition("/")[2] for r in rejections] == ["a.jsonl:2", "a.jsonl:4", "a.jsonl:6"]
    assert stored(connection) == {"a": ["A"], "d": ["D"]}


def test_ten_megabytes_of_one_document(connection: Connection) -> None:
    text = "\n\n".join(f"Paragraph {number}. " + "Some words to be found by. " * 30 for number in range(12_500))
    assert len(text) > 10_000_000
    report = ingest(connection, [Document("big", text)], chunk_characters=2_000)
    assert report == IngestReport(documents=1, chunks=report.chunks, inserted=report.chunks)
    assert "".join("".join(stored(connection)["big"]).split()) == "".join(text.split())
    assert chunk_count(connection) == report.chunks


# Again, and edited ------------------------------------------------------------------------------------------


def fingerprint(connection: Connection) -> list[Any]:
    """Every row version there is, the id that would come next, and what was ever written."""
    found: list[Any] = [
        connection.execute(
            sql.SQL("SELECT ctid, xmin, t.* FROM {} t ORDER BY ctid").format(sql.Identifier(table))
        ).fetchall()
        for table in ("document_chunks", "chunk_outbox", "row_counts")
    ]
    found.append(connection.execute("SELECT last_value FROM document_chunks_id_seq").fetchone())
    connection.execute("SELECT pg_stat_force_next_flush()")
    found.append(
        connection.execute(
            """
            SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables
            WHERE schemaname = current_schema() ORDER BY relname
            """
        ).fetchall()
    )
    return found


def test_running_it_again_changes_nothing(connection: Connection) -> None:
    add_version(connection, "live")
    documents = [
        Document(f"d{n}", paragraphs("one", "two", str(n)), {"b": n, "a": [1.0, "é", None]}) for n in range(30)
    ]
    assert take(connection, *documents).inserted == 90
    connection.execute("DELETE FROM chunk_outbox")
    before = fingerprint(connection)
    reordered = [Document(d.source_id, d.text, dict(reversed(d.metadata.items()))) for d in reversed(documents)]
    assert take(connection, *reordered, prune=True) == IngestReport(documents=30, chunks=90, unchanged=90)
    assert fingerprint(connection) == before
    assert connection.execute("SELECT count(*) FROM chunk_outbox").fetchone() == (0,)


def test_an_edited_document_replaces_exactly_its_changed_chunks(connection: Connection) -> None:
    add_version(connection, "live")
    take(connection, Document("a", paragraphs("one", "two", "three")), Document("b", paragraphs("one", "two")))
    before = chunk_ids(connection)
    connection.execute("DELETE FROM chunk_outbox")
    report = take(connection, Document("a", paragraphs("one", "TWO", "three")))
    assert report == IngestReport(documents=1, chunks=3, inserted=1, unchanged=2, deleted=1)
    assert stored(connection)["a"] == [paragraphs("one"), paragraphs("TWO"), paragraphs("three")]
    after = chunk_ids(connection)
    new = after.pop(("a", 1))
    assert new not in before.values()
    assert after == {place: chunk_id for place, chunk_id in before.items() if place != ("a", 1)}
    assert connection.execute("SELECT chunk_id FROM chunk_outbox").fetchall() == [(new,)]


@pytest.mark.parametrize(
    ("text", "report"),
    [
        (paragraphs("one"), IngestReport(documents=1, chunks=1, unchanged=1, deleted=2)),
        (paragraphs("one", "two", "three", "four"), IngestReport(documents=1, chunks=4, inserted=1, unchanged=3)),
        (" \n ", IngestReport(documents=1, deleted=3, empty=1)),
    ],
    ids=["shorter", "longer", "empty"],
)
def test_a_document_gets_shorter_longer_and_empty(connection: Connection, text: str, report: IngestReport) -> None:
    take(connection, Document("a", paragraphs("one", "two", "three")), Document("b", "B"))
    assert take(connection, Document("a", text)) == report
    whole = cut(Document("a", text))
    assert stored(connection) == ({"a": whole} if whole else {}) | {"b": ["B"]}


def test_an_edit_that_normalisation_does_not_see_leaves_the_chunk(connection: Connection) -> None:
    take(connection, Document("a", "one  two\nthree"))
    before = fingerprint(connection)
    report = take(connection, Document("a", " one\ttwo\r\nthree"))
    assert report == IngestReport(documents=1, chunks=1, unchanged=1)
    assert fingerprint(connection) == before


def test_changed_metadata_is_changed_in_place_and_nowhere_else(connection: Connection) -> None:
    add_version(connection, "live")
    take(connection, Document("a", paragraphs("one", "two"), {"k": 1}), Document("b", "B", {"k": 1}))
    connection.execute("DELETE FROM chunk_outbox")

    def versions() -> dict[str, list[Any]]:
        rows = connection.execute(
            "SELECT source_id, array_agg((id, xmin)::text ORDER BY id) FROM document_chunks GROUP BY source_id"
        )
        return dict(rows.fetchall())

    before, ids = versions(), chunk_ids(connection)
    report = take(
        connection, Document("a", paragraphs("one", "two", "three"), {"k": 2}), Document("b", "B", {"k": 1})
    )
    assert report == IngestReport(documents=2, chunks=4, inserted=1, unchanged=3)
    assert connection.execute(
        "SELECT DISTINCT source_id, metadata->'k' FROM document_chunks ORDER BY 1"
    ).fetchall() == [("a", 2), ("b", 1)]
    assert versions()["b"] == before["b"]
    after = chunk_ids(connection)
    assert connection.execute("SELECT chunk_id FROM chunk_outbox").fetchall() == [(after.pop(("a", 2)),)]
    assert after == ids


def test_another_size_of_chunks_cuts_the_documents_anew(connection: Connection) -> None:
    document = Document("a", paragraphs("one", "two", "three"))
    take(connection, document)
    report = ingest(connection, [document], chunk_characters=1_000)
    assert report == IngestReport(documents=1, chunks=1, inserted=1, deleted=3)
    assert stored(connection) == {"a": [document.text]}


def test_chunks_that_plain_sql_wrote_are_replaced_or_completed(connection: Connection) -> None:
    connection.execute(
        """
        INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256)
        VALUES ('mine', %s, 0, 'A', '\\x00'), (%s, %s, 0, 'B', '\\x00')
        """,
        [document_uuid("a"), semantic_key(document_uuid("b"), 0, "B"), document_uuid("b")],
    )
    report = take(connection, Document("a", "A"), Document("b", "B"))
    assert report == IngestReport(documents=2, chunks=2, inserted=1, unchanged=1, deleted=1)
    assert stored(connection) == {"a": ["A"], "b": ["B"]}


def test_a_chunk_that_plain_sql_writes_at_the_same_time_is_not_written_twice(
    database: Database, connection: Connection, other: Connection
) -> None:
    with other.transaction():
        other.execute(
            """
            INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256)
            VALUES (%s, %s, 0, 'A', '\\x00')
            """,
            [semantic_key(document_uuid("a"), 0, "A"), document_uuid("a")],
        )
        ingesting = in_thread(database, [Document("a", "A"), Document("b", "B")])
        waiting(connection, 1, ingesting.alive)
    assert ingesting.result() == IngestReport(documents=2, chunks=2, inserted=1, unchanged=1)
    assert stored(connection) == {"a": ["A"], "b": ["B"]}


@pytest.mark.parametrize("batch", [1, 500])
def test_of_two_documents_with_one_id_the_later_one_stays(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(module, "_BATCH_DOCUMENTS", batch)
    report = take(connection, Document("a", paragraphs("one", "two")), Document("b", "B"), Document("a", "last"))
    assert report == IngestReport(documents=3, chunks=4, inserted=4, deleted=2)
    assert stored(connection) == {"a": ["last"], "b": ["B"]}


# Batches ----------------------------------------------------------------------------------------------------


def test_a_batch_is_one_transaction_and_progress_follows(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_DOCUMENTS", 3)
    calls: list[tuple[str, int, int]] = []
    take(
        connection,
        *(Document(f"d{n}", paragraphs("one", "two")) for n in range(7)),
        on_progress=lambda *call: calls.append(call),
    )
    assert calls == [("documents", 3, 0), ("documents", 6, 0), ("documents", 7, 0)]
    rows = connection.execute(
        "SELECT array_agg(DISTINCT source_id ORDER BY source_id) FROM document_chunks GROUP BY xmin::text ORDER BY 1"
    ).fetchall()
    assert rows == [(["d0", "d1", "d2"],), (["d3", "d4", "d5"],), (["d6"],)]


def test_a_batch_is_bounded_in_characters(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_CHARACTERS", 25)
    calls: list[int] = []
    take(
        connection,
        *(Document(f"d{n}", "x" * size) for n, size in enumerate([10, 10, 10, 50, 1])),
        on_progress=lambda _step, done, _total: calls.append(done),
    )
    assert calls == [2, 3, 4, 5]


def test_documents_that_fail_half_way_leave_whole_batches_and_a_usable_connection(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_DOCUMENTS", 2)
    documents = [Document(f"d{n}", paragraphs("one", "two")) for n in range(5)]

    def failing() -> Iterator[Document]:
        yield from documents[:3]
        raise ZeroDivisionError

    take(connection, Document("before", "kept"))
    with pytest.raises(ZeroDivisionError):
        ingest(connection, failing(), chunk_characters=CHARACTERS, prune=True)
    assert sorted(stored(connection)) == ["before", "d0", "d1"]
    temporary = "SELECT count(*) FROM pg_class WHERE relname LIKE 'ingest%%' AND relpersistence = 't'"
    assert connection.execute(temporary).fetchone() == (0,)
    report = take(connection, *documents)
    assert report == IngestReport(documents=5, chunks=10, inserted=6, unchanged=4)


def test_in_a_transaction_of_the_caller_it_is_one_transaction(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_DOCUMENTS", 1)
    take(connection, Document("a", "A"))
    with connection.transaction(force_rollback=True):
        report = take(connection, Document("b", "B"), Document("c", "C"), prune=True)
        assert report == IngestReport(documents=2, chunks=2, inserted=2, deleted=1)
        assert stored(connection) == {"b": ["B"], "c": ["C"]}
    assert stored(connection) == {"a": ["A"]}
    take(connection, Document("b", "B"))


def test_a_chunk_that_another_document_has_is_not_stored_twice(connection: Connection) -> None:
    """Written by SQL: the documents beside it are stored all the same, and so are its other chunks."""
    key = semantic_key(document_uuid("b"), 0, cut(Document("b", paragraphs("one", "two")))[0])
    connection.execute(
        "INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256, source_id) "
        "VALUES (%s, %s, 0, 'elsewhere', '', 'other')",
        [key, document_uuid("other")],
    )
    report = take(connection, Document("a", "A"), Document("b", paragraphs("one", "two")), Document("c", "C"))
    assert (report.inserted, report.unchanged) == (3, 1)
    rows = connection.execute("SELECT source_id, chunk_no FROM document_chunks ORDER BY 1, 2").fetchall()
    assert rows == [("a", 0), ("b", 1), ("c", 0), ("other", 0)]


def test_a_batch_of_new_and_known_documents(connection: Connection) -> None:
    take(connection, Document("b", paragraphs("one", "two")), Document("d", "D"))
    report = take(
        connection,
        Document("a", "A"),
        Document("b", paragraphs("one", "TWO")),
        Document("c", "C"),
        Document("d", "D"),
    )
    assert report == IngestReport(documents=4, chunks=5, inserted=3, unchanged=2, deleted=1)
    assert stored(connection)["b"] == cut(Document("b", paragraphs("one", "TWO")))


def test_the_callers_transaction_keeps_its_settings(connection: Connection) -> None:
    with connection.transaction():
        take(connection, Document("a", "A"))
        assert connection.execute("SHOW enable_seqscan").fetchone() == ("on",)


def test_known_documents_are_found_by_index_in_a_table_that_has_just_grown(connection: Connection) -> None:
    """Without statistics the planner would read all of the table for each batch."""
    with connection.transaction():
        take(connection, *(Document(f"d{n}", "text") for n in range(600)))
        before = connection.execute("SELECT pg_stat_get_xact_numscans('document_chunks'::regclass)").fetchone()
        ingest(connection, [Document(f"d{n}", f"edited {n}") for n in range(500)], chunk_characters=CHARACTERS)
        after = connection.execute("SELECT pg_stat_get_xact_numscans('document_chunks'::regclass)").fetchone()
    assert before == after


def test_a_read_only_session_is_refused(database: Database) -> None:
    read_only = Database(database.dsn, database.schema, read_only=True)
    with pytest.raises(RefusedError, match="read-only"), read_only.session("test") as connection:
        ingest(connection, [Document("a", "A")], chunk_characters=CHARACTERS)


# Pruning ----------------------------------------------------------------------------------------------------


def test_pruning_deletes_what_was_not_seen(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_DOCUMENTS", 2)
    take(connection, *(Document(f"d{n}", paragraphs("one", "two")) for n in range(7)))
    kept = [Document("d1", paragraphs("one")), Document("d3", " "), Document("d5", paragraphs("one", "two"))]
    report = take(connection, *kept, Document("new", "N"), prune=True)
    # d1 lost one chunk and d3, now empty, two; the four that were not seen two each
    assert report == IngestReport(documents=4, chunks=4, inserted=1, unchanged=3, deleted=11, empty=1)
    assert sorted(stored(connection)) == ["d1", "d5", "new"]


def test_without_pruning_nothing_else_is_deleted(connection: Connection) -> None:
    take(connection, Document("a", "A"))
    take(connection, Document("b", "B"))
    assert sorted(stored(connection)) == ["a", "b"]


@pytest.mark.parametrize("by", ["reader", "rejections"])
def test_pruning_is_refused_when_something_was_rejected(connection: Connection, tmp_path: Path, by: str) -> None:
    take(connection, Document("a", "A"), Document("b", "B"))
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"id": "c", "text": "C"}) + '\n{"id": "b", "text": broken\n')
    rejections: list[Rejection] = []
    reader = read_documents([path], max_bytes=1_000, on_reject=rejections.append)
    # Behind a generator, the reader cannot be asked.
    documents = reader if by == "reader" else (document for document in reader)
    told = [] if by == "reader" else rejections
    with pytest.raises(RefusedError, match=r"1 documents were rejected.* 1 were stored"):
        ingest(connection, documents, chunk_characters=CHARACTERS, prune=True, rejections=told)
    assert sorted(stored(connection)) == ["a", "b", "c"]


def test_pruning_is_refused_when_no_document_was_read(connection: Connection) -> None:
    take(connection, Document("a", "A"))
    with pytest.raises(RefusedError, match="no document was read"):
        take(connection, prune=True)
    assert stored(connection) == {"a": ["A"]}


def test_pruning_leaves_what_another_ingest_wrote_meanwhile(connection: Connection, other: Connection) -> None:
    take(connection, *(Document(name, paragraphs("one", "two")) for name in ("gone", "edited", "mine")))

    def documents() -> Iterator[Document]:
        yield Document("mine", paragraphs("one", "two"))
        take(other, Document("new", "N"), Document("edited", paragraphs("one", "TWO")))

    ingest(connection, documents(), chunk_characters=CHARACTERS, prune=True)
    check_counts(connection)
    assert stored(connection) == {
        "new": ["N"],
        "edited": [paragraphs("one"), paragraphs("TWO")],
        "mine": [paragraphs("one"), paragraphs("two")],
    }


# Vectors that are already there -----------------------------------------------------------------------------


def add_version(
    connection: Connection, key: str, state: str = "backfilling", *, dimensions: int = 2, storage: str = "vector",
    table: bool = True,
) -> int:  # fmt: skip
    """A version and its table, as the registry makes them."""
    (version,) = connection.execute(
        """
        INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions,
                                        distance_metric, storage)
        VALUES (%s, 'hand', '1', %s, 'cosine', %s) RETURNING id
        """,
        [key, dimensions, storage],
    ).fetchone()  # type: ignore[misc]
    if table:
        name = sql.Identifier(f"chunk_embeddings_{version}")
        connection.execute(
            sql.SQL("CREATE TABLE {} (chunk_id bigint PRIMARY KEY, embedding {}({}) NOT NULL)").format(
                name, sql.Identifier(storage), sql.Literal(dimensions)
            )
        )
        connection.execute(
            sql.SQL(
                "CREATE TRIGGER embeddings_deleted AFTER DELETE ON {} REFERENCING OLD TABLE AS old_embeddings "
                "FOR EACH STATEMENT EXECUTE FUNCTION embeddings_deleted({})"
            ).format(name, sql.Literal(str(version)))
        )
        connection.execute("SELECT rebuild_chunk_embeddings()")
    connection.execute("UPDATE embedding_versions SET state = %s WHERE id = %s", [state, version])
    return int(version)


def embed(connection: Connection, version: int, *, but: str = "") -> None:
    """Give every chunk without one its own vector: its id, exactly, in the second number."""
    with connection.transaction():
        rows = connection.execute(
            sql.SQL(
                """
                INSERT INTO {table} (chunk_id, embedding)
                SELECT id, format('[1,%%s]', id)::vector FROM document_chunks
                WHERE content NOT LIKE %s AND id NOT IN (SELECT chunk_id FROM {table})
                """
            ).format(table=sql.Identifier(f"chunk_embeddings_{version}")),
            [f"{but or 'no such text'}%"],
        ).rowcount
        connection.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, %s)", [version, rows])
        connection.execute(
            "DELETE FROM chunk_outbox o USING chunk_embeddings e WHERE (o.embedding_version_id, o.chunk_id) = "
            "(e.embedding_version_id, e.chunk_id)"
        )


def vectors(connection: Connection, version: int) -> dict[tuple[str, int], int]:
    """For every chunk with a vector, the id of the chunk that the vector was made for."""
    rows = connection.execute(
        """
        SELECT c.source_id, c.chunk_no, (embedding::real[])[2]::int FROM chunk_embeddings e
        JOIN document_chunks c ON c.id = e.chunk_id WHERE embedding_version_id = %s
        """,
        [version],
    ).fetchall()
    return {(source_id, number): made_for for source_id, number, made_for in rows}


def queued(connection: Connection, version: int) -> set[tuple[str, int]]:
    rows = connection.execute(
        """
        SELECT c.source_id, c.chunk_no FROM chunk_outbox o LEFT JOIN document_chunks c ON c.id = o.chunk_id
        WHERE embedding_version_id = %s
        """,
        [version],
    ).fetchall()
    return set(rows)


@pytest.mark.parametrize("storage", ["vector", "halfvec"])
@pytest.mark.parametrize("state", ["backfilling", "loaded", "ready"])
def test_a_renumbered_chunk_keeps_its_vector(connection: Connection, state: str, storage: str) -> None:
    version = add_version(connection, "v", state, storage=storage)
    take(connection, Document("a", paragraphs("one", "two", "three")))
    embed(connection, version)
    old = chunk_ids(connection)
    report = take(connection, Document("a", paragraphs("zero", "one", "two", "three")))
    assert report == IngestReport(documents=1, chunks=4, inserted=4, deleted=3, carried=3)
    assert vectors(connection, version) == {
        ("a", 1): old["a", 0], ("a", 2): old["a", 1], ("a", 3): old["a", 2]
    }  # fmt: skip
    assert queued(connection, version) == {("a", 0)}


def test_a_text_that_another_document_has_is_not_paid_for_again(connection: Connection) -> None:
    version = add_version(connection, "v")
    take(connection, Document("a", "same"), Document("b", "same"))
    assert queued(connection, version) == {("a", 0), ("b", 0)}  # neither has a vector yet
    embed(connection, version)
    report = take(connection, Document("c", "same"), Document("d", paragraphs("x")), Document("e", "same"))
    assert report == IngestReport(documents=3, chunks=3, inserted=3, carried=2)
    first = {chunk_ids(connection)[name, 0] for name in ("a", "b")}
    found = vectors(connection, version)
    assert found["c", 0] in first
    assert found["e", 0] in first
    assert queued(connection, version) == {("d", 0)}


def test_only_the_very_same_text_gets_the_vector(connection: Connection) -> None:
    version = add_version(connection, "v")
    take(connection, Document("a", "Same text"))
    embed(connection, version)
    report = take(connection, Document("b", "Same  text"), Document("c", "same text"))
    assert (report.inserted, report.carried) == (2, 0)
    assert queued(connection, version) == {("b", 0), ("c", 0)}


def test_a_chunk_without_a_vector_hides_none_that_has_one(connection: Connection) -> None:
    version = add_version(connection, "v")
    take(connection, Document("a", "same"), Document("b", "same"))
    embed(connection, version)
    connection.execute("DELETE FROM document_chunks WHERE source_id = 'a'")
    connection.execute("INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256)"
                       " SELECT 'k', gen_random_uuid(), 0, content, content_sha256 FROM document_chunks")  # fmt: skip
    assert take(connection, Document("c", "same")).carried == 1


def test_vectors_are_carried_over_in_every_live_version_and_in_no_other(connection: Connection) -> None:
    live = [add_version(connection, f"v{n}") for n in range(2)]
    registered = add_version(connection, "registered", "registered")
    retired = add_version(connection, "retired", "retired")
    bare = add_version(connection, "bare", table=False)
    take(connection, Document("a", paragraphs("one", "two")))
    for version in (live[0], registered, retired):
        embed(connection, version)
    embed(connection, live[1], but="two")
    connection.execute("UPDATE embedding_versions SET completed_at = now() WHERE id = ANY(%s)", [live])
    for step, state in (("active", True), ("previous", False)):
        connection.execute(
            "UPDATE embedding_versions SET active = (id = %s) WHERE id = ANY(%s)",
            [live[0] if state else live[1], live],
        )
        assert connection.execute("SELECT state FROM embedding_versions WHERE id = %s", [live[0]]).fetchone() == (
            step,
        )
        report = take(connection, Document(f"b{step}", paragraphs("one", "two")))
        assert report.carried == 3
        assert set(vectors(connection, live[0])) >= {(f"b{step}", 0), (f"b{step}", 1)}
    copies = {("bactive", 0), ("bactive", 1), ("bprevious", 0), ("bprevious", 1)}
    assert set(vectors(connection, live[1])) & copies == {("bactive", 0), ("bprevious", 0)}
    assert queued(connection, live[0]) == set()
    assert queued(connection, live[1]) == {("a", 1), ("bactive", 1), ("bprevious", 1)}
    assert queued(connection, bare) == copies | {("a", 0), ("a", 1)}
    for version in (registered, retired):
        assert not set(vectors(connection, version)) & copies


def test_vectors_are_carried_over_under_the_foreign_key_of_a_proven_version(connection: Connection) -> None:
    version = add_version(connection, "v", "ready")
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD FOREIGN KEY (chunk_id) REFERENCES document_chunks ON DELETE CASCADE").format(
            sql.Identifier(f"chunk_embeddings_{version}")
        )
    )
    take(connection, Document("a", paragraphs("one", "two")))
    embed(connection, version)
    assert take(connection, Document("a", paragraphs("zero", "one", "two"))).carried == 2
    assert queued(connection, version) == {("a", 0)}


def test_a_version_that_is_dropped_meanwhile_costs_a_second_try(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = add_version(connection, "v")
    take(connection, Document("a", "same"))
    embed(connection, version)
    found = [[version, 999_999], [version]]
    monkeypatch.setattr(module, "_live_versions", lambda connection: found.pop(0))
    report = take(connection, Document("b", "same"))
    assert report == IngestReport(documents=1, chunks=1, inserted=1, carried=1)
    assert found == []


def test_what_goes_wrong_every_time_is_raised_in_the_end(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_live_versions", lambda connection: [999_999])
    with pytest.raises(psycopg.errors.UndefinedTable):
        take(connection, Document("a", "A"))
    assert stored(connection) == {}


# Several at once --------------------------------------------------------------------------------------------


def test_a_document_in_two_ingests_is_whole_as_the_later_one_had_it(
    database: Database, connection: Connection, other: Connection
) -> None:
    take(connection, Document("a", paragraphs("old", "old too")))
    with other.transaction():
        other.execute("SELECT FROM document_chunks WHERE chunk_no = 0 FOR UPDATE")
        first = in_thread(database, [Document("a", paragraphs("first", "first too"))])
        waiting(connection, 1, first.alive)  # to delete the old chunk; the new ones are inserted
        second = in_thread(database, [Document("a", paragraphs("second", "second too"))])
        waiting(connection, 2, second.alive)
    first.result()
    second.result()
    check_counts(connection)
    assert stored(connection) == {"a": [paragraphs("second"), paragraphs("second too")]}


def test_ingests_in_opposite_orders_neither_deadlock_nor_mix(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_DOCUMENTS", 7)
    monkeypatch.setattr(module, "_ATTEMPTS", 1)  # so that a deadlock is an error
    version = add_version(connection, "v")

    def documents(writer: str) -> list[Document]:
        return [Document(f"d{n}", paragraphs("same", writer, str(n)), {"by": writer}) for n in range(60)]

    take(connection, *documents("before"))
    embed(connection, version)
    orders: list[Callable[[list[Document]], list[Document]]] = [
        list, lambda d: d[::-1], lambda d: d[::2] + d[1::2]
    ]  # fmt: skip
    for number in range(3):
        writers = [f"{name}{number}" for name in "abc"]
        running = [
            in_thread(database, order(documents(writer))) for writer, order in zip(writers, orders, strict=True)
        ]
        for each in running:
            each.result()
        check_counts(connection)
        versions = [{d.source_id: cut(d) for d in documents(writer)} for writer in writers]
        found = stored(connection)
        assert len(found) == 60
        for source_id, chunks in found.items():
            assert chunks in [one[source_id] for one in versions]
        by = connection.execute("SELECT count(DISTINCT metadata), source_id FROM document_chunks GROUP BY 2")
        assert {row[0] for row in by} == {1}


def test_ingests_of_different_collections_do_not_wait_for_each_other(
    database: Database, empty_database: Database, connection: Connection, other: Connection
) -> None:
    from revector.core.migrations import upgrade

    take(connection, Document("a", "A"))
    upgrade(empty_database)
    with other.transaction():
        other.execute("SELECT FROM document_chunks FOR UPDATE")
        held = in_thread(database, [Document("a", "edited")])
        waiting(connection, 1, held.alive)
        with empty_database.session("test") as elsewhere:
            elsewhere.execute("SET lock_timeout = '10s'")  # for when it does
            assert take(elsewhere, Document("a", "A")).inserted == 1
    held.result()


def test_a_deadlock_with_somebody_else_costs_a_second_try(
    database: Database, connection: Connection, other: Connection
) -> None:
    take(connection, Document("a", paragraphs("low", "middle", "high")))
    lock = "SELECT FROM document_chunks WHERE chunk_no = %s FOR UPDATE"
    with database.session("third") as third:
        third.execute("SET deadlock_timeout = '1h'")  # so that it is the ingest that finds out
        third.execute("BEGIN")
        third.execute(lock, [2])
        with other.transaction():
            other.execute(lock, [1])
            ingesting = in_thread(database, [Document("a", "edited")], "SET deadlock_timeout = '10ms'")
            waiting(connection, 1, ingesting.alive)  # has the low one, waits for the middle one
            crossing = Running(lambda: third.execute(lock, [0]))
            waiting(connection, 2, crossing.alive)
        # Now the ingest gets the middle one, and wants the high one of him who waits for its low one.
        crossing.result()
        third.execute("COMMIT")
        report = ingesting.result()
    assert report == IngestReport(documents=1, chunks=1, inserted=1, deleted=3)
    assert stored(connection) == {"a": ["edited"]}
    check_counts(connection)


CHILD = """
import sys
from revector.core import ingest as module
from revector.core import registry
from revector.core.database import Database
from revector.core.documents import Document
from revector.core.ingest import ingest

dsn, schema, text = sys.argv[1:]
module._BATCH_DOCUMENTS = 5
documents = [Document(f"d{n:02}", text.replace("NUMBER", str(n))) for n in range(40)]
with Database(dsn, schema).session("killed") as connection:
    ingest(connection, documents, chunk_characters=64, on_progress=lambda *call: print(call[1], flush=True))
"""


@pytest.mark.parametrize("where", ["inside a batch", "anywhere"])
def test_an_ingest_that_is_killed_leaves_whole_documents_and_can_be_run_again(
    database: Database, connection: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    version = add_version(connection, "v")
    edited = paragraphs("zero NUMBER", "one NUMBER", "two NUMBER", "four")

    def documents(text: str) -> list[Document]:
        return [Document(f"d{n:02}", text.replace("NUMBER", str(n))) for n in range(40)]

    old, new = documents(paragraphs("one NUMBER", "two NUMBER", "three NUMBER")), documents(edited)
    take(connection, *old)
    embed(connection, version)
    other.execute("BEGIN")
    if where == "inside a batch":
        # The fourth batch inserts its chunks, carries their vectors over, and stops where it deletes this one.
        other.execute("SELECT FROM document_chunks WHERE source_id = 'd17' AND chunk_no = 1 FOR UPDATE")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, database.dsn, database.schema, edited],
        stdout=subprocess.PIPE,
        cwd=Path(module.__file__).parents[2],
    )
    assert child.stdout is not None
    for expected in (b"5\n", b"10\n", b"15\n"):
        assert child.stdout.readline() == expected
    if where == "inside a batch":
        waiting(connection, 1, lambda: child.poll() is None)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    other.execute("ROLLBACK")
    killed = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'revector killed'"
    while connection.execute(killed).fetchone() != (0,):
        pass  # the server is still finding out

    found = stored(connection)
    before, after = ({d.source_id: cut(d) for d in of} for of in (old, new))
    done = [source_id for source_id in found if found[source_id] == after[source_id]]
    assert all(found[source_id] == before[source_id] for source_id in before if source_id not in done)
    assert len(done) % 5 == 0
    if where == "inside a batch":
        assert done == [f"d{n:02}" for n in range(15)]
    check_counts(connection)

    report = take(connection, *new)
    assert report.unchanged == 4 * len(done)
    assert report.inserted == 4 * (40 - len(done))
    assert stored(connection) == after
    assert {place[1] for place in queued(connection, version)} == {0, 3}
    assert len(vectors(connection, version)) == 80


# The kept counts --------------------------------------------------------------------------------------------


def deltas(connection: Connection) -> tuple[int, int]:
    """How many rows the collection's count has, and their sum."""
    return connection.execute("SELECT count(*), sum(delta)::int FROM row_counts WHERE scope = 0").fetchone()  # type: ignore[return-value]


def test_many_counts_are_folded_into_one(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_FOLD_COUNTS", 5)
    connection.execute("INSERT INTO row_counts (scope, delta) SELECT 7, 1 FROM generate_series(1, 20)")
    for number in range(5):
        ingest(connection, [Document(f"d{number}", "x")], chunk_characters=CHARACTERS)
        assert deltas(connection) == (number + 1, number + 1)
    ingest(connection, [Document("last", "x")], chunk_characters=CHARACTERS)
    assert deltas(connection) == (1, 6)
    assert connection.execute("SELECT count(*) FROM row_counts WHERE scope = 7").fetchone() == (20,)


def test_counts_that_others_hold_or_write_are_neither_waited_for_nor_lost(
    connection: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_FOLD_COUNTS", 2)
    connection.execute("INSERT INTO row_counts (scope, delta) SELECT 0, n FROM generate_series(1, 5) n")
    connection.execute("SET lock_timeout = '1ms'")
    with other.transaction():
        other.execute("SELECT FROM row_counts WHERE delta = 3 FOR UPDATE")
        other.execute("INSERT INTO row_counts (scope, delta) VALUES (0, 100)")
        ingest(connection, [Document("a", "A")], chunk_characters=CHARACTERS)
        assert deltas(connection) == (2, 16)
    assert deltas(connection) == (3, 116)


def test_folding_at_once_loses_nothing(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_FOLD_COUNTS", 1)

    def fold() -> None:
        with database.session("fold") as own:
            for _ in range(30):
                own.execute("INSERT INTO row_counts (scope, delta) VALUES (0, 1), (0, 2)")
                registry.fold_counts(own, 0)

    running = [Running(fold) for _ in range(3)]
    for each in running:
        each.result()
    assert deltas(connection)[1] == 270
    registry.fold_counts(connection, 0)
    assert deltas(connection) == (1, 270)
