"""What a version still has to embed, from a random sample of its missing chunks: texts, tokens, repeats.

In a large collection chunks are never counted or scanned but sampled by id, all equally likely. TABLESAMPLE would
take whole pages, whose chunks come from one document and are alike.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import psycopg
from psycopg import sql

from revector.core.database import Connection, fetch_column, fetch_one
from revector.core.registry import Version, chunk_count, embedded_count

if TYPE_CHECKING:
    from revector.core.encoders import Encoder

SAMPLE = 400
STATEMENT_TIMEOUT_S = 10.0

_LISTED_CHUNKS = 100_000
"""Up to this many missing ids are listed, by one anti-join of some 50 ms, and sampled from the list."""
_QUEUED_LISTED = 10_000
_LOOKUPS, _LOOKUPS_AT_ONCE = 100_000, 20_000
_SYSTEM_PAGES = 2_000
_SAME_TEXTS = 100
_EXAMPLES = 3


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % confidence interval; all three are the same when it is exact."""

    estimate: Annotated[float, "the figure"]
    low: Annotated[float, "where its 95 % interval begins"]
    high: Annotated[float, "where that ends"]

    def times(self, factor: float) -> Estimate:
        """The same in another unit."""
        return Estimate(self.estimate * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Demand:
    """What has to be embedded. `failed` are dead letters, which are not retried automatically.

    `to_encode`, `tokens` and `characters` count the chunks whose text has no vector yet; the `repeated` others
    copy one. They are exact when the sample holds every chunk (`exact`). `tokens` is None without an encoder, and
    both are None when nothing could be sampled.
    """

    chunks: Annotated[int, "in the collection"]
    missing: Annotated[int, "chunks without a vector"]
    failed: Annotated[int, "chunks that could not be embedded before"]
    to_embed: Annotated[int, "chunks to be embedded"]
    sampled: int
    exact: bool
    repeated: Estimate
    to_encode: Estimate
    characters: Annotated[Estimate | None, "to be encoded"]
    tokens: Annotated[Estimate | None, "to be encoded"]
    blank: tuple[int, ...]
    too_long: tuple[tuple[int, int], ...]
    max_tokens: int | None
    texts: tuple[str, ...] = field(repr=False)
    ids: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True)
class _Chunk:
    id: int
    content: str
    repeated: bool


def measure_demand(
    connection: Connection, version: Version, encoder: Encoder | None, *, sample: int = SAMPLE
) -> Demand:
    """Sample up to `sample` of the chunks that the version lacks, and estimate the whole from them.

    Takes well under a second at any size; no statement runs longer than STATEMENT_TIMEOUT_S.
    """
    with reading(connection):
        chunks = chunk_count(connection)
        missing = max(0, chunks - embedded_count(connection, version))
        failed = _given_up(connection, version)
        to_embed = max(0, missing - failed)
        query = sql.SQL("SELECT c.id FROM document_chunks c WHERE {}").format(_lacking(connection, version))
        listed = fetch_column(connection, query) if chunks <= _LISTED_CHUNKS else None
    if listed is not None:
        to_embed = len(listed)
        ids = random.sample(listed, min(sample, to_embed))
    else:
        ids = _draw(connection, version, min(sample, to_embed), to_embed)
    with reading(connection):
        drawn = _fetch(connection, version, ids)
    return _conclude(drawn, encoder, chunks, missing, failed, to_embed)


@contextlib.contextmanager
def reading(connection: Connection, timeout_s: float = STATEMENT_TIMEOUT_S) -> Iterator[None]:
    """A transaction whose statements are cancelled when they take too long."""
    with connection.transaction():
        connection.execute("SELECT set_config('statement_timeout', %s, true)", [f"{round(timeout_s * 1000)}ms"])
        yield


def interval(values: Sequence[float], population: int) -> Estimate:
    """The total over a population of which these are a simple random sample, at 95 % confidence.

    N (mean ± 1.96 s/√n √(1 − n/N)): Cochran, Sampling Techniques, 3rd edition, sections 2.5 to 2.8. What the
    sample itself adds up to is a lower limit in any case.
    """
    n = len(values)
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1) if n > 1 else 0.0
    margin = 1.96 * math.sqrt(variance / n * max(0.0, 1 - n / population))
    return Estimate(
        population * mean, max(sum(values), population * (mean - margin)), population * (mean + margin)
    )


