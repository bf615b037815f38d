"""Reading documents: text, web, office and PDF files, records in JSON and tables, folders, and BEIR collections.

Input is untrusted until checked. Every document is checked when it is created (`Document`), so every existing
document can be stored. What is rejected is reported with file and line, and reading continues. Memory holds one
document, and a digest of 16 bytes for every id, to find duplicates.
"""

from __future__ import annotations

from revector.core.documents.document import Document, Origin
from revector.core.documents.kinds import KINDS
from revector.core.documents.reader import DocumentReader, Rejection, read_documents
from revector.core.documents.records import Naming

__all__ = ["KINDS", "Document", "DocumentReader", "Naming", "Origin", "Rejection", "read_documents"]
