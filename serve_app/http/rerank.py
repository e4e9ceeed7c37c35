"""The endpoint of every wire format of scoring: from a request to an answer, one log line about it
and its metrics.

    name ─> authenticate ─> room for the body ─> read, authenticate again ─> parse ─> pipeline
         ─> render ─> record

Errors become answers here and not in Starlette's exception handlers, some of which Ray Serve
replaces by its own.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from serve_app.domain.errors import DeadlineExceeded, RerankError
from serve_app.domain.model import Caller, Outcome
from serve_app.domain.units import Instant, Seconds
from serve_app.http.body import declared_bytes, read_body
from serve_app.http.hang_up import while_connected
from serve_app.http.headers import ignored_headers, rate_limit_headers, sent_keys, timeout_s
from serve_app.http.problems import CLIENT_GONE_STATUS, problem
from serve_app.http.request_ids import request_ids
from serve_app.http.service import Service
from serve_app.protocols.wire_format import Envelope, Parsed, WireFormat
from serve_app.telemetry.logs import RequestRecord, failure_fields, request_fields
from serve_app.telemetry.metrics import (
    CREDITS,
    DOCUMENTS,
    REQUEST_SECONDS,
    REQUESTS,
    TOKENS_ANSWERED,
    TRUNCATED_DOCUMENTS,
)

SCOPE = "rerank"
"""What an API key must be good for."""


@dataclass(frozen=True, slots=True)
class _Body:
    """What came, and until when it is to be answered."""

    content: bytes
    allowed_s: Seconds
    deadline: Instant


def rerank_endpoint(
    service: Service, wire_format: WireFormat[Parsed]
) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of one wire format, for any number of routes."""

    async def rerank(request: Request) -> Response:
        started = service.pipeline.clock.instant()
        ids = request_ids(request)
        record = RequestRecord(ids.own, ids.shown)
        try:
            response = await _answer(service, wire_format, request, record, started)
        except asyncio.CancelledError as error:
            _conclude(service, record, started, CLIENT_GONE_STATUS, error)
            raise
        except Exception as error:  # noqa: BLE001  The outermost handler of a request.
            response = problem(error, ids.own)
            _conclude(service, record, started, response.status_code, error)
        else:
            _conclude(service, record, started, response.status_code, None)
        return response

    return rerank


async def _answer(
    service: Service,
    wire_format: WireFormat[Parsed],
    request: Request,
    record: RequestRecord,
    started: Instant,
) -> Response:
    keys = sent_keys(request.headers)
    record.caller = sender = await service.pipeline.authenticate(keys, SCOPE)
    size = declared_bytes(request, service.limits.body_bytes_max)
    with service.body_gate.admit(sender.tenant, size) as hold_only:
        body = await _body(service, request, started)
        hold_only(len(body.content))  # One that comes in chunks does not tell its size.
        record.caller = caller = await service.pipeline.authenticate_again(keys, SCOPE)
        return await _answer_to(caller, service, wire_format, request, record, body)


async def _answer_to(
    caller: Caller,
    service: Service,
    wire_format: WireFormat[Parsed],
    request: Request,
    record: RequestRecord,
    body: _Body,
) -> Response:
    warnings = ignored_headers(request.headers)
    envelope = Envelope(record.request_id, body.allowed_s, body.deadline, warnings)
    parsed = wire_format.parse(body.content, service.limits, envelope, service.resolve_model)
    record.job = parsed.job

    async def work() -> Outcome:
        # Noted by the work itself: a charge must be told even if we are cancelled meanwhile.
        record.outcome = outcome = await service.pipeline.rerank(caller, parsed.job)
        return outcome

    outcome = await while_connected(request.receive, work())
    return Response(
        wire_format.render(outcome, parsed),
        media_type="application/json",
        headers={"server-timing": _server_timing(outcome)}
        | rate_limit_headers(outcome.rate_limits),
    )


async def _body(service: Service, request: Request, started: Instant) -> _Body:
    """A client that sends it too slowly runs out of its own time."""
    allowed_s = timeout_s(request.headers, service.limits)
    deadline = Instant(started + allowed_s)
    try:
        async with asyncio.timeout(deadline - service.pipeline.clock.instant()):
            content = await read_body(request, service.limits.body_bytes_max)
    except TimeoutError:
        raise DeadlineExceeded(allowed_s) from None
    return _Body(content, allowed_s, deadline)


def _server_timing(outcome: Outcome) -> str:
    """The standard header, in milliseconds: the longest wait, and the sum of the portions' runs."""
    queue_ms, run_ms = outcome.queue_wait_s * 1_000, outcome.run_s * 1_000
    return f"queue;dur={queue_ms:.3f}, run;dur={run_ms:.3f}"


def _conclude(
    service: Service,
    record: RequestRecord,
    started: Instant,
    status: int,
    error: BaseException | None,
) -> None:
    """Count and log, once per request."""
    duration_s = Seconds(service.pipeline.clock.instant() - started)
    code = _code(error)
    metrics = service.pipeline.metrics
    metrics.record(REQUESTS, code=code)
    metrics.record(REQUEST_SECONDS, duration_s, code=code)
    if outcome := record.outcome:
        metrics.record(DOCUMENTS, outcome.documents)
        metrics.record(TOKENS_ANSWERED, outcome.tokens)
        metrics.record(TRUNCATED_DOCUMENTS, record.truncated_documents)
        metrics.record(CREDITS, outcome.charge)

    fields = request_fields(record, status, code, duration_s)
    if error is not None and status >= 500:
        fields |= failure_fields(error)
    service.log(fields)


def _code(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, asyncio.CancelledError):
        return "client_gone"
    return error.code if isinstance(error, RerankError) else RerankError.code
