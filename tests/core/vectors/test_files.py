"""Files of vectors: what is read is what was written, and other files are rejected cheaply."""

from __future__ import annotations

import os
import struct
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from revector.core.errors import UsageError
from revector.core.vectors import slices
from revector.core.vectors.files import open_vectors
from revector.core.vectors.slices import Slice, VectorFile, split_bad
from tests.vector_files import random_vectors, write_npy

KEYS = [f"{n:064x}" for n in range(1, 101)]
IDS = np.arange(1, 101, dtype=np.int64)
FLOATS = [np.dtype(kind) for kind in ("<f2", "<f4", "<f8", ">f2", ">f4", ">f8")]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "_SLICE_ROWS", 7)


def read(file: VectorFile, start: int = 0) -> tuple[list[Any], NDArray[np.float32], dict[int, str]]:
    """All ids, vectors and bad rows from `start` on, with every slice checked for its place."""
    parts: list[Slice] = []
    first = start
    for part in file.slices(start):
        assert part.first == first
        assert 1 <= len(part.ids) == len(part.vectors) <= 7
        parts.append(part)
        first += len(part.ids)
    assert first == file.rows
    ids = [one for part in parts for one in part.ids.tolist()]
    checked = [split_bad(part, "vector") for part in parts]
    bad = {
        part.first + row: why
        for part, (_, found) in zip(parts, checked, strict=True)
        for row, why in found.items()
    }
    assert ids == [one for found in file.ids(start, file.rows) for one in found.tolist()]
    return ids, np.concatenate([vectors for vectors, _ in checked]), bad


def refusal(*arguments: Any, **options: Any) -> str:
    """The message of the UsageError, which names a file and a remedy in two lines."""
    with pytest.raises(UsageError) as caught:
        read(open_vectors(*arguments, **options))
    assert caught.value.remedy or "There is no file" in caught.value.problem
    assert str(caught.value).count("\n") <= 1
    return str(caught.value)


# -- .npy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FLOATS, ids=str)
def test_npy_of_every_float(tmp_path: Path, kind: np.dtype[Any]) -> None:
    vectors = random_vectors(100).astype(kind)
    file = open_vectors(write_npy(tmp_path, vectors, IDS))
    assert (file.rows, file.dimensions, file.id_kind) == (100, 8, "chunk ids")
    for start in (0, 50, 99):
        ids, found, bad = read(file, start)
        assert ids == IDS.tolist()[start:]
        assert found.dtype == np.float32
        assert (found == vectors[start:].astype(np.float32)).all()
        assert not bad


@pytest.mark.parametrize("kind", ["i8", "<i4", ">i8", "u8", "u1", ">u2"])
def test_npy_ids_of_every_integer(tmp_path: Path, kind: str) -> None:
    file = open_vectors(write_npy(tmp_path, random_vectors(100), IDS.astype(kind)))
    assert read(file)[0] == IDS.tolist()


@pytest.mark.parametrize("kind", ["S64", "<U64", ">U64"])
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_npy_ids_of_semantic_keys(tmp_path: Path, kind: str, case: Any) -> None:
    file = open_vectors(
        write_npy(tmp_path, random_vectors(100), np.array([case(key) for key in KEYS]).astype(kind))
    )
    assert file.id_kind == "semantic keys"
    assert read(file)[0] == [key.encode() for key in KEYS]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False], ids=["line end at the end", "none at the end"])
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["", "BOM"])
@pytest.mark.parametrize("lines", [[*map(str, IDS)], KEYS], ids=["chunk ids", "semantic keys"])
def test_text_ids(tmp_path: Path, lines: list[str], end: str, last: bool, start: str) -> None:
    path = write_npy(tmp_path, random_vectors(100))
    text = start + end.join(lines) + (end if last else "")
    (tmp_path / "vectors.ids.txt").write_bytes(text.encode())
    file = open_vectors(path)
    for first in (0, 33):
        ids = read(file, first)[0]
        assert [id_.decode() if isinstance(id_, bytes) else str(id_) for id_ in ids] == lines[first:]


