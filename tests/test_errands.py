"""The errands of CONTRIBUTING.md, each done on a copy of the tree as that page has it, and seen where users look."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from revector.core import cutover
from revector.core.database import Connection, Database
from tests.versions import NUMBERS, add_chunks, ready_version

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The product's source, to be changed."""
    for folder in ("core", "screens", "console", "revector"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def edit(path: Path, before: str, after: str) -> None:
    """Change one place of a file."""
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), encoding="utf-8")


def run(tree: Path, code: str, *arguments: str, status: int = 0, of: str = "stdout") -> str:
    """What a process that runs the changed source prints."""
    path = os.pathsep.join((str(tree), str(ROOT)))
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
        cwd=tree,
    )
    assert ran.returncode == status, ran.stdout + ran.stderr
    return ran.stderr if of == "stderr" else ran.stdout


PROGRAM = "from revector.console.program import main; main()"

ON_THE_BOARD = """
import asyncio, sys
from revector.core.database import Database
from tests.screens.support import console, until_shown

async def look():
    async with console(Database(*sys.argv[1:])).run_test(size=(120, 60)) as pilot:
        await until_shown(pilot, "v2")
        await pilot.press("6")
        await until_shown(pilot, "13 of 14 pass", "✗ fail moon it is full", "→ Wait two weeks.")
        await pilot.press("enter")
        await until_shown(pilot, "Whether the moon is full tonight.")

asyncio.run(look())
"""


def test_a_new_guard(tree: Path, database: Database, connection: Connection) -> None:
    edit(
        tree / "core/cutover/checks/servers.py",
        "RULES = (\n",
        """
RULES = (
    GuardRule(
        "moon", "Whether the moon is full tonight.", lambda _subject: fails("it is full", "Wait two weeks."),
    ),
""",
    )
    add_chunks(connection, NUMBERS)
    for key in ("v1", "v2"):
        ready_version(database, connection, key)
    cutover.run(connection, "v1", confirm="v1")
    options = ("--dsn", database.dsn, "--schema", database.schema, "cutover")

    document = json.loads(run(tree, PROGRAM, *options, "check", "v2", "--json", status=1))
    moon = {"name": "moon", "verdict": "fail", "detail": "it is full", "remedy": "Wait two weeks.", "waived": ""}
    assert moon in document["guards"]
    assert "✗  moon" in run(tree, PROGRAM, *options, "check", "v2", status=1)
    waive = ("--waive", "moon=we work by daylight")
    assert "waived: we work by daylight" in run(tree, PROGRAM, *options, "check", "v2", *waive)
    assert "Whether the moon is full tonight." in run(tree, PROGRAM, *options, "guards")
    page = run(tree, "from tests.documents import guards_page; print(guards_page())")
    assert "| `moon` | Whether the moon is full tonight. |" in page
    run(tree, ON_THE_BOARD, database.dsn, database.schema)
    flip = run(tree, PROGRAM, *options, "run", "v2", "--confirm", "v2", "--reason", "dawn", *waive)
    assert "v2 is active (was v1)" in flip


JUDGED = """
from pathlib import Path
from revector.core.evaluation.gates.gate_file import read_gates
from revector.core.evaluation.gates.verdicts import judge_gates

gates = read_gates(Path("gates.toml"))
values = [{"P@10": {str(query): value for query in range(20)}} for value in (0.5, 0.54)]
for found in judge_gates(gates, *values, {"all": [str(query) for query in range(20)]}):
    print(found.verdict, found.kind, found.name, found.detail, sep=" | ")
"""


def test_a_new_kind_of_gate(tree: Path) -> None:
    edit(
        tree / "core/evaluation/gates/gate_file.py",
        "KINDS = (\n",
        """KINDS = (
    GateKind("superiority", "gain", "at least {:g} better", 0.01, compared=True, bound=lambda gain: gain),
""",
    )
    for gain, said in (
        (
            0.02,
            "pass | superiority | P@10: at least 0.02 better | +0.040 ≥ +0.020: the mean of candidate − primary",
        ),
        (
            0.05,
            "fail | superiority | P@10: at least 0.05 better | +0.040 < +0.050: the mean of candidate − primary",
        ),
    ):
        (tree / "gates.toml").write_text(f"confidence = 0.5\n[[gate]]\nmeasure = 'P@10'\ngain = {gain}\n")
        assert run(tree, JUDGED).startswith(said)
    (tree / "gates.toml").write_text("[[gate]]\nmeasure = 'P@10'\ngain = 2\n")
    refused = run(tree, JUDGED, status=1, of="stderr")
    assert "gates.toml:3:1: gain is 2; expected a number from 0 to 1" in refused
    assert 'with measure = "P@10" and gain = 0.01 or at_least = 0.9 or margin = 0.01, for one' in refused


