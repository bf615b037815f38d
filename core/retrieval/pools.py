"""The pools of retrievers. Imported when one is opened: psycopg's pool takes a while to import."""

from __future__ import annotations

import logging
import os
from typing import Any

from psycopg_pool import AsyncConnectionPool as AsyncConnectionPool
from psycopg_pool import ConnectionPool

from revector.core.retrieval.connections import AsyncSearchConnection, SearchConnection

log = logging.getLogger(__name__)

NAME = "revector "
"""How the names of these pools begin."""


class SearchPool(ConnectionPool[SearchConnection]):
    """A pool that a forked child drops without ending it: its threads and its connections are the parent's.

    Nothing ends an AsyncConnectionPool that is dropped.
    """

    def __init__(self, **options: Any) -> None:
        self._process = os.getpid()
        super().__init__(connection_class=SearchConnection, **options)

    def __del__(self) -> None:
        if self._process == os.getpid():
            super().__del__()


def _of_others(record: logging.LogRecord) -> bool:
    """Keep what other pools report. What ours report is in the errors of searches, so here it is for debugging."""
    ours = any(
        isinstance(value, SearchConnection | AsyncSearchConnection)
        or (isinstance(value, str) and value.startswith(NAME))
        for value in record.args or ()
    )
    if ours:
        log.debug("%s", record.getMessage())
    return not ours


# Without a handler, Python would print these warnings on the application's stderr.
logging.getLogger("psycopg.pool").addFilter(_of_others)
