"""Collections for the console's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.database import Database
from core.embedded import EmbeddedServer
from tests.screens.support import collection, fill


@pytest.fixture(scope="session")
def library(server: EmbeddedServer) -> Iterator[Database]:
    """The small collection, for tests that change nothing in it."""
    with collection(server, "library") as database:
        fill(database)
        yield database


@pytest.fixture
def own_library(database: Database) -> Database:
    """The small collection, for one test alone."""
    fill(database)
    return database
