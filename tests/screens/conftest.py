"""Collections for the console's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.database import Database
from core.embedded import EmbeddedServer
from tests.screens.support import collection, fill, wait_in_small_steps


@pytest.fixture(autouse=True)
def _small_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for pictures, which are taken when the Pilot says that all is at rest."""
    if "snap_compare" not in request.fixturenames:
        wait_in_small_steps(monkeypatch)


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
