"""`make mutants`: plant each fault in a copy of the tree, and see that its test fails. Takes minutes.

`python -m tests.mutants NAME…` plants those whose names contain one of the words.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.mutants import ROOT, Mutant, mutants

_FAILED = 1
"""pytest's exit status when tests failed; any other one says that they did not run."""


def main() -> None:
    """Print a line for each fault; exit 1 when one was not caught."""
    chosen = [m for m in mutants() if not sys.argv[1:] or any(word in m.patch.stem for word in sys.argv[1:])]
    with tempfile.TemporaryDirectory(prefix="revector-mutants-") as folder:
        copy = Path(folder) / "revector"
        _copy(copy)
        sound = _pytest(copy, sorted({test for mutant in chosen for test in mutant.tests}))
        if sound.returncode != 0:
            sys.exit(f"{sound.stdout}\nThe tests do not pass without any fault: mend that first.")
        missed = [mutant for mutant in chosen if not _is_caught(mutant, copy)]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} faults caught")  # noqa: T201
    sys.exit(bool(missed))


def _copy(copy: Path) -> None:
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".venv", ".*_cache", "__pycache__"))


def _is_caught(mutant: Mutant, copy: Path) -> bool:
    subprocess.run(["git", "apply", mutant.patch], cwd=copy, check=True)
    try:
        caught = _pytest(copy, mutant.tests).returncode == _FAILED
    finally:
        subprocess.run(["git", "apply", "--reverse", mutant.patch], cwd=copy, check=True)
    print(f"{'caught' if caught else 'MISSED':6}  {mutant.patch.stem}: {mutant.what}", flush=True)  # noqa: T201
    return caught


def _pytest(copy: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # The processes that a test starts import the copy too.
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    main()
