"""The mutants can still be applied, and their tests exist."""

from __future__ import annotations

import subprocess

import pytest

from tests.mutants import ROOT, Mutant, mutants


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.patch.stem)
def test_a_fault_can_be_planted(mutant: Mutant) -> None:
    ran = subprocess.run(
        ["git", "apply", "--check", mutant.patch], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.stderr == ""
    assert mutant.what
    assert mutant.tests
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text()
