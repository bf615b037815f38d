"""The Mirror for asyncio: what would wait does not block the event loop.

async with AsyncMirror(database) as mirror, AsyncRetriever(database, mirror=mirror) as retriever: ...
"""

from __future__ import annotations

import asyncio
from typing import Any, Self

from revector.core.database import Database
from revector.core.retrieval import SearchResult
from revector.core.shadow.mirror import Mirror
from revector.core.shadow.runs import ShadowRun


class AsyncMirror:
    """A mirror for an AsyncRetriever. It has the threads and connections of a Mirror: see there for the arguments."""

    def __init__(self, database: Database, **options: Any) -> None:
        self._mirror = Mirror(database, **options)

    @property
    def run(self) -> ShadowRun | None:
        """The shadow that this process follows; None when none runs or none is known yet."""
        return self._mirror.run

    @property
    def trouble(self) -> str:
        """Why the row cannot be read, or nothing can be written, at the moment."""
        return self._mirror.trouble

    def __call__(self, result: SearchResult, segment: str = "") -> None:
        """Mirror an answer given to a user. Takes microseconds, whatever the candidate does."""
        self._mirror(result, segment)

    async def wait(self, timeout_s: float = 10.0) -> bool:
        """Wait until it follows a shadow; False when none ran in that time."""
        return await asyncio.to_thread(self._mirror.wait, timeout_s)

    async def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all sampled queries are searched and written; False after the timeout."""
        return await asyncio.to_thread(self._mirror.flush, timeout_s)

    async def close(self, timeout_s: float = 2.0) -> None:
        """Write the results and stop; queued queries are dropped, and a hanging candidate is not waited for."""
        await asyncio.to_thread(self._mirror.close, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
