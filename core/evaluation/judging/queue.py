"""The queue of pairs to judge: a query and a target that two versions found, blind to which one found it.

The pool is the top-k of two stored runs. Each pair in it has one kind:

- `disputed`: judges (people or models) gave grades more than a step apart, or on both sides of relevant;
- `moved`: only one of the runs has it, or its ranks are at least k apart;
- `unjudged`: neither of these.

A pair is open until this person has judged it; a disputed pair returns when somebody else grades it later. Other
people's grades are not shown: agreement means something only between independent grades.

**Chunks or documents.** As soon as one judgement of a set is on a document, `load_qrels` judges all of it by
document: a document then has the best grade of its chunks. A grade of 0 for one chunk would then become a 0 for
its document, whose other chunk may be the answer; and one grade for a document would switch a whole set from
chunks to documents. So people judge at the set's level: in a set with judgements on documents the item is the
document, shown with its chunks that the runs rank best, and the grade is stored for the document; in every other
set the item is a chunk.

**Blind.** An item carries no version, rank or distance. Its position depends only on a digest of the judge's name,
the query and the target, so swapping the two runs changes nothing. Each person gets the queries in a different
order, with all targets of a query together.
"""

from __future__ import annotations

import datetime
import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from revector.core.database import Connection, fetch_column, fetch_one
from revector.core.errors import UsageError, unknown_name
from revector.core.evaluation.document import Run
from revector.core.evaluation.judged_sets.agreement import RELEVANT
from revector.core.evaluation.judged_sets.judgements import (
    Judge,
    TargetKind,
    document_id_of,
    document_target,
    ensure_judge,
    semantic_keys,
)
from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET, Query, QuerySet
from revector.core.evaluation.runs.store import latest_run
from revector.core.registry import Version

ItemKind = Literal["disputed", "moved", "unjudged"]
KINDS: tuple[ItemKind, ...] = ("disputed", "moved", "unjudged")

RunPair = tuple[Run, Run]

_DEPTH = 100
"""How deep a run is read; a target further down counts as missing."""
_PASSAGES = 3
"""How many chunks of a document are shown to the judge."""
_BATCH = 200
"""How many queries' results are in memory at once."""


@dataclass(frozen=True)
class Passage:
    """A chunk as shown to the judge."""

    semantic_key: str
    chunk_no: int
    content: str


@dataclass(frozen=True)
class JudgingItem:
    """A pair to judge. `before` is this judge's earlier grade, or None.

    `target` is a semantic key or a document, as in a judgement. A chunk has one passage, a document up to three,
    in document order. `title` comes from the metadata; it may be empty.
    """

    query_id: str
    query: str
    segment: str
    target_kind: TargetKind
    target: str
    source_id: str
    title: str
    passages: tuple[Passage, ...]
    kind: ItemKind
    before: int | None

    @property
    def pair(self) -> tuple[str, str]:
        """Query id and target of the judgement."""
        return self.query_id, self.target


@dataclass(frozen=True)
class Count:
    """How many pairs of a kind and a segment this person has judged, and how many are open."""

    kind: ItemKind
    segment: str
    done: int
    remaining: int


@dataclass(frozen=True)
class _Standing:
    """A pooled pair and its judgements. `identity` is a semantic key, or a document id as text, by the level."""

    query: Query
    level: TargetKind
    identity: str
    chunk_ids: tuple[int, ...]
    kind: ItemKind
    open: bool
    before: int | None


# -- who, and from what ------------------------------------------------------------------------------------


def person(connection: Connection, name: str = "") -> Judge:
    """The judge of that name, or named after the logged-in database role; created when new.

    Raises UsageError when the name is a model's.
    """
    if not name:
        (name,) = fetch_one(connection, "SELECT session_user::text")
    return ensure_judge(connection, name, "person")


def judged_by(connection: Connection, query_set: QuerySet) -> TargetKind:
    """The level of the set: documents as soon as any judgement is on one, else chunks."""
    (any_document,) = fetch_one(
        connection,
        """
        SELECT EXISTS (SELECT FROM judgements j JOIN queries q ON q.id = j.query
                       WHERE q.query_set_id = %s AND j.target_kind = 'document')
        """,
        [query_set.id],
    )
    return "document" if any_document else "chunk"


def stored_pair(
    connection: Connection, query_set: QuerySet, primary: Version, candidate: Version, *, k: int = 10
) -> RunPair | None:
    """The newest run of each version on this revision of the set, over the whole collection; None if one is
    missing."""
    first, second = (latest_run(connection, query_set, version, k=k) for version in (primary, candidate))
    return None if first is None or second is None else (first, second)


# -- the queue ---------------------------------------------------------------------------------------------


