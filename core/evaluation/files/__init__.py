"""Query sets, judgements and runs in files: the layouts of BEIR and of TREC.

The format of a file is detected from its content, never from its name. Files are read line by line, gzipped or
not, and errors name file and line.
"""

from __future__ import annotations

from revector.core.evaluation.files.qrels import JudgementFile, read_qrels
from revector.core.evaluation.files.topics import JudgedQueries, beir_files, read_beir, read_queries

__all__ = ["JudgedQueries", "JudgementFile", "beir_files", "read_beir", "read_qrels", "read_queries"]
