"""Convert errors to HTTP responses. This is the only table of statuses.

A wire format may replace a status. A row also applies to subclasses, because Ray derives classes
from ours.
"""

from dataclasses import dataclass

from starlette.responses import Response

from serve_app.domain.errors import (
    BodyTimeout,
    ClientGone,
    CompressedBody,
    ConcurrencyLimited,
    Conflict,
    DeadlineExceeded,
    EngineFailure,
    Forbidden,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidRequest,
    LedgerUnavailable,
    MethodNotAllowed,
    NoReplica,
    NotFound,
    OutOfCredit,
    Overloaded,
    RateLimited,
    RerankError,
    ReservationClosed,
    SpendCapReached,
    TooLarge,
    TooManyRefusals,
    Unauthenticated,
    retry_after,
)
from serve_app.http.headers import rate_limit_headers
from serve_app.protocols.problem_body import Problem, RenderProblem, render_problem


@dataclass(frozen=True, slots=True)
class Row:
    """The response to one kind of error."""

    status: int
    family: str
    """``error.type`` of OpenAI's clients."""

    retry_after_s: int | None = None
    """For errors without a ``retry_after_s`` of their own."""


PROBLEMS: dict[type[RerankError], Row] = {
    InvalidRequest: Row(400, "invalid_request_error"),
    Unauthenticated: Row(401, "authentication_error"),
    OutOfCredit: Row(402, "insufficient_quota"),
    SpendCapReached: Row(402, "insufficient_quota"),
    Forbidden: Row(403, "permission_error"),
    NotFound: Row(404, "not_found_error"),
    MethodNotAllowed: Row(405, "invalid_request_error"),
    BodyTimeout: Row(408, "invalid_request_error"),
    Conflict: Row(409, "conflict_error"),
    IdempotencyKeyInUse: Row(409, "conflict_error"),
    IdempotencyKeyReused: Row(409, "conflict_error"),
    TooLarge: Row(413, "invalid_request_error"),
    CompressedBody: Row(415, "invalid_request_error"),
    Overloaded: Row(429, "rate_limit_error"),
    RateLimited: Row(429, "rate_limit_error"),
    ConcurrencyLimited: Row(429, "rate_limit_error"),
    TooManyRefusals: Row(429, "rate_limit_error"),
    ClientGone: Row(499, "client_gone"),  # In logs only.
    EngineFailure: Row(500, "server_error"),
    ReservationClosed: Row(503, "server_error", retry_after_s=1),
    LedgerUnavailable: Row(503, "server_error", retry_after_s=2),  # A PostgreSQL failover.
    NoReplica: Row(503, "server_error", retry_after_s=5),  # The fastest replica start.
    DeadlineExceeded: Row(504, "server_error"),
}
INTERNAL = Row(500, "server_error")

CLIENT_GONE_STATUS = PROBLEMS[ClientGone].status
NOT_READY = PROBLEMS[NoReplica]


def row(error: BaseException) -> Row:
    return next((PROBLEMS[cls] for cls in type(error).__mro__ if cls in PROBLEMS), INTERNAL)


def problem(error: Exception, request_id: str, render: RenderProblem = render_problem) -> Response:
    """Return the response, which never contains ``str(error)``."""
    known = error if isinstance(error, RerankError) else RerankError()
    kind = row(known)
    status, body = render(Problem(known, kind.status, kind.family, request_id))
    return Response(body, status, _headers(known, kind), "application/json")


def _headers(error: RerankError, kind: Row) -> dict[str, str]:
    headers = rate_limit_headers(error.states)
    retry_after_s = getattr(error, "retry_after_s", kind.retry_after_s)
    if retry_after_s is not None:
        headers["retry-after"] = str(retry_after(retry_after_s))
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = 'Bearer realm="rerank-serve"'
    if isinstance(error, CompressedBody):
        headers["accept-encoding"] = "identity"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = error.allowed
    return headers