def test_the_ids_file_may_be_named(tmp_path: Path) -> None:
    path = write_npy(tmp_path, random_vectors(2), IDS[:2])
    other = tmp_path / "other"
    other.write_text("7\n8\n")
    assert read(open_vectors(path, ids=other))[0] == [7, 8]
    (tmp_path / "vectors.ids.txt").write_text("3\n4\n")
    assert "vectors.ids.npy and vectors.ids.txt" in refusal(path)
    (tmp_path / "vectors.ids.npy").unlink()
    assert read(open_vectors(path))[0] == [3, 4]
    (tmp_path / "vectors.ids.txt").unlink()
    assert "--ids FILE" in refusal(path)


def test_files_without_rows(tmp_path: Path) -> None:
    empty = open_vectors(write_npy(tmp_path, random_vectors(0), IDS[:0]))
    assert (empty.rows, empty.dimensions, list(empty.slices(0))) == (0, 8, [])
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float32(), 8)):
        path = tmp_path / "e.parquet"
        pq.write_table(pa.table({"chunk_id": pa.array([], pa.int64()), "embedding": pa.array([], kind)}), path)
        found = open_vectors(path)
        assert (found.rows, list(found.slices(0))) == (0, [])


def npy_header(text: str, version: bytes = b"\1\0") -> bytes:
    data = text.encode()
    size = struct.pack("<H", len(data)) if version[0] == 1 else struct.pack("<I", len(data))
    return b"\x93NUMPY" + version + size + data


