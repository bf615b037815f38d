"""The loader: what is stored is what was given, bit by bit, and a bad vector leaves nothing behind."""

from __future__ import annotations

import io

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.copy import Copy, FileWriter

from revector.core.database import Connection
from revector.core.errors import EncoderError
from revector.core.loader import copy_vectors, fill_rows, insert_missing, row_buffer
from revector.core.registry import Storage, Version, create_table, get_version

DIMENSIONS = 384
SLICE = len(row_buffer(DIMENSIONS, "vector"))
FLOAT32 = np.finfo(np.float32)


def new_version(connection: Connection, dimensions: int = DIMENSIONS, storage: Storage = "vector") -> Version:
    """A version with its table; no encoder is asked."""
    connection.execute(
        """
        INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric,
                                        storage)
        VALUES ('v1', 'none', '1', %s, 'cosine', %s)
        """,
        [dimensions, storage],
    )
    version = get_version(connection, "v1")
    create_table(connection, version)
    return version


def numbered(rows: int, first: int = 1_000) -> NDArray[np.int64]:
    return np.arange(first, first + rows, dtype=np.int64)


def random_vectors(rows: int, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    return np.random.default_rng(rows).standard_normal((rows, dimensions), dtype=np.float32)


def stored(connection: Connection, version: Version) -> tuple[list[int], list[bytes]]:
    """All chunk ids in their order, and the numbers of each vector as Postgres sends them (big-endian)."""
    send = sql.SQL("vector_send") if version.storage == "vector" else sql.SQL("halfvec_send")
    query = sql.SQL("SELECT chunk_id, {}(embedding) FROM {} ORDER BY chunk_id").format(send, version.table)
    rows = connection.execute(query).fetchall()
    return [row[0] for row in rows], [row[1][4:] for row in rows]


def assert_stored(
    connection: Connection, version: Version, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    number = ">f4" if version.storage == "vector" else ">f2"
    found_ids, found = stored(connection, version)
    assert found_ids == ids.tolist()
    assert found == [row.tobytes() for row in vectors.astype(number)]


def assert_refused(
    connection: Connection, version: Version, vectors: NDArray[np.float32], message: str, *, chunk: int
) -> None:
    """The error names the chunk, nothing is stored, and the connection goes on."""
    with pytest.raises(EncoderError, match=rf"chunk {chunk} .*{message}"):
        copy_vectors(connection, version, numbered(len(vectors)), vectors)
    assert stored(connection, version) == ([], [])


# What is stored


# 2,000 numbers of a vector and 4,000 of a halfvec fit a page; larger ones are kept outside of it.
@pytest.mark.parametrize(
    ("storage", "dimensions"),
    [
        *(("vector", dimensions) for dimensions in (1, 3, 384, 1_536, 2_000, 2_001, 16_000)),
        *(("halfvec", dimensions) for dimensions in (1, 3, 384, 4_000, 4_001, 16_000)),
    ],
)
def test_round_trip(connection: Connection, storage: Storage, dimensions: int) -> None:
    version = new_version(connection, dimensions, storage)
    ids, vectors = numbered(100), random_vectors(100, dimensions)
    assert copy_vectors(connection, version, ids, vectors) == 100
    assert_stored(connection, version, ids, vectors)


@pytest.mark.parametrize("rows", [0, 1, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE + 7])
def test_any_number_of_rows(connection: Connection, rows: int) -> None:
    version = new_version(connection)
    ids, vectors = numbered(rows), random_vectors(rows)
    assert copy_vectors(connection, version, ids, vectors) == rows
    assert_stored(connection, version, ids, vectors)


@pytest.mark.parametrize("storage", ["vector", "halfvec"])
@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(np.asfortranarray, id="fortran"),
        pytest.param(lambda a: np.repeat(a, 2, axis=0)[::2], id="every second row"),
        pytest.param(lambda a: np.repeat(a, 2, axis=1)[:, ::2], id="every second column"),
        pytest.param(lambda a: a[::-1, ::-1].copy()[::-1, ::-1], id="backwards"),
        pytest.param(lambda a: np.broadcast_to(a[0], a.shape), id="one row over and over"),
    ],
)
def test_any_layout_in_memory(connection: Connection, storage: Storage, layout) -> None:  # type: ignore[no-untyped-def]
    version = new_version(connection, storage=storage)
    ids = np.repeat(numbered(SLICE + 9), 2)[::2]
    vectors = layout(random_vectors(len(ids)))
    ids.flags.writeable = vectors.flags.writeable = False
    copy_vectors(connection, version, ids, vectors)
    assert_stored(connection, version, ids, vectors)


def test_extreme_chunk_ids(connection: Connection) -> None:
    version = new_version(connection, 3)
    ids = np.array([-(2**63), -1, 0, 2**40, 2**63 - 1], np.int64)
    vectors = random_vectors(len(ids), 3)
    copy_vectors(connection, version, ids, vectors)
    assert_stored(connection, version, ids, vectors)


