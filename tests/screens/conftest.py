"""Collections for the console's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from revector.core.database import Database
from tests.databases import copied
from tests.protocol_server import Gate, ProtocolServer
from tests.screens.support import add_candidate, fill, wait_in_small_steps
from tests.versions import add


@pytest.fixture(autouse=True)
def _small_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for pictures, which are taken when the Pilot says that all is at rest. In them no cursor blinks."""
    if "snap_compare" in request.fixturenames:
        monkeypatch.setattr("textual.widgets.Input._toggle_cursor", lambda _input: None)
    else:
        wait_in_small_steps(monkeypatch)


@pytest.fixture(scope="session")
def filled(template: Database) -> Iterator[Database]:
    """The small collection, for `copied`."""
    with copied(template) as database:
        fill(database)
        yield database


@pytest.fixture(scope="session")
def library(filled: Database) -> Iterator[Database]:
    """The small collection, for tests that change nothing in it."""
    with copied(filled) as database:
        yield database


@pytest.fixture
def own_library(filled: Database) -> Iterator[Database]:
    """The small collection, for one test alone."""
    with copied(filled) as database:
        yield database


@pytest.fixture
def candidate(own_library: Database) -> Database:
    """`demo-new` has no vectors yet, and an encoder of this machine."""
    with own_library.session("test") as connection:
        add_candidate(connection)
    return own_library


@pytest.fixture
def provider() -> Iterator[ProtocolServer]:
    with ProtocolServer() as server:
        yield server


@pytest.fixture
def served(own_library: Database, provider: ProtocolServer) -> Database:
    """`demo-new` has no vectors yet, and the provider's model."""
    with own_library.session("test") as connection:
        add(connection, "demo-new", f"openai:house-model?price=0&base_url={provider.base_url}")
    return own_library


@pytest.fixture
def gate(served: Database, provider: ProtocolServer) -> Iterator[Gate]:
    """Holds the texts from `On call` on: ten of sixteen chunks pass."""
    gate = Gate(provider, lambda text: text.startswith("On call"))
    yield gate
    gate.open()
