"""A query on its way to the candidate, and the shadow that it was drawn for, as one process follows it."""

from __future__ import annotations

import datetime
import threading
from dataclasses import dataclass, field

from revector.core import overlap as ranks
from revector.core.registry import Version
from revector.core.retrieval import SearchResult
from revector.core.retrieval.result import keys_of
from revector.core.shadow import store
from revector.core.shadow.breaker import Breaker
from revector.core.shadow.runs import ShadowRun


@dataclass
class Followed:
    """The shadow as this process follows it, with what it made of the queries since."""

    run: ShadowRun
    version: Version
    breaker: Breaker
    counts: store.Counts
    written: store.Counts | None = None


@dataclass(eq=False)
class Drawn:
    """A query on its way. `late` says that its candidate was given up on: what still comes does not count."""

    followed: Followed
    result: SearchResult
    segment: str
    at: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    started: float | None = None
    worker: threading.Thread | None = None
    late: bool = False


def row_of(item: Drawn, candidate: SearchResult | None, why: str) -> store.MirroredQuery:
    """What is written down of it; `candidate` is None where that did not answer, and `why` says the reason."""
    run, result = item.followed.run, item.result
    primary, found = keys_of(result), keys_of(candidate) if candidate else []
    return store.MirroredQuery(
        run.id,
        item.at,
        result.version_key,
        *store.kept_of(result.query, run.query_text),
        store.segment_of(item.segment),
        result.k,
        primary,
        found,
        ranks.compare(primary, found, result.k) if candidate else None,
        _milliseconds(result),
        _milliseconds(candidate) if candidate else None,
        why,
    )


def _milliseconds(result: SearchResult) -> float:
    return (result.encode_s + result.search_s + result.rerank_s) * 1000
