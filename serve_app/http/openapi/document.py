"""``GET /openapi.json``, generated from wire types and the status table."""

from typing import Any

from serve_app.domain.errors import (
    Conflict,
    EngineFailure,
    Forbidden,
    LedgerUnavailable,
    NotFound,
    Overloaded,
    RerankError,
    Unauthenticated,
)
from serve_app.http.headers import RATE_LIMIT_HEADERS, REPLAYED_HEADER
from serve_app.http.openapi import parameters
from serve_app.http.openapi.operation import Operation
from serve_app.http.openapi.operations import OPERATIONS
from serve_app.http.openapi.responses import (
    COMPUTE_TOKENS,
    HEADERS,
    SERVER_TIMING,
    content,
    error_codes,
    error_response,
    error_responses,
    idempotency_conflict,
    response,
)
from serve_app.http.openapi.scoring import SCORING, TEXT_LISTS, ScoringOperation
from serve_app.http.problems import PROBLEMS
from serve_app.protocols.cohere_models import CohereModel, CohereModels
from serve_app.protocols.infinity import InfinityError, InfinityModels
from serve_app.protocols.limits import Limits
from serve_app.protocols.models_list import ModelDetails, ModelList
from serve_app.protocols.problem_body import ErrorBody
from serve_app.protocols.schemas import WireType, component_schemas
from serve_app.protocols.score import FORMS
from serve_app.protocols.status import HealthBody, ReadinessBody
from serve_app.protocols.tei import TeiError, TeiInfo, TeiResponse

Json = dict[str, Any]

DESCRIPTION = """Scores how well documents answer a query, at a price per document, per token or
both.

Status 200 means that the charge is durable. Any other status means that nothing was charged.
Client libraries for Cohere and OpenAI only need a different base URL."""

LICENSE = "Apache-2.0"
SECURITY: list[Json] = [{"bearer": []}, {"apiKey": []}]
TYPES: tuple[WireType, ...] = (
    *(kind for scoring in SCORING for kind in scoring.types),
    *(operation.answer for operation in OPERATIONS),
    *(operation.body for operation in OPERATIONS if operation.body is not None),
    *(ModelList, ModelDetails, CohereModels, CohereModel, TeiInfo, InfinityModels),
    *(HealthBody, ReadinessBody, ErrorBody),
)
GUARDED = (Unauthenticated, Forbidden, Overloaded, EngineFailure, LedgerUnavailable)