def test_a_column_of_versions(tree: Path, empty_database: Database) -> None:
    for file, before, after in (
        (
            "core/migrations/sql/versions.sql",
            "    notes text",
            "    tier text NOT NULL DEFAULT 'bronze',\n    notes text",
        ),
        (
            "core/models/documents.py",
            "    notes: Mapped[str]",
            '    tier: Mapped[str] = mapped_column(server_default="bronze")\n    notes: Mapped[str]',
        ),
        (
            "core/registry.py",
            "    @property\n    def table(",
            '    tier: Annotated[str, "tier of service"] = ""\n\n    @property\n    def table(',
        ),
        (
            "screens/wording/version.py",
            'VersionColumn("notes"',
            'VersionColumn("tier", "tier of service", lambda s: s.version.tier),\n        VersionColumn("notes"',
        ),
    ):
        edit(tree / file, before, after)
    options = ("--dsn", empty_database.dsn, "--schema", empty_database.schema)
    run(tree, PROGRAM, *options, "db", "upgrade")
    run(tree, PROGRAM, *options, "versions", "add", "v1", "--encoder", "static:wordllama-64")
    assert "tier of service  bronze" in run(tree, PROGRAM, *options, "versions", "show", "v1")
    assert json.loads(run(tree, PROGRAM, *options, "versions", "show", "v1", "--json"))["tier"] == "bronze"
    records = (
        "import sys; from revector import Console; print(Console(*sys.argv[1:]).versions().rows()[0]['tier'])"
    )
    assert "bronze" in run(tree, records, empty_database.dsn, empty_database.schema)


IN_THE_CONSOLE = """
import asyncio, sys
from revector.console.app import RevectorApp
from revector.core.settings import Settings
from tests.screens.frozen import NOWHERE, FrozenReader
from tests.screens.support import until_shown

async def look(keys):
    app = RevectorApp(NOWHERE, Settings(), reader=FrozenReader())
    async with app.run_test(size=(120, 150)) as pilot:
        for key, *texts in keys:
            await pilot.press(key)
            await until_shown(pilot, *texts)

asyncio.run(look([line.split(" | ") for line in sys.argv[1].strip().split("\\n")]))
"""

HEALTH_ACTIONS = """
from dataclasses import dataclass

from revector.screens.actions import Action, needs


@dataclass(frozen=True)
class HealthState:
    beats: int = 0


ACTIONS = (
    Action("beat", ("b",), "beat", "One more beat.", lambda pane: pane.beat(),
           needs(lambda moment: moment.of(HealthState).beats < 1, "one beat is enough")),
)
"""

HEALTH_PANE = """
from textual.widgets import Static

from revector.screens.health.actions import HealthState
from revector.screens.pane import Pane


class HealthPane(Pane):
    beats = 0

    def compose(self):
        yield Static()

    def state(self, situation):
        return HealthState(self.beats)

    def draw(self):
        self.query_one(Static).update(f"{self.beats} of 1 beats")

    def beat(self):
        self.beats += 1
        self.draw()
        self.post_message(self.Changed())
"""


def test_a_new_tab(tree: Path) -> None:
    (tree / "screens/health").mkdir()
    (tree / "screens/health/actions.py").write_text(HEALTH_ACTIONS, encoding="utf-8")
    (tree / "screens/health/pane.py").write_text(HEALTH_PANE, encoding="utf-8")
    tabs = tree / "screens/tabs.py"
    edit(tabs, "    LOG := ", '    Tab("7", "Health", "health.pane:HealthPane", health.ACTIONS),\n    LOG := ')
    edit(
        tabs,
        "from revector.screens.log ",
        "from revector.screens.health import actions as health\nfrom revector.screens.log ",
    )
    seen = """
down | [1 Versions] |  7 Health
7 | [7 Health] | 0 of 1 beats | b beat
b | 1 of 1 beats
b | b: one beat is enough
question_mark | Show Health. | One more beat.
escape | [7 Health]
ctrl+p | Show Health.  (7)
"""
    run(tree, IN_THE_CONSOLE, seen)


def test_another_key(tree: Path) -> None:
    edit(
        tree / "screens/log/actions.py",
        "ACTIONS: tuple[Action[LogPane], ...] = (\n",
        """ACTIONS: tuple[Action[LogPane], ...] = (
    Action("log-read", ("g",), "read", "Read the entry.", lambda pane: pane.open_entry(), has_log),
""",
    )
    seen = """
8 | [8 Log] | g read
g | application revector console
escape | [8 Log]
question_mark | Read the entry.
escape | [8 Log]
ctrl+p | Read the entry.  (g)
"""
    run(tree, IN_THE_CONSOLE, seen)
