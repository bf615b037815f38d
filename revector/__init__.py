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
    from revector.core.errors import EncoderError, RefusedError, RevectorError, UnreachableError, UsageError
    from revector.core.retrieval import AsyncRetriever, Retriever
    from revector.core.shadow import Mirror

__all__ = [
    "AsyncRetriever",
    "Console",
    "Database",
    "EncoderError",
    "Mirror",
    "RefusedError",
    "Retriever",
    "RevectorError",
    "UnreachableError",
    "UsageError",
]

_MODULES = {
    "AsyncRetriever": "core.retrieval",
    "Console": "console.notebook",
    "Database": "core.database",
    "Mirror": "core.shadow",
    "Retriever": "core.retrieval",
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
