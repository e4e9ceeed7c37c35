"""The scoring endpoints of all wire formats.

    authenticate ─> take a place ─> admit the body ─> read it ─> authenticate again ─> parse
                 ─> pipeline ─> render ─> record

Errors become responses here, because Ray Serve replaces some of Starlette's exception handlers.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from serve_app.domain.errors import (
    BodyTimeout,
    DeadlineExceeded,
    EngineFailure,
    LedgerUnavailable,
    NoReplica,
    Overloaded,
    RerankError,
    ReservationClosed,
)
from serve_app.domain.job import Idempotency
from serve_app.domain.model import Caller, Outcome
from serve_app.domain.units import Instant, RequestId, Seconds
from serve_app.http.headers import (
    REPLAYED_HEADER,
    idempotency_key,
    rate_limit_headers,
    sent_keys,
    timeout_s,
)
from serve_app.http.problems import CLIENT_GONE_STATUS, problem
from serve_app.http.request_ids import request_ids
from serve_app.http.rerank.body import Recheck, declared_bytes, read_body
from serve_app.http.rerank.conclusion import conclude
from serve_app.http.rerank.disconnect import while_connected
from serve_app.http.service import Service
from serve_app.protocols.wire_format import Envelope, ParsedRequest, WireFormat, read_fields
from serve_app.telemetry.logs import RequestRecord
from serve_app.telemetry.traces import span

T = TypeVar("T")

SCOPE = "rerank"

OUR_FAULTS = (
    EngineFailure,
    LedgerUnavailable,
    NoReplica,
    Overloaded,
    ReservationClosed,
)
"""They do not count towards the tenant's `RefusalBudget`."""

BODY_BYTES_ON_LOOP_MAX = 16_384
"""Larger bodies are parsed, and their answers rendered, in a thread. This size takes up to 6 ms to
parse and 1 ms to render."""

RESULTS_ON_LOOP_MAX = 200
"""Larger answers are rendered in a thread."""


@dataclass(frozen=True, slots=True)
class _Body:
    content: bytearray
    allowed_s: Seconds
    deadline: Instant
    path: str
    idempotency_key: str | None

    def envelope(self, request_id: RequestId) -> Envelope:
        return Envelope(request_id, self.allowed_s, self.deadline, self._idempotency())

    def _idempotency(self) -> Idempotency | None:
        if self.idempotency_key is None:
            return None
        request = hashlib.sha256(f"{self.path.rstrip('/')}\n".encode())
        request.update(self.content)
        key = hashlib.sha256(self.idempotency_key.encode())
        return Idempotency(key.digest(), request.digest())


@dataclass(slots=True)
class _Spoken:
    """The wire format of a request, which may depend on its body."""

    wire_format: WireFormat[Any]


def rerank_endpoint(
    service: Service, wire_format: WireFormat[Any]
) -> Callable[[Request], Awaitable[Response]]:
    async def rerank(request: Request) -> Response:
        started = service.clock.instant()
        ids = request_ids(request)
        record = RequestRecord(ids.own, ids.shown, request.scope["path"])
        record.trace = service.traces.begin(request.headers, started)
        spoken = _Spoken(wire_format)
        try:
            response = await _answer(service, spoken, request, record, started)
        except asyncio.CancelledError as error:
            conclude(service, record, started, CLIENT_GONE_STATUS, error)
            raise
        except Exception as error:  # noqa: BLE001  The outermost handler of a request.
            response = problem(error, ids.own, spoken.wire_format.render_problem)
            conclude(service, record, started, response.status_code, error)
        else:
            conclude(service, record, started, response.status_code, None)
        return response

    return rerank


