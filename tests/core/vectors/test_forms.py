"""Files of vectors as others write them: safetensors, Arrow, batch answers, folders of parts. Hostile ones too."""

from __future__ import annotations

import base64
import json
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from revector.core.errors import UsageError
from revector.core.vectors.files import find_files, open_vectors
from tests.core.vectors.test_files import IDS, KEYS, read, refusal, small_slices
from tests.vector_files import random_vectors, write_npy

__all__ = ["small_slices"]
VECTORS = random_vectors(100)


def safetensors(path: Path, **arrays: NDArray[Any]) -> Path:
    save_file(arrays, path, metadata={"format": "np"})
    return path


# -- safetensors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_safetensors_with_its_ids(tmp_path: Path, kind: str) -> None:
    path = safetensors(tmp_path / "v.safetensors", embedding=VECTORS.astype(kind), chunk_id=IDS)
    file = open_vectors(path)
    assert (file.rows, file.dimensions, file.id_kind) == (100, 8, "chunk ids")
    ids, found, bad = read(file)
    assert (ids, bad) == (IDS.tolist(), {})
    assert np.array_equal(found, VECTORS.astype(kind).astype(np.float32))
    assert read(file, 42)[0] == IDS[42:].tolist()


def test_safetensors_of_bfloat16_with_ids_beside(tmp_path: Path) -> None:
    halves = (VECTORS.view(np.uint32) >> 16).astype("<u2")
    header = json.dumps({"emb": {"dtype": "BF16", "shape": [100, 8], "data_offsets": [0, 1600]}}).encode()
    path = tmp_path / "v.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + halves.tobytes())
    np.save(tmp_path / "ids.npy", np.array(KEYS))
    _, found, _ = read(open_vectors(path, ids=tmp_path / "ids.npy"))
    assert np.array_equal(found.view(np.uint32), halves.astype(np.uint32) << 16)
    assert "has no array of ids" in refusal(path)


def test_the_arrays_of_safetensors_are_named_where_it_is_not_clear(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "v.safetensors", a=VECTORS, b=VECTORS, key=IDS)
    assert "--vector-column NAME, of key, a, b" in refusal(path)
    assert read(open_vectors(path, vector_column="b", id_column="key"))[0] == IDS.tolist()
    assert "100 vectors, and" in refusal(
        safetensors(tmp_path / "short.safetensors", embedding=VECTORS, chunk_id=IDS[:9])
    )


def _header(text: str, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text.encode()


TENSOR = (
    '{"embedding":{"dtype":"F32","shape":%s,"data_offsets":%s},'
    '"chunk_id":{"dtype":"I64","shape":[0],"data_offsets":[0,0]}}'
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(_header("{}", 2**60), "its header says that it is 1,152,921,504,606,846,976", id="2^60"),
        pytest.param(_header("{}" + " " * 100, 2**27), "its header says", id="beyond the file"),
        pytest.param(_header("{" * 9_000), "no header that can be read", id="nested"),
        pytest.param(_header('{"a":1}'), "no header that can be read", id="a number"),
        pytest.param(_header("{}"), "has no array of vectors", id="nothing in it"),
        pytest.param(_header(TENSOR % ("[1152921504606846976,8]", "[0,64]")) + bytes(64), "not where", id="huge"),
        pytest.param(_header(TENSOR % ("[2,8]", "[0,64]")) + bytes(63), "not where", id="a byte short"),
        pytest.param(_header(TENSOR % ("[2,8]", "[-64,0]")) + bytes(64), "not where", id="before it"),
        pytest.param(
            _header(TENSOR % ("[-2,-8]", "[0,64]")) + bytes(64), "no header that can be read", id="negative"
        ),
    ],
)
def test_a_hostile_safetensors(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "v.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        assert message in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


# -- Arrow ---------------------------------------------------------------------------------------------------


def table(ids: Any = IDS, column: str = "chunk_id", kind: pa.DataType | None = None) -> pa.Table:
    kind = kind or pa.list_(pa.float32())
    return pa.table({column: ids, "text": ["x"] * 100, "embedding": pa.array(list(VECTORS), kind)})


def write_arrow(path: Path, what: pa.Table, form: str = "stream", codec: str | None = None) -> Path:
    """As `datasets` writes a part, or as Arrow's own file (Feather)."""
    options = pa.ipc.IpcWriteOptions(compression=codec)
    new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, new(file, what.schema, options=options) as writer:
        writer.write_table(what, max_chunksize=9)
    return path


@pytest.mark.parametrize("codec", [None, "zstd", "lz4"])
@pytest.mark.parametrize("form", ["stream", "file"])
def test_arrow(tmp_path: Path, form: str, codec: str | None) -> None:
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.float32(), 8)):
        file = open_vectors(write_arrow(tmp_path / "a.arrow", table(kind=kind), form, codec))
        assert (file.rows, file.dimensions, file.id_kind) == (100, 8, "chunk ids")
        ids, found, bad = read(file)
        assert (ids, bad) == (IDS.tolist(), {})
        assert np.array_equal(found, VECTORS)
        assert np.array_equal(read(file, 55)[1], VECTORS[55:])