DESCR = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is no file of vectors", id="empty"),
        pytest.param(b"\x93NUM", "is no file of vectors", id="half the magic"),
        pytest.param(b"\x93NUMPY", "no header that can be read", id="magic alone"),
        pytest.param(b"\x93NUMPY\1\0\xff\xff{", "no header that can be read", id="cut off in the header"),
        pytest.param(b"\x93NUMPY\2\0\xff\xff\xff\xff{", "no header that can be read", id="4 GB of header"),
        pytest.param(b"\x93NUMPY\2\0\xff\xff\xff\x7f" + b"(" * 3_000_000, "no header", id="nested header"),
        pytest.param(npy_header("(" * 9_000), "no header that can be read", id="nested"),
        pytest.param(npy_header("__import__('os').abort()"), "no header that can be read", id="code"),
        pytest.param(npy_header("{'descr': '<f4'}"), "no header that can be read", id="keys missing"),
        pytest.param(npy_header(DESCR % "'x'"), "no header that can be read", id="shape of text"),
        pytest.param(npy_header(DESCR % "(10, 8)", b"\3\0"), "version is 3.0", id="version 3"),
        pytest.param(npy_header(DESCR % "(10, 8)", b"\x09\0"), "no header that can be read", id="version 9"),
        pytest.param(npy_header(DESCR % f"({2**62}, {2**62})"), "was cut off", id="huge"),
        pytest.param(npy_header(DESCR % f"({2**40}, 8)") + bytes(320), "was cut off", id="huge with data"),
        pytest.param(npy_header(DESCR % f"({2**64}, 0)"), "ids", id="no dimension"),
        pytest.param(npy_header(DESCR % "(-10, -8)") + bytes(320), "array of shape (-10, -8)", id="negative"),
        pytest.param(npy_header(DESCR % "(10, 8)") + bytes(319), "was cut off", id="a byte short"),
        pytest.param(npy_header(DESCR % "(10, 8)") + bytes(321), "has more in it", id="a byte long"),
        pytest.param(npy_header(DESCR % "()") + bytes(4), "shape ()", id="a number"),
        pytest.param(npy_header(DESCR % "(80,)") + bytes(320), "shape (80,)", id="a list"),
        pytest.param(npy_header(DESCR % "(5, 2, 8)") + bytes(320), "shape (5, 2, 8)", id="a cube"),
        pytest.param(
            npy_header(DESCR.replace("False", "True") % "(10, 8)") + bytes(320), "Fortran order", id="fortran"
        ),
        pytest.param(npy_header(DESCR.replace("<f4", "|O") % "(10, 8)") + bytes(640), "pickle", id="objects"),
        pytest.param(npy_header(DESCR.replace("<f4", "<i4") % "(10, 8)") + bytes(320), "int32", id="integers"),
        pytest.param(npy_header(DESCR.replace("<f4", "<c8") % "(10, 8)") + bytes(640), "complex64", id="complex"),
        pytest.param(npy_header(DESCR.replace("<f4", "<f16") % "(10, 8)") + bytes(1280), "float128", id="long double"),
        pytest.param(
            npy_header(DESCR.replace("'<f4'", "[('a', '<f4')]") % "(10, 8)") + bytes(320), "of type", id="records"
        ),
        pytest.param(b"PK\x03\x04" + bytes(100), "npz", id="npz"),
    ],
)  # fmt: skip
def test_a_hostile_npy(tmp_path: Path, content: bytes, message: str) -> None:
    """A clear error, from a few bytes of memory, and without a warning from NumPy."""
    path = write_npy(tmp_path, random_vectors(10), IDS[:10])
    path.write_bytes(content)
    tracemalloc.start()
    try:
        assert message in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (IDS[:9], "10 vectors, and"),
        (IDS[:11], "has 11 ids"),
        (IDS[:10].reshape(10, 1), "shape (10, 1)"),
        (IDS[:10].astype(float), "ids of type float64"),
        (np.array(KEYS[:10], dtype=object), "pickle"),
        (np.array(["short"] * 10), "ids of type <U5"),
        (np.array([2**63] * 10, dtype=np.uint64), "the id of row 0 (counted from 0) is '9223372036854775808'"),
        (np.array([*KEYS[:8], "g" * 64, KEYS[9]]), "the id of row 8 (counted from 0) is 'gggg"),
        (np.array([*KEYS[:9], "é" * 64]), "the id of row 9"),
        (np.array([*KEYS[:9], ""]), "the id of row 9 (counted from 0) is ''"),
        (np.array([*KEYS[:9], KEYS[9][:63]]).astype("S64"), "the id of row 9"),
    ],
)
def test_ids_that_are_none(tmp_path: Path, ids: NDArray[Any], message: str) -> None:
    assert message in refusal(write_npy(tmp_path, random_vectors(10), ids))


