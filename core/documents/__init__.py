"""Reading documents: text, Markdown, JSONL and CSV files, folders of them, and collections in the BEIR layout.

What comes in is hostile until it was checked. Every document is checked where it is made (`Document`), so that
a document that exists can be stored; what cannot be taken is reported with file and line, and the rest goes on.
Memory holds one document, and 16 bytes of digest for every id, by which a second one is found.
"""

from __future__ import annotations

from revector.core.documents.document import (
    MAX_ID_CHARACTERS,
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    Document,
    DocumentError,
)
from revector.core.documents.reader import DocumentReader, Rejection, read_documents

__all__ = [
    "MAX_ID_CHARACTERS", "MAX_METADATA_BYTES", "MAX_METADATA_DEPTH",
    "Document", "DocumentError", "DocumentReader", "Rejection", "read_documents",
]  # fmt: skip
