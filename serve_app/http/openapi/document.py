"""``GET /openapi.json``: the API description, generated from wire types and the status table."""

from typing import Any

from serve_app.domain.errors import (
    RETRY_AFTER_S_MAX,
    ClientGone,
    Conflict,
    EngineFailure,
    Forbidden,
    LedgerUnavailable,
    NotFound,
    Overloaded,
    RerankError,
    Unauthenticated,
)
from serve_app.http.headers import TIMEOUT_HEADER
from serve_app.http.openapi.operations import OPERATIONS, QUERY_PARAMETERS, Operation
from serve_app.http.openapi.scoring import SCORING, TEXT_LISTS, ScoringOperation
from serve_app.http.problems import PROBLEMS
from serve_app.protocols.infinity import InfinityError, InfinityModels
from serve_app.protocols.limits import Limits
from serve_app.protocols.models_list import ModelList, ModelObject
from serve_app.protocols.problem_body import ErrorBody
from serve_app.protocols.schemas import WireType, component_schemas
from serve_app.protocols.score import FORMS
from serve_app.protocols.status import HealthBody, ReadinessBody
from serve_app.protocols.tei import TeiError, TeiInfo

Json = dict[str, Any]

DESCRIPTION = """Scores how well documents answer a query, at a price per document.

Status 200 means that the charge is durable. Any other status means that nothing was charged.
Client libraries for Cohere and OpenAI only need a different base URL."""

SECURITY: list[Json] = [{"bearer": []}, {"apiKey": []}]
TYPES: tuple[WireType, ...] = (
    *(kind for scoring in SCORING for kind in scoring.types),
    *(operation.answer for operation in OPERATIONS),
    *(operation.body for operation in OPERATIONS if operation.body is not None),
    *(ModelList, ModelObject, HealthBody, ReadinessBody, ErrorBody, TeiInfo, InfinityModels),
)
GUARDED = [Unauthenticated, Forbidden, Overloaded, EngineFailure, LedgerUnavailable]


