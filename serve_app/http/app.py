"""The HTTP application: its routes and middleware."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_app import __version__
from serve_app.domain.errors import InvalidRequest, MethodNotAllowed, NotFound, RerankError
from serve_app.http.admin.routes import admin_endpoints
from serve_app.http.cors import cors
from serve_app.http.error_boundary import Endpoint, guarded
from serve_app.http.headers import server_url
from serve_app.http.health import health, ready_endpoint
from serve_app.http.manage import manage_endpoints
from serve_app.http.models import infinity_models_endpoint, info_endpoint, models_endpoints
from serve_app.http.openapi import scoring
from serve_app.http.openapi.document import document
from serve_app.http.openapi.scoring import ScoringOperation
from serve_app.http.openapi.swagger import DocsFiles, docs
from serve_app.http.page.files import PageFiles
from serve_app.http.paths import JoinedPaths
from serve_app.http.problems import problem
from serve_app.http.request_ids import NamesRequests, request_ids
from serve_app.http.rerank.endpoint import rerank_endpoint
from serve_app.http.service import Service
from serve_app.http.statements import statement_endpoints
from serve_app.http.usage import usage_endpoints
from serve_app.protocols.infinity import INFINITY
from serve_app.protocols.json_body import shown
from serve_app.protocols.limits import Limits
from serve_app.protocols.nvidia import NVIDIA
from serve_app.protocols.problem_body import RenderProblem, render_problem
from serve_app.protocols.rerank import RERANK
from serve_app.protocols.score import SCORE
from serve_app.protocols.tei import RERANK_OR_TEI, TEI
from serve_app.protocols.voyage import VOYAGE
from serve_app.protocols.wire_format import WireFormat

SCORING: tuple[tuple[ScoringOperation, WireFormat[Any]], ...] = (
    (scoring.RERANK, RERANK),
    (scoring.RERANK_AT_ROOT, RERANK_OR_TEI),
    (scoring.SCORE, SCORE),
    (scoring.INFINITY, INFINITY),
    (scoring.NVIDIA, NVIDIA),
    (scoring.VOYAGE, VOYAGE),
)

PREFIXES: Mapping[str, RenderProblem] = {
    "/infinity/": INFINITY.render_problem,
    "/voyage/": VOYAGE.render_problem,
}
"""Error bodies of paths that only one family of clients uses, served or not."""


def build_app(service: Service) -> Starlette:
    """Return the ASGI application, which starts and owns no resources."""
    list_models, get_model = models_endpoints(service)
    own_usage, all_usage = usage_endpoints(service)
    accounts = manage_endpoints(service) | statement_endpoints(service) | admin_endpoints(service)

    def get(path: str, endpoint: Endpoint, render: RenderProblem = render_problem) -> Route:
        return Route(path, guarded(service, endpoint, render), methods=["GET"])

    def by_method(path: str, endpoints: Mapping[str, Endpoint]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await endpoints["GET" if request.method == "HEAD" else request.method](request)

        return Route(path, guarded(service, endpoint), methods=list(endpoints))

    files = PageFiles()
    app = Starlette(
        routes=[
            *_scoring_routes(service),
            get("/v1/models", list_models),
            get("/v1/models/{id:path}", get_model),
            get("/info", info_endpoint(service), TEI.render_problem),
            get("/infinity/models", infinity_models_endpoint(service), INFINITY.render_problem),
            get("/v1/usage", own_usage),
            get("/admin/v1/usage", all_usage),
            *(by_method(path, each) for path, each in accounts.items()),
            get("/health", health),
            get("/ready", ready_endpoint(service)),
            get("/openapi.json", _openapi_endpoint(service)),
            get("/docs", docs),
            get("/docs/{name}", DocsFiles().answer),
            get("/page/{name:path}", files.answer),
            get("/", files.page("index.html")),
            get("/operator", files.page("operator.html")),
        ],
        middleware=[
            Middleware(
                NamesRequests,
                new_request_id=service.new_request_id,
                add_header=not service.server_names_answers,
            ),
            *cors(service.cors_allowed_origins),
            Middleware(JoinedPaths),
        ],
        exception_handlers={HTTPException: _no_route},
    )
    app.router.redirect_slashes = False
    return app


def _scoring_routes(service: Service) -> Iterator[Route]:
    for operation, wire_format in SCORING:
        endpoint = rerank_endpoint(service, wire_format)
        for path in operation.paths:
            yield Route(path, endpoint, methods=["POST"])


@cache
def _openapi_around_server(limits: Limits) -> tuple[str, str]:
    before, after = json.dumps(document(limits, __version__, "SERVER")).split("SERVER")
    return before, after


def _openapi_endpoint(service: Service) -> Endpoint:
    before, after = _openapi_around_server(service.limits)

    async def openapi_json(request: Request) -> Response:
        server = server_url(request.headers, request.url.scheme)
        return Response(f"{before}{server}{after}", media_type="application/json")

    return openapi_json


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    render = next((PREFIXES[each] for each in PREFIXES if path.startswith(each)), render_problem)
    return problem(_routing_error(request, error), request_ids(request).own, render)


def _routing_error(request: Request, error: HTTPException) -> RerankError:
    if error.status_code == 404:
        return NotFound(f"route '{shown(request.scope['path'])}'", None)
    if error.status_code == 405:
        return MethodNotAllowed(request.method, (error.headers or {}).get("Allow", ""))
    return InvalidRequest("request", "is not valid HTTP")
