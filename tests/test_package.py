"""What is installed: one package, `revector`, from a wheel, from an sdist and from a checkout alike."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from revector.core.database import Database
from tests.test_architecture import ROOT

pytestmark = pytest.mark.slow

NAMES = (
    "AsyncRetriever, Console, Database, EncoderError, Mirror, RefusedError, Retriever, RevectorError, UsageError"
)
FOREIGN = ("core", "console", "screens")


@dataclass(frozen=True)
class Environment:
    """A fresh virtual environment in which revector is installed, and the packages that it needs."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        return next((self.folder / "lib").glob("python3.*")) / "site-packages"

    @property
    def importable(self) -> set[str]:
        """The top-level names that came with revector, whether as a folder or by a .pth file."""
        folders = [self.packages, *(Path(pth.read_text().strip()) for pth in self.packages.glob("*revector*.pth"))]
        entries = {entry.name for folder in folders for entry in folder.iterdir()}
        return {name for name in entries if "." not in name} - {"__pycache__"}

    def run(self, *command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "REVECTOR"))}
        return subprocess.run(
            list(map(str, command)), cwd=cwd, env={**clean, **environment},
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git would give to anybody, links as links; what is built from it leaves nothing here."""
    copy = tmp_path_factory.mktemp("source") / "revector"
    ignored = shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache", "__snapshots__")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    return copy


@pytest.fixture(scope="module", params=["wheel", "sdist", "editable"])
def installed(
    request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    kind: str = request.param
    folder = tmp_path_factory.mktemp(kind)
    environment = Environment(folder / "venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment.folder], check=True)
    # The packages that revector needs come from here; a .pth file's own .pth files are not read, so revector does not.
    (environment.packages / "dependencies.pth").write_text(f"{Path(psycopg.__file__).parents[1]}\n")
    if kind != "editable":
        build = [environment.python, "-m", "hatchling", "build", "--target", kind, "--directory", folder]
        subprocess.run(build, cwd=source, check=True, capture_output=True)
    what = ["--editable", source] if kind == "editable" else [next(folder.glob("revector-*.*"))]
    pip = [environment.python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, *what], check=True, capture_output=True, cwd=folder)
    return environment


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder that has packages of those names."""
    for name in FOREIGN:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('the {name} of somebody else')")
    return tmp_path


def test_one_name_is_installed(installed: Environment, tmp_path: Path) -> None:
    assert installed.importable == {"revector"}
    code = f"import importlib.util as u; print([n for n in {(*FOREIGN, 'tests')} if u.find_spec(n)])"
    assert installed.run(installed.python, "-c", code, cwd=tmp_path).stdout.strip() == "[]"


@pytest.mark.parametrize("path", [None, "."])
def test_it_runs_beside_packages_of_the_same_names(
    installed: Environment, project: Path, path: str | None, database: Database
) -> None:
    environment = {"PYTHONPATH": path} if path else {}
    code = f"from revector import {NAMES}; print(Retriever)"
    ran = installed.run(installed.python, "-c", code, cwd=project, **environment)
    assert ran.stdout.strip() == "<class 'revector.core.retrieval.retriever.Retriever'>", ran.stderr
    program = installed.folder / "bin" / "revector"
    collection = ["--dsn", database.dsn, "--schema", database.schema]
    ran = installed.run(program, *collection, "doctor", "--json", cwd=project, **environment)
    assert "findings" in json.loads(ran.stdout), ran.stderr


def test_types_are_seen_from_outside(installed: Environment, project: Path) -> None:
    (project / "application.py").write_text(
        "from revector import Database, RevectorError\n"
        "schema: int = Database('postgresql://', 'revector').schema\n"
        "remedy: int = RevectorError('problem').remedy\n"
    )
    # What revector itself imports is passed over: that takes mypy a minute, and shows nothing here.
    (project / "mypy.ini").write_text(
        "[mypy]\nstrict = true\nfollow_imports = skip\n"
        "[mypy-revector,revector.core,revector.core.database,revector.core.errors]\nfollow_imports = silent\n"
    )
    ran = installed.run(
        sys.executable, "-m", "mypy", "--python-executable", installed.python, "application.py", cwd=project
    )
    wrong = 'error: Incompatible types in assignment (expression has type "str", variable has type "int")'
    assert [line.partition(": ")[2].partition("  [")[0] for line in ran.stdout.splitlines()[:-1]] == [wrong] * 2
