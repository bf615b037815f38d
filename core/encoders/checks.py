"""Checks of an encoder's answer before it is stored: its shape, finite values, no zero vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from revector.core.errors import EncoderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from revector.core.encoders.base import Encoder

PROBE_TEXT = "revector asks the encoder for one vector before it asks for a million."


def check_vectors(vectors: NDArray[np.float32], n: int, dimensions: int) -> None:
    """Raise EncoderError unless these are n finite, non-zero float32 vectors of that many dimensions."""
    _check_shape(vectors, n)
    if vectors.shape[1] != dimensions:
        raise EncoderError(
            f"Expected vectors of {dimensions} dimensions, got {vectors.shape[1]}.",
            "Register a version with the dimensions its encoder really has.",
        )
    for row, reason in find_bad_rows(vectors):
        raise EncoderError(
            f"The vector of text {row + 1} of {n} {reason}.",
            "Check that text: it may be empty, or longer than the model reads.",
        )


def find_bad_rows(vectors: NDArray[np.float32]) -> list[tuple[int, str]]:
    """The rows of a two-dimensional array that must not be stored, each with the reason."""
    import numpy as np

    # One pass and one number for each row. Every bad row shows in its sum of squares, which can also overflow or
    # underflow for a good row of huge or tiny values, so the few suspicious rows are checked again.
    squares = np.einsum("ij,ij->i", vectors, vectors)
    suspects = np.flatnonzero(~((squares > 0) & (squares < np.inf)))
    bad = []
    for row in suspects.tolist():
        finite = np.isfinite(vectors[row])
        if not finite.all():
            place = int(np.argmin(finite))
            bad.append((row, f"has {vectors[row, place]} at position {place + 1}"))
        elif not vectors[row].any():
            bad.append((row, "is all zeros (a cosine index silently leaves it out)"))
    return bad


def probe(encoder: Encoder) -> int:
    """Encode one text, as a document and as a query, and return the real dimensions."""
    document = encoder.encode_documents([PROBE_TEXT])
    _check_shape(document, 1)
    real = int(document.shape[1])
    check_vectors(document, 1, real)
    check_vectors(encoder.encode_query(PROBE_TEXT)[None], 1, real)
    if real != encoder.dimensions:
        raise EncoderError(
            f"{encoder.name} should have {encoder.dimensions} dimensions but returned {real}.",
            f"Use dimensions={real}, or a model and server that can give {encoder.dimensions}.",
        )
    return real


def _check_shape(vectors: object, n: int) -> None:
    kind: object = getattr(vectors, "dtype", type(vectors).__name__)
    shape: tuple[int, ...] = getattr(vectors, "shape", ())
    if kind != "float32" or len(shape) != 2:
        raise EncoderError(f"Expected a float32 array of {n} rows, got {kind} of shape {shape}.")
    if shape[0] != n:
        raise EncoderError(f"Expected {n} vectors, one per text, got {shape[0]}.")
