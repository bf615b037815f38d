"""Where documents came from: sources with the same ids, and folders inside each other, on a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from revector.core.database import Connection
from revector.core.documents import Naming, Rejection, read_documents
from revector.core.errors import UsageError
from revector.core.ingest import IngestReport, ingest


class Ingested:
    """A run over paths, with all that it said."""

    def __init__(
        self,
        connection: Connection,
        *paths: Path | str,
        root: Path | None = None,
        prefix: str = "",
        **options: Any,
    ) -> None:
        self.rejections: list[Rejection] = []
        self.said: list[str] = []
        naming = Naming(prefix=prefix)
        documents = read_documents(
            paths, max_bytes=1_000, on_reject=self.rejections.append, root=root, naming=naming
        )
        self.report: IngestReport = ingest(
            connection, documents, chunk_characters=100, on_wait=self.said.append, **options
        )
        assert self.report.rejected == len(self.rejections)


def stored(connection: Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT source_id, content FROM document_chunks").fetchall())


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return folder(tmp_path / "a", "of a")


@pytest.fixture
def b(tmp_path: Path) -> Path:
    return folder(tmp_path / "b", "of b")


def folder(path: Path, text: str) -> Path:
    path.mkdir(parents=True)
    (path / "index.md").write_text(text)
    (path / "license.md").write_text("the same everywhere")
    return path


def test_a_file_of_another_folder_replaces_nothing(connection: Connection, a: Path, b: Path) -> None:
    Ingested(connection, a)
    second = Ingested(connection, b)
    assert (second.report.rejected, second.report.documents, second.report.replaced) == (1, 1, 0)
    (rejection,) = second.rejections
    assert rejection.where == str(b / "index.md")
    assert f"'index.md' is that of a document from {a}" in rejection.problem
    assert "--prefix b/" in rejection.problem
    assert "--replace" in rejection.problem
    assert stored(connection) == {"index.md": "of a", "license.md": "the same everywhere"}


def test_a_prefix_keeps_both(connection: Connection, a: Path, b: Path) -> None:
    Ingested(connection, a)
    assert Ingested(connection, b, prefix="b/").report.inserted == 2
    assert stored(connection)["b/index.md"] == "of b"
    assert Ingested(connection, b, prefix="b/").report.unchanged == 2


def test_it_replaces_when_told_to_and_stays_the_new_ones(connection: Connection, a: Path, b: Path) -> None:
    Ingested(connection, a)
    second = Ingested(connection, b, replace=True)
    assert (second.report.replaced, second.report.rejected) == (1, 0)
    assert second.said == [f"1 document replaced what was read from another place: 'index.md' came from {a}."]
    assert stored(connection)["index.md"] == "of b"
    assert Ingested(connection, a).report.rejected == 1


def test_the_command_of_yesterday_does_what_it_did(connection: Connection, a: Path) -> None:
    Ingested(connection, a)
    (a / "index.md").write_text("edited")
    for path in (a, f"{a}/", a / "index.md", a / ".." / "a"):
        again = Ingested(connection, path)
        assert (again.report.rejected, again.report.replaced, again.said) == (0, 0, [])
    assert stored(connection)["index.md"] == "edited"


def test_another_checkout_named_in_the_same_way_is_taken_and_said(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("build-1", "build-2"):
        folder(tmp_path / place / "docs", f"of {place}")
        monkeypatch.chdir(tmp_path / place)
        last = Ingested(connection, "docs")
    assert (last.report.replaced, last.report.rejected) == (1, 0)
    assert last.said == [
        "1 document replaced what was read from another place: "
        f"'index.md' came from {tmp_path / 'build-1' / 'docs'}."
    ]
    assert stored(connection)["index.md"] == "of build-2"


def test_other_metadata_replaces_too(connection: Connection, a: Path, b: Path) -> None:
    """Of a file of records, whose ids are the writer's own: they are taken, and it is said."""
    (a / "r.jsonl").write_text('{"id": "1", "text": "one", "kind": "a"}\n')
    (b / "r.jsonl").write_text('{"id": "1", "text": "one", "kind": "b"}\n')
    Ingested(connection, a / "r.jsonl")
    second = Ingested(connection, b / "r.jsonl")
    assert (second.report.replaced, second.report.rejected) == (1, 0)
    assert second.said == [f"1 document replaced what was read from another place: '1' came from {a}."]


def test_documents_from_before_places_were_remembered(connection: Connection, a: Path, b: Path) -> None:
    Ingested(connection, a)
    connection.execute("UPDATE document_chunks SET origin_id = NULL")
    assert Ingested(connection, b).report.rejected == 0
    assert stored(connection)["index.md"] == "of b"


def test_a_folder_inside_an_ingested_one_is_said(connection: Connection, tmp_path: Path) -> None:
    repo = folder(tmp_path / "repo", "top")
    guide = folder(repo / "guide", "inside")
    Ingested(connection, repo)
    doubled = Ingested(connection, guide, replace=True)
    assert doubled.said[-1] == (
        f"2 files stored twice: 'index.md' is also 'guide/index.md', from {repo}. "
        "One id for each file, whatever folder is named: --root FOLDER"
    )


def test_with_a_root_a_file_has_one_id(connection: Connection, tmp_path: Path) -> None:
    repo = folder(tmp_path / "repo", "top")
    guide = folder(repo / "guide", "inside")
    Ingested(connection, repo)
    (guide / "index.md").write_text("edited")
    for path in (guide, guide / "index.md", repo):
        again = Ingested(connection, path, root=repo)
        assert (again.report.rejected, again.said) == (0, [])
    assert stored(connection)["guide/index.md"] == "edited"
    assert sorted(stored(connection)) == ["guide/index.md", "guide/license.md", "index.md", "license.md"]


def test_a_path_outside_the_root_is_refused(connection: Connection, a: Path, b: Path) -> None:
    with pytest.raises(UsageError, match="is not inside the root"):
        Ingested(connection, b, root=a)


def test_pruning_is_refused_after_a_refusal(connection: Connection, a: Path, b: Path) -> None:
    Ingested(connection, a)
    with pytest.raises(Exception, match="Nothing was pruned: 1 documents were rejected"):
        Ingested(connection, b, prune=True)
    assert stored(connection)["index.md"] == "of a"
