"""A server for these tests alone, a collection in it for each of them, and its processes."""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from revector.core.database import Database
from revector.core.registry import Version
from tests.databases import copied, empty_collection
from tests.faults import corpus
from tests.faults.numbers import LONG, SEED
from tests.faults.proxy import Proxy
from tests.faults.servers import FaultyServer, faulty_server
from tests.faults.watch import Watch
from tests.faults.workers import Processes
from tests.versions import SPEC, add

_numbers = itertools.count(1)

collect_ignore = [] if LONG else ["test_two_nodes.py"]
"""Two nodes need root, and a minute: only `make chaos` has them."""

Prepare = Callable[..., Version]
MakeProcesses = Callable[..., Processes]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long form takes its time. (This hook is called once, for all tests.)"""
    for item in items:
        if LONG and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1_800))


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(clean_environment: Path) -> None:
    """The program is called in this process too."""


@pytest.fixture(scope="session")
def faulty() -> Iterator[FaultyServer]:
    with faulty_server() as server:
        yield server


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """All that is random in the test; a failure says how to have the same again."""
    request.node.add_report_section("call", "chaos", f"REVECTOR_CHAOS_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")  # noqa: S311


@pytest.fixture(scope="session")
def faulty_template(faulty: FaultyServer) -> Iterator[Database]:
    """A collection on the faulty server that is set up and empty, for `copied`."""
    with empty_collection(faulty.dsn) as database:
        yield database


@pytest.fixture
def target(faulty: FaultyServer, faulty_template: Database) -> Iterator[Database]:
    """A collection on the faulty server."""
    faulty.restart()  # if a test before left it stopped
    with copied(faulty_template) as database:
        yield database
        faulty.restart()


@pytest.fixture
def watch(target: Database) -> Iterator[Watch]:
    watch = Watch(target)
    yield watch
    watch.close()


@pytest.fixture
def prepare(target: Database, chance: random.Random) -> Prepare:
    """`prepare(chunks)`: a corpus, and the version v1 without vectors."""

    def prepared(chunks: int, spec: str = SPEC) -> Version:
        return fill(target, chance, chunks, spec)

    return prepared


def fill(database: Database, chance: random.Random, chunks: int, spec: str = SPEC) -> Version:
    """A corpus, and the version v1 without vectors."""
    with database.session("test") as connection:
        corpus.fill(connection, corpus.texts(chance, chunks))
        version = add(connection, "v1", spec)
        corpus.count_deleted_vectors(connection, version.table_name)
    return version


@pytest.fixture
def make_processes(target: Database, request: pytest.FixtureRequest) -> Iterator[MakeProcesses]:
    """`make_processes(batch_size=…, lease_s=…)`: ends what it started, and shows what it said when the test fails."""
    # Not in pytest's folder, which would keep the remains of failed runs three times.
    folder = Path(tempfile.mkdtemp(prefix="revector-fault-processes-"))
    made: list[Processes] = []

    def make(**settings: object) -> Processes:
        made.append(Processes(target, folder, **settings))
        return made[-1]

    yield make
    for processes in made:
        processes.close()
        for name, words in itertools.islice(processes.last_words(), 6):
            request.node.add_report_section("teardown", name, words)
    shutil.rmtree(folder)


@pytest.fixture
def processes(make_processes: MakeProcesses) -> Processes:
    return make_processes()


@pytest.fixture
def proxy(target: Database) -> Iterator[Proxy]:
    proxy = Proxy(target.dsn)
    yield proxy
    proxy.close()


@pytest.fixture
def through_proxy(target: Database, proxy: Proxy) -> Database:
    """The same collection, by way of the proxy."""
    return Database(proxy.dsn, target.schema)
