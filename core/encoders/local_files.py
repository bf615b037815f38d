"""Local files that a spec names. Anybody who may register a version writes specs, and every search service opens them.

So nothing is opened that could hold up or fill a process: a pipe, a device, a file or a folder of any size.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from revector.core.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LARGEST_TEXT = 100_000_000
"""Bytes of a file that is read whole; the largest tokenizers in use have a third of that."""
LARGEST_WEIGHTS = 100_000_000_000
MOST_FILES = 10_000
"""Files and folders within a model's folder."""


def read_text_file(path: Path) -> bytes:
    """The content of a regular file of at most LARGEST_TEXT bytes. Raises UsageError for any other, and OSError."""
    # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        _require_regular(path, found, LARGEST_TEXT)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(found.st_size)
    finally:
        os.close(descriptor)


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer.json. Raises UsageError for what is no regular file, UnreachableError when it cannot be read."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_buffer(read_text_file(path))
    except UsageError:
        raise
    except Exception as error:
        raise UnreachableError(
            f"The tokenizer file {path} cannot be read: {error}", "Expected a tokenizer.json."
        ) from error


def model_files(folder: Path) -> Iterator[Path]:
    """The files of a model's folder, all of which its loader may open, in any order.

    Raises UsageError when one of them is no regular file, or is too large, or there are too many.
    """
    count = 0
    for place, folders, names in os.walk(folder):
        count += len(folders) + len(names)
        if count > MOST_FILES:
            raise UsageError(
                f"{folder} is not the folder of a model: it holds more than {MOST_FILES:,} files.",
                "Name the folder of one model.",
            )
        for path in (Path(place, name) for name in names):
            if path.exists():  # a broken link is nothing that could be opened
                _require_regular(path, path.stat(), LARGEST_TEXT if path.suffix == ".json" else LARGEST_WEIGHTS)
                yield path


def _require_regular(path: Path, found: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is not a regular file: it was not read.", "Name a file on a disk.")
    if found.st_size > most:
        raise UsageError(
            f"{path} was not read: it has {found.st_size:,} bytes, and at most {most:,} are.",
            "Check that it is the file that was meant.",
        )
