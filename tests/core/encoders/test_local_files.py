"""Files that a spec names: what could hold up or fill a process is not opened."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from revector.core.encoders import local_files, open_encoder
from revector.core.encoders.local_models import find_folder, folder_revision
from revector.core.encoders.spec import read_spec
from revector.core.errors import UsageError


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """A pipe; another process writes to whoever opens it, so that this one would not hang."""
    path = tmp_path / "model" / "config.json"
    path.parent.mkdir()
    os.mkfifo(path)
    with subprocess.Popen(["sh", "-c", 'echo "{}" > "$0"', path]) as writer:
        yield path
        writer.kill()


def tokenizer(path: object) -> str:
    return f"openai:m?base_url=http://127.0.0.1:1&dimensions=8&tokenizer={path}"


def test_a_tokenizer_that_is_a_pipe_a_device_or_a_folder_is_not_read(pipe: Path) -> None:
    for path in (pipe, "/dev/zero", pipe.parent):
        with pytest.raises(UsageError, match="is not a regular file: it was not read"):
            open_encoder(tokenizer(path))


def test_a_tokenizer_without_an_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "long.json").open("wb") as file:
        file.truncate(local_files.LARGEST_TEXT + 1)
    with pytest.raises(UsageError, match="at most 100,000,000"):
        open_encoder(tokenizer(file.name))


def test_a_model_with_a_pipe_in_it_is_not_read(pipe: Path) -> None:
    with pytest.raises(UsageError, match="is not a regular file"):
        folder_revision(pipe.parent)


def test_a_folder_that_is_no_model_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"{number}.bin").write_bytes(b"1234")
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    folder_revision(tmp_path)
    monkeypatch.setattr(local_files, "MOST_FILES", 3)
    with pytest.raises(UsageError, match="more than 3 files"):
        folder_revision(tmp_path)
    monkeypatch.setattr(local_files, "MOST_FILES", 4)
    monkeypatch.setattr(local_files, "LARGEST_WEIGHTS", 3)
    with pytest.raises(UsageError, match="it has 4 bytes, and at most 3 are"):
        folder_revision(tmp_path)


@pytest.mark.parametrize("revision", ["/etc/hostname", "../../hostname", "refs/../../x", "", ".", "a//b"])
def test_a_revision_is_no_path(revision: str) -> None:
    with pytest.raises(UsageError, match="is no revision"):
        find_folder(read_spec(f"sentence-transformers:a/b?revision={revision}"), "sentence-transformers")