async def _answer(
    service: Service,
    spoken: _Spoken,
    request: Request,
    record: RequestRecord,
    started: Instant,
) -> Response:
    keys = sent_keys(request.headers)
    # Called again later: the key may be revoked meanwhile.
    authenticate = partial(service.access.authenticate, keys, SCOPE)
    with service.metrics.stage("authenticate"):
        record.caller = caller = await authenticate()
    size = declared_bytes(request, service.limits.body_bytes_max)
    with (
        service.places.take(caller),
        _refusals_counted(service, caller, record),
        service.body_gate.admit(caller.tenant, size) as hold_only,
    ):
        with span("receive"):
            body = await _body(service, request, record, started, authenticate)
        hold_only(record.body_bytes)  # A chunked body announces no size.
        record.caller = caller = await authenticate()
        # Other requests may have been refused while this body arrived.
        service.refusal_budget.check(caller.tenant)
        return await _answer_to(caller, service, spoken, request, record, body)


@contextmanager
def _refusals_counted(service: Service, caller: Caller, record: RequestRecord) -> Iterator[None]:
    """Refuse a tenant that has used up its refusal budget; else count how this request ends.

    A disconnect and a short deadline count as refusals, but not a fault of the service.

    Raises: TooManyRefusals.
    """
    service.refusal_budget.check(caller.tenant)
    try:
        yield
    except OUR_FAULTS:
        raise
    except (RerankError, asyncio.CancelledError):
        service.refusal_budget.refused(caller.tenant, record.body_bytes)
        raise
    service.refusal_budget.answered(caller.tenant, record.body_bytes)


async def _answer_to(
    caller: Caller,
    service: Service,
    spoken: _Spoken,
    request: Request,
    record: RequestRecord,
    body: _Body,
) -> Response:
    parse = partial(_parse, spoken, body, service, record.request_id)
    small = record.body_bytes <= BODY_BYTES_ON_LOOP_MAX
    parsed = parse() if small else await _in_thread(service, "parse", parse)
    record.job = parsed.job

    async def work() -> Outcome:
        # A charge must be logged even if this request is cancelled.
        record.outcome = outcome = await service.pipeline.rerank(caller, parsed.job)
        return outcome

    outcome = await while_connected(request.receive, work())
    small &= len(outcome.results) <= RESULTS_ON_LOOP_MAX
    render = partial(spoken.wire_format.render, outcome, parsed)
    return Response(
        render() if small else await _in_thread(service, "render", render),
        media_type="application/json",
        headers={
            "server-timing": _server_timing(outcome),
            **({REPLAYED_HEADER: "true"} if outcome.replayed else {}),
            **spoken.wire_format.headers(outcome),
            **rate_limit_headers(outcome.rate_limits),
        },
    )


async def _in_thread(service: Service, name: str, work: Callable[[], T]) -> T:
    with span(name):
        return await asyncio.get_running_loop().run_in_executor(service.parsers, work)


def _parse(spoken: _Spoken, body: _Body, service: Service, request_id: RequestId) -> ParsedRequest:
    fields = read_fields(body.content, service.limits.json)
    spoken.wire_format = spoken.wire_format.of(fields)
    parsed: ParsedRequest = spoken.wire_format.parse(
        fields, service.limits, body.envelope(request_id), service.model_names.resolve
    )
    return parsed


async def _body(
    service: Service,
    request: Request,
    record: RequestRecord,
    started: Instant,
    recheck: Recheck,
) -> _Body:
    limits = service.limits
    key = idempotency_key(request.headers)
    allowed_s = timeout_s(request.headers, limits)
    deadline = Instant(started + allowed_s)
    left_s = Seconds(deadline - service.clock.instant())

    def note(size: int) -> None:
        record.body_bytes = size

    try:
        content = await read_body(
            request, limits.body_bytes_max, min(left_s, limits.body_timeout_s), recheck, note
        )
    except BodyTimeout:
        if left_s < limits.body_timeout_s:  # The request's own timeout is shorter.
            raise DeadlineExceeded(allowed_s) from None
        raise
    return _Body(content, allowed_s, deadline, request.scope["path"], key)


def _server_timing(outcome: Outcome) -> str:
    queue_ms, run_ms = outcome.queue_wait_s * 1_000, outcome.run_s * 1_000
    return f"queue;dur={queue_ms:.3f}, run;dur={run_ms:.3f}"
