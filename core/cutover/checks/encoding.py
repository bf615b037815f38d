"""The guard on a version's encoder: whether it still makes the stored vectors, and if not, what that looks like."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from revector.core import index
from revector.core.backfill.job.spending import cost
from revector.core.cutover.guard import Found, GuardRule, Subject, fails, passes, unsure, would_see
from revector.core.database import fetch_column
from revector.core.errors import EncoderError, RefusedError, RevectorError
from revector.core.index.warming import stored_vectors, vectors_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

_BATCH = 50
"""Chunks in one request: time and money are looked at between two."""
_LOOKED_UP = 20
"""Of so many chunks that differ it is looked up whether their vectors are stored for other chunks."""
_NAMED = 3


@dataclass(frozen=True)
class _Encoded:
    """Today's vectors (m, d) of the first m texts; what that took, in words; and which limit left out the rest."""

    vectors: Matrix | None
    took: str
    stopped: str


def _same(subject: Subject) -> Found:
    import numpy as np

    connection, version, policy = subject.connection, subject.version, subject.policy
    drawn = stored_vectors(connection, version, policy.encoder_chunks)
    stored = drawn.vectors
    texts: dict[int, str] = dict(
        connection.execute("SELECT id, content FROM document_chunks WHERE id = ANY(%s)", [list(stored)]).fetchall()
    )
    ids = [chunk_id for chunk_id in stored if chunk_id in texts]
    if not replace(drawn, vectors=texts).has(policy.encoder_chunks):
        return unsure(
            f"only {len(ids):,} of {drawn.of} stored chunks could be drawn, {policy.encoder_chunks:,} are needed",
            f"VACUUM FULL {version.table_name}, if few of its pages hold rows, then check again.",
        )
    remedy = f"The provider may have changed the model: backfill a new version with {version.encoder_spec}."
    try:
        encoded = _encode(subject, [texts[chunk_id] for chunk_id in ids])
    except (EncoderError, RefusedError) as error:
        return fails(f"it no longer returns such vectors: {error.problem}", remedy)
    except RevectorError as error:
        return unsure(f"it cannot be reached: {error.problem}", error.remedy)
    more = "Allow it more: revector cutover policy encoder_timeout_s=SECONDS encoder_usd=DOLLARS"
    if encoded.vectors is None:
        return unsure(f"no chunk was encoded again within {encoded.stopped}", more)
    if encoded.vectors.shape[1] != version.dimensions:
        return fails(
            f"it returns {encoded.vectors.shape[1]} dimensions, the version has {version.dimensions}", remedy
        )
    ids = ids[: len(encoded.vectors)]
    then, least = _matrix(stored[chunk_id] for chunk_id in ids), policy.encoder_cosine
    before, after = np.linalg.norm(then, axis=1), np.linalg.norm(encoded.vectors, axis=1)
    cosines = np.einsum("ij,ij->i", then, encoded.vectors) / np.maximum(before * after, 1e-30)
    ratios = before / np.maximum(after, 1e-30)
    differing, longer = cosines < least, np.minimum(ratios, 1 / np.maximum(ratios, 1e-30)) < least
    if differing.any():
        worst = f"lowest cosine {cosines.min():.5f}, at least {least:g} required"
        odd = {ids[place]: encoded.vectors[place] for place in np.flatnonzero(differing)}
        return _looks_like(subject, odd, stored, f"{len(odd)} of {len(ids)} chunks encoded again", worst, remedy)
    lengths = ""
    if longer.any():
        low, high = ratios[longer].min(), ratios[longer].max()
        lengths = (
            f"{longer.sum()} of {len(ids)} are {low:.3g} to {high:.3g} times as long as the encoder makes them"
        )
        if version.distance_metric != "cosine":
            return fails(
                f"directions agree, lengths differ: stored vectors of {lengths}, which {version.distance_metric} "
                "measures",
                f"Load vectors as {version.encoder_spec} makes them into a new version.",
            )
        lengths = f"; {lengths}, which cosine does not see"
    detail = (
        f"{len(ids):,} of {drawn.of} chunks encoded again: lowest cosine {cosines.min():.5f} (at least {least:g} "
        f"required){lengths}; {would_see(len(ids), drawn.rows)}; took {encoded.took}"
    )
    if encoded.stopped:
        return unsure(f"{detail}, and {policy.encoder_chunks:,} chunks do not fit into {encoded.stopped}", more)
    return passes(detail)


