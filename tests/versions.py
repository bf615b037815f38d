"""What tests of several rooms need: chunks, and versions with an encoder that is cheap and real."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from revector.core.backfill.job.job import open_job
from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.worker.worker import Worker
from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.index import build
from revector.core.registry import Version, add_version, get_version
from revector.core.settings import Settings

SPEC = "static:wordllama-64"


def add_chunks(connection: Connection, texts: Iterable[str]) -> list[int]:
    """One document a text, as plain SQL would insert them."""
    return [
        connection.execute(
            """
            INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256, source_id)
            VALUES (%s, %s, 0, %s, %s, %s) RETURNING id
            """,
            [uuid4().hex, uuid4(), text, hashlib.sha256(text.encode()).digest(), f"doc-{text}"],
        ).fetchone()[0]  # type: ignore[index]
        for text in texts
    ]


def add(connection: Connection, key: str, spec: str = SPEC, **options: object) -> Version:
    """Register a version."""
    encoder = open_encoder(spec)
    return add_version(connection, key, encoder, spec, **options)  # type: ignore[arg-type]


def worker_on(
    database: Database, version: Version, encoder: object, settings: JobSettings | None = None, **options: Any
) -> Worker:
    """A worker for the version's backfill, which is started with these settings or continued."""
    with database.session("backfill") as connection:
        open_job(connection, version, settings)
    return Worker(database, version, encoder, **options)  # type: ignore[arg-type]


def backfill(database: Database, version: Version, *, batch_size: int = 256) -> None:
    """Embed everything that the version lacks."""
    worker_on(database, version, open_encoder(version.encoder_spec), JobSettings(batch_size)).join()


def ready_version(database: Database, connection: Connection, key: str, spec: str = SPEC) -> Version:
    """A version that is backfilled and indexed."""
    version = add(connection, key, spec)
    backfill(database, version)
    build(connection, version, Settings())
    return get_version(connection, key)


NUMBERS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven",
    "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen",
]  # fmt: skip
