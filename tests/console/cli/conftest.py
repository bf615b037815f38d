"""Collections for the tests of the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from revector.core import cutover
from revector.core.database import Database
from tests.console.cli.program import Revector
from tests.databases import copied
from tests.versions import add_chunks, ready_version

TEXTS = (
    "How to rotate an api key: create a new key, deploy it, then revoke the old one.",
    "Rotating credentials of a database without downtime.",
    "The secrets manager keeps passwords and tokens encrypted.",
    "Invoices are sent by mail on the first day of the month.",
    "A refund is paid back to the card within five days.",
    "Delivery of large parcels takes two weeks.",
    "Plants in the office are watered on Mondays.",
    "The network is slow when backups run at night.",
    "Restart the router by holding its button for ten seconds.",
    "Holidays are requested in the calendar and approved by the lead.",
    "Bread is baked with flour, water, salt and time.",
    "The museum opens at nine and is free on Sundays.",
)


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(clean_environment: Path) -> None:
    """Calls in this process too see no setting but those of the test."""


@pytest.fixture
def revector(database: Database, tmp_path: Path) -> Revector:
    """The command line on an empty collection of the test's own."""
    return on(database, tmp_path)


@pytest.fixture(scope="session")
def library(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Revector]:
    """A collection with the active version v1, which v0 was before, the candidate v2 and v3 without vectors.

    Shared: nothing may change it.
    """
    with copied(template) as database:
        with database.session("test") as connection:
            add_chunks(connection, TEXTS)
            for key in ("v0", "v1"):
                ready_version(database, connection, key)
                cutover.run(connection, key, confirm=key)
            ready_version(database, connection, "v2", "static:wordllama-256")
            connection.execute(
                """
                INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions,
                                                distance_metric)
                VALUES ('v3', 'by-hand', '1', 64, 'cosine')
                """
            )
        yield on(database, tmp_path_factory.mktemp("library"))


def on(database: Database, folder: Path) -> Revector:
    """The command line on a collection."""
    return Revector(folder, ("--dsn", database.dsn, "--schema", database.schema))


def write_corpus(path: Path, texts: Iterable[str] = TEXTS) -> Path:
    """A JSONL file with one document a text."""
    lines = (json.dumps({"id": f"doc-{number}", "text": text}) for number, text in enumerate(texts))
    path.write_text("\n".join(lines))
    return path
