"""Ingest against what the server needs for the same rows: one COPY into the same columns, then the same indexes.

Documents of one chunk, with words as common as in a language. The limit gets its rows ready-made; ingest cuts and
hashes its documents meanwhile. Measured with nothing stored, and again beside what is stored then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from psycopg.types.json import Jsonb

from revector.core.chunks import content_sha256, document_uuid, semantic_key
from revector.core.database import Connection
from revector.core.documents import Document
from revector.core.ingest import ingest
from tests.benchmarks.measure import Contender, in_turns, own_database, show_times, tell

CHUNKS = 20_000
WORDS = 100
_VOCABULARY = 60_000
_COLUMNS = "semantic_key, document_id, chunk_no, content, content_sha256, source_id, metadata"


def run(rounds: int) -> None:
    """Measure, and print two tables."""
    with own_database("bench") as database, database.session("bench") as connection:
        first, later = list(_documents("first")), list(_documents("later"))

        def empty() -> None:
            connection.execute("DELETE FROM document_chunks")
            connection.execute("DELETE FROM word_statistics")
            connection.execute("VACUUM ANALYZE document_chunks, repeated_texts, word_statistics")

        def beside() -> None:
            connection.execute("DELETE FROM document_chunks WHERE source_id LIKE 'later-%'")
            connection.execute("VACUUM ANALYZE document_chunks, repeated_texts")

        rows = max(1, rounds // 3)
        for name, documents, before in (("the first", first, empty), ("later", later, beside)):
            contenders = [
                Contender("revector ingest", lambda given=documents: _ingest(connection, given), CHUNKS),
                Contender("COPY, then indexes", lambda given=documents: _limit(connection, given), CHUNKS),
            ]
            show_times(f"{name} {CHUNKS:,} chunks of {WORDS} words", in_turns(contenders, rows, before))
            if documents is first:
                empty()
                _ingest(connection, first)
        tell("(aim: the first ones at most 1.5 × as long)\n")


def _documents(name: str) -> Iterator[Document]:
    draw = np.random.default_rng(len(name) + ord(name[0]))
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    words = ["".join(draw.choice(letters, draw.integers(3, 11))) for _ in range(_VOCABULARY)]
    chosen = np.minimum(draw.zipf(1.15, (CHUNKS, WORDS)), _VOCABULARY) - 1
    for number, places in enumerate(chosen):
        yield Document(f"{name}-{number}", " ".join(words[place] for place in places))


def _ingest(connection: Connection, documents: list[Document]) -> float:
    began = time.perf_counter()
    report = ingest(connection, documents, chunk_characters=2_000)
    if report.inserted != CHUNKS:
        raise RuntimeError(f"{report.inserted:,} of {CHUNKS:,} chunks were stored")
    return time.perf_counter() - began


def _limit(connection: Connection, documents: list[Document]) -> float:
    rows = []
    for document in documents:
        number, text = document_uuid(document.source_id), document.text
        rows.append(
            (semantic_key(number, 0, text), number, 0, text, content_sha256(text), document.source_id, Jsonb({}))
        )
    connection.execute("DROP TABLE IF EXISTS bare")
    connection.execute(
        "CREATE TABLE bare (LIKE document_chunks INCLUDING DEFAULTS INCLUDING GENERATED) "
        "WITH (toast_tuple_target = 8160)"
    )
    began = time.perf_counter()
    with connection.cursor().copy(f"COPY bare ({_COLUMNS}) FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(("text", "uuid", "int4", "text", "bytea", "text", "jsonb"))
        for row in rows:
            copy.write_row(row)
    connection.execute("ALTER TABLE bare ADD PRIMARY KEY (id), ADD UNIQUE (semantic_key)")
    connection.execute("CREATE INDEX ON bare (document_id)")
    connection.execute("CREATE INDEX ON bare USING hash (content_sha256)")
    connection.execute("CREATE INDEX ON bare USING gin (content_tsv)")
    connection.execute("CREATE INDEX ON bare USING gin (metadata jsonb_path_ops)")
    return time.perf_counter() - began
