"""Logging: loggers that never raise, and one structured line per request.

No line contains a query, a document or a secret. There are three steps, so that each can be tested
by itself: a `RequestRecord` collects facts while the request runs, `request_fields` turns them into
a flat mapping, and `emit` writes it through standard logging. The message of an unexpected
exception is left out, because it may quote the text that caused it; its type and frames are kept.
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

Emit = Callable[[Mapping[str, object]], None]
"""Takes one event's fields and writes one line."""


class SafeLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose calls never raise: a line that cannot be written is lost.

    A full disk, a handler or filter that fails, or a field that collides with an attribute of log
    records must not fail a request or end a thread.
    """

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        """Log as `logging.Logger.log` does; the other methods call this one."""
        with suppress(Exception):
            # One more frame than usual, so that the line names the caller, not this method.
            self.logger.log(level, msg, *args, **({"stacklevel": 2} | options))


def get_logger(name: str) -> SafeLogger:
    """The logger for a module of this package. Use it instead of `logging.getLogger`."""
    return SafeLogger(logging.getLogger(name))


LOG = get_logger("serve_app.requests")

REQUEST = "rerank_request"
FAILURE = "unexpected_failure"

SERVER_FAULT_STATUS_MIN = 500
CAUSES_MAX = 5


@dataclass(slots=True)
class RequestRecord:
    """What is known of one rerank request so far; filled in as it proceeds."""

    request_id: RequestId
    client_request_id: str
    """The ``x-request-id`` that was answered: the client's own, or ours."""

    caller: Caller | None = None
    body_bytes: int = 0
    """What has arrived of the body."""

    job: Job | None = None
    outcome: Outcome | None = None
    """Set once the charge is committed, even if nobody is left to read the answer."""

    @property
    def truncated_documents(self) -> int:
        """Answered documents that were cut to fit."""
        return sum(ranked.truncated for ranked in self.outcome.results) if self.outcome else 0


def request_fields(
    record: RequestRecord, status: int, code: str, duration_s: Seconds
) -> dict[str, object]:
    """The line's fields in reading order; what is not known is left out."""
    fields: dict[str, object] = {
        "event": REQUEST,
        "id": record.request_id,
        "x_request_id": record.client_request_id,
        "status": status,
        "code": code,
        "duration_s": round(duration_s, 6),
    }
    if record.caller:
        fields |= {"tenant": record.caller.tenant, "key_id": record.caller.key_id}
    if record.job:
        fields |= {"documents": len(record.job.pairs), "timeout_s": record.job.timeout_s}
    if record.outcome:
        fields |= _outcome_fields(record.outcome)
        fields["truncated_documents"] = record.truncated_documents
    return fields


def failure_fields(error: BaseException) -> dict[str, object]:
    """Where an error came from, for the operator.

    Of our own errors the ``reason``, which we wrote; of all others types and frames only.
    """
    fields: dict[str, object] = {"error": type(error).__name__}
    if not isinstance(error, RerankError):
        fields["traceback"] = _frames(error)
    elif reason := getattr(error, "reason", None):
        fields["reason"] = reason
    return fields


def emit(fields: Mapping[str, object]) -> None:
    """Write one event: its name is the message, every field an attribute of the record.

    Serve's JSON format makes each field a key of the line. Server faults are logged at ERROR, all
    other events at INFO. It never raises.
    """
    status = fields.get("status")
    fault = isinstance(status, int) and status >= SERVER_FAULT_STATUS_MIN
    LOG.log(logging.ERROR if fault else logging.INFO, "%s", fields["event"], extra=dict(fields))


def _outcome_fields(outcome: Outcome) -> dict[str, object]:
    # The model is told from here on only: a name that we do not serve is the client's own text.
    return {
        "model": outcome.model,
        "results": len(outcome.results),
        "tokens": outcome.tokens,
        "charge_micro_dollars": outcome.charge,
        "queue_wait_s": round(outcome.queue_wait_s, 6),
        "run_s": round(outcome.run_s, 6),
    }


def _frames(error: BaseException) -> str:
    """The traceback without any message, the cause last."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(parts) < CAUSES_MAX:
        parts.append("".join([f"{type(current).__name__}\n", *format_tb(current.__traceback__)]))
        current = current.__cause__ or current.__context__
    return "caused by ".join(parts)
