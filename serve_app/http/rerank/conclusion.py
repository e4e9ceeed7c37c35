"""Record how a scoring request ended: metrics, a log line and a span."""

import asyncio

from serve_app.domain.errors import RerankError
from serve_app.domain.units import Instant, Seconds
from serve_app.http.service import Service
from serve_app.telemetry import span_attributes
from serve_app.telemetry.logs import (
    SERVER_FAULT_STATUS_MIN,
    RequestRecord,
    failure_fields,
    request_fields,
)
from serve_app.telemetry.metrics import (
    CREDITS,
    DOCUMENTS,
    REQUEST_SECONDS,
    REQUESTS,
    TOKENS_ANSWERED,
    TRUNCATED_DOCUMENTS,
)
from serve_app.telemetry.traces import Trace


def conclude(
    service: Service,
    record: RequestRecord,
    started: Instant,
    status: int,
    error: BaseException | None,
) -> None:
    """Call this once per request."""
    duration_s = Seconds(service.clock.instant() - started)
    code = _code(error)
    metrics = service.metrics
    metrics.record(REQUESTS, code=code)
    service.recent_codes.add(code)
    metrics.record(REQUEST_SECONDS, duration_s, code=code)
    if (outcome := record.outcome) and not outcome.replayed:
        metrics.record(DOCUMENTS, outcome.documents)
        metrics.record(TOKENS_ANSWERED, outcome.tokens)
        metrics.record(TRUNCATED_DOCUMENTS, record.truncated_documents)
        metrics.record(CREDITS, outcome.charge)

    fields = request_fields(record, status, code, duration_s)
    if error is not None and status >= SERVER_FAULT_STATUS_MIN:
        fields |= failure_fields(error)
    service.log(fields)
    if record.trace is not None:
        _end_trace(service, record, record.trace, status, code)


def _end_trace(
    service: Service, record: RequestRecord, trace: Trace, status: int, code: str
) -> None:
    job = record.job
    model = job.model if job is not None and job.model in service.pipeline.models else None
    found = dict(span_attributes.of_request(record, status, code, model))
    if job is not None and service.traces.with_texts:
        found |= span_attributes.of_texts(job, record.outcome)
    service.traces.end(trace, found, failed=status >= SERVER_FAULT_STATUS_MIN)


def _code(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, asyncio.CancelledError):
        return "client_gone"
    return error.code if isinstance(error, RerankError) else RerankError.code
