"""The schema's one source: SQLAlchemy models of the fixed tables, and of a version's table on request.

Revisions are generated from these and checked against them by a test. The program itself talks SQL through
psycopg; the models are for Alembic and for applications that use SQLAlchemy.
"""

from __future__ import annotations

from core.models.backfill import (
    BackfillJob,
    BackfillProof,
    BackfillRange,
    BackfillSample,
    BackfillTransition,
    BackfillWorker,
    DeadLetter,
    VectorLoad,
)
from core.models.base import Base
from core.models.cutover import Cutover, CutoverApproval, CutoverPolicy, CutoverRequest
from core.models.documents import ChunkOutbox, DocumentChunk, EmbeddingVersion, RepeatedText, RowCount
from core.models.evaluation import Evaluation, EvaluationResult, EvaluationRun, Judge, Judgement, Query, QuerySet
from core.models.log import AuditLog
from core.models.retrieval import SearchCount
from core.models.shadow import Shadow, ShadowCount, ShadowQuery
from core.models.version_tables import is_version_table, version_model

__all__ = [
    "AuditLog",
    "BackfillJob",
    "BackfillProof",
    "BackfillRange",
    "BackfillSample",
    "BackfillTransition",
    "BackfillWorker",
    "Base",
    "ChunkOutbox",
    "Cutover",
    "CutoverApproval",
    "CutoverPolicy",
    "CutoverRequest",
    "DeadLetter",
    "DocumentChunk",
    "EmbeddingVersion",
    "Evaluation",
    "EvaluationResult",
    "EvaluationRun",
    "Judge",
    "Judgement",
    "Query",
    "QuerySet",
    "RepeatedText",
    "RowCount",
    "SearchCount",
    "Shadow",
    "ShadowCount",
    "ShadowQuery",
    "VectorLoad",
    "is_version_table",
    "version_model",
]
