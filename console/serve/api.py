"""The routes, and the OpenAPI document made from them."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import Response

from revector.console.serve import problems, schemas
from revector.console.serve.problems import Problem, Refused
from revector.core.errors import RevectorError, UsageError

if TYPE_CHECKING:
    from revector.console.serve.limits import Slot
    from revector.console.serve.metrics import Metrics
    from revector.console.serve.service import Service
    from revector.core.retrieval import Hit, SearchResult

_ABOUT = """\
Search a revector collection. Every answer names the version that its hits are of; a flip of the active version is
followed at once, and query and table are always of one version. Errors have one shape: type, detail, remedy."""

_WHEN = {
    401: "No token, or a wrong one.",
    408: "The request's body did not arrive in time.",
    413: "The request's body is too large.",
    422: "The request is not what this document says.",
    503: "The server is busy or shutting down, or cannot reach its database or encoder; see Retry-After.",
    504: "The search timed out.",
}
_WHEN_SEARCHING = {
    409: "Understood, but not possible: for example no active version, or a version without vectors.",
    502: "The encoder returned something unusable.",
}


def make_api(service: Service, metrics: Metrics) -> FastAPI:
    """The application without its middleware."""
    api = FastAPI(
        title="revector",
        version=installed("revector"),
        description=_ABOUT,
        docs_url=None,  # they load scripts from other sites
        redoc_url=None,
        redirect_slashes=False,
    )
    router = APIRouter(
        dependencies=[Depends(HTTPBearer(auto_error=False, description="The server's token."))],
        responses=_documented(_WHEN),
    )
    searching = _documented(_WHEN_SEARCHING)

    @router.post("/search", response_model=schemas.SearchAnswer, responses=searching, summary="Search by text")
    async def search(asked: schemas.SearchRequest, request: Request) -> Response:
        """The k nearest chunks of a text, by the version that is served."""
        return _answer(await service.search(asked, _slot(request)), metrics)

    @router.get(
        "/search", response_model=schemas.SearchAnswer, responses=searching, summary="Search by text, in a URL"
    )
    async def search_by_url(asked: Annotated[schemas.SearchParameters, Query()], request: Request) -> Response:
        """As POST /search, for what a URL can say."""
        return _answer(await service.search(asked.as_request(), _slot(request)), metrics)

    @router.post(
        "/search/vector",
        response_model=schemas.SearchAnswer,
        responses=searching | _documented({404: "There is no such version."}),
        summary="Search by a vector of your own",
    )
    async def search_vector(asked: schemas.VectorRequest, request: Request) -> Response:
        """The k nearest chunks of a vector, in the version it was encoded for, for as long as that exists.

        `active` false says that users are answered by another version by now: see GET /versions, and encode for it.
        """
        slot = _slot(request)
        try:
            return _answer(await service.search_vector(asked, slot), metrics)
        except UsageError as error:
            known = await service.registered(slot)
            if asked.version not in {version.version_key for version in known}:
                raise Refused(Problem(404, "unknown_version", error.problem, error.remedy)) from None
            raise

    @router.get("/versions", response_model=schemas.VersionsAnswer, summary="The versions and their encoders")
    async def versions(request: Request) -> Response:
        """Every embedding version with its encoder; `active` answers users."""
        registered = await service.registered(_slot(request))
        active = next((version for version in registered if version.active), None)
        return _json(
            {
                "active": active.version_key if active else None,
                "serving": service.serving,
                "versions": [schemas.version_answer(version) for version in registered],
            }
        )

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        summary="Figures for Prometheus",
    )
    async def figures() -> Response:
        """Requests, latencies by version, empty results, errors, requests in flight, the served version, the
        pool."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @api.get(
        "/healthz",
        response_model=schemas.HealthAnswer,
        responses={503: {"model": schemas.HealthAnswer, "description": "Searches cannot be answered now."}},
        summary="Ready or not",
    )
    async def healthz() -> Response:
        """Whether searches can be answered now. The one thing that is answered without a token."""
        ready = await service.ready()
        return _json({"ready": ready}, 200 if ready else 503)

    api.include_router(router)
    _handle_errors(api, metrics)
    return api


def paths_of(api: FastAPI) -> dict[str, set[str]]:
    """All paths with their methods. None has a variable part."""
    documented = {path: {name.upper() for name in methods} for path, methods in api.openapi()["paths"].items()}
    return documented | {str(api.openapi_url): {"GET"}}


def _handle_errors(api: FastAPI, metrics: Metrics) -> None:
    def answer(problem: Problem) -> Response:
        metrics.errors.labels(problem.kind).inc()
        return problem.response()

    @api.exception_handler(RevectorError)
    async def _ours(_request: Request, error: RevectorError) -> Response:
        return answer(problems.of_error(error))

    @api.exception_handler(Refused)
    async def _refused(_request: Request, refused: Refused) -> Response:
        return answer(refused.problem)

    @api.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> Response:
        return answer(Problem(422, "invalid", schemas.explain(list(error.errors())), "See /openapi.json."))

    @api.exception_handler(Exception)
    async def _internal(_request: Request, _error: Exception) -> Response:
        return problems.INTERNAL.response()  # raised again to the middleware, which counts and logs it

    @api.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return answer(Problem(404, "not_found", "There is nothing at this path.", "See /openapi.json."))
        if error.status_code == 405:
            allowed = ", ".join(sorted(paths_of(api)[request.scope["path"]]))
            return answer(
                Problem(405, "method_not_allowed", f"This path accepts {allowed}.", "", {"allow": allowed})
            )
        return answer(Problem(422, "invalid", "The request cannot be read.", "See /openapi.json."))


def _slot(request: Request) -> Slot:
    slot: Slot = request.scope["slot"]
    return slot


def _answer(result: SearchResult, metrics: Metrics) -> Response:
    metrics.searched(result.version_key, result.encode_s, result.search_s, len(result.hits))
    document = {name: getattr(result, name) for name in schemas.SearchAnswer.model_fields}
    return _json(document | {"hits": [_hit(hit) for hit in result.hits]})


def _hit(hit: Hit) -> dict[str, Any]:
    answer = {name: getattr(hit, name) for name in schemas.HitAnswer.model_fields if name != "metadata"}
    return answer | {"metadata": msgspec.Raw(hit.metadata_json.encode())}  # as the database wrote it


def _json(document: dict[str, Any], status: int = 200) -> Response:
    # msgspec writes a NaN distance (of a zero vector, for example) as null.
    return Response(msgspec.json.encode(document), status, media_type="application/json")


def _documented(when: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.ProblemAnswer, "description": text} for status, text in when.items()}
