"""Faults to plant, one patch each, with the test that has to fail: see tests/mutants/__main__.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """One fault: what it does wrong, the patch that plants it, and the tests of which at least one must fail."""

    patch: Path
    what: str
    tests: tuple[str, ...]


def mutants() -> list[Mutant]:
    """All of them, by name. A patch begins with a line `What:` and a line or more `Test:`, then comes the diff."""
    found = []
    for patch in sorted(Path(__file__).parent.glob("*.patch")):
        head = patch.read_text(encoding="utf-8").partition("diff --git")[0].splitlines()
        what = " ".join(line.removeprefix("What:").strip() for line in head if line.startswith("What:"))
        tests = tuple(line.removeprefix("Test:").strip() for line in head if line.startswith("Test:"))
        found.append(Mutant(patch, what, tests))
    return found
