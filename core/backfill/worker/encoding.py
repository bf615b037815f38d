"""Turns texts into vectors that may be stored; a failing part is halved until the bad text is alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from revector.core.encoders import PROBE_TEXT, find_bad_rows
from revector.core.errors import EncoderError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from revector.core.encoders import Encoder
    from revector.core.registry import Version

log = logging.getLogger(__name__)

_MAX_FAILED_SHARE = 0.5
_FEWEST_FAILURES = 10
"""When more than this share of a batch, and at least this many texts, are refused, the encoder is at fault."""


def check_encoder(encoder: Encoder, version: Version) -> NDArray[np.float32]:
    """Encode one text: (1, d). Raises EncoderError when the vector has other dimensions than the version."""
    found = encoder.encode_documents([PROBE_TEXT])
    dimensions = found.shape[1]
    if dimensions != version.dimensions:
        raise EncoderError(
            f"The encoder {encoder.name} returned {dimensions} dimensions; version {version.version_key} was "
            f"registered with {version.dimensions}.",
            "It is not the encoder the version was registered with. Check its model and server.",
        )
    return found


class BatchEncoder:
    """Encodes one batch. `vectors` (n, d) belong to the rows `good` (n,) of the texts, `failures` to the others."""

    def __init__(self, encoder: Encoder, version: Version) -> None:
        self._encoder, self._version = encoder, version
        self._parts: list[NDArray[np.float32]] = []
        self._good: list[int] = []
        self.failures: list[tuple[int, str]] = []

    @property
    def good(self) -> NDArray[np.int64]:
        """The rows that have a vector."""
        return np.array(self._good, dtype=np.int64)

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Their vectors, in the same order."""
        if len(self._parts) == 1:
            return self._parts[0]
        return np.concatenate(self._parts or [np.empty((0, self._version.dimensions), dtype=np.float32)])

    def forget(self) -> None:
        """Start over, after the encoder became unreachable half-way."""
        self._parts, self._good, self.failures = [], [], []

    def encode(self, texts: Sequence[str], first_row: int = 0) -> None:
        """Encode texts whose rows begin at `first_row`.

        Raises EncoderError when most texts are refused, or get vectors of other dimensions than the version's:
        then the encoder is at fault, not the texts. Raises UnreachableError as the encoder does.
        """
        if not texts:
            return
        try:
            vectors = self._ask(texts)
        except EncoderError as error:
            many = f"{len(texts)} texts: split" if len(texts) > 1 else "a text"
            log.warning("%s refuses %s", self._encoder.name, many)
            log.debug("%s", error.problem)
            if len(texts) == 1:
                self.failures.append((first_row, error.problem))
                self._check_share()
                return
            half = len(texts) // 2
            self.encode(texts[:half], first_row)
            self.encode(texts[half:], first_row + half)
            return
        number = np.float16 if self._version.storage == "halfvec" else np.float32
        with np.errstate(over="ignore"):
            bad = dict(find_bad_rows(vectors.astype(number, copy=False).astype(np.float32, copy=False)))
        good = [row for row in range(len(texts)) if row not in bad]
        self._good += [first_row + row for row in good]
        self._parts.append(vectors[good] if bad else vectors)
        self.failures += [(first_row + row, f"the vector {reason}") for row, reason in bad.items()]
        self._check_share()

    def _ask(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.asarray(self._encoder.encode_documents(texts), dtype=np.float32)
        if vectors.shape != (len(texts), self._version.dimensions):
            raise EncoderError(
                f"The encoder returned vectors of shape {vectors.shape}; version "
                f"{self._version.version_key} expects {(len(texts), self._version.dimensions)}.",
                "It is not the encoder the version was registered with.",
            )
        return vectors

    def _check_share(self) -> None:
        tried = len(self.failures) + len(self._good)
        if len(self.failures) >= _FEWEST_FAILURES and len(self.failures) > _MAX_FAILED_SHARE * tried:
            raise EncoderError(
                f"The encoder refused {len(self.failures)} of {tried} texts: {self.failures[0][1]}",
                "Check the encoder. The batch was not stored.",
            )
