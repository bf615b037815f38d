"""Opens files of vectors: their first bytes identify the format; nothing is unpickled or trusted."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from revector.core.errors import UsageError
from revector.core.vectors.answers import is_answers, open_answers
from revector.core.vectors.arrow import FILE_MAGIC, STREAM_MAGIC, open_arrow
from revector.core.vectors.npy import open_npy
from revector.core.vectors.parquet import open_parquet
from revector.core.vectors.safetensors import is_safetensors, open_safetensors
from revector.core.vectors.slices import ID_NAMES, IdKind
from revector.core.vectors.source import NPY_MAGIC, read_magic, shown

if TYPE_CHECKING:
    from revector.core.vectors.slices import VectorFile

_PARQUET_MAGIC = b"PAR1"
_ZIP_MAGIC = b"PK\x03\x04"
_ENDINGS = (".npy", ".parquet", ".pq", ".safetensors", ".arrow", ".feather", ".jsonl", ".ndjson")
"""Of the files of a folder that are taken; a file that is named is recognised by its content."""


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The files that these paths mean: files, all of a folder and its folders, or those that match a pattern.

    Of a folder, files that begin with a dot or an underscore (`_SUCCESS`, `.part-0.crc`) are left out, and so are
    ids beside a .npy, and those of other endings. Raises UsageError for a path that means nothing.
    """
    found: list[Path] = []
    for path in paths:
        if path.exists() or not glob.has_magic(str(path)):
            matched = [path]
        else:
            matched = [Path(one) for one in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
            matched = [one for one in matched if one.is_dir() or not _is_beside(one)]
            if not matched:
                raise UsageError(f"No file matches {shown(path)!r}.")
        for one in matched:
            if not one.is_dir():
                found.append(one)
                continue
            inside = _of_folder(one)
            if not inside:
                raise UsageError(
                    f"The folder {shown(one)} has no file of vectors.",
                    f"Expected files named {', '.join(_ENDINGS)}.",
                )
            found += inside
    return list(dict.fromkeys(found))


def _of_folder(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir() and not path.is_symlink():
            found += _of_folder(path)
        elif path.suffix in _ENDINGS and not _is_beside(path):
            found.append(path)
    return found


def _is_beside(path: Path) -> bool:
    """Whether it has the ids of another file."""
    return path.name.endswith((".ids.npy", ".ids.txt"))


def open_vectors(
    path: Path,
    *,
    ids: Path | None = None,
    id_column: str | None = None,
    vector_column: str | None = None,
    ids_are: str | None = None,
) -> VectorFile:
    """Open a file of vectors: .npy, .safetensors, Parquet, Arrow, or a provider's batch answers.

    `ids` is a .npy file of n integers or 64-character strings, or a text file of one id a line; without it
    `NAME.ids.npy` or `NAME.ids.txt` beside `NAME.npy` is taken. Columns (of a .safetensors file: arrays) are by
    default `chunk_id`, else `semantic_key`, else `source_id`, and `embedding`. `ids_are` is one of those three names.

    Raises UsageError for a missing or invalid file, before anything is stored.
    """
    kind: IdKind | None = None
    if ids_are is not None and (kind := ID_NAMES.get(ids_are)) is None:
        raise UsageError(f"Ids cannot be {ids_are!r}.", f"Expected {', '.join(ID_NAMES)}.")
    magic = read_magic(path)
    if magic.startswith(NPY_MAGIC):
        if id_column is not None or vector_column is not None:
            raise UsageError(
                f"{shown(path)} is a .npy file, which has no columns.", "Name the file of its ids: --ids FILE"
            )
        return open_npy(path, ids if ids is not None else _ids_beside(path), kind)
    if is_safetensors(magic):
        return open_safetensors(path, ids, id_column, vector_column, kind)
    columns = (id_column, vector_column or "embedding", kind)
    if magic.startswith(_PARQUET_MAGIC):
        _refuse_ids(path, "a Parquet file", ids)
        return open_parquet(path, *columns)
    if magic.startswith((FILE_MAGIC, STREAM_MAGIC)):
        _refuse_ids(path, "an Arrow file", ids)
        return open_arrow(path, *columns)
    if is_answers(magic):
        _refuse_ids(path, "a file of batch answers", ids)
        return open_answers(path, kind)
    remedy = "Expected vectors as .npy (numpy.save), .safetensors, Parquet, Arrow, or a batch's answers (JSONL)."
    if magic.startswith(_ZIP_MAGIC):
        remedy += " This may be an .npz: save its array by itself."
    raise UsageError(f"{shown(path)} is no file of vectors.", remedy)


def _refuse_ids(path: Path, form: str, ids: Path | None) -> None:
    if ids is not None:
        raise UsageError(
            f"{shown(path)} is {form}, which has its ids in it.",
            "Leave out --ids, and name the column if need be: --id-column NAME",
        )


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