def _conclude(
    drawn: list[_Chunk], encoder: Encoder | None, chunks: int, missing: int, failed: int, to_embed: int
) -> Demand:
    blank = tuple(chunk.id for chunk in drawn if not chunk.content.strip())
    none = Estimate(0, 0, 0 if to_embed == 0 else to_embed)
    repeated, characters, tokens = none, none if to_embed == 0 else None, none if to_embed == 0 else None
    too_long: list[tuple[int, int]] = []
    if drawn:
        fresh = [not chunk.repeated for chunk in drawn]
        repeated = interval([float(not is_fresh) for is_fresh in fresh], to_embed)
        characters = interval([len(c.content) * new for c, new in zip(drawn, fresh, strict=True)], to_embed)
    if drawn and encoder is not None:
        counts = [encoder.count_tokens([chunk.content]) for chunk in drawn]
        tokens = interval([count * new for count, new in zip(counts, fresh, strict=True)], to_embed)
        too_long = _too_long(drawn, counts, encoder)
    return Demand(
        chunks=chunks,
        missing=missing,
        failed=failed,
        to_embed=to_embed,
        sampled=len(drawn),
        exact=len(drawn) == to_embed,
        repeated=repeated,
        to_encode=Estimate(to_embed - repeated.estimate, to_embed - repeated.high, to_embed - repeated.low),
        characters=characters,
        tokens=tokens,
        blank=blank,
        too_long=tuple(sorted(too_long, key=lambda one: -one[1])),
        max_tokens=encoder.max_tokens if encoder is not None else None,
        texts=tuple(chunk.content for chunk in drawn if chunk.content.strip()),
        ids=tuple(chunk.id for chunk in drawn),
    )


def _too_long(drawn: list[_Chunk], counts: list[int], encoder: Encoder) -> list[tuple[int, int]]:
    """(chunk id, tokens) of texts that the model truncates."""
    most = encoder.max_tokens
    if most is None:
        return []
    at_limit = [(chunk, count) for chunk, count in zip(drawn, counts, strict=True) if count >= most]
    # An encoder may count only what it reads. Then the doubled text has no more tokens than the text.
    if at_limit and max(counts) == most:
        text = at_limit[0][0].content
        if encoder.count_tokens([f"{text} {text}"]) == most:
            return [(chunk.id, count) for chunk, count in at_limit]
    return [(chunk.id, count) for chunk, count in at_limit if count > most]


# -- which chunks ------------------------------------------------------------------------------------------


def _given_up(connection: Connection, version: Version) -> int:
    """Dead letters that no retry has queued."""
    (count,) = fetch_one(
        connection,
        """
        SELECT count(*) FROM dead_letters d
        WHERE d.embedding_version_id = %(id)s
          AND NOT EXISTS (SELECT FROM chunk_outbox o
                          WHERE o.embedding_version_id = %(id)s AND o.chunk_id = d.chunk_id)
        """,
        {"id": version.id},
    )
    return int(count)


def _lacking(connection: Connection, version: Version) -> sql.Composed:
    """A condition on `c.id`: the version has neither a vector of the chunk nor a dead letter."""
    given_up = sql.SQL(
        """
        NOT EXISTS (SELECT FROM dead_letters d
                    WHERE d.embedding_version_id = {id} AND d.chunk_id = c.id
                      AND NOT EXISTS (SELECT FROM chunk_outbox o
                                      WHERE o.embedding_version_id = {id} AND o.chunk_id = d.chunk_id))
        """
    ).format(id=sql.Literal(version.id))
    if not _has_table(connection, version):
        return given_up
    return sql.SQL("NOT EXISTS (SELECT FROM {} e WHERE e.chunk_id = c.id) AND {}").format(version.table, given_up)


def _has_table(connection: Connection, version: Version) -> bool:
    (found,) = fetch_one(connection, "SELECT to_regclass(%s) IS NOT NULL", [version.table_name])
    return bool(found)


def _draw(connection: Connection, version: Version, wanted: int, to_embed: int) -> list[int]:
    """Ids of chunks that are missing, at random."""
    with reading(connection):
        queued, spans = _where_missing(connection, version)
    # In proportion, so that the whole is one simple random sample.
    share = min(len(queued), round(wanted * len(queued) / max(to_embed, 1)))
    known = set(queued)
    found = random.sample(queued, share)
    try:
        ids = _draw_from_spans(connection, version, spans, wanted - share, known)
        if len(ids) < (wanted - share) // 2:  # sparse, as ids chosen by an application are
            thin = [i for i in _draw_pages(connection, version) if i not in known]
            ids = max(ids, random.sample(thin, min(len(thin), wanted - share)), key=len)
    except psycopg.errors.QueryCanceled:
        ids = []
    return found + ids