def queue(
    connection: Connection,
    query_set: QuerySet,
    judge: Judge,
    pair: RunPair,
    *,
    k: int = 10,
    kinds: Collection[ItemKind] = KINDS,
    segment: str = WHOLE_SET,
    limit: int = 50,
    without: Collection[tuple[str, str]] = (),
) -> list[JudgingItem]:
    """The next open pairs of these kinds and this segment: at most `limit`, except those in `without`.

    `without` has (query id, target) like `JudgingItem.pair`: pairs that were skipped or are already loaded. Reads
    some hundred queries at a time, until there are enough. Raises UsageError for an unknown segment.
    """
    left_out = set(without)
    found: list[JudgingItem] = []
    for standings in _in_batches(connection, query_set, judge, pair, k, segment):
        chosen = sorted(
            (one for one in standings if one.open and one.kind in kinds),
            key=lambda one: (_digest(judge.name, one.query.id), _digest(judge.name, one.query.id, one.identity)),
        )
        # More than needed, since some may be left out; and only their text.
        for start in range(0, len(chosen), limit):
            items = _items(connection, chosen[start : start + limit])
            found += [item for item in items if item.pair not in left_out]
            if len(found) >= limit:
                return found[:limit]
    return found


def progress(
    connection: Connection, query_set: QuerySet, judge: Judge, pair: RunPair, *, k: int = 10
) -> tuple[Count, ...]:
    """This person's progress by kind and segment; kinds in their order, segments by name."""
    counts: dict[tuple[ItemKind, str], list[int]] = defaultdict(lambda: [0, 0])
    for standings in _in_batches(connection, query_set, judge, pair, k, WHOLE_SET):
        for one in standings:
            counts[one.kind, one.query.segment][one.open] += 1
    in_order = sorted(counts, key=lambda key: (KINDS.index(key[0]), key[1]))
    return tuple(Count(*key, *counts[key]) for key in in_order)


def _in_batches(
    connection: Connection, query_set: QuerySet, judge: Judge, pair: RunPair, k: int, segment: str
) -> Iterator[list[_Standing]]:
    """The pooled pairs, in batches of queries; the queries in this judge's order."""
    level = judged_by(connection, query_set)
    if k < 1:
        raise UsageError(f"k is {k}; expected 1 or more.")
    if segment not in (WHOLE_SET, *query_set.segments):
        raise unknown_name("segment", segment, query_set.segments)
    queries = sorted(
        (query for query in query_set.queries if segment in (WHOLE_SET, query.segment)),
        key=lambda query: _digest(judge.name, query.id),
    )
    for start in range(0, len(queries), _BATCH):
        batch = queries[start : start + _BATCH]
        pooled = _pooled(connection, pair, batch, level, k)
        given = _given(connection, query_set, batch, level)
        chunks = (chunk for pool in pooled.values() for chunk in pool.moved)
        keys = semantic_keys(connection, chunks) if level == "chunk" else {}
        here = keys if level == "chunk" else _still_there(connection, pooled)
        standings = []
        for query in batch:
            for target, moved in pooled[query.id].moved.items():
                if target not in here:
                    continue  # deleted since the run
                identity = keys.get(target, str(target))
                chunk_ids = pooled[query.id].passages(target)
                so_far = _so_far(given.get((query.id, identity), {}), judge, moved)
                standings.append(_Standing(query, level, identity, chunk_ids, *so_far))
        yield standings


