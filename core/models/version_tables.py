"""A version's own table: its name, and a mapped class for it."""

from __future__ import annotations

import re
from typing import Any

from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import BigInteger
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_VERSION_TABLE = re.compile(r"chunk_embeddings_\d+")


def is_version_table(name: str) -> bool:
    """Whether a table's name is that of a version's table (`chunk_embeddings_7`)."""
    return _VERSION_TABLE.fullmatch(name) is not None


def version_model(version_id: int, dimensions: int, storage: str = "vector") -> type[DeclarativeBase]:
    """A mapped class for one version's table, for applications that search with SQLAlchemy.

    Each call makes a class on a new registry; keep the result. Columns: `chunk_id`, `embedding`.
    """

    class VersionBase(DeclarativeBase):
        pass

    kind = {"vector": VECTOR, "halfvec": HALFVEC}[storage]

    class ChunkEmbedding(VersionBase):
        __tablename__ = f"chunk_embeddings_{int(version_id)}"
        chunk_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        embedding: Mapped[Any] = mapped_column(kind(dimensions), nullable=False)

    return ChunkEmbedding