def test_arrow_of_keys_and_of_source_ids(tmp_path: Path) -> None:
    keys = open_vectors(write_arrow(tmp_path / "k.arrow", table(KEYS, "semantic_key")))
    assert (keys.id_kind, read(keys)[0][0]) == ("semantic keys", KEYS[0].encode())
    own = open_vectors(write_arrow(tmp_path / "s.arrow", table([f"doc {n}" for n in IDS], "source_id")))
    assert (own.id_kind, read(own)[0][:2]) == ("source ids", ["doc 1", "doc 2"])
    named = write_arrow(tmp_path / "n.arrow", table(IDS, "id"))
    assert read(open_vectors(named, id_column="id", ids_are="source_id"))[0][:2] == ["1", "2"]


def test_a_hostile_arrow(tmp_path: Path) -> None:
    """Lengths that are not true, wherever they stand, are an error, and never memory or a crash."""
    path = write_arrow(tmp_path / "a.arrow", table(), codec="zstd")
    content = path.read_bytes()
    for number in (2**60, 2**31 - 1, -1, 0):
        for place in range(0, 1_600, 8):
            path.write_bytes(content[:place] + struct.pack("<q", number) + content[place + 8 :])
            with suppress(UsageError, AssertionError):  # or it is another file now, with fewer rows
                read(open_vectors(path))
    assert pa.default_memory_pool().max_memory() < 2**31
    for cut in range(0, len(content), 97):
        path.write_bytes(content[:cut])
        with suppress(UsageError):
            assert open_vectors(path).rows % 9 == 0  # cut off between two batches, which a stream does not tell


def test_an_arrow_bomb_is_not_decompressed(tmp_path: Path) -> None:
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(160_000_000, np.float64)), 8)
    bomb = pa.table({"chunk_id": np.arange(20_000_000), "embedding": zeros})
    path = tmp_path / "bomb.arrow"
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, bomb.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer,
    ):
        writer.write_table(bomb)
    assert path.stat().st_size < 100_000_000
    del zeros, bomb
    before = pa.default_memory_pool().max_memory()
    assert "takes 1,440,000,000 bytes; at most 1,073,741,824 are read" in refusal(path)
    assert pa.default_memory_pool().max_memory() == before


def test_an_arrow_with_dictionaries_is_refused_by_name(tmp_path: Path) -> None:
    keys = pa.array(KEYS).dictionary_encode()
    assert "it has dictionaries" in refusal(write_arrow(tmp_path / "d.arrow", table(keys, "semantic_key")))


# -- batch answers -------------------------------------------------------------------------------------------


def answer(custom_id: str, vector: Any, **response: Any) -> str:
    body = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": vector}], "model": "m"}
    return json.dumps(
        {
            "id": "batch_req_1",
            "custom_id": custom_id,
            "response": {"status_code": 200, "request_id": "r", "body": body, **response},
            "error": None,
        }
    )


def failed(custom_id: str, message: str) -> str:
    error = {"error": {"message": message, "type": "invalid_request_error", "code": None}}
    return answer(custom_id, [], status_code=400, body=error)