def _digest(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _so_far(by_judge: Mapping[int, _Given], judge: Judge, moved: bool) -> tuple[ItemKind, bool, int | None]:
    """The kind of a pair, whether it is open, and this judge's grade."""
    mine = by_judge.get(judge.id)
    others = [given.judged_at for who, given in by_judge.items() if who != judge.id]
    grades = [given.grade for given in by_judge.values()]
    if grades and is_disputed(grades):
        still = mine is None or mine.judged_at < max(others)
        kind: ItemKind = "disputed"
    else:
        still = mine is None
        kind = "moved" if moved else "unjudged"
    return kind, still, mine.grade if mine else None


def is_disputed(grades: Collection[int]) -> bool:
    """Whether the grades of one target are more than a step apart, or on both sides of relevant."""
    least, most = min(grades), max(grades)
    return most - least > 1 or least < RELEVANT <= most


# -- the pool ----------------------------------------------------------------------------------------------

_Target = int | str
"""A chunk by its row id, or a document by its id as text, as in a run."""


@dataclass(frozen=True)
class _Pool:
    """The targets of one query in the top-k of either run, with whether each moved; and the chunks of
    documents."""

    moved: dict[_Target, bool]
    chunks: dict[_Target, list[tuple[int, int]]]

    def passages(self, target: _Target) -> tuple[int, ...]:
        """The chunks to show: the chunk itself, or a document's chunks that a run ranks best."""
        if isinstance(target, int):
            return (target,)
        best: dict[int, int] = {}
        for place, chunk in self.chunks[target]:
            best[chunk] = min(place, best.get(chunk, place))
        return tuple(sorted(best, key=lambda chunk: (best[chunk], chunk))[:_PASSAGES])


def _pooled(
    connection: Connection, pair: RunPair, batch: Sequence[Query], level: TargetKind, k: int
) -> dict[str, _Pool]:
    """The pool by query id. Symmetric in the two runs."""
    rows = connection.execute(
        """
        SELECT query_id, run_id, chunk_ids[1:%(depth)s],
               CASE WHEN %(documents)s THEN document_ids[1:%(depth)s]::text[] END
        FROM evaluation_results WHERE run_id = ANY(%(runs)s) AND query_id = ANY(%(queries)s)
        """,
        {
            "depth": max(_DEPTH, k),
            "documents": level == "document",
            "runs": [run.id for run in pair],
            "queries": [query.id for query in batch],
        },
        binary=True,
    )
    ranked: dict[str, dict[int, dict[_Target, int]]] = defaultdict(dict)
    chunks: dict[str, dict[_Target, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for query_id, run_id, chunk_ids, document_ids in rows:
        targets = chunk_ids if document_ids is None else document_ids
        ranked[query_id][run_id] = {target: rank for rank, target in enumerate(dict.fromkeys(targets), 1)}
        for place, (chunk, document) in enumerate(zip(chunk_ids, document_ids or (), strict=False)):
            chunks[query_id][document].append((place, chunk))
    pools = {}
    for query in batch:
        first, second = (ranked[query.id].get(run.id, {}) for run in pair)
        moved = {}
        for target in {*list(first)[:k], *list(second)[:k]}:
            gone = target not in first or target not in second
            moved[target] = gone or abs(first[target] - second[target]) >= k
        pools[query.id] = _Pool(moved, chunks[query.id])
    return pools


def _still_there(connection: Connection, pooled: Mapping[str, _Pool]) -> set[_Target]:
    """The pooled documents that still have a chunk to show."""
    shown = {chunk for pool in pooled.values() for document in pool.moved for chunk in pool.passages(document)}
    query = "SELECT DISTINCT document_id::text FROM document_chunks WHERE id = ANY(%s)"
    return set(fetch_column(connection, query, [list(shown)]))


# -- what was said -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    grade: int
    judged_at: datetime.datetime


def _given(
    connection: Connection, query_set: QuerySet, batch: Sequence[Query], level: TargetKind
) -> dict[tuple[str, str], dict[int, _Given]]:
    """(query id, identity) → judge id → the grade that counts: at document level, chunks are merged as in
    `load_qrels`."""
    rows = connection.execute(
        """
        SELECT q.query_id, j.judge_id, j.target_kind, j.target, j.grade, j.judged_at, c.document_id::text
        FROM queries q
        -- OFFSET 0: by the key of judgements, query by query, whatever the planner thinks of a table that just grew
        CROSS JOIN LATERAL (SELECT * FROM judgements WHERE query = q.id OFFSET 0) j
        LEFT JOIN document_chunks c
               ON %(documents)s AND j.target_kind = 'chunk' AND c.semantic_key = j.target
        WHERE q.query_set_id = %(set)s AND q.query_id = ANY(%(queries)s)
        """,
        {
            "documents": level == "document",
            "set": query_set.id,
            "queries": [query.id for query in batch],
        },
        binary=True,
    )
    found: dict[tuple[str, str], dict[int, _Given]] = defaultdict(dict)
    for query_id, judge_id, kind, target, grade, judged_at, document in rows:
        if level == "chunk":
            identity = target
        elif kind == "document":
            identity = str(document_id_of(target))
        elif document is None:
            continue  # a deleted chunk
        else:
            identity = document
        by_judge = found[query_id, identity]
        before = by_judge.get(judge_id)
        by_judge[judge_id] = (
            _Given(max(grade, before.grade), max(judged_at, before.judged_at))
            if before
            else _Given(grade, judged_at)
        )
    return found


# -- the text ----------------------------------------------------------------------------------------------


def _items(connection: Connection, chosen: Sequence[_Standing]) -> list[JudgingItem]:
    rows = connection.execute(
        """
        SELECT id, semantic_key, chunk_no, content, source_id, document_id,
               CASE WHEN jsonb_typeof(metadata -> 'title') = 'string' THEN metadata ->> 'title' ELSE '' END
        FROM document_chunks WHERE id = ANY(%s)
        """,
        [list({chunk for one in chosen for chunk in one.chunk_ids})],
    )
    texts = {row[0]: row for row in rows}
    items = []
    for one in chosen:
        there = sorted(
            (texts[chunk] for chunk in one.chunk_ids if chunk in texts), key=lambda row: (row[2], row[1])
        )
        if not there:
            continue
        _, key, _, _, source_id, document_id, title = there[0]
        document = document_target(source_id, document_id)
        target = key if one.level == "chunk" else document
        passages = tuple(Passage(*row[1:4]) for row in there)
        asked = one.query.id, one.query.text, one.query.segment
        source = source_id or document
        items.append(JudgingItem(*asked, one.level, target, source, title, passages, one.kind, one.before))
    return items
