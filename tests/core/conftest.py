"""A pair of versions, made once: tests that ask for `two` or a `collection` begin with a copy of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from revector.core import cutover
from revector.core.database import Connection, Database
from revector.core.embedded import EmbeddedServer
from revector.core.registry import Version, get_version
from tests.databases import copied
from tests.versions import NUMBERS, add_chunks, ready_version


@pytest.fixture(scope="session")
def pair(template: Database) -> Iterator[Database]:
    """Some chunks, `v1` active and `v2` ready. For `copied`: no test opens a session in it."""
    with copied(template) as database:
        with database.session("test") as connection:
            add_chunks(connection, NUMBERS)
            ready_version(database, connection, "v1")
            ready_version(database, connection, "v2", "static:wordllama-128")
            cutover.run(connection, "v1", confirm="v1")
        yield database


@pytest.fixture
def database(request: pytest.FixtureRequest, server: EmbeddedServer) -> Iterator[Database]:
    """A separate collection: set up, and empty unless the test begins with a pair."""
    # `server` is named so that the test counts as one that needs it.
    begins_with = "pair" if {"two", "collection"} & set(request.fixturenames) else "template"
    with copied(request.getfixturevalue(begins_with)) as database:
        yield database


@pytest.fixture
def two(connection: Connection) -> tuple[Version, Version]:
    """v1 active, v2 ready."""
    return get_version(connection, "v1"), get_version(connection, "v2")
