"""Runs made up for tests that need no database: only their ranks matter."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence

import numpy as np

from revector.core.evaluation.document import Run
from revector.core.evaluation.runs.store import QueryHits, Results


def document(number: int) -> uuid.UUID:
    return uuid.UUID(int=number)


def made_results(
    chunks: Mapping[str, Sequence[int]],
    documents: Mapping[int, int] | None = None,
    *,
    k: int = 100,
    distances: Mapping[str, Sequence[float]] | None = None,
    version_key: str = "v1",
) -> Results:
    """A run that ranked these chunks by query; a chunk is of the document of its own number unless said otherwise.

    All distances of a query are equal unless given.
    """
    now = datetime.datetime.now(datetime.UTC)
    run = Run(
        1, "set", "revision", version_key, "spec", "1", k, False, False, 100, {}, None, 10, len(chunks), "done",
        now, now, 1.0, "me",
    )  # fmt: skip
    return Results(
        run,
        {
            query: QueryHits(
                query,
                np.array(ids, dtype=np.int64),
                tuple(document((documents or {}).get(chunk, chunk)) for chunk in ids),
                np.array((distances or {}).get(query, [0.5] * len(ids)), dtype=np.float32),
                1.0,
                1.0,
            )
            for query, ids in chunks.items()
        },
    )