def test_a_character_that_is_none(tmp_path: Path) -> None:
    """Four bytes of a U64 that are beyond Unicode, which NumPy itself cannot turn into text."""
    ids = np.array(KEYS[:10])
    ids.view(np.uint32)[100] = 0xFFFFFFFF
    assert "the id of row 1" in refusal(write_npy(tmp_path, random_vectors(10), ids))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 ids"),
        (b"1\n2\n", "has 2 ids"),
        (b"1\n2\n\n", "the id of row 2 (counted from 0) is ''"),
        (b"1\n-2\n3\n", "the id of row 1 (counted from 0) is '-2'"),
        (b"1\n2 \n3\n", "is '2 '"),
        (b"1\n1_0\n3\n", "is '1_0'"),
        (b"1\n2\n" + KEYS[0].encode(), "the id of row 2"),
        (KEYS[0].encode() + b"\n1\n2\n", "the id of row 1"),
        (b"1\n9999999999999999999\n3\n", "the id of row 1 (counted from 0) is '9999999999999999999'"),
        (b"1\n2\n" + b"3" * 30, "the id of row 2"),
        ("1\n2\n3".encode("utf-16"), "the id of row 0"),
        (b"\x80\x04\x95 pickled\n2\n3\n", "the id of row 0"),
        (b"1\n" + b"2" * 3_000_000 + b"\n3\n", "line 2 is no id"),
        (b"1\n2\x003\n4\n", "the id of row 1"),
    ],
)
def test_text_ids_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = write_npy(tmp_path, random_vectors(3))
    (tmp_path / "vectors.ids.txt").write_bytes(content)
    assert message in refusal(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    path = write_npy(tmp_path, random_vectors(3), IDS[:3])
    assert "There is no file" in refusal(tmp_path / "no.npy")
    assert "is not a file" in refusal(tmp_path)
    assert "is not a file" in refusal(Path("a\0b"))
    os.mkfifo(tmp_path / "pipe")  # whose writer never comes
    assert "is not a file" in refusal(tmp_path / "pipe")
    assert "is not a file" in refusal(path, ids=tmp_path / "pipe")
    odd = tmp_path / os.fsdecode(b"odd-\xff.npy")
    odd.write_bytes(b"x")
    assert "odd-\ufffd.npy" in refusal(odd)


def test_a_file_cut_off_while_it_is_read(tmp_path: Path) -> None:
    path = write_npy(tmp_path, random_vectors(100), IDS)
    parts = open_vectors(path).slices(0)
    next(parts)
    os.truncate(path, 1_000)
    with pytest.raises(UsageError, match="was cut off while it was read"):
        list(parts)


def test_what_belongs_to_the_other_format(tmp_path: Path) -> None:
    path = write_npy(tmp_path, random_vectors(3), IDS[:3])
    assert "has no columns" in refusal(path, id_column="x")
    table = write_parquet(tmp_path, pa.list_(pa.float32()), random_vectors(3), IDS[:3])
    assert "has its ids in it" in refusal(table, ids=path)


# -- Parquet -------------------------------------------------------------------------------------------------


def write_parquet(
    folder: Path, kind: pa.DataType, vectors: Any, ids: Any, names: tuple[str, str] = ("chunk_id", "embedding"),
    **options: Any,
) -> Path:  # fmt: skip
    path = folder / "vectors.parquet"
    rows = pa.array([None if v is None else list(v) for v in vectors], kind)
    pq.write_table(pa.table({"other": ["x"] * len(rows), names[0]: ids, names[1]: rows}), path, **options)
    return path


@pytest.mark.parametrize("number", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, lambda number: pa.list_(number, 8)])
@pytest.mark.parametrize("group", [3, 40, 100])
def test_parquet_of_every_list(tmp_path: Path, kind: Any, number: pa.DataType, group: int) -> None:
    vectors = random_vectors(100).astype(number.to_pandas_dtype())
    path = write_parquet(tmp_path, kind(number), vectors, IDS, row_group_size=group)
    file = open_vectors(path)
    assert (file.rows, file.dimensions, file.id_kind) == (100, 8, "chunk ids")
    for start in (0, 1, 39, 40, 41, 99):
        ids, found, bad = read(file, start)
        assert ids == IDS.tolist()[start:]
        assert (found == vectors[start:].astype(np.float32)).all()
        assert not bad


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(KEYS),
        pa.array(KEYS, pa.large_string()),
        pa.array([key.upper() for key in KEYS]),
        pa.array(KEYS).dictionary_encode(),
    ],
    ids=["string", "large", "upper case", "dictionary"],
)
def test_parquet_with_semantic_keys(tmp_path: Path, ids: pa.Array) -> None:
    path = write_parquet(tmp_path, pa.list_(pa.float32()), random_vectors(100), ids, ("semantic_key", "embedding"))
    file = open_vectors(path)
    assert file.id_kind == "semantic keys"
    assert read(file)[0] == [key.encode() for key in KEYS]


def test_the_columns_may_be_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, pa.list_(pa.float32()), random_vectors(3), IDS[:3], ("my.id", "my.vector"))
    assert read(open_vectors(path, id_column="my.id", vector_column="my.vector"))[0] == [1, 2, 3]
    assert "chunk_id or semantic_key" in refusal(path)
    assert "no column embedding" in refusal(path, id_column="my.id")
    assert "other, my.id, my.vector" in refusal(path, id_column="my.id")
    assert "'other' is of type string" in refusal(path, id_column="my.id", vector_column="other")
    assert "'my.vector' is of type list" in refusal(path, id_column="my.vector", vector_column="my.vector")
    assert "row 0 (counted from 0) is 'x'" in refusal(path, id_column="other", vector_column="my.vector")