def document(limits: Limits, version: str, server: str = "http://127.0.0.1:8000") -> Json:
    """Return the OpenAPI 3.1 document.

    ``limits`` are shown in descriptions and as bounds in request schemas. Programs that import the
    document use ``server``, because some of them know no relative URL.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rerank-serve",
            "version": version,
            "description": DESCRIPTION,
            "license": {"name": LICENSE, "identifier": LICENSE},
        },
        "servers": [{"url": server}, {"url": "/", "description": "The host of this document."}],
        "paths": _scoring_paths(limits) | _model_paths() | _status_paths() | _account_paths(),
        "components": {
            "schemas": _schemas(limits),
            "responses": error_responses(),
            "headers": HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _scoring_paths(limits: Limits) -> Json:
    return {
        path: {"post": _score(scoring, path, limits)}
        for scoring in SCORING
        for path in scoring.paths
    }


def _score(scoring: ScoringOperation, path: str, limits: Limits) -> Json:
    preferred = scoring.paths[0]
    request_example, answer_example = scoring.examples
    codes = {status: each for status, each in error_codes().items() if status != _CONFLICT}
    codes |= {str(status): [code] for status, code in scoring.own_statuses.items()}
    of_tei = [COMPUTE_TOKENS] if TeiResponse in scoring.responses else []
    return {
        "summary": scoring.summary if path == preferred else f"Alias of {preferred}",
        "operationId": scoring.name
        + "".join(part.capitalize() for part in path.split("/") if part != scoring.name),
        "tags": ["rerank"],
        "security": SECURITY,
        "parameters": [
            parameters.timeout(limits),
            parameters.REQUEST_ID,
            parameters.IDEMPOTENT_SCORING,
        ],
        "requestBody": {
            "required": True,
            "content": content(*scoring.requests, example=request_example),
        },
        "responses": {
            "200": response(
                scoring.answer,
                content(*scoring.responses, example=answer_example),
                (SERVER_TIMING, REPLAYED_HEADER, *RATE_LIMIT_HEADERS, *of_tei),
            ),
            _CONFLICT: idempotency_conflict(scoring.errors),
        }
        | {status: error_response(status, each, scoring.errors) for status, each in codes.items()},
    }


_CONFLICT = str(PROBLEMS[Conflict].status)


def _model_paths() -> Json:
    list_models = _get(
        "listModels",
        "List the models of the API key; for Cohere's libraries in Cohere's form",
        (ModelList, CohereModels),
    )
    get_model = _get(
        "getModel",
        "Get a model; for Cohere's libraries in Cohere's form",
        (ModelDetails, CohereModel),
        (*GUARDED, NotFound),
    )
    get_model["parameters"] = [parameters.path_id("Id or alias; may contain slashes.")]
    info = _get("info", "Describe the default model as TEI does", (TeiInfo,), error=TeiError)
    of_infinity = _get(
        "listInfinityModels",
        "List the models of the API key as Infinity does",
        (InfinityModels,),
        error=InfinityError,
    )
    return {
        "/v1/models": {"get": list_models},
        "/v1/models/{id}": {"get": get_model},
        "/info": {"get": info},
        "/infinity/models": {"get": of_infinity},
    }


def _status_paths() -> Json:
    health = _get("health", "Check that the process is alive", (HealthBody,), ())
    ready = _get("ready", "Check that requests can be answered", (ReadinessBody,), ())
    ready["responses"]["503"] = response(
        "Not ready; the body names the cause.", content(ReadinessBody), ["retry-after"]
    )
    for operation in (health, ready):
        operation |= {"tags": ["operations"], "security": []}
    return {"/health": {"get": health}, "/ready": {"get": ready}}


def _account_paths() -> Json:
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _account(operation)
    return paths


def _account(operation: Operation) -> Json:
    described = _get(
        operation.name, operation.summary, (operation.answer,), (*GUARDED, *operation.errors)
    )
    described["tags"] = [_tag(operation.path)]
    described["parameters"] = [*operation.parameters]
    if "{id}" in operation.path:
        described["parameters"].append(parameters.path_id("Public id of the tenant or key."))
    if operation.body is not None:
        described["requestBody"] = {
            "required": any(each.is_required() for each in operation.body.model_fields.values()),
            "content": content(operation.body),
        }
    if operation.media_types:
        texts = {kind: {"schema": {"type": "string"}} for kind in operation.media_types}
        answer = content(operation.answer) | texts
        described["responses"]["200"] = response("Success.", answer, operation.headers)
    return described


def _tag(path: str) -> str:
    if path.startswith("/admin"):
        return "admin"
    return "usage" if path == "/v1/usage" else "account"


def _get(
    name: str,
    summary: str,
    answers: tuple[WireType, ...],
    errors: tuple[type[RerankError], ...] = GUARDED,
    error: WireType = ErrorBody,
) -> Json:
    statuses = sorted({str(PROBLEMS[each].status) for each in errors})
    codes = error_codes()
    return {
        "summary": summary,
        "operationId": name,
        "tags": ["models"],
        "security": SECURITY,
        "responses": {"200": response("Success.", content(*answers))}
        | {status: error_response(status, codes[status], (error,)) for status in statuses},
    }


def _schemas(limits: Limits) -> Json:
    schemas = component_schemas(TYPES)
    query = {"pattern": r"\S", "maxLength": limits.query_characters_max}
    for ranking, texts in TEXT_LISTS.items():
        request = schemas[ranking.__name__]["properties"]
        nested = "$ref" in request["query"]
        request["query"] |= {"properties": {"text": query}} if nested else query
        request[texts] |= {"maxItems": limits.documents_per_request_max}
    for names, kind in FORMS.items():
        for name in names:
            field = schemas[kind.__name__]["properties"][name]
            # The field may be a string, too.
            for each in field.get("anyOf", [field]):
                if each["type"] == "array":
                    each["maxItems"] = limits.documents_per_request_max
    return schemas
