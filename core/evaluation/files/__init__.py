"""Query sets, judgements and runs in files: the layouts of BEIR and of TREC.

What a file holds is found by looking into it, never by its name. Files are read line by line, compressed by gzip or
not, and what is wrong is named by file and line.
"""

from __future__ import annotations

from revector.core.evaluation.files.qrels import JudgementFile, read_qrels
from revector.core.evaluation.files.topics import JudgedQueries, beir_files, read_beir, read_queries

__all__ = ["JudgedQueries", "JudgementFile", "beir_files", "read_beir", "read_qrels", "read_queries"]
