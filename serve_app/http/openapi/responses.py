"""Descriptions of responses and their headers."""

from collections.abc import Iterable, Sequence
from typing import Any

from serve_app.domain.errors import (
    RETRY_AFTER_S_MAX,
    ClientGone,
    EngineFailure,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    MethodNotAllowed,
    RerankError,
)
from serve_app.http.headers import RATE_LIMIT_HEADERS, REPLAYED_HEADER
from serve_app.http.problems import PROBLEMS
from serve_app.protocols.problem_body import ErrorBody
from serve_app.protocols.schemas import WireType

Json = dict[str, Any]

SERVER_TIMING, CURSOR, COMPUTE_TOKENS = "server-timing", "x-next-cursor", "x-compute-tokens"

_ALWAYS = ("x-request-id", "access-control-allow-origin")
_RETRIED = ("429", "503")
IDEMPOTENCY_CONFLICTS = (IdempotencyKeyInUse, IdempotencyKeyReused)

_UNLISTED = (ClientGone, MethodNotAllowed, *IDEMPOTENCY_CONFLICTS)
"""Errors without an operation, or of scoring operations only (see `idempotency_conflict`)."""

_LIMITS_MAY_BE_KNOWN = ("400", "402", "409", "413", "424", "429", "500", "503", "504")
"""Statuses of errors that may occur after the account's limits are looked up."""


def _rate_limit_header(name: str) -> Json:
    _, _, value, what = name.split("-")
    meaning = {
        "limit": f"The {what} that the key may send in a minute.",
        "remaining": f"The remaining {what} of this minute.",
        "reset": "The time until the whole limit is available again, such as `17s`.",
    }
    kind = {"type": "string", "pattern": "^[0-9]+s$"} if value == "reset" else {"type": "integer"}
    return {
        "description": f"{meaning[value]} Absent if {what} are not limited, or if the limits were "
        "not looked up before an error.",
        "schema": kind,
    }


HEADERS: Json = {
    "x-request-id": {
        "description": "The `x-request-id` of the request, or one of the service. It is in the "
        "service's log.",
        "required": True,
        "schema": {"type": "string"},
    },
    "access-control-allow-origin": {
        "description": "In answers to web pages of the origins that the operator allows.",
        "schema": {"type": "string"},
    },
    "retry-after": {
        "description": "Seconds to wait before a retry.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1, "maximum": RETRY_AFTER_S_MAX},
    },
    "www-authenticate": {
        "description": "The scheme of authentication.",
        "required": True,
        "schema": {"type": "string"},
    },
    SERVER_TIMING: {
        "description": "Longest wait for a batch and total run time, in milliseconds.",
        "required": True,
        "schema": {"type": "string"},
    },
    REPLAYED_HEADER: {
        "description": "Only present if the request repeats an earlier one with the same "
        "`Idempotency-Key`. The answer is that of the first request, which alone was charged.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    COMPUTE_TOKENS: {
        "description": "In TEI's form: tokens that the model read.",
        "schema": {"type": "string"},
    },
    "content-disposition": {
        "description": "For CSV and HTML: the name of the file.",
        "schema": {"type": "string"},
    },
    CURSOR: {
        "description": "For CSV: cursor of the next page; absent on the last page.",
        "schema": {"type": "string"},
    },
} | {name: _rate_limit_header(name) for name in RATE_LIMIT_HEADERS}


def content(*kinds: WireType, example: Json | list[Json] | None = None) -> Json:
    schemas = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in kinds]
    media: Json = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    if example is not None:
        media["example"] = example
    return {"application/json": media}


def response(description: str, body: Json, headers: Iterable[str] = ()) -> Json:
    """``headers`` are in addition to those of every response."""
    return {
        "description": description,
        "headers": {
            name: {"$ref": f"#/components/headers/{name}"} for name in (*_ALWAYS, *headers)
        },
        "content": body,
    }


def error_codes() -> dict[str, list[str]]:
    codes: dict[str, list[str]] = {}
    for error, kind in PROBLEMS.items():
        if error not in _UNLISTED:
            codes.setdefault(str(kind.status), []).append(error.code)
    codes[str(PROBLEMS[EngineFailure].status)].append(RerankError.code)
    return codes


def error_responses() -> Json:
    return {status: _error(status, codes, (ErrorBody,)) for status, codes in error_codes().items()}


def error_response(status: str, codes: Sequence[str], kinds: Sequence[WireType]) -> Json:
    if tuple(kinds) == (ErrorBody,):
        return {"$ref": f"#/components/responses/{status}"}
    return _error(status, codes, kinds)


def idempotency_conflict(kinds: Sequence[WireType]) -> Json:
    """Describe the conflicts, of which only one has ``retry-after``."""
    described = _error("409", [each.code for each in IDEMPOTENCY_CONFLICTS], kinds)
    described["headers"]["retry-after"] = HEADERS["retry-after"] | {"required": False}
    return described


def _error(status: str, codes: Sequence[str], kinds: Sequence[WireType]) -> Json:
    headers = list(RATE_LIMIT_HEADERS) if status in _LIMITS_MAY_BE_KNOWN else []
    if status == "401":
        headers.append("www-authenticate")
    if status in _RETRIED:
        headers.append("retry-after")
    names = " or ".join(f"`{code}`" for code in codes)
    return response(f"{names}. Nothing was charged.", content(*kinds), headers)
