"""Every metric of the service, as data, and the small port through which values reach them.

Names are ``rerank_<noun>_<unit>``; labels are few and closed, never a tenant, a key or a text.
`serve_app.deployments.metrics` binds them to Ray's Prometheus endpoint, where a ``ray_`` prefix and
labels for application, deployment and replica are added.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from serve_app.domain.clock import Clock


class Kind(StrEnum):
    """What may be done with a metric: add to it, set it, or observe a value."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; ``labels`` are the names that every value must carry."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
TOKENS = (64, 256, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768)

REQUESTS = Metric(
    "rerank_requests", Kind.COUNTER, "Requests answered, by error code ('ok' for 200).", ("code",)
)
REQUEST_SECONDS = Metric(
    "rerank_request_seconds",
    Kind.HISTOGRAM,
    "Time from headers read to answer, by error code ('ok' for 200).",
    ("code",),
    SECONDS,
)
STAGE_SECONDS = Metric(
    "rerank_stage_seconds",
    Kind.HISTOGRAM,
    "Time in a stage of a request: authenticate, reserve (tokenize beside it), score, commit.",
    ("stage",),
    SECONDS,
)
DOCUMENTS = Metric("rerank_documents", Kind.COUNTER, "Documents in answers that were charged.")
TOKENS_ANSWERED = Metric("rerank_tokens", Kind.COUNTER, "Tokens in answers that were charged.")
TRUNCATED_DOCUMENTS = Metric(
    "rerank_truncated_documents", Kind.COUNTER, "Answered documents that were cut to fit."
)
CREDITS = Metric("rerank_credits", Kind.COUNTER, "Micro-dollars charged.")
GATE_TOKENS = Metric(
    "rerank_gate_tokens", Kind.GAUGE, "Tokens admitted to this gateway and not yet answered."
)
BACKLOG_TOKENS = Metric(
    "rerank_backlog_tokens",
    Kind.GAUGE,
    "Tokens in this gateway that wait for their turn at the model's replicas.",
    ("model",),
)
PORTION_RETRIES = Metric(
    "rerank_portion_retries", Kind.COUNTER, "Portions dispatched again after a replica died."
)
QUEUE_WAIT_SECONDS = Metric(
    "rerank_queue_wait_seconds",
    Kind.HISTOGRAM,
    "A portion's wait at the replica before its batch started.",
    (),
    SECONDS,
)
BATCH_SECONDS = Metric(
    "rerank_batch_seconds", Kind.HISTOGRAM, "Time of one batch on the device.", (), SECONDS
)
BATCH_TOKENS = Metric(
    "rerank_batch_tokens", Kind.HISTOGRAM, "Tokens that shared a batch.", (), TOKENS
)
SCORED_TOKENS = Metric(
    "rerank_scored_tokens", Kind.COUNTER, "Tokens that this scorer computed, answered or not."
)
INFLIGHT_TOKENS = Metric(
    "rerank_inflight_tokens", Kind.GAUGE, "Tokens accepted by this scorer and not yet answered."
)

EVENT_AGE_SECONDS = Metric(
    "rerank_event_age_seconds",
    Kind.GAUGE,
    "Age of the oldest event that the sink has not taken yet; 0 when none waits.",
)

METRICS = (
    REQUESTS,
    REQUEST_SECONDS,
    STAGE_SECONDS,
    DOCUMENTS,
    TOKENS_ANSWERED,
    TRUNCATED_DOCUMENTS,
    CREDITS,
    GATE_TOKENS,
    BACKLOG_TOKENS,
    PORTION_RETRIES,
    QUEUE_WAIT_SECONDS,
    BATCH_SECONDS,
    BATCH_TOKENS,
    SCORED_TOKENS,
    INFLIGHT_TOKENS,
    EVENT_AGE_SECONDS,
)


class Sink(Protocol):
    """Where values go: a counter is added to, a gauge set, a histogram given a value."""

    def record(self, metric: Metric, value: float, labels: dict[str, str]) -> None: ...


class Metrics:
    """What the rooms call; knows no metrics library."""

    def __init__(self, sink: Sink, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock

    def record(self, metric: Metric, value: float = 1, **labels: str) -> None:
        """Add to a counter, set a gauge, or observe a value."""
        assert set(labels) == set(metric.labels), f"{metric.name} takes {metric.labels}"
        self._sink.record(metric, value, labels)

    @contextmanager
    def timed(self, metric: Metric, **labels: str) -> Iterator[None]:
        """Observe how long the block took, however it ends."""
        started = self._clock.instant()
        try:
            yield
        finally:
            self.record(metric, self._clock.instant() - started, **labels)
