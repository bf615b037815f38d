"""Chunks as an application inserts them, by plain SQL."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from revector.core.database import Connection

_SYLLABLES = ("ba", "der", "fi", "gon", "hu", "jal", "kem", "lo", "mir", "nu", "pol", "ras", "sen", "tu", "vex")
WORDS = [first + second + third for first in _SYLLABLES for second in _SYLLABLES for third in ("", "ta", "ling")]

INSERT = """
INSERT INTO document_chunks (id, semantic_key, document_id, chunk_no, content, content_sha256, source_id)
SELECT coalesce(id, nextval('document_chunks_id_seq')), gen_random_uuid()::text, gen_random_uuid(), 0, content,
       sha256(convert_to(content, 'UTF8')), 'doc-' || md5(content)
FROM unnest(%s::bigint[], %s::text[]) AS chunk(id, content)
RETURNING id
"""

_ID_STEP = 20
"""Between two chunks, as if the others had been deleted: so a small corpus has as many ranges as a large one."""


def texts(chance: random.Random, number: int, *, repeated: float = 0.1) -> Iterator[str]:
    """Texts of a few words; a share of them comes again and again."""
    for n in range(number):
        if chance.random() < repeated:
            yield f"boilerplate {WORDS[chance.randrange(50)]}"
        else:
            yield f"{' '.join(chance.choices(WORDS, k=6))} {n}"


def fill(connection: Connection, contents: Iterable[str], *, step: int = _ID_STEP) -> None:
    """Insert a corpus with gaps between its ids."""
    whole = list(contents)
    for start in range(0, len(whole), 20_000):
        part = whole[start : start + 20_000]
        ids = [step * (start + n + 1) for n in range(len(part))]
        connection.execute(INSERT, [ids, part])
    connection.execute("SELECT setval('document_chunks_id_seq', (SELECT max(id) FROM document_chunks))")
    connection.execute("ANALYZE document_chunks")


def count_deleted_vectors(connection: Connection, table_name: str) -> None:
    """Let the database count what is deleted from a version's table: the job counts what was ever stored in it."""
    connection.execute("CREATE TABLE vectors_deleted (number bigint NOT NULL)")
    connection.execute(
        """
        CREATE FUNCTION count_deleted_vectors() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
        BEGIN
            INSERT INTO vectors_deleted SELECT count(*) FROM gone HAVING count(*) > 0;
            RETURN NULL;
        END $$
        """
    )
    connection.execute(
        f"""
        CREATE TRIGGER count_deleted AFTER DELETE ON {table_name} REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION count_deleted_vectors()
        """  # type: ignore[arg-type]
    )
