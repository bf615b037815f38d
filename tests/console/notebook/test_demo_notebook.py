"""docs/demo.ipynb, run by a real kernel on a separate embedded server, as a reader would run it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from revector.core import embedded
from tests.console.notebook.conftest import ROOT, jupyter_home
from tests.console.notebook.test_console import ALLOWED, Shown

NOTEBOOK = ROOT / "docs" / "demo.ipynb"


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home in which nothing is yet; its server is stopped at the end."""
    folder = tmp_path_factory.mktemp("notebook")
    monkeypatch.setenv("REVECTOR_HOME", str(folder / "home"))
    jupyter_home(folder, monkeypatch)
    try:
        yield folder
    finally:
        embedded.stop(folder / "home")


def test_the_notebook_in_the_repository_has_no_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs"), f"{cell.id}: clear the outputs; they name who ran it, and grow old"
        assert cell.get("execution_count") is None


@pytest.mark.timeout(600)
def test_the_story(home: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(home)}}).execute()
    nbformat.validate(notebook)
    told = {cell.id: _shown(cell) for cell in notebook.cells if cell.cell_type == "code"}

    assert "The demo is ready" in told["start"]
    assert "Versions: demo-64 is active" in told["versions"]
    assert re.search(r"Backfill of demo-256: done ([\d,]+) of \1 chunks", told["backfill"]), told["backfill"]
    assert "demo 209 8" in told["query-sets"]
    assert "demo-256 (candidate)" in told["compare"]
    assert "★2" in told["compare"]
    assert "✓ Pass: demo-256 against demo-64" in told["evaluate"]
    for segment in ("concurrency", "data", "dates", "files", "language", "network", "processes", "text"):
        assert f"nDCG@10 {segment}" in told["evaluate"]
    assert "✓ pass files are found" in told["evaluate"]
    assert "relevant · nDCG@5" in told["moved"]
    assert "A cut at 0.6 keeps" in told["thresholds"]
    assert "✓ demo-256 is ready for a cutover" in told["check"]
    assert "✓ Cut over: demo-64 → demo-256" in told["cutover"]
    assert "by demo-256" in told["search"]
    assert "✓ Rolled back: demo-256 → demo-64" in told["rollback"]
    assert "the demo shows the rollback" in told["log"]
    assert told["snapshot"] == "image"

    _survives_nbconvert(notebook, told)


def _shown(cell: Any) -> str:
    """The text of the one answer that a cell ends with; its HTML is sound and needs no script."""
    texts = []
    for output in cell.outputs:
        assert output.output_type in ("display_data", "execute_result", "stream"), output
        if output.output_type == "stream":
            assert output.name == "stdout", output
            continue
        assert output.data.keys() == {"text/html", "text/plain"}
        read = Shown(output.data["text/html"])
        if "img" in read.tags:
            assert cell.id == "snapshot"
            return "image"
        assert read.tags <= ALLOWED
        texts.append(read.text)
    assert texts or cell.id == "gates", cell.id
    assert len(texts) <= (2 if cell.id == "start" else 1), f"{cell.id} shows something twice"
    return "\n".join(texts)


class _Text(HTMLParser):
    """The text of a whole page, without its styles and scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self._skipped = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skipped += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._skipped -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.words += data.split()


def _survives_nbconvert(notebook: Any, told: dict[str, str]) -> None:
    """Everything that the cells showed is in the page, charts and picture too, and no widget."""
    page, _ = HTMLExporter().from_notebook_node(notebook)
    text = " ".join(_Text(page).words)
    for cell, shown in told.items():
        for part in shown.split("\n"):
            assert part in text or part == "image", cell
    assert page.count("<svg") >= 9
    assert page.count('<img alt="revector: Compare, 120×36"') == 1
    assert not any(
        "widget" in kind for cell in notebook.cells for o in cell.get("outputs", ()) for kind in o.get("data", ())
    )
