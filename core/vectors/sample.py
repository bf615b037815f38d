"""Compares a sample of a file's vectors with those that the version's encoder makes of the same chunks.

Before anything of the file is stored: a vector never changes, so one under another chunk's id would stay.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from revector.core.encoders.again import Limits, compare, encode_within
from revector.core.encoders.base import scale_to_unit
from revector.core.encoders.spec import read_spec
from revector.core.errors import EncoderError, RefusedError, RevectorError
from revector.core.registry import Version
from revector.core.retrieval import open_version_encoder
from revector.core.vectors.lookup import look_up
from revector.core.vectors.slices import Slice, VectorFile, split_bad

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from revector.core.database import Connection
    from revector.core.encoders import Encoder

_PLACES, _ROWS = 10, 3
"""Three rows at each of ten places: damage to a tenth of a file's rows shows in nearly every sample."""
_SCANNED = 100_000
"""Rows of the file among which the vectors that the encoder makes are looked for, when they differ."""


@dataclass(frozen=True)
class Compared:
    """How many rows were compared, and why no more were."""

    rows: int = 0
    reason: str = ""


class Sampler:
    """Compares files for one version. The encoder is opened for the first of them, and closed with the sampler."""

    def __init__(self, connection: Connection, version: Version, limits: Limits) -> None:
        self._connection, self._version, self._limits = connection, version, limits
        self._encoder: Encoder | None = None
        self._gave_up = "" if version.encoder_spec else "the version has no encoder that revector can open"

    def close(self) -> None:
        """Close the encoder."""
        if self._encoder is not None:
            self._encoder.close()

    def compare(self, file: VectorFile) -> Compared:
        """Compare a sample of the file. Raises RefusedError for one whose vectors are not the encoder's.

        An encoder that cannot be opened or reached here, or takes too long, is no reason to refuse: a version's
        vectors may be made elsewhere because of that.
        """
        if self._gave_up or not file.rows:
            return Compared(reason=self._gave_up)
        texts, vectors, rows = self._draw(file)
        if not texts:
            return Compared(reason="no sampled row is of a chunk")
        try:
            encoded = encode_within(self._opened, texts, self._limits)
        except EncoderError as error:
            self._gave_up = f"the encoder refuses: {error.problem}"
        except RevectorError as error:
            self._gave_up = f"the encoder cannot be reached: {error.problem}"
        except Exception as error:  # noqa: BLE001  (from a model's own package)
            self._gave_up = f"the encoder cannot be opened: {type(error).__name__}"
        if self._gave_up:
            return Compared(reason=self._gave_up)
        now = encoded.vectors
        if now is None or now.shape[1] != self._version.dimensions:
            got = f"no text within {encoded.stopped}" if now is None else f"{now.shape[1]} dimensions"
            self._gave_up = f"the encoder returned {got}"
            return Compared(reason=self._gave_up)
        found = compare(vectors[: len(now)], now, self._limits.cosine)
        if found.differing.any():
            worst = f"lowest cosine {found.cosines.min():.3f}, at least {self._limits.cosine:g} required"
            odd = np.flatnonzero(found.differing)
            raise self._refused(file, [rows[one] for one in odd], now[odd], len(now), worst)
        if found.longer.any() and self._version.distance_metric != "cosine":
            low, high = found.ratios.min(), found.ratios.max()
            raise RefusedError(
                f"{file.name}: vectors are {low:.3g} to {high:.3g} times as long as {self._version.encoder_name} "
                f"makes them, which {self._version.distance_metric} measures.",
                "Nothing of it was loaded. Load vectors as the encoder makes them.",
            )
        return Compared(len(now), encoded.stopped)

    def _opened(self) -> Encoder:
        if self._encoder is None:
            self._encoder = open_version_encoder(self._version)
        return self._encoder

    def _draw(self, file: VectorFile) -> tuple[list[str], NDArray[np.float32], list[int]]:
        """The texts and vectors of some good rows of known chunks, from all over the file, and their numbers."""
        width = file.rows / _PLACES
        places = {min(file.rows - 1, int((place + random.random()) * width)) for place in range(_PLACES)}  # noqa: S311
        found: dict[int, tuple[int, NDArray[np.float32]]] = {}
        for start in sorted(places):
            for part in file.slices(start):
                part = part.head(_ROWS)
                vectors, bad = split_bad(as_spec(part, self._version), self._version.storage)
                ids, known = look_up(self._connection, part.ids)
                for row in np.flatnonzero(known).tolist():
                    if row not in bad:
                        found[start + row] = (int(ids[row]), vectors[row])
                break
        rows = self._connection.execute(
            "SELECT id, content FROM document_chunks WHERE id = ANY(%s)",
            [[chunk_id for chunk_id, _ in found.values()]],
        )
        texts: dict[int, str] = dict(rows.fetchall())
        kept = {row: one for row, one in found.items() if one[0] in texts}
        vectors = np.stack([vector for _, vector in kept.values()]) if kept else np.empty((0, 0), np.float32)
        return [texts[chunk_id] for chunk_id, _ in kept.values()], vectors, list(kept)

    def _refused(
        self, file: VectorFile, rows: list[int], now: NDArray[np.float64], of: int, worst: str
    ) -> RefusedError:
        """Say what it looks like: the vectors of other rows, or another model's."""
        elsewhere = self._find(file, now)
        count = f"{len(rows)} of {of} rows compared"
        named = ", ".join(f"{row:,}" for row in rows[:3])
        if 2 * len(elsewhere) < len(rows):
            return RefusedError(
                f"{file.name}: {count} are not what {self._version.encoder_name} makes of their chunks (row {named}, "
                f"counted from 0): {worst}.",
                "Nothing of it was loaded. They look like another model's, or texts prepared in another way: "
                f"the encoder is {self._version.encoder_spec}.",
            )
        place, other = next(iter(elsewhere.items()))
        return RefusedError(
            f"{file.name}: the ids look shuffled: {count} have another row's vector (that of row {rows[place]:,} is in "
            f"row {other:,}, counted from 0); {worst}.",
            "Nothing of it was loaded. Write vectors and ids in the same order.",
        )

    def _find(self, file: VectorFile, now: NDArray[np.float64]) -> dict[int, int]:
        """For vectors (n, d) that the encoder made, by place, a row of the file that has such a vector."""
        wanted = scale_to_unit(now.astype(np.float32))
        found: dict[int, int] = {}
        for part in file.slices(0):
            if part.first > _SCANNED or len(found) == len(wanted):
                break
            with np.errstate(all="ignore"):
                alike = scale_to_unit(part.vectors.astype(np.float32)) @ wanted.T >= self._limits.cosine
            for row, place in np.argwhere(alike):
                found.setdefault(int(place), part.first + int(row))
        return found


def as_spec(part: Slice, version: Version) -> Slice:
    """The slice with its vectors scaled to length one, where the version's spec says so, as for its own encoder's."""
    if not version.encoder_spec or not read_spec(version.encoder_spec).normalise:
        return part
    with np.errstate(all="ignore"):  # rows that cannot be scaled are found out by split_bad
        return replace(part, vectors=scale_to_unit(part.vectors.astype(np.float32)))