def test_the_answers_of_a_batch_and_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "output.jsonl"
    lines = [answer(key, vector.tolist()) for key, vector in zip(KEYS, VECTORS, strict=True)]
    lines[10] = failed(KEYS[10], "too long:\n 9,000 tokens")
    lines[11] = json.dumps({"custom_id": KEYS[11], "response": None, "error": {"code": "batch_expired"}})
    lines[12] = answer(KEYS[12], base64.b64encode(VECTORS[12].astype("<f4").tobytes()).decode())
    path.write_text("\n".join(lines) + "\n\n")
    file = open_vectors(path)
    assert (file.rows, file.dimensions, file.id_kind) == (98, 8, "semantic keys")
    assert [(one.id, one.error) for one in file.without] == [
        (KEYS[10], "too long: 9,000 tokens"), (KEYS[11], "batch_expired"),
    ]  # fmt: skip
    good = [row for row in range(100) if row not in (10, 11)]
    ids, found, bad = read(file)
    assert (ids, bad) == ([KEYS[row].encode() for row in good], {})
    assert np.array_equal(found, VECTORS[good])
    assert np.array_equal(read(file, 50)[1], VECTORS[good][50:])


def test_answers_with_other_ids(tmp_path: Path) -> None:
    path = tmp_path / "output.jsonl"
    path.write_text("\n".join(answer(str(n), [1.0, 2.0]) for n in (5, 6)))
    assert read(open_vectors(path))[0] == [5, 6]
    assert read(open_vectors(path, ids_are="source_id"))[0] == ["5", "6"]
    path.write_text("\n".join(answer(f"row {n}", [1.0, 2.0]) for n in (5, 6)))
    assert "--ids-are source_id" in refusal(path)
    path.write_text("\n".join([answer("5", [1.0, 2.0]), answer("6", [1.0])]))
    assert read(open_vectors(path))[2] == {1: "has 1 dimensions in place of 2"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1 is not a batch's answer"),
        (answer("5", [1.0]) + "\n[1]", "line 2 is not a batch's answer"),
        ('{"custom_id": 5, "response": null}', "line 1 is not a batch's answer"),
        ('{"_id": "5", "text": "a document"}', "line 1 is not a batch's answer"),
        ("{" + '"a":[' * 50_000, "line 1 is not a batch's answer"),
        (answer("5", [1.0])[:-1] + ", " + " " * 17_000_000 + "}", "has more than 16,777,216 bytes"),
    ],
)
def test_lines_that_are_no_answers(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "output.jsonl"
    path.write_text(content)
    assert message in refusal(path)


# -- folders and patterns ------------------------------------------------------------------------------------


def test_the_parts_of_a_folder_and_of_a_pattern(tmp_path: Path) -> None:
    """As Spark, `datasets` and a person write them."""
    spark = tmp_path / "spark" / "lang=en"
    spark.mkdir(parents=True)
    for name in ("_SUCCESS", ".part-0.parquet.crc", "._SUCCESS.crc", "notes.md"):
        (tmp_path / "spark" / name).write_text("")
    for number in (1, 0):
        (spark / f"part-{number}.snappy.parquet").write_text("")
    saved = tmp_path / "dataset"
    saved.mkdir()
    for name in ("dataset_info.json", "state.json", "data-00000-of-00001.arrow"):
        (saved / name).write_text("{}")
    write_npy(tmp_path, VECTORS, IDS)
    names = [
        path.relative_to(tmp_path).as_posix()
        for path in find_files([tmp_path / "spark", saved, tmp_path / "*.npy", tmp_path / "vectors.npy"])
    ]
    assert names == [
        "spark/lang=en/part-0.snappy.parquet", "spark/lang=en/part-1.snappy.parquet",
        "dataset/data-00000-of-00001.arrow", "vectors.npy",
    ]  # fmt: skip
    odd = tmp_path / "odd[1].npy"
    odd.write_text("")
    assert find_files([odd]) == [odd]
    with pytest.raises(UsageError, match="No file matches"):
        find_files([tmp_path / "*.nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no file of vectors"):
        find_files([tmp_path / "empty"])
