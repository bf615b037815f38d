"""Vectors in a .safetensors file: a header of JSON that says where each array's numbers are, and the numbers.

Read by hand, like .npy: the package `safetensors` maps the file into memory.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from revector.core.errors import UsageError
from revector.core.vectors.npy import Array, ArrayFile, ArrayIds, open_ids, with_ids
from revector.core.vectors.slices import ID_NAMES, IdKind
from revector.core.vectors.source import opened, shown

_MOST_HEADER = 16 * 1024 * 1024
"""Bytes: some 200,000 arrays. Do not trust the length in a hostile file."""
_BLOCK = 1024 * 1024
_FLOATS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}
_INTEGERS = {"I64": "<i8", "I32": "<i4", "U64": "<u8", "U32": "<u4", "I16": "<i2", "U16": "<u2"}
_VECTOR_NAMES = ("embedding", "embeddings", "vectors")


class _Tensor(msgspec.Struct):
    """An array as the header describes it."""

    dtype: str
    shape: list[Annotated[int, msgspec.Meta(ge=0)]]
    data_offsets: tuple[int, int]


def is_safetensors(magic: bytes) -> bool:
    """Whether a file's first bytes are a length and the beginning of a header."""
    return len(magic) > 8 and magic[8:9] == b"{" and int.from_bytes(magic[:8], "little") > 1


def open_safetensors(
    path: Path, ids: Path | None, id_column: str | None, vector_column: str | None, ids_are: IdKind | None = None
) -> ArrayFile:
    """Open a file with an array of vectors, and with one of ids unless they are in the file `ids`.

    `id_column` and `vector_column` name the arrays. Raises UsageError for invalid files.
    """
    arrays = _arrays(path)
    floats = [name for name, array in arrays.items() if _is_vectors(array)]
    if vector_column is None:
        known = [name for name in _VECTOR_NAMES if name in floats]
        vector_column = known[0] if known else floats[0] if len(floats) == 1 else None
    if vector_column not in floats:
        said = "no array" if vector_column is None else f"no array {vector_column!r}"
        raise UsageError(
            f"{shown(path)} has {said} of vectors: (n, d) of float16, bfloat16, float32 or float64.",
            f"Name it: --vector-column NAME, of {_names(arrays)}.",
        )
    vectors = arrays[vector_column]
    if ids is not None:
        found = open_ids(ids, ids_are)
    else:
        if id_column is None:
            id_column = next((name for name in (*ID_NAMES, "ids") if name in arrays), None)
        if id_column not in arrays:
            raise UsageError(
                f"{shown(path)} has no array of ids.",
                f"Name it: --id-column NAME, of {_names(arrays)}, or the file that they are in: --ids FILE",
            )
        array = arrays[id_column]
        found = ArrayIds.of(array, ids_are or ID_NAMES.get(id_column), _digest(array))
    return with_ids(f"safetensors {vector_column}", vectors, found)


def _arrays(path: Path) -> dict[str, Array]:
    """The arrays of a file whose header is sound: each within the file, and as long as its shape says."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > min(_MOST_HEADER, size - 8):
            raise UsageError(
                f"{shown(path)}: its header says that it is {length:,} bytes long; the file has {size:,}.",
                f"Write it again, or wait until it is written. Headers of up to {_MOST_HEADER:,} bytes are read.",
            )
        try:
            header = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
            header.pop("__metadata__", None)
            tensors = {name: msgspec.json.decode(raw, type=_Tensor) for name, raw in header.items()}
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            reason = str(error).partition("\n")[0][:200]
            raise UsageError(
                f"{shown(path)} has no header that can be read: {reason}.", "Write it again."
            ) from None
    found = {}
    for name, tensor in tensors.items():
        kind = {**_FLOATS, **_INTEGERS}.get(tensor.dtype)
        if kind is None:
            continue
        dtype, (first, last) = np.dtype(kind), tensor.data_offsets
        if not 0 <= first <= last <= size - 8 - length or last - first != math.prod(tensor.shape) * dtype.itemsize:
            raise UsageError(
                f"{shown(path)}: the array {name[:100]!r} of shape {tuple(tensor.shape)} is not where its header says.",
                "It may have been cut off: write it again.",
            )
        found[name] = Array(path, tuple(tensor.shape), dtype, 8 + length + first, tensor.dtype == "BF16")
    return found


def _is_vectors(array: Array) -> bool:
    return len(array.shape) == 2 and (array.dtype.kind == "f" or array.half_of_float)


def _digest(array: Array) -> bytes:
    found, left = hashlib.sha256(f"{array.dtype} {array.shape}".encode()), array.shape[0] * array.dtype.itemsize
    with opened(array.path) as file:
        file.seek(array.offset)
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            found.update(block)
            left -= len(block)
    return found.digest()


def _names(arrays: dict[str, Array]) -> str:
    return ", ".join(name[:100] for name in list(arrays)[:20]) or "none"