# The square of each of these is zero or infinite as a float32, and the vector is good all the same.
@pytest.mark.parametrize("number", [1e-30, -1e-30, FLOAT32.smallest_subnormal, 1e30, -1e30, FLOAT32.max])
def test_very_small_and_very_large_numbers_are_stored(connection: Connection, number: float) -> None:
    version = new_version(connection)
    ids, vectors = numbered(2 * SLICE), random_vectors(2 * SLICE)
    vectors[SLICE + 3] = number
    vectors[SLICE + 5] = 0
    vectors[SLICE + 5, 7] = number
    copy_vectors(connection, version, ids, vectors)
    assert_stored(connection, version, ids, vectors)


def test_the_callers_transaction_decides(connection: Connection) -> None:
    version = new_version(connection)
    ids, vectors = numbered(SLICE + 1), random_vectors(SLICE + 1)
    with connection.transaction(force_rollback=True):
        copy_vectors(connection, version, ids, vectors)
        assert len(stored(connection, version)[0]) == SLICE + 1
    assert stored(connection, version) == ([], [])


# What is refused


@pytest.mark.parametrize("storage", ["vector", "halfvec"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite(connection: Connection, storage: Storage, number: float) -> None:
    version = new_version(connection, storage=storage)
    vectors = random_vectors(6 * SLICE)
    vectors[5 * SLICE + 3, 200] = number
    assert_refused(connection, version, vectors, "NaN or an infinite", chunk=1_000 + 5 * SLICE + 3)


@pytest.mark.parametrize("storage", ["vector", "halfvec"])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_zero_vector(connection: Connection, storage: Storage, zero: float) -> None:
    version = new_version(connection, storage=storage)
    vectors = random_vectors(6 * SLICE)
    vectors[5 * SLICE + 3] = zero
    assert_refused(connection, version, vectors, "is zero: a cosine index", chunk=1_000 + 5 * SLICE + 3)


def test_the_first_bad_row_is_named_and_no_good_one(connection: Connection) -> None:
    version = new_version(connection)
    vectors = random_vectors(3 * SLICE)
    vectors[1] = 1e-30  # good, though it looks bad at first
    vectors[5] = 0
    vectors[6, 0] = np.nan
    assert_refused(connection, version, vectors, "is zero", chunk=1_005)


def test_good_rows_before_a_bad_one_in_the_callers_transaction(connection: Connection) -> None:
    version = new_version(connection)
    vectors = random_vectors(3 * SLICE)
    copy_vectors(connection, version, numbered(SLICE, first=0), vectors[:SLICE])
    vectors[2 * SLICE + 1, 0] = np.nan
    with pytest.raises(EncoderError), connection.transaction():
        copy_vectors(connection, version, numbered(len(vectors)), vectors)
    assert_stored(connection, version, numbered(SLICE, first=0), vectors[:SLICE])


@pytest.mark.parametrize(("number", "kept"), [(65_504, 65_504), (65_519, 65_504), (-65_519, -65_504)])
def test_the_largest_numbers_of_halfvec(connection: Connection, number: float, kept: float) -> None:
    version = new_version(connection, 3, "halfvec")
    copy_vectors(connection, version, numbered(1), np.array([[1, number, 1e-30]], np.float32))
    assert_stored(connection, version, numbered(1), np.array([[1, kept, 0]], np.float32))


@pytest.mark.parametrize(
    ("number", "message"),
    [(65_520, "beyond the 65,504"), (-1e30, "beyond the 65,504"), (1e-30, "zero in halfvec")],
)
def test_what_halfvec_cannot_hold(connection: Connection, number: float, message: str) -> None:
    version = new_version(connection, storage="halfvec")
    vectors = random_vectors(6 * SLICE)
    vectors[5 * SLICE + 3] = number
    assert_refused(connection, version, vectors, message, chunk=1_000 + 5 * SLICE + 3)


@pytest.mark.parametrize(
    "vectors",
    [
        pytest.param(np.ones((5, DIMENSIONS + 1), np.float32), id="too wide"),
        pytest.param(np.ones((5, DIMENSIONS - 1), np.float32), id="too narrow"),
        pytest.param(np.ones((4, DIMENSIONS), np.float32), id="too few"),
        pytest.param(np.ones((6, DIMENSIONS), np.float32), id="too many"),
        pytest.param(np.ones((5, DIMENSIONS, 1), np.float32), id="three dimensions"),
        pytest.param(np.ones(5, np.float32), id="one dimension"),
        pytest.param(np.ones((5, DIMENSIONS), np.float64), id="float64"),
        pytest.param(np.ones((5, DIMENSIONS), np.float16), id="float16"),
        pytest.param(np.ones((5, DIMENSIONS), ">f4"), id="big-endian"),
        pytest.param(np.ones((5, DIMENSIONS), np.int32), id="integers"),
    ],
)
def test_wrong_shape_or_type(connection: Connection, vectors: NDArray[np.float32]) -> None:
    version = new_version(connection)
    with pytest.raises(EncoderError, match=rf"v1 expects float32 vectors of shape \(5, {DIMENSIONS}\)"):
        copy_vectors(connection, version, numbered(5), vectors)
    assert stored(connection, version) == ([], [])


def test_no_rows_of_the_wrong_width(connection: Connection) -> None:
    version = new_version(connection)
    with pytest.raises(EncoderError, match=rf"\(0, {DIMENSIONS}\)"):
        copy_vectors(connection, version, numbered(0), np.empty((0, 3), np.float32))


def test_a_chunk_that_has_a_vector(connection: Connection) -> None:
    version = new_version(connection)
    vectors = random_vectors(3 * SLICE)
    copy_vectors(connection, version, numbered(1, first=1_000 + 2 * SLICE), vectors[:1])
    with pytest.raises(psycopg.errors.UniqueViolation):
        copy_vectors(connection, version, numbered(len(vectors)), vectors)
    assert_stored(connection, version, numbered(1, first=1_000 + 2 * SLICE), vectors[:1])


def test_a_chunk_twice_in_one_call(connection: Connection) -> None:
    version = new_version(connection)
    ids = numbered(3 * SLICE)
    ids[-1] = ids[0]
    with pytest.raises(psycopg.errors.UniqueViolation):
        copy_vectors(connection, version, ids, random_vectors(len(ids)))
    assert stored(connection, version) == ([], [])


# The row image


@pytest.mark.parametrize("rows", [1, 3 * SLICE + 7])
def test_what_is_sent_is_what_write_row_sends(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    version = new_version(connection)
    register_vector(connection)
    ids, vectors = numbered(rows), random_vectors(rows)

    sent, write = io.BytesIO(), Copy.write

    def record_and_write(copy: Copy, data: memoryview) -> None:
        sent.write(data)
        write(copy, data)

    monkeypatch.setattr(Copy, "write", record_and_write)
    copy_vectors(connection, version, ids, vectors)

    expected = io.BytesIO()
    with Copy(connection.cursor(), binary=True, writer=FileWriter(expected)) as copy:
        copy.set_types(["int8", "vector"])
        for row in zip(ids.tolist(), vectors, strict=True):
            copy.write_row(row)
    assert sent.getvalue() == expected.getvalue()


def finite_vectors(dimensions: int, largest: float, width: int) -> st.SearchStrategy[NDArray[np.float32]]:
    """A few rows of any finite numbers, none of them zero."""
    numbers = st.floats(-largest, largest, width=width)  # type: ignore[arg-type]
    rows = arrays(np.float32, st.tuples(st.integers(1, 6), st.just(dimensions)), elements=numbers)
    return rows.filter(lambda vectors: bool(vectors.any(axis=1).all()))


@given(st.data(), st.integers(1, 40))
def test_the_image_of_a_vector_is_pgvectors(data: st.DataObject, dimensions: int) -> None:
    vectors = data.draw(finite_vectors(dimensions, float(FLOAT32.max), 32))
    rows = fill_rows(row_buffer(dimensions, "vector")[: len(vectors)], numbered(len(vectors)), vectors)
    assert_image(rows, [Vector(vector).to_binary() for vector in vectors])


@given(st.data(), st.integers(1, 40))
def test_the_image_of_a_halfvec_is_pgvectors(data: st.DataObject, dimensions: int) -> None:
    vectors = data.draw(finite_vectors(dimensions, 65_504, 16))
    rows = fill_rows(row_buffer(dimensions, "halfvec")[: len(vectors)], numbered(len(vectors)), vectors)
    assert_image(rows, [HalfVector(vector).to_binary() for vector in vectors])


def assert_image(rows: NDArray[np.void], embeddings: list[bytes]) -> None:
    expected = b"".join(
        (2).to_bytes(2) + (8).to_bytes(4) + (1_000 + number).to_bytes(8) + len(embedding).to_bytes(4) + embedding
        for number, embedding in enumerate(embeddings)
    )
    assert rows.tobytes() == expected


# Beside others


def test_missing_ones_are_inserted_and_the_others_left(connection: Connection) -> None:
    version = new_version(connection)
    vectors = random_vectors(300)
    copy_vectors(connection, version, numbered(10), vectors[:10])
    with connection.transaction():
        found = insert_missing(connection, version, numbered(300), np.roll(vectors, 1, axis=0))
    assert found.tolist() == numbered(300)[10:].tolist()
    expected = np.concatenate([vectors[:10], vectors[9:-1]])
    assert_stored(connection, version, numbered(300), expected)
    with connection.transaction():
        assert insert_missing(connection, version, numbered(300), vectors).tolist() == []
    with pytest.raises(EncoderError), connection.transaction():
        insert_missing(connection, version, numbered(2), np.zeros((2, DIMENSIONS), np.float32))
