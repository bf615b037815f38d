"""What the readers of all formats share: opening, naming and identifying a regular file."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from revector.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

NPY_MAGIC = b"\x93NUMPY"

_BLOCK = 1024 * 1024
_WHOLE = 64 * _BLOCK
_SAMPLES = 256
_SAMPLE = 64 * 1024


def shown(path: Path) -> str:
    """A file's name for a message; it need not be UTF-8."""
    return os.fsencode(path).decode(errors="replace")


@contextmanager
def opened(path: Path) -> Iterator[FileIO]:
    """Open a regular file, unbuffered. Raises UsageError for anything else and for read errors, in the body as
    well."""
    try:
        # Checked before opening: opening a pipe would wait for its writer.
        if "\0" in str(path) or not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{shown(path)} is not a file.", "Name a file of vectors.")
        with path.open("rb", buffering=0) as file:
            yield file
    except FileNotFoundError:
        raise UsageError(f"There is no file {shown(path)!r}.") from None
    except OSError as error:
        raise UsageError(f"{shown(path)!r} cannot be read: {error.strerror or error}.") from None


def read_magic(path: Path) -> bytes:
    """The first bytes of a file."""
    with opened(path) as file:
        return file.read(16)


def digest(path: Path, *, whole: bool = False) -> bytes:
    """A SHA-256 of a file's size and content.

    Of a file above 64 MiB it takes the head, the tail and 256 pieces spread evenly, unless `whole`: some 16 MiB
    and 10 ms in place of half a second a gigabyte. A regenerated file differs in nearly every number, which is
    detected; a few rows changed in place may not be. Stored vectors are never replaced anyway.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        found = hashlib.sha256(str(size).encode())
        if whole or size <= _WHOLE:
            while block := file.read(_BLOCK):
                found.update(block)
        else:
            for number in range(_SAMPLES):
                file.seek(number * (size - _SAMPLE) // (_SAMPLES - 1))
                found.update(file.read(_SAMPLE))
        return found.digest()


def fingerprint(*parts: bytes | str) -> str:
    """One identifier of a load: the files' digests, and how they are read."""
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode(errors="surrogateescape")
        found.update(len(data).to_bytes(8) + data)
    return found.hexdigest()
