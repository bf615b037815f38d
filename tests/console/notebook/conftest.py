"""A small collection for the notebook's tests, and a real kernel."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from revector.console.notebook import Console
from revector.core.database import Database
from revector.core.evaluation.judged_sets.judgements import Judgement, ensure_judge, save_judgements
from revector.core.evaluation.judged_sets.query_sets import Query, get_query_set, save_queries
from tests.databases import copied
from tests.screens.support import TEXTS, fill

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> </td>&amp; \x1b[31mred\x07 ‮drow"
"""What a document may hold: markup, an escape sequence, an override of the direction of writing."""

GATES = """
min_queries = 5
[[gate]]
name = "no worse"
measure = "nDCG@10"
margin = 0.9
"""


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(clean_environment: Path) -> None:
    """No setting but the test's own."""


@pytest.fixture(scope="session")
def judged(template: Database) -> Iterator[Database]:
    """What `fill_judged` makes, for `copied`."""
    with copied(template) as database:
        fill_judged(database)
        yield database


@pytest.fixture(scope="module")
def library(judged: Database) -> Iterator[Database]:
    """The same; shared, so that nothing may change its versions."""
    with copied(judged) as database:
        yield database


@pytest.fixture
def console(library: Database) -> Console:
    """A Console on it."""
    return Console(library.dsn, library.schema)


@pytest.fixture
def own_library(judged: Database) -> Iterator[Database]:
    """The same for one test alone."""
    with copied(judged) as database:
        yield database


@pytest.fixture
def own_console(own_library: Database) -> Console:
    """A Console on it."""
    return Console(own_library.dsn, own_library.schema)


def fill_judged(database: Database) -> None:
    """`demo-64` active, `demo-256` ready, sixteen documents and a judged query for each."""
    fill(database)
    with database.session("test") as connection:
        documents = dict(connection.execute("SELECT content, document_id::text FROM document_chunks").fetchall())
        queries = [
            Query(f"q{n:02}", text.partition("\n")[0], "odd" if n % 2 else "even") for n, text in enumerate(TEXTS)
        ]
        save_queries(connection, "titles", queries)
        save_judgements(
            connection, get_query_set(connection, "titles"), ensure_judge(connection, "ann", "person"),
            [Judgement(f"q{n:02}", "document", documents[text], 2) for n, text in enumerate(TEXTS)],
        )  # fmt: skip


@dataclass
class Ran:
    """The result of a cell: its outputs as stored in a notebook, and its error, if any."""

    displays: dict[str, list[str]] = field(default_factory=dict)
    result: dict[str, str] | None = None
    streams: str = ""
    error: dict[str, Any] | None = None

    @property
    def live(self) -> list[str]:
        """The successive states of the only updated output, as HTML."""
        assert len(self.displays) == 1, self.displays.keys()
        return next(iter(self.displays.values()))


@dataclass(frozen=True)
class Kernel:
    """A Jupyter kernel."""

    manager: Any
    client: Any

    def run(self, code: str, on_display: Callable[[str], None] = lambda _html: None) -> Ran:
        """Execute a cell; `on_display` is called with the HTML of all that it displays."""
        asked = self.client.execute(code)
        ran = Ran()
        while True:
            message = self.client.get_iopub_msg(timeout=120)
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != asked:
                continue
            if kind in ("display_data", "update_display_data"):
                states = ran.displays.setdefault(content["transient"]["display_id"], [])
                states.append(content["data"]["text/html"])
                on_display(states[-1])
            elif kind == "execute_result":
                ran.result = content["data"]
            elif kind == "stream":
                ran.streams += content["text"]
            elif kind == "error":
                ran.error = content
            elif kind == "status" and content["execution_state"] == "idle":
                return ran


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """A real kernel of this Python, which leaves nothing in anybody's home."""
    jupyter_home(tmp_path, monkeypatch)
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def jupyter_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jupyter's own files go into this folder, and its kernels import revector from here."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(folder / name.lower()))
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    assert Path(sys.prefix, "share/jupyter/kernels/python3").is_dir(), "ipykernel is in the dev group"