def test_a_tensor_column(tmp_path: Path) -> None:
    kind = pa.fixed_shape_tensor(pa.float32(), [8])
    vectors = random_vectors(20)
    storage = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8)
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.table({"chunk_id": IDS[:20], "embedding": pa.ExtensionArray.from_storage(kind, storage)}), path
    )
    ids, found, _ = read(open_vectors(path))
    assert ids == IDS.tolist()[:20]
    assert (found == vectors).all()


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 8)], ids=str)
@pytest.mark.parametrize("number", [np.float16, np.float32])
def test_rows_of_a_parquet_file_that_are_no_vectors(tmp_path: Path, kind: pa.DataType, number: Any) -> None:
    vectors: list[Any] = random_vectors(30).tolist()
    vectors[2] = None
    vectors[9] = [1.0] * 3 + [None] + [1.0] * 4
    vectors[10] = [0.0] * 8
    vectors[11] = [1.0, float("inf")] + [1.0] * 6
    expected = {2: "is null", 9: "has nan at position 3", 10: "is all zeros (", 11: "has inf at position 1"}
    if kind == pa.list_(pa.float32()):
        vectors[20], vectors[21] = [1.0] * 7, []
        expected |= {20: "has 7 dimensions in place of 8", 21: "has 0 dimensions in place of 8"}
    value = pa.from_numpy_dtype(number)
    kind = pa.list_(value, kind.list_size) if hasattr(kind, "list_size") else pa.list_(value)
    _, found, bad = read(open_vectors(write_parquet(tmp_path, kind, vectors, IDS[:30])))
    assert bad.keys() == expected.keys()
    assert all(bad[row].startswith(why) for row, why in expected.items())
    good = [row for row in range(30) if row not in bad]
    assert (found[good] == np.array([vectors[row] for row in good], number).astype(np.float32)).all()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pa.array([1, 2, None]), "the id of row 2 (counted from 0) is 'None'"),
        (pa.array([1.0, 2.0, 3.0]), "is of type double"),
        (pa.array([KEYS[0], "short", KEYS[1]]), "row 1 (counted from 0) is 'short'"),
        (pa.array([1, 2, 2**64 - 1], pa.uint64()), "row 2"),
    ],
)
def test_parquet_ids_that_are_none(tmp_path: Path, ids: pa.Array, message: str) -> None:
    assert message in refusal(write_parquet(tmp_path, pa.list_(pa.float32()), random_vectors(3), ids))


@pytest.mark.parametrize("kind", [pa.list_(pa.int8()), pa.list_(pa.string()), pa.list_(pa.list_(pa.float32())),
                                  pa.float32(), pa.binary()], ids=str)  # fmt: skip
def test_a_column_of_no_vectors(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"chunk_id": IDS[:1], "embedding": pa.array([None], kind)}), tmp_path / "v.parquet")
    assert f"'embedding' is of type {kind}" in refusal(tmp_path / "v.parquet").replace("element:", "item:")


@pytest.mark.parametrize("kept", [4, 8, 1_000, 0.5, 0.99, -1])
def test_a_truncated_parquet_file(tmp_path: Path, kept: float) -> None:
    path = write_parquet(tmp_path, pa.list_(pa.float32()), random_vectors(100), IDS)
    size = path.stat().st_size
    os.truncate(path, int(kept * size) if 0 < kept < 1 else int(kept) % size)
    assert "vectors.parquet cannot be read" in refusal(path)


