from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from revector.core.encoders import check_vectors, find_bad_rows, probe
from revector.core.errors import EncoderError


def sound(n=4, dimensions=3):
    return np.random.default_rng(1).standard_normal((n, dimensions)).astype(np.float32)


def test_sound_vectors_pass_in_any_layout():
    check_vectors(sound(), 4, 3)
    check_vectors(np.asfortranarray(sound()), 4, 3)
    check_vectors(np.empty((0, 3), np.float32), 0, 3)


@pytest.mark.filterwarnings("error")
def test_huge_and_tiny_values_are_sound():
    check_vectors(np.array([[1e30, 0], [1e-30, 0], [1e-45, 0], [-0.0, 3e38]], np.float32), 4, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_row_with_a_value_that_is_not_finite_is_named(value):
    vectors = sound()
    vectors[1, 2] = vectors[3, 0] = value
    with pytest.raises(EncoderError, match=rf"text 2 of 4 has {value} at position 3"):
        check_vectors(vectors, 4, 3)


def test_a_zero_vector_is_named_with_what_it_would_do():
    vectors = sound()
    vectors[2] = 0
    with pytest.raises(EncoderError, match=r"text 3 of 4 is all zeros.*cosine index silently leaves it out"):
        check_vectors(vectors, 4, 3)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (sound(3), "Expected 4 vectors, one per text, got 3"),
        (sound(4, 5), "Expected vectors of 3 dimensions, got 5"),
        (sound()[0], r"float32 array of 4 rows, got float32 of shape \(3,\)"),
        (sound().astype(np.float64), "got float64"),
        (sound().tolist(), "got list"),
        (None, "got NoneType"),
    ],
)
def test_another_shape_or_type_is_refused(vectors, message):
    with pytest.raises(EncoderError, match=message):
        check_vectors(vectors, 4, 3)


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.one_of(st.just(0.0), st.just(0.0), st.floats(width=32)),
    )
)
def test_bad_rows_are_those_that_a_slow_look_finds(vectors):
    slow = [i for i, row in enumerate(vectors) if not np.isfinite(row).all() or (row == 0).all()]
    assert [row for row, _ in find_bad_rows(vectors)] == slow


class Odd:
    """An encoder that is wrong in one way."""

    name, dimensions = "odd:1", 3

    def __init__(self, document, query):
        self._document, self._query = document, query

    def encode_documents(self, texts):
        return np.array([self._document], np.float32)

    def encode_query(self, text):
        return np.array(self._query, np.float32)


def test_probe_returns_the_dimensions():
    assert probe(Odd([1, 2, 3], [1, 2, 3])) == 3


@pytest.mark.parametrize(
    ("document", "query", "message"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], r"odd:1 should have 3 dimensions but returned 4\.\nUse dimensions=4"),
        ([1, 2, 3], [1, 2], "Expected vectors of 3 dimensions, got 2"),
        ([0, 0, 0], [1, 2, 3], "all zeros"),
        ([1, 2, 3], [1, np.nan, 3], "nan at position 2"),
    ],
)
def test_probe_refuses(document, query, message):
    with pytest.raises(EncoderError, match=message):
        probe(Odd(document, query))
