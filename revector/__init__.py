"""revector: change the embedding model behind a pgvector search without breaking it.

from revector import Database, Retriever

Everything here is loaded when first used, so that `import revector` is cheap.
"""

from __future__ import annotations

from importlib import import_module
from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from revector.console.notebook import Console
    from revector.core.database import Database
    from revector.core.errors import (
        BusyError,
        ClosedError,
        DatabaseUnreachableError,
        EncoderError,
        EncoderUnreachableError,
        NotFoundError,
        NotReadyError,
        PinnedVersionError,
        RefusedError,
        RevectorError,
        UnreachableError,
        UsageError,
    )
    from revector.core.retrieval import AsyncRetriever, Hit, Retriever, SearchResult
    from revector.core.shadow import AsyncMirror, Mirror

__all__ = [
    "AsyncMirror",
    "AsyncRetriever",
    "BusyError",
    "ClosedError",
    "Console",
    "Database",
    "DatabaseUnreachableError",
    "EncoderError",
    "EncoderUnreachableError",
    "Hit",
    "Mirror",
    "NotFoundError",
    "NotReadyError",
    "PinnedVersionError",
    "RefusedError",
    "Retriever",
    "RevectorError",
    "SearchResult",
    "UnreachableError",
    "UsageError",
]

_MODULES = {
    "AsyncMirror": "core.shadow",
    "AsyncRetriever": "core.retrieval",
    "Console": "console.notebook",
    "Database": "core.database",
    "Hit": "core.retrieval",
    "Mirror": "core.shadow",
    "Retriever": "core.retrieval",
    "SearchResult": "core.retrieval",
}
"""Where each public name lives; the errors live in core.errors."""
_loading = RLock()
"""psycopg's modules import each other: two threads that begin at different ones would see half-made modules."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _loading:
        module = import_module(f"{__name__}.{_MODULES.get(name, 'core.errors')}")
    globals()[name] = getattr(module, name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