@pytest.mark.slow
def test_damaged_parquet_files(tmp_path: Path) -> None:
    """Whatever byte is damaged: read as it is, or refused."""
    path = write_parquet(tmp_path, pa.list_(pa.float32()), random_vectors(100), IDS, row_group_size=40)
    whole = path.read_bytes()
    random = np.random.default_rng(1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        place = int(random.integers(4, len(whole)))
        damaged[place : place + 4] = random.bytes(4)
        path.write_bytes(damaged[: len(whole)])
        try:
            read(open_vectors(path))
        except UsageError:
            refused += 1
    assert refused > 10


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path, pa.list_(pa.float32()), random_vectors(3), IDS[:3])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'revector[parquet]'" in refusal(path)


# -- what is checked of a vector -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("storage", "number", "vector", "why"),
    [
        ("vector", "f4", [1, np.nan], "has nan at position 1"),
        ("vector", "f2", [-np.inf, 1], "has -inf at position 0"),
        ("vector", "f4", [0, -0.0], "is all zeros (a cosine"),
        ("vector", "f8", [1, 1e300], "has 1e+300 at position 1, which is beyond the numbers of the type vector"),
        ("vector", "f8", [1e-300, 0], "is all zeros as vector"),
        ("vector", "f4", [3e38, 3e38], None),
        ("vector", "f4", [1e-40, 0], None),
        ("halfvec", "f4", [1, 70_000], "has 70000 at position 1, which is beyond the numbers of the type halfvec"),
        ("halfvec", "f4", [1e-9, 0], "is all zeros as halfvec"),
        ("halfvec", "f8", [65_504, 65_504], None),
        ("halfvec", "f2", [6e-8, 0], None),
    ],
)
def test_what_can_be_stored(storage: Any, number: str, vector: list[float], why: str | None) -> None:
    vectors = np.ones((3, 2), number)
    vectors[1] = vector
    found, bad = split_bad(Slice(0, IDS[:3], vectors), storage)
    assert found.dtype == np.float32
    assert list(bad) == ([] if why is None else [1])
    assert why is None or bad[1].startswith(why)


# -- the fingerprint -----------------------------------------------------------------------------------------


def test_a_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    path = write_npy(tmp_path, random_vectors(100), IDS)
    first = open_vectors(path).fingerprint
    copied = tmp_path / "copy.npy"
    copied.write_bytes(path.read_bytes())
    assert open_vectors(copied, ids=tmp_path / "vectors.ids.npy").fingerprint == first
    changed = random_vectors(100)
    changed[57, 3] += 1
    assert open_vectors(write_npy(tmp_path, changed)).fingerprint != first
    assert open_vectors(write_npy(tmp_path, random_vectors(100), IDS[::-1])).fingerprint != first
    assert open_vectors(write_npy(tmp_path, random_vectors(100), IDS)).fingerprint == first
    text = tmp_path / "ids.txt"
    text.write_text("\n".join(map(str, IDS)))
    assert open_vectors(path, ids=text).fingerprint != first


def test_a_large_file_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Head, tail and what lies between; the ids whole."""
    monkeypatch.setattr("revector.core.vectors.source._WHOLE", 1_000)
    monkeypatch.setattr("revector.core.vectors.source._SAMPLE", 300)
    monkeypatch.setattr("revector.core.vectors.source._SAMPLES", 10)
    vectors = random_vectors(1_000)
    ids = np.arange(1_000)
    first = open_vectors(write_npy(tmp_path, vectors, ids)).fingerprint
    assert open_vectors(write_npy(tmp_path, random_vectors(1_000, seed=1), ids)).fingerprint != first
    for row in (0, -1):
        other = vectors.copy()
        other[row, -1] += 1
        assert open_vectors(write_npy(tmp_path, other, ids)).fingerprint != first
    for row in (0, 501, -1):
        other_ids = ids.copy()
        other_ids[row] = 7_000
        assert open_vectors(write_npy(tmp_path, vectors, other_ids)).fingerprint != first
    assert open_vectors(write_npy(tmp_path, vectors[:-1], ids[:-1])).fingerprint != first
    assert open_vectors(write_npy(tmp_path, vectors, ids)).fingerprint == first