def _encode(subject: Subject, texts: list[str]) -> _Encoded:
    """Encode the texts as documents, in several requests, as far as the policy's time and money reach."""
    import numpy as np

    policy, began, spent = subject.policy, time.monotonic(), 0.0
    answers: queue.SimpleQueue[NDArray[np.float32] | Exception | None] = queue.SimpleQueue()
    over = threading.Event()

    def encode() -> None:
        nonlocal spent
        try:
            encoder = subject.encoders.encoder(subject.version)
            for start in range(0, len(texts), _BATCH):
                batch = texts[start : start + _BATCH]
                usd = cost(encoder, batch)
                if over.is_set() or spent + usd > policy.encoder_usd:
                    break
                spent += usd
                answers.put(encoder.encode_documents(batch))
            answers.put(None)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is raised where the answer is waited for)
            answers.put(error)

    threading.Thread(target=encode, name="encoder guard", daemon=True).start()
    found: list[NDArray[np.float32]] = []
    stopped = ""
    while sum(map(len, found)) < len(texts):
        try:
            answer = answers.get(timeout=max(0.0, began + policy.encoder_timeout_s - time.monotonic()))
        except queue.Empty:
            stopped = f"{policy.encoder_timeout_s:g} s"
            break
        if answer is None:
            stopped = f"${policy.encoder_usd:g}"
            break
        if isinstance(answer, Exception):
            raise answer
        found.append(answer)
    over.set()
    took = f"{time.monotonic() - began:.1f} s of {policy.encoder_timeout_s:g} s"
    took += f" and ${spent:.4f} of ${policy.encoder_usd:g}" if spent else ""
    return _Encoded(np.concatenate(found).astype(np.float64) if found else None, took, stopped)


def _looks_like(
    subject: Subject, odd: dict[int, Matrix], stored: dict[int, str], count: str, worst: str, remedy: str
) -> Found:
    """Say what it looks like: shuffled ids, or another model. `odd` has chunks with other vectors (d,) today."""
    import numpy as np

    ids = sorted(odd)
    looked_up = ids[:: -(-len(ids) // _LOOKED_UP)]
    places = _stored_elsewhere(subject, looked_up, np.stack([odd[chunk_id] for chunk_id in looked_up]), stored)
    files = fetch_column(
        subject.connection,
        """
        SELECT source FROM vector_loads
        WHERE embedding_version_id = %s AND first_chunk_id <= %s AND last_chunk_id >= %s
        """,
        [subject.version.id, ids[0], ids[-1]],
    )
    loaded = f", all among the chunks loaded from {files[0]}" if len(files) == 1 else ""
    if 2 * len(places) < len(looked_up):
        named = ", ".join(map(str, ids[:_NAMED]))
        return fails(f"{count} (chunk {named}) look like another model's: {worst}{loaded}", remedy)
    shifts = {other - chunk_id for chunk_id, other in places.items()}
    by = f" by {shifts.pop():+d}" if len(shifts) == 1 and len(places) > 1 else ""
    named = ", ".join(f"{other} has that of {chunk_id}" for chunk_id, other in sorted(places.items())[:_NAMED])
    return fails(
        f"{count} look like shuffled ids{by}: chunk {named}; {worst}{loaded}",
        f"Load the vectors under their own ids into a new version with {subject.version.encoder_spec}.",
    )


def _stored_elsewhere(subject: Subject, ids: list[int], now: Matrix, stored: dict[int, str]) -> dict[int, int]:
    """By chunk, another one of another text for which the vector (n, d) is stored that the encoder makes of this one's.

    Looked for among `stored`, those of the two ids on either side, and the nearest ones, where an index finds them.
    """
    import numpy as np

    connection, version = subject.connection, subject.version
    query = sql.SQL(
        """
        SELECT near.chunk_id FROM unnest(%(ids)s::bigint[]) AS odd(id) CROSS JOIN LATERAL (
            (SELECT chunk_id FROM {table} WHERE chunk_id < odd.id ORDER BY chunk_id DESC LIMIT 2) UNION ALL
            (SELECT chunk_id FROM {table} WHERE chunk_id > odd.id ORDER BY chunk_id LIMIT 2)) AS near
        """
    ).format(table=version.table)
    near = fetch_column(connection, query, {"ids": ids})
    if index.inspect(connection, version).valid:
        try:
            for vector in now:
                found = index.candidates_query(version, 10)
                near += fetch_column(connection, found, {"vector": str(vector.tolist())})
        except psycopg.errors.QueryCanceled:
            pass  # no time to search: those on either side are left
    stored = stored | vectors_of(connection, version, near)
    others, vectors = list(stored), _matrix(stored.values())
    alike = _unit(now) @ _unit(vectors).T >= subject.policy.encoder_cosine
    pairs = [(ids[row], others[column]) for row, column in np.argwhere(alike)]
    return dict(
        connection.execute(
            """
            SELECT a.id, b.id FROM unnest(%s::bigint[], %s::bigint[]) AS pair(a, b)
            JOIN document_chunks a ON a.id = pair.a JOIN document_chunks b ON b.id = pair.b
            WHERE a.content_sha256 <> b.content_sha256
            """,
            [[a for a, _ in pairs], [b for _, b in pairs]],
        ).fetchall()
    )


def _matrix(vectors: Iterable[str]) -> Matrix:
    import numpy as np
    from pgvector import Vector

    return np.stack([Vector.from_text(vector).to_numpy() for vector in vectors]).astype(np.float64)


def _unit(vectors: Matrix) -> Matrix:
    import numpy as np

    lengths: Matrix = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-30)


RULES = (
    GuardRule(
        "encoder",
        "Stored chunks, drawn from the whole version and encoded again, give the stored vectors, in direction and "
        "length: the model has not changed, and no vector lies under another chunk's id.",
        _same, settings=("encoder_chunks", "encoder_cosine", "encoder_timeout_s", "encoder_usd"),
        after=("complete", "dimensions"), slow=True, looks_at=("version",),
    ),
)  # fmt: skip
