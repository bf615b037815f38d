"""Opening a file of vectors: what it is is seen from its first bytes, and nothing is unpickled or believed."""

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

    from revector.core.vectors.slices import VectorFile

NPY_MAGIC = b"\x93NUMPY"
_PARQUET_MAGIC = b"PAR1"
_ZIP_MAGIC = b"PK\x03\x04"

_BLOCK = 1024 * 1024
_WHOLE = 64 * _BLOCK
_SAMPLES = 256
_SAMPLE = 64 * 1024


def open_vectors(
    path: Path,
    *,
    ids: Path | None = None,
    id_column: str | None = None,
    vector_column: str | None = None,
) -> VectorFile:
    """Open a .npy file of vectors (n, d) with its ids in another file, or a Parquet file with both.

    `ids` is a .npy file of n integers or 64-character strings, or a text file of one id a line; without it
    `NAME.ids.npy` or `NAME.ids.txt` beside `NAME.npy` is taken. The columns of a Parquet file are by default
    `chunk_id`, else `semantic_key`, and `embedding`.

    Raises UsageError for a file that is not there or not what it says: nothing has been stored then.
    """
    magic = read_magic(path)
    if magic.startswith(NPY_MAGIC):
        from revector.core.vectors.npy import open_npy

        if id_column is not None or vector_column is not None:
            raise UsageError(
                f"{shown(path)} is a .npy file, which has no columns.", "Name the file of its ids: --ids FILE"
            )
        return open_npy(path, ids if ids is not None else _ids_beside(path))
    if magic.startswith(_PARQUET_MAGIC):
        from revector.core.vectors.parquet import open_parquet

        if ids is not None:
            raise UsageError(
                f"{shown(path)} is a Parquet file, which has its ids in a column.",
                "Leave out --ids, and name the column if need be: --id-column NAME",
            )
        return open_parquet(path, id_column, vector_column or "embedding")
    remedy = "Expected vectors as .npy (numpy.save) or Parquet."
    if magic.startswith(_ZIP_MAGIC):
        remedy += " This may be an .npz: save its array by itself."
    raise UsageError(f"{shown(path)} is neither a .npy nor a Parquet file.", remedy)


def _ids_beside(path: Path) -> Path:
    beside = [path.with_name(f"{path.stem}.ids.npy"), path.with_name(f"{path.stem}.ids.txt")]
    found = [one for one in beside if one.exists()]
    if len(found) == 1:
        return found[0]
    names = f"{beside[0].name} {'and' if found else 'or'} {beside[1].name}"
    raise UsageError(
        f"Beside {shown(path)} there are both {names}." if found else f"Beside {shown(path)} there is no {names}.",
        "Name the file of its ids: --ids FILE",
    )


def shown(path: Path) -> str:
    """A file's name for a message; it need not be UTF-8."""
    return os.fsencode(path).decode(errors="replace")


@contextmanager
def opened(path: Path) -> Iterator[FileIO]:
    """A plain file, unbuffered. Raises UsageError for what is none or cannot be read, in the body as well."""
    try:
        # Before it is opened: opening a pipe would wait for its writer.
        if "\0" in str(path) or not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{shown(path)} is not a file.", "Name a .npy or Parquet file.")
        with path.open("rb", buffering=0) as file:
            yield file
    except FileNotFoundError:
        raise UsageError(f"There is no file {shown(path)!r}.") from None
    except OSError as error:
        raise UsageError(f"{shown(path)!r} cannot be read: {error.strerror or error}.") from None


def read_magic(path: Path) -> bytes:
    """The first bytes of a file."""
    with opened(path) as file:
        return file.read(8)


def digest(path: Path, *, whole: bool = False) -> bytes:
    """A SHA-256 of a file's size and content.

    Of a file above 64 MiB it takes the head, the tail and 256 pieces spread evenly, unless `whole`: some 16 MiB and
    10 ms in place of half a second a gigabyte. A file that was made once more differs in nearly every number, so
    that shows; that a few rows were changed in place need not. Vectors that are stored are never replaced anyway.
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
    """One name for what makes a load: the files' digests, and how they are read."""
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode(errors="surrogateescape")
        found.update(len(data).to_bytes(8) + data)
    return found.hexdigest()
