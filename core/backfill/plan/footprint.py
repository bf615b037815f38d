"""What a version will take on disk, and what its index will take in memory.

Tuples are packed into pages the way Postgres and pgvector pack them, since that decides more than the bytes do:
a vector of 1,536 dimensions has 6 kB and takes a page of 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from revector.core import index
from revector.core.backfill.job.disk import free_bytes
from revector.core.database import Connection, fetch_one
from revector.core.index import graph_bytes, kind_of, value_bytes
from revector.core.registry import PLAIN_DIMENSIONS, Version

PAGE = 8192
_PAGE_HEADER = 24
_ITEM = 4
_TUPLE_HEADER = 24
_TOAST_CHUNK = 1996  # TOAST_MAX_CHUNK_SIZE for pages of 8 kB
_TOAST_POINTER = 18
_FILL = 0.9  # of a B-tree's leaves, when keys come in order
_PACKED = 512
"""How many values are packed to see how many pages they take; the pattern repeats long before that."""

# Beside the tuples: the record's header, and the primary key's record. Measured as pg_wal_lsn_diff over loads of
# batches: 55 bytes a row at 64 dimensions, 128 where each row fills a page, 146 a TOAST chunk with its index.
_WAL_ROW = 70
_WAL_PAGE = 60
_WAL_TOAST_CHUNK = 146


@dataclass(frozen=True)
class Footprint:
    """What a complete version takes, and what loading it needs.

    `needed` is the growth of table, key and index, plus the WAL that the server keeps.
    """

    table: Annotated[int, "bytes of the table"]
    primary_key: Annotated[int, "bytes of its primary key"]
    index: Annotated[int, "bytes of its HNSW index"]
    wal: Annotated[int, "bytes of WAL still to be written"]
    index_memory: Annotated[int, "bytes of memory that building the index takes"]
    needed: Annotated[int, "bytes that the server's disk still has to hold at once"]
    free: Annotated[int | None, "bytes that it has; null when that cannot be seen from here"]


def estimate_storage(connection: Connection, version: Version, rows: int) -> Footprint:
    """The storage of a version with that many rows, minus what exists already."""
    table, key, graph = table_bytes(version, rows), _btree_bytes(rows), index_bytes(version, rows)
    there = _bytes_there(connection, version)
    growth = max(0, table + key - there)
    missing = growth / (table + key)
    wal = round(wal_bytes(version, rows) * missing)
    if not index.inspect(connection, version).valid:
        growth += graph
        wal += graph
    kept = min(wal, _wal_kept(connection))
    memory = graph_bytes(version, rows)
    return Footprint(table, key, graph, wal, memory, growth + kept, free_bytes(connection))


# -- the table ---------------------------------------------------------------------------------------------


def table_bytes(version: Version, rows: int) -> int:
    """Bytes of the table for that many rows, with its TOAST table where vectors do not fit a page.

    A row has a header of 24 bytes, the chunk's id, and pgvector's 8 bytes and 4 (halfvec: 2) a dimension, in steps
    of 8; a page of 8,192 bytes has 24 of its own and 4 for each row. What is in TOAST is cut into pieces of 1,996
    bytes. See "Database Page Layout" and "TOAST" in Postgres' manual, and Vector in pgvector's src/vector.h.
    """
    value = 8 + version.dimensions * (4 if version.storage == "vector" else 2)
    if version.dimensions <= PLAIN_DIMENSIONS[version.storage]:
        return PAGE * _heap_pages([_TUPLE_HEADER + 8 + value], rows)
    pieces = list(_toast_pieces(value))
    rows_pages = _heap_pages([_TUPLE_HEADER + 8 + _TOAST_POINTER], rows)
    return PAGE * (rows_pages + _heap_pages(pieces, rows)) + _btree_bytes(rows * len(pieces))


def wal_bytes(version: Version, rows: int) -> int:
    """Bytes of WAL for loading that many rows, roughly: full page images after checkpoints come on top."""
    value = 8 + version.dimensions * (4 if version.storage == "vector" else 2)
    if version.dimensions > PLAIN_DIMENSIONS[version.storage]:
        pieces = list(_toast_pieces(value))
        return rows * (value + 56 + _WAL_ROW + len(pieces) * _WAL_TOAST_CHUNK)
    image = _aligned(_TUPLE_HEADER + 8 + value)
    a_page = (PAGE - _PAGE_HEADER) // (image + _ITEM)
    return rows * (image + _WAL_ROW + _WAL_PAGE // a_page)


def _toast_pieces(value: int) -> Iterator[int]:
    """The sizes of the TOAST tuples of one value; its own length word is not stored there."""
    left = value - 4
    while left > 0:
        yield _TUPLE_HEADER + 12 + min(left, _TOAST_CHUNK)
        left -= _TOAST_CHUNK


def _heap_pages(tuples: list[int], rows: int) -> int:
    """Pages for rows of these tuples: packs enough rows in order to show the pattern."""
    sizes = [_aligned(size) + _ITEM for size in tuples]
    room = PAGE - _PAGE_HEADER
    if len(sizes) == 1:
        return -(-rows // (room // sizes[0]))
    pages, left = 1, room
    for _ in range(_PACKED):
        for size in sizes:
            if size > left:
                pages, left = pages + 1, room
            left -= size
    return -(-rows * pages // _PACKED)


def _btree_bytes(entries: int) -> int:
    """A B-tree of 8-byte keys: 16 bytes and an item pointer each, in leaves filled to 90 %, as one worker fills the
    primary key in order; with several workers up to twice as much."""
    leaf = int((PAGE - _PAGE_HEADER - 16) * _FILL / (16 + _ITEM))
    leaves = -(-entries // leaf)
    return PAGE * (1 + leaves + -(-leaves // leaf))


def _aligned(size: int) -> int:
    """MAXALIGN: up to a multiple of 8."""
    return -(-size // 8) * 8


# -- the index ---------------------------------------------------------------------------------------------


def index_bytes(version: Version, rows: int) -> int:
    """Bytes of the HNSW index of that many rows on disk.

    An element (72 bytes and its value) and its neighbours (6 bytes each, 2 m at the ground layer and m in each of
    the 1/(m−1) layers above, and 4) share a page when both fit one: CreateGraphPages in pgvector's
    src/hnswbuild.c, with the sizes of src/hnsw.h. Texts that repeat share an element, which is left out here.
    """
    m = {**index.DEFAULTS, **version.index_settings}["m"]
    element = _aligned(72 + value_bytes(version)) + _ITEM
    neighbours = _aligned(round(4 + 6 * m * (2 + 1 / (m - 1)))) + _ITEM
    room = PAGE - _PAGE_HEADER - 8
    if element + neighbours > room:
        return PAGE * (1 + 2 * rows)
    return PAGE * (1 + -(-rows // (room // (element + neighbours))))


def index_kind_note(version: Version) -> str | None:
    """What is special about how this version is indexed, None when nothing is."""
    if (kind := kind_of(version)) == version.storage:
        return None
    if kind == "halfvec":
        return f"{version.dimensions:,} dimensions are indexed as halfvec, at half the precision"
    return (
        f"{version.dimensions:,} dimensions are indexed by binary quantisation: searches rank "
        f"{index.BIT_CANDIDATES} times k candidates again by their full vectors"
    )


# -- what is there -----------------------------------------------------------------------------------------


def _bytes_there(connection: Connection, version: Version) -> int:
    (found,) = fetch_one(
        connection,
        """
        SELECT coalesce(pg_table_size(c.oid)
                        + (SELECT sum(pg_relation_size(i.indexrelid)) FROM pg_index i
                           WHERE i.indrelid = c.oid AND i.indisprimary), 0)::bigint
        FROM (SELECT to_regclass(%s)::oid AS oid) AS c
        """,
        [version.table_name],
    )
    return int(found)


def _wal_kept(connection: Connection) -> int:
    """How much WAL the server keeps at once: max_wal_size, or all of it for an idle replication slot."""
    (kept,) = fetch_one(
        connection,
        """
        SELECT CASE WHEN EXISTS (SELECT FROM pg_replication_slots WHERE NOT active) THEN 9223372036854775807
                    ELSE pg_size_bytes(current_setting('max_wal_size')) END
        """,
    )
    return int(kept)
