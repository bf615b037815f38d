"""The guard on a version's encoder: whether it still makes the stored vectors, and if not, what that looks like."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from revector.core import index
from revector.core.cutover.guard import Found, GuardRule, Subject, fails, passes, unsure, would_see
from revector.core.database import fetch_column
from revector.core.encoders.again import Limits, compare, encode_within
from revector.core.errors import EncoderError, RefusedError, RevectorError
from revector.core.index.warming import stored_vectors, vectors_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

_LOOKED_UP = 20
"""Of so many chunks that differ it is looked up whether their vectors are stored for other chunks."""
_NAMED = 3


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
        encoded = encode_within(
            lambda: subject.encoders.encoder(version),
            [texts[chunk_id] for chunk_id in ids],
            Limits(policy.encoder_cosine, policy.encoder_timeout_s, policy.encoder_usd),
        )
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
    least = policy.encoder_cosine
    found = compare(_matrix(stored[chunk_id] for chunk_id in ids), encoded.vectors, least)
    cosines, ratios, differing, longer = found.cosines, found.ratios, found.differing, found.longer
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