def document(limits: Limits, version: str) -> Json:
    """Return the OpenAPI 3.1 document.

    Args:
        limits: Shown in descriptions and as bounds in the request schemas.
        version: Version of the API.
    """
    return {
        "openapi": "3.1.0",
        "info": {"title": "rerank-serve", "version": version, "description": DESCRIPTION},
        "paths": _scoring_paths(limits) | _paths(),
        "components": {
            "schemas": _schemas(limits),
            "responses": {
                status: _error(status, codes, ErrorBody) for status, codes in _statuses().items()
            },
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


def _paths() -> Json:
    paths: Json = {
        "/v1/models": {
            "get": _get(
                "listModels", "List the models of the API key", ModelList, GUARDED, SECURITY
            )
        }
    }
    one_model = _get("getModel", "Get a model", ModelObject, [*GUARDED, NotFound], SECURITY)
    one_model["parameters"] = [_path_parameter("Id or alias; may contain slashes.")]
    paths["/v1/models/{id}"] = {"get": one_model}
    paths["/health"] = {
        "get": _get("health", "Check that the process is alive", HealthBody, [], [])
    }
    ready = _get("ready", "Check that requests can be answered", ReadinessBody, [], [])
    ready["responses"]["503"] = _content("Not ready; the body names the cause.", ReadinessBody)
    paths["/ready"] = {"get": ready}
    paths["/info"] = {
        "get": _get(
            "info", "Describe the default model as TEI does", TeiInfo, GUARDED, SECURITY, TeiError
        )
    }
    paths["/infinity/models"] = {
        "get": _get(
            "listInfinityModels",
            "List the models of the API key as Infinity does",
            InfinityModels,
            GUARDED,
            SECURITY,
            InfinityError,
        )
    }
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _account(operation)
    return paths


def _account(operation: Operation) -> Json:
    """Describe a usage or admin route."""
    described = _get(
        operation.name,
        operation.summary,
        operation.answer,
        [*GUARDED, *operation.errors],
        SECURITY,
    )
    described["tags"] = ["admin" if operation.path.startswith("/admin") else "usage"]
    parameters = (
        [_path_parameter("Public id of the tenant or key.")] if "{id}" in operation.path else []
    )
    parameters += [
        {"name": name, "in": "query", "schema": {"type": "string"}}
        | {"description": QUERY_PARAMETERS[name]}
        for name in operation.query
    ]
    parameters += [
        {"name": name, "in": "header", "schema": {"type": "string"}} for name in operation.headers
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"content": _content("", operation.body)["content"]}
    if operation.csv:
        described["responses"]["200"]["content"]["text/csv"] = {"schema": {"type": "string"}}
        described["responses"]["200"]["headers"] = {
            "x-next-cursor": {
                "description": "For CSV: cursor of the next page; absent on the last page.",
                "schema": {"type": "string"},
            }
        }
    return described


def _score(scoring: ScoringOperation, path: str, limits: Limits) -> Json:
    preferred = scoring.paths[0]
    request_example, answer_example = scoring.examples
    answer = _content(scoring.answer, *scoring.responses, example=answer_example)
    answer["headers"] = {
        "server-timing": {
            "description": "Longest wait for a batch and total run time, in milliseconds.",
            "schema": {"type": "string"},
        }
    }
    request = _content("", *scoring.requests, example=request_example)["content"]
    return {
        "summary": scoring.summary if path == preferred else f"Alias of {preferred}",
        "operationId": scoring.name
        + "".join(part.capitalize() for part in path.split("/") if part != scoring.name),
        "tags": ["rerank"],
        "security": SECURITY,
        "parameters": [_timeout_parameter(limits)],
        "requestBody": {"required": True, "content": request},
        "responses": {"200": answer} | _errors(scoring),
    }


def _errors(scoring: ScoringOperation) -> Json:
    """Describe the responses to errors of a scoring route."""
    unknown_here = {"405", str(PROBLEMS[Conflict].status)}
    codes = {status: each for status, each in _statuses().items() if status not in unknown_here}
    codes |= {str(status): [code] for status, code in scoring.own_statuses.items()}
    return {status: _response(status, each, *scoring.errors) for status, each in codes.items()}


def _get(
    name: str,
    summary: str,
    answer: WireType,
    errors: list[type[RerankError]],
    security: list[Json],
    error_type: WireType = ErrorBody,
) -> Json:
    statuses = sorted(str(PROBLEMS[error].status) for error in errors)
    codes = _statuses()
    return {
        "summary": summary,
        "operationId": name,
        "tags": ["models" if security else "operations"],
        "security": security,
        "responses": {"200": _content("Success.", answer)}
        | {status: _response(status, codes[status], error_type) for status in statuses},
    }


def _path_parameter(description: str) -> Json:
    return {
        "name": "id",
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
    }


def _timeout_parameter(limits: Limits) -> Json:
    return {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "description": f"Request timeout in seconds, at most {limits.request_timeout_s_max:g}.",
        "schema": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": limits.request_timeout_s_max,
            "default": limits.request_timeout_s,
        },
    }


def _schemas(limits: Limits) -> Json:
    """Return the schemas of the wire types, with this installation's request limits."""
    schemas = component_schemas(TYPES)
    query = {"minLength": 1, "maxLength": limits.query_characters_max}
    for ranking, texts in TEXT_LISTS.items():
        request = schemas[ranking.__name__]["properties"]
        nested = "$ref" in request["query"]
        request["query"] |= {"properties": {"text": query}} if nested else query
        request[texts] |= {"maxItems": limits.documents_per_request_max}
    for names, kind in FORMS.items():
        for name in names:
            field = schemas[kind.__name__]["properties"][name]
            # A field that may be a string, too, has its list among other types.
            for each in field.get("anyOf", [field]):
                if each["type"] == "array":
                    each["maxItems"] = limits.documents_per_request_max
    return schemas


def _statuses() -> dict[str, list[str]]:
    """Return the error codes of each status, without that of a disconnected client."""
    codes: dict[str, list[str]] = {}
    for error, kind in PROBLEMS.items():
        if error is not ClientGone:
            codes.setdefault(str(kind.status), []).append(error.code)
    codes[str(PROBLEMS[EngineFailure].status)].append(RerankError.code)
    return codes


def _error(status: str, codes: list[str], *kinds: WireType) -> Json:
    names = " or ".join(f"`{code}`" for code in codes)
    response = _content(f"{names}. Nothing was charged.", *kinds)
    if int(status) in (PROBLEMS[Overloaded].status, PROBLEMS[LedgerUnavailable].status):
        response["headers"] = {
            "Retry-After": {
                "description": "Seconds to wait before a retry.",
                "schema": {"type": "integer", "minimum": 1, "maximum": RETRY_AFTER_S_MAX},
            }
        }
    return response


def _response(status: str, codes: list[str], *kinds: WireType) -> Json:
    if kinds == (ErrorBody,):
        return {"$ref": f"#/components/responses/{status}"}
    return _error(status, codes, *kinds)


def _content(description: str, *kinds: WireType, example: Json | list[Json] | None = None) -> Json:
    schemas = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in kinds]
    media: Json = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    if example is not None:
        media["example"] = example
    return {"description": description, "content": {"application/json": media}}
