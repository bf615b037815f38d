"""What is asked and answered over HTTP, as OpenAPI shows it. What is not named here is refused, not ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypeAliasType

from revector.core.encoders.spec import read_spec
from revector.core.errors import UsageError
from revector.core.registry import MAX_DIMENSIONS, Version
from revector.core.retrieval import MAX_EF_SEARCH, MAX_K

MAX_QUERY = 100_000
MAX_IN_URL = 1_500
"""Twelve bytes a character at most: with everything else that a URL may say, within what uvicorn reads of one."""
MAX_FILTERS = 32

_SEEN = r"[^\s\x00-\x1f\x7f-\x9f]"
"""At least one character that is neither blank nor a control character."""


def _whole(value: object) -> object:
    """JSON has one kind of number: 10.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Postgres stores no NUL."""
Value = TypeAliasType(
    "Value",
    "Text | bool | int | Annotated[float, Field(allow_inf_nan=False)] | list[Value] | dict[Text, Value] | None",
)
"""What metadata can hold."""

Query = Annotated[
    str,
    Field(description="What to search for.", min_length=1, max_length=MAX_QUERY, pattern=_SEEN),
]
K = Annotated[int, Field(description="Number of hits.", ge=1, le=MAX_K), BeforeValidator(_whole)]
Key = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[^\x00]+$")]
Segment = Annotated[
    str,
    Field(description="The kind of query; shadow figures are shown by it.", max_length=100, pattern=r"^[^\x00]*$"),
]
EfSearch = Annotated[
    int | None,
    Field(description="hnsw.ef_search in place of the version's own.", ge=1, le=MAX_EF_SEARCH),
    BeforeValidator(_whole),
]
Filters = Annotated[
    dict[Text, Value],
    Field(
        description="Only chunks whose metadata satisfies this: docs/search.md, Filters.", max_length=MAX_FILTERS
    ),
]


class Strict(BaseModel):
    """A document in which nothing is guessed: no other fields, no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SearchRequest(Strict):
    """A search by text, by the version that is served."""

    query: Query
    k: K = 10
    hybrid: Annotated[bool, Field(description="Fuse full text and vectors by reciprocal rank.")] = False
    rerank: Annotated[bool, Field(description="Rerank with the server's cross-encoder.")] = False
    filters: Filters = {}
    ef_search: EfSearch = None
    segment: Segment = ""


class SearchParameters(BaseModel):
    """A search by text as a URL says it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    q: Annotated[str, Field(description="What to search for.", min_length=1, max_length=MAX_IN_URL, pattern=_SEEN)]
    k: K = 10
    hybrid: bool = False
    rerank: bool = False
    filter: Annotated[
        list[Annotated[str, Field(max_length=200, pattern=r"^[^=\x00]+=[^\x00]*$")]],
        Field(description="name=value, for text values; several times for several names.", max_length=10),
    ] = []
    ef_search: EfSearch = None
    segment: Segment = ""

    def as_request(self) -> SearchRequest:
        """The same as a document."""
        filters: dict[str, Value] = {name: value for name, _, value in (one.partition("=") for one in self.filter)}
        return SearchRequest(query=self.q, filters=filters, **self.model_dump(exclude={"q", "filter"}))


class VectorRequest(Strict):
    """A search by a vector of the caller's own, in the version whose encoder made it."""

    vector: Annotated[
        list[Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]],
        Field(
            description="The query vector, as the version's encoder made it.",
            min_length=1,
            max_length=MAX_DIMENSIONS,
        ),
    ]
    version: Annotated[Key, Field(description="The version that the query was encoded for.")]
    k: K = 10
    filters: Filters = {}
    ef_search: EfSearch = None


class HitAnswer(BaseModel):
    """One hit. `distance` has a meaning within its version only; null when text alone found it."""

    rank: int
    chunk_id: int
    semantic_key: str
    source_id: str
    chunk_no: int
    distance: float | None
    content: str
    metadata: dict[str, Any]
    score: Annotated[float | None, Field(description="Of a hybrid search: what the ranks add up to.")]
    vector_rank: Annotated[int | None, Field(description="Of a hybrid search: the rank by vector.")]
    text_rank: Annotated[int | None, Field(description="Of a hybrid search: the rank by words.")]


class SearchAnswer(BaseModel):
    """The hits of one version, nearest first. All of them are of the version that `version_key` names."""

    version_key: str
    active: Annotated[bool, Field(description="Whether that version was active during the search.")]
    hits: list[HitAnswer]
    encode_ms: float
    search_ms: float
    rerank_ms: float


class VersionAnswer(BaseModel):
    """A version, and what it takes to encode a query for it: in the words of SQL's active_version()."""

    version_key: str
    active: bool
    state: str
    encoder_name: str
    encoder_revision: str
    dimensions: int
    distance_metric: Literal["cosine", "l2", "ip"]
    storage: Literal["vector", "halfvec"]
    provider: Annotated[
        str | None, Field(description="Null for a version without an encoder that revector can open.")
    ]
    model: str | None
    base_url: Annotated[str | None, Field(description="Null for the provider's own address.")]
    query_prefix: Annotated[str, Field(description="Prefix for queries.")]
    normalise: Annotated[bool, Field(description="Whether vectors are scaled to length one.")]
    max_tokens: int | None


class VersionsAnswer(BaseModel):
    """Every version, oldest first."""

    active: Annotated[str | None, Field(description="The active version.")]
    serving: Annotated[str | None, Field(description="The version this server uses; differs when pinned.")]
    versions: list[VersionAnswer]


class HealthAnswer(BaseModel):
    """Whether searches can be answered now."""

    ready: bool


class ProblemAnswer(BaseModel):
    """What went wrong (`type` for programs, `detail` for people) and what to do about it."""

    type: str
    detail: str
    remedy: str


def version_answer(version: Version) -> dict[str, Any]:
    """The VersionAnswer of a version. Of its encoder's settings, those that another machine has use for."""
    try:
        spec = read_spec(version.encoder_spec) if version.encoder_spec else None
    except UsageError:  # written by hand, and nothing that revector could open
        spec = None
    return {
        **{name: getattr(version, name) for name in VersionAnswer.model_fields if hasattr(version, name)},
        "provider": spec.provider if spec else None,
        "model": spec.model if spec else None,
        "base_url": spec.settings.get("base_url") if spec else None,
        "query_prefix": spec.query_prefix if spec else "",
        "normalise": spec.normalise if spec else True,
        "max_tokens": spec.max_tokens if spec else None,
    }


def explain(errors: list[dict[str, Any]]) -> str:
    """What pydantic found wrong, in one line, without the values."""
    found = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in errors[:5]]
    more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
    return "; ".join(found)[:2_000] + more
