"""Logging: loggers that never raise, and one structured line per request.

No line contains a query, a document or a secret. Of an unexpected exception, only the type and the
frames are logged, because the message may quote a text.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from traceback import format_tb
from typing import Any

from serve_app.domain.errors import RerankError
from serve_app.domain.job import Job
from serve_app.domain.model import Caller, Outcome
from serve_app.domain.units import RequestId, Seconds
from serve_app.telemetry.traces import Trace

Emit = Callable[[Mapping[str, object]], None]
"""Writes the fields of one event as one line."""


class SafeLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that loses a line instead of raising.

    A full disk, a failing handler, or a field that collides with an attribute of log records must
    not fail a request or end a thread.
    """

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        """All other methods call this one."""
        with suppress(Exception):
            # Skip one more frame, so that the line names the caller.
            self.logger.log(level, msg, *args, **({"stacklevel": 2} | options))


def get_logger(name: str) -> SafeLogger:
    """Use this instead of `logging.getLogger`."""
    return SafeLogger(logging.getLogger(name))


LOG = get_logger("serve_app.requests")

REQUEST = "rerank_request"
FAILURE = "unexpected_failure"

SERVER_FAULT_STATUS_MIN = 500
CAUSES_MAX = 5


@dataclass(slots=True)
class RequestRecord:
    """Facts about one rerank request, collected while it runs."""

    request_id: RequestId
    client_request_id: str
    """The ``x-request-id`` of the response: the client's own, or ours."""

    path: str

    trace: Trace | None = None

    caller: Caller | None = None
    body_bytes: int = 0
    """Bytes of the body that have arrived."""

    job: Job | None = None
    outcome: Outcome | None = None
    """Set once the charge is committed, even if the client has disconnected; for a repeat, the
    outcome of the first request."""

    @property
    def truncated_documents(self) -> int:
        return sum(ranked.truncated for ranked in self.outcome.results) if self.outcome else 0


def request_fields(
    record: RequestRecord, status: int, code: str, duration_s: Seconds
) -> dict[str, object]:
    fields: dict[str, object] = {
        "event": REQUEST,
        "id": record.request_id,
        "x_request_id": record.client_request_id,
        "status": status,
        "code": code,
        "duration_s": round(duration_s, 6),
    }
    if record.trace:
        fields["trace_id"] = record.trace.root.trace_id
    if record.caller:
        fields |= {"tenant": record.caller.tenant, "key_id": record.caller.key_id}
    if record.job:
        fields |= {"documents": len(record.job.pairs), "timeout_s": record.job.timeout_s}
    if record.outcome and record.outcome.replayed:
        fields |= {"model": record.outcome.model, "repeats": record.outcome.request_id}
    elif record.outcome:
        fields |= _outcome_fields(record.outcome)
        fields["truncated_documents"] = record.truncated_documents
    return fields


def failure_fields(error: BaseException) -> dict[str, object]:
    """Return the ``reason`` of our own errors, which contains no client text.

    Of other errors, return only types and frames.
    """
    fields: dict[str, object] = {"error": type(error).__name__}
    if not isinstance(error, RerankError):
        fields["traceback"] = _frames(error)
    elif reason := getattr(error, "reason", None):
        fields["reason"] = reason
    return fields


def emit(fields: Mapping[str, object]) -> None:
    """Write one event as attributes of a log record, which Serve makes keys of a JSON line.

    Server faults are logged at ERROR, other events at INFO. Never raises.
    """
    status = fields.get("status")
    fault = isinstance(status, int) and status >= SERVER_FAULT_STATUS_MIN
    LOG.log(logging.ERROR if fault else logging.INFO, "%s", fields["event"], extra=dict(fields))


def _outcome_fields(outcome: Outcome) -> dict[str, object]:
    # Only a served model is logged: any other name is the client's own text.
    return {
        "model": outcome.model,
        "documents": outcome.documents,  # As charged: windows count as documents.
        "results": len(outcome.results),
        "tokens": outcome.tokens,
        "charge_micro_dollars": outcome.charge,
        "queue_wait_s": round(outcome.queue_wait_s, 6),
        "run_s": round(outcome.run_s, 6),
    }


def _frames(error: BaseException) -> str:
    """Return the traceback without messages, the root cause last."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(parts) < CAUSES_MAX:
        parts.append("".join([f"{type(current).__name__}\n", *format_tb(current.__traceback__)]))
        current = current.__cause__ or current.__context__
    return "caused by ".join(parts)
