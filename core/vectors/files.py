"""Opens a file of vectors: its first bytes identify the format; nothing is unpickled or trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from revector.core.errors import UsageError
from revector.core.vectors.source import NPY_MAGIC, read_magic, shown

if TYPE_CHECKING:
    from revector.core.vectors.slices import VectorFile

_PARQUET_MAGIC = b"PAR1"
_ZIP_MAGIC = b"PK\x03\x04"


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

    Raises UsageError for a missing or invalid file, before anything is stored.
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
