"""The schema's one source: SQLAlchemy models of the fixed tables, and of a version's table on request.

A test checks the revisions against these models. The program itself uses SQL through psycopg; the models are for
Alembic and for applications that use SQLAlchemy.
"""

from __future__ import annotations

from revector.core.models.backfill import (
    BackfillJob,
    BackfillProof,
    BackfillRange,
    BackfillSample,
    BackfillTransition,
    BackfillWorkerRow,
    DeadLetter,
    VectorLoad,
)
from revector.core.models.base import Base
from revector.core.models.cutover import Cutover, CutoverApproval, CutoverPolicy, CutoverRequest
from revector.core.models.documents import ChunkOutbox, DocumentChunk, EmbeddingVersion, RepeatedText, RowCount
from revector.core.models.evaluation import (
    EvaluationResult,
    EvaluationRow,
    EvaluationRun,
    JudgementRow,
    JudgeRow,
    QueryRow,
    QuerySetRow,
)
from revector.core.models.log import AuditLog
from revector.core.models.retrieval import SearchCount
from revector.core.models.shadow import Shadow, ShadowCount, ShadowQuery
from revector.core.models.version_tables import is_version_table, version_model

__all__ = [
    "AuditLog",
    "BackfillJob",
    "BackfillProof",
    "BackfillRange",
    "BackfillSample",
    "BackfillTransition",
    "BackfillWorkerRow",
    "Base",
    "ChunkOutbox",
    "Cutover",
    "CutoverApproval",
    "CutoverPolicy",
    "CutoverRequest",
    "DeadLetter",
    "DocumentChunk",
    "EmbeddingVersion",
    "EvaluationResult",
    "EvaluationRow",
    "EvaluationRun",
    "JudgeRow",
    "JudgementRow",
    "QueryRow",
    "QuerySetRow",
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