def _where_missing(connection: Connection, version: Version) -> tuple[list[int], list[tuple[int, int]]]:
    """Queued ids, when there are few, and the id spans that hold the rest: the job's remaining ranges."""
    spans: list[tuple[int, int]] = []
    if version.state not in ("registered", "retired"):  # those get a new plan, over everything
        spans = connection.execute(
            """
            SELECT r.cursor + 1, r.last_chunk_id
            FROM backfill_ranges r JOIN backfill_jobs j ON j.id = r.job_id
            WHERE j.embedding_version_id = %s AND r.state <> 'done' AND r.cursor < r.last_chunk_id
            """,
            [version.id],
        ).fetchall()
    queued = fetch_column(
        connection,
        "SELECT chunk_id FROM chunk_outbox WHERE embedding_version_id = %s LIMIT %s",
        [version.id, _QUEUED_LISTED + 1],
    )
    if len(queued) > _QUEUED_LISTED:
        first, last = fetch_one(
            connection,
            "SELECT min(chunk_id), max(chunk_id) FROM chunk_outbox WHERE embedding_version_id = %s",
            [version.id],
        )
        spans, queued = [*spans, (first, last)], []
    if not spans and not queued:
        first, last = fetch_one(connection, "SELECT min(id), max(id) FROM document_chunks")
        spans = [(first, last)] if first is not None else []
    return queued, _merged(spans)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge overlapping spans: an id in two of them would be sampled twice as often."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _draw_from_spans(
    connection: Connection, version: Version, spans: list[tuple[int, int]], wanted: int, known: set[int]
) -> list[int]:
    """Draw random ids from the spans, and keep those of missing chunks."""
    if not spans or wanted <= 0:
        return []
    widths = [last - first + 1 for first, last in spans]
    query = sql.SQL(
        """
        SELECT c.id FROM unnest(%s::bigint[]) AS c(id)
        WHERE EXISTS (SELECT FROM document_chunks k WHERE k.id = c.id) AND {}
        """
    ).format(_lacking(connection, version))
    found: set[int] = set()
    tried, at_once = 0, 4 * wanted
    while len(found) < wanted and tried < _LOOKUPS:
        picked = random.choices(spans, widths, k=at_once)  # noqa: S311
        numbers = list({random.randint(first, last) for first, last in picked})  # noqa: S311
        with reading(connection):
            rows = connection.execute(query, [numbers]).fetchall()
        found.update(row[0] for row in rows if row[0] not in known)
        tried += at_once
        at_once = min(_LOOKUPS_AT_ONCE, at_once * 4, _LOOKUPS)
    return random.sample(sorted(found), min(wanted, len(found)))


def _draw_pages(connection: Connection, version: Version) -> list[int]:
    """The missing chunks on some two thousand random pages."""
    with reading(connection):
        (pages,) = fetch_one(
            connection,
            """
            SELECT greatest(1, pg_relation_size('document_chunks') / current_setting('block_size')::int)
            """,
        )
        query = sql.SQL("SELECT c.id FROM document_chunks c TABLESAMPLE SYSTEM (%s) WHERE {}").format(
            _lacking(connection, version)
        )
        return fetch_column(connection, query, [min(100.0, 100 * _SYSTEM_PAGES / pages)])


def _fetch(connection: Connection, version: Version, ids: list[int]) -> list[_Chunk]:
    """The chunks, and whether each copies its vector from another chunk: an earlier one, or one that has it."""
    has_vector: sql.Composable = sql.SQL("false")
    if _has_table(connection, version):
        has_vector = sql.SQL("EXISTS (SELECT FROM {} e WHERE e.chunk_id = same.id)").format(version.table)
    query = sql.SQL(
        """
        SELECT c.id, c.content, EXISTS (
            SELECT FROM (SELECT o.id FROM document_chunks o
                         WHERE o.content_sha256 = c.content_sha256 LIMIT {most}) AS same
            WHERE same.id < c.id OR {has_vector})
        FROM document_chunks c WHERE c.id = ANY(%s)
        """
    ).format(has_vector=has_vector, most=sql.Literal(_SAME_TEXTS))
    return [_Chunk(*row) for row in connection.execute(query, [ids]).fetchall()]


def examples(ids: Sequence[int]) -> str:
    """`chunk 7, 12, 15 …`."""
    return f"chunk {', '.join(map(str, ids[:_EXAMPLES]))}" + (" …" if len(ids) > _EXAMPLES else "")
