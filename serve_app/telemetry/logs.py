"""One structured line per request. Never a query, a document or a secret.

Three steps, so that each can be tested by itself: a `RequestRecord` collects what becomes known
while the request runs, `request_fields` says it as a flat mapping, `emit` writes it through
standard logging. What an unforeseen exception says of itself is left out too, since it may quote
the text it choked on; its type and its frames are kept.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from traceback import format_tb

from serve_app.domain.errors import RerankError
from serve_app.domain.job import Job
from serve_app.domain.model import Caller, Outcome
from serve_app.domain.units import RequestId, Seconds

Emit = Callable[[Mapping[str, object]], None]
"""Takes one event's fields and writes one line."""

LOG = logging.getLogger("serve_app.requests")

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
    """Set once the whole body has arrived."""

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

    Serve's JSON form makes each of them a key of the line. Server faults are at ERROR, all else at
    INFO.
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
