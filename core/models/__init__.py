"""The schema's one source: SQLAlchemy models of the fixed tables, and of a version's table on request.

A test checks the revisions against these models. The program itself uses SQL through psycopg; the models are for
Alembic and for applications that use SQLAlchemy.
"""

from __future__ import annotations

from revector.core.models.backfill import BackfillJob as BackfillJob
from revector.core.models.backfill import BackfillProof as BackfillProof
from revector.core.models.backfill import BackfillRange as BackfillRange
from revector.core.models.backfill import BackfillSample as BackfillSample
from revector.core.models.backfill import BackfillTransition as BackfillTransition
from revector.core.models.backfill import BackfillWorkerRow as BackfillWorkerRow
from revector.core.models.backfill import DeadLetter as DeadLetter
from revector.core.models.backfill import VectorLoad as VectorLoad
from revector.core.models.base import Base as Base
from revector.core.models.cutover import Cutover as Cutover
from revector.core.models.cutover import CutoverApproval as CutoverApproval
from revector.core.models.cutover import CutoverPolicy as CutoverPolicy
from revector.core.models.cutover import CutoverRequest as CutoverRequest
from revector.core.models.documents import ChunkOutbox as ChunkOutbox
from revector.core.models.documents import DocumentChunk as DocumentChunk
from revector.core.models.documents import EmbeddingVersion as EmbeddingVersion
from revector.core.models.documents import IngestOrigin as IngestOrigin
from revector.core.models.documents import RepeatedText as RepeatedText
from revector.core.models.documents import RowCount as RowCount
from revector.core.models.documents import WordCount as WordCount
from revector.core.models.documents import WordStatistics as WordStatistics
from revector.core.models.evaluation import EvaluationResult as EvaluationResult
from revector.core.models.evaluation import EvaluationRow as EvaluationRow
from revector.core.models.evaluation import EvaluationRun as EvaluationRun
from revector.core.models.evaluation import JudgementRow as JudgementRow
from revector.core.models.evaluation import JudgeRow as JudgeRow
from revector.core.models.evaluation import QueryRow as QueryRow
from revector.core.models.evaluation import QuerySetRow as QuerySetRow
from revector.core.models.log import AuditLog as AuditLog
from revector.core.models.retrieval import SearchCount as SearchCount
from revector.core.models.shadow import QueryKey as QueryKey
from revector.core.models.shadow import Shadow as Shadow
from revector.core.models.shadow import ShadowCount as ShadowCount
from revector.core.models.shadow import ShadowQuery as ShadowQuery
from revector.core.models.version_tables import is_version_table as is_version_table
from revector.core.models.version_tables import version_model as version_model
