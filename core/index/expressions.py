"""What a version's index is on, and the SQL of a search that uses it."""

from __future__ import annotations

from typing import Literal

from psycopg import sql

from revector.core.registry import Version

Kind = Literal["vector", "halfvec", "bit"]

BIT_CANDIDATES = 20
"""How many times k candidates the binary index returns for ranking by full vectors."""


def kind_of(version: Version) -> Kind:
    """The type stored in the version's index."""
    if version.dimensions <= 2_000 and version.storage == "vector":
        return "vector"
    return "halfvec" if version.dimensions <= 4_000 else "bit"


def index_name(version: Version) -> str:
    """`chunk_embeddings_7_hnsw`."""
    return f"{version.table_name}_hnsw"


def indexed_expression(version: Version) -> sql.Composable:
    """The indexed expression; a search must order by exactly this to use the index."""
    column, kind = sql.Identifier("embedding"), kind_of(version)
    if kind == version.storage:
        return column
    converted = {"halfvec": sql.SQL("({}::halfvec({}))"), "bit": sql.SQL("(binary_quantize({})::bit({}))")}
    return converted[kind].format(column, sql.Literal(version.dimensions))


def operator(version: Version) -> sql.SQL:
    """pgvector's operator of the version's metric, such as `<=>`."""
    return {"cosine": sql.SQL("<=>"), "l2": sql.SQL("<->"), "ip": sql.SQL("<#>")}[version.distance_metric]


def query_vector(version: Version) -> sql.Composed:
    """The parameter `vector`, of the type that the version stores."""
    return sql.SQL("%(vector)s::{}({})").format(sql.Identifier(version.storage), sql.Literal(version.dimensions))


def distance_expression(version: Version) -> sql.Composed:
    """SQL of the distance between a stored `embedding` and the parameter `vector`."""
    return sql.SQL("embedding {} {}").format(operator(version), query_vector(version))


def candidates_query(version: Version, k: int, condition: sql.Composable | None = None) -> sql.Composed:
    """SQL of the k nearest chunks: columns chunk_id and distance. The query vector is the parameter `vector`.

    `condition` is on the columns of the version's table. LIMIT is a literal: for a parameter, a generic plan would
    assume a tenth of the table and not use the index.
    """
    vector = query_vector(version)
    distance = distance_expression(version)
    where = sql.SQL("WHERE {} ").format(condition) if condition is not None else sql.SQL("")
    if kind_of(version) == "bit":
        return sql.SQL(
            "SELECT chunk_id, {distance} AS distance FROM "
            "(SELECT chunk_id, embedding FROM {table} {where}"
            "ORDER BY {indexed} <~> binary_quantize({vector})::bit({dimensions}) LIMIT {many}) AS nearest "
            "ORDER BY distance, chunk_id LIMIT {k}"
        ).format(
            distance=distance,
            table=version.table,
            where=where,
            indexed=indexed_expression(version),
            vector=vector,
            dimensions=sql.Literal(version.dimensions),
            many=sql.Literal(k * BIT_CANDIDATES),
            k=sql.Literal(k),
        )
    if kind_of(version) != version.storage:
        vector = sql.SQL("{}::halfvec({})").format(vector, sql.Literal(version.dimensions))
    nearest = sql.SQL("{} {} {}").format(indexed_expression(version), operator(version), vector)
    return sql.SQL(
        "SELECT chunk_id, {distance} AS distance FROM {table} {where}ORDER BY {nearest} LIMIT {k}"
    ).format(distance=distance, table=version.table, where=where, nearest=nearest, k=sql.Literal(k))
