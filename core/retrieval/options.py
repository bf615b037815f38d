"""The options of a search, checked: how many hits, hybrid or not, the filter."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral

from revector.core.errors import UsageError
from revector.core.index import DEFAULTS
from revector.core.registry import Version
from revector.core.retrieval.query_text import excludes

MAX_K = 1_000
MAX_EF_SEARCH = 1_000
FUSION_DEPTH = 100
"""The minimum depth of the two lists of a hybrid search; Cormack fused whole runs, whose ends weigh little."""
_MOST_FILTER_BYTES = 16 * 1024
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search. `filter` is `where` as JSON: what a chunk's metadata must satisfy (docs/search.md).
    `excludes` says that the text of a hybrid search has a -word, which no hit may contain."""

    k: int
    hybrid: bool = False
    filter: str | None = None
    ef_search: int | None = None
    where: Mapping[str, object] | None = None
    rerank: str | None = None
    excludes: bool = False

    @property
    def filtered(self) -> bool:
        """Whether some chunks are no hits, however near they are."""
        return self.filter is not None or self.excludes

    def of(self, text: str) -> SearchOptions:
        """The options of a search for this text."""
        return replace(self, excludes=True) if self.hybrid and excludes(text) else self

    @property
    def depth(self) -> int:
        """How many chunks the vector search looks for: k, or the depth of the fused lists."""
        return min(MAX_K, max(FUSION_DEPTH, 2 * self.k)) if self.hybrid else self.k


def check_options(
    k: int,
    *,
    hybrid: bool = False,
    where: Mapping[str, object] | None = None,
    ef_search: int | None = None,
    rerank: str | None = None,
) -> SearchOptions:
    """Check the options. Raises UsageError for k or ef_search outside 1 to 1,000, and for a filter that is not a
    JSON object."""
    if rerank is not None and not isinstance(rerank, str):
        raise UsageError(f"rerank is {rerank!r}; expected the spec of a cross-encoder.")
    k = _whole_number(k, MAX_K, f"k is {k!r}; expected 1 to {MAX_K}.")
    if ef_search is not None:
        problem = f"ef_search is {ef_search!r}; pgvector takes 1 to {MAX_EF_SEARCH:,}."
        ef_search = _whole_number(ef_search, MAX_EF_SEARCH, problem)
    return SearchOptions(k, hybrid, _filter(where) if where else None, ef_search, where or None, rerank)


def _whole_number(value: object, most: int, problem: str) -> int:
    if isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= most:
        return int(value)
    raise UsageError(problem, "Give a whole number.")


def _filter(where: Mapping[str, object]) -> str:
    if not isinstance(where, Mapping):
        raise UsageError(
            f"The filter is a {type(where).__name__}.", 'Expected a mapping, such as {"language": "en"}.'
        )
    if not all(isinstance(name, str) for name in where):
        raise UsageError("The keys of a filter must be text.", 'Expected such as {"language": "en"}.')
    try:
        text = json.dumps(dict(where), allow_nan=False, ensure_ascii=False)
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:  # a lone surrogate too
        raise UsageError(f"The filter is not JSON: {error}", 'Expected such as {"language": "en"}.') from None
    if _NUL.search(text):
        raise UsageError("The filter contains a NUL character, which metadata cannot.")
    if size > _MOST_FILTER_BYTES:
        raise UsageError(f"The filter has {size:,} bytes; the limit is {_MOST_FILTER_BYTES:,}.")
    return text


def ef_search_for(version: Version, k: int, wanted: int | None = None) -> int:
    """The ef_search of a top-k search: the given one or the version's, but never below k, which would limit the
    hits."""
    return min(MAX_EF_SEARCH, max(int(wanted or {**DEFAULTS, **version.index_settings}["ef_search"]), k))
