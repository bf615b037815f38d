"""The guard on a version's encoder: whether it still makes the stored vectors."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from revector.core.cutover.guard import Found, GuardRule, Subject, fails, passes, unsure
from revector.core.errors import EncoderError, RefusedError, RevectorError
from revector.core.index.warming import stored_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PATIENCE_S = 30.0
"""A provider that throttles may ask for minutes; a check of the guards does not wait that long."""


def _same(subject: Subject) -> Found:
    import numpy as np
    from pgvector import Vector

    connection, version, least = subject.connection, subject.version, subject.policy.encoder_cosine
    stored = dict(stored_vectors(connection, version, subject.policy.encoder_chunks))
    texts: dict[int, str] = dict(
        connection.execute("SELECT id, content FROM document_chunks WHERE id = ANY(%s)", [list(stored)]).fetchall()
    )
    if not texts:
        return unsure("no stored chunk to encode again")
    remedy = f"The provider may have changed the model: backfill a new version with {version.encoder_spec}."
    try:
        now = _encode(subject, list(texts.values()))
    except (EncoderError, RefusedError) as error:
        return fails(f"it no longer returns such vectors: {error.problem}", remedy)
    except RevectorError as error:
        return unsure(f"it cannot be reached: {error.problem}", error.remedy)
    if now is None:
        return unsure(f"it gave no answer within {_PATIENCE_S:g} s", "Try again later.")
    if now.shape[1] != version.dimensions:
        return fails(f"it returns {now.shape[1]} dimensions, the version has {version.dimensions}", remedy)
    then = np.stack([Vector.from_text(stored[chunk_id]).to_numpy() for chunk_id in texts]).astype(np.float64)
    before, after = np.linalg.norm(then, axis=1), np.linalg.norm(now, axis=1)
    measure, lengths = "cosine", before * after
    if version.distance_metric != "cosine":  # by which a vector of another length is another one
        measure, lengths = "cosine with length", np.maximum(before, after) ** 2
    cosines = np.einsum("ij,ij->i", then, now.astype(np.float64)) / np.where(lengths > 0, lengths, 1)
    worst = int(cosines.argmin())
    detail = (
        f"{len(texts)} stored chunks encoded again: lowest {measure} {cosines[worst]:.5f}, chunk {list(texts)[worst]} "
        f"(at least {least:g} required)"
    )
    return passes(detail) if cosines[worst] >= least else fails(detail, remedy)


def _encode(subject: Subject, texts: list[str]) -> NDArray[np.float32] | None:
    """The texts encoded as documents (n, d); None when that takes too long for a guard."""
    answer: queue.SimpleQueue[NDArray[np.float32] | Exception] = queue.SimpleQueue()

    def encode() -> None:
        try:
            answer.put(subject.encoders.encoder(subject.version).encode_documents(texts))
        except Exception as error:  # noqa: BLE001  (whatever it is, it is raised where the answer is waited for)
            answer.put(error)

    threading.Thread(target=encode, name="encoder guard", daemon=True).start()
    try:
        found = answer.get(timeout=_PATIENCE_S)
    except queue.Empty:
        return None
    if isinstance(found, Exception):
        raise found
    return found


RULES = (
    GuardRule(
        "encoder",
        "A few stored chunks, encoded again, give the stored vectors: the model has not changed.",
        _same, settings=("encoder_chunks", "encoder_cosine"), after=("complete", "dimensions"), slow=True,
        looks_at=("version",),
    ),
)  # fmt: skip
