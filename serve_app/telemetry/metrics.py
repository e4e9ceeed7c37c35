"""All metrics of the service, and the port that records their values.

Labels have a fixed set of values, never a tenant, a key or a text. `serve_app.deployments.metrics`
binds the metrics to Ray.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from serve_app.domain.clock import Clock
from serve_app.telemetry.traces import span


class Kind(StrEnum):
    """The operation on a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Its values have exactly these ``labels``."""

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
WRONG_SECRETS = Metric(
    "rerank_wrong_secrets", Kind.COUNTER, "API keys with a known id and a wrong secret."
)
STAGE_SECONDS = Metric(
    "rerank_stage_seconds",
    Kind.HISTOGRAM,
    "Time in a stage of a request: authenticate, reserve, tokenize (may overlap), score, commit.",
    ("stage",),
    SECONDS,
)
DOCUMENTS = Metric("rerank_documents", Kind.COUNTER, "Documents in answers that were charged.")
TOKENS_ANSWERED = Metric("rerank_tokens", Kind.COUNTER, "Tokens in answers that were charged.")
TRUNCATED_DOCUMENTS = Metric(
    "rerank_truncated_documents", Kind.COUNTER, "Answered documents that were truncated."
)
CREDITS = Metric("rerank_credits", Kind.COUNTER, "Micro-dollars charged.")
GATE_TOKENS = Metric(
    "rerank_gate_tokens", Kind.GAUGE, "Tokens admitted to this gateway and not yet answered."
)
BACKLOG_TOKENS = Metric(
    "rerank_backlog_tokens",
    Kind.GAUGE,
    "Tokens queued in this gateway for the replicas of a revision of the model.",
    ("model", "revision"),
)
PORTION_RETRIES = Metric(
    "rerank_portion_retries", Kind.COUNTER, "Portions dispatched again after a replica died."
)
PORTION_HEDGES = Metric(
    "rerank_portion_hedges",
    Kind.COUNTER,
    "Portions also sent to another replica because the answer was late.",
)
QUEUE_WAIT_SECONDS = Metric(
    "rerank_queue_wait_seconds",
    Kind.HISTOGRAM,
    "Time that a portion waited at the replica before its batch started.",
    (),
    SECONDS,
)
BATCH_SECONDS = Metric(
    "rerank_batch_seconds", Kind.HISTOGRAM, "Time of one batch on the device.", (), SECONDS
)
BATCH_TOKENS = Metric("rerank_batch_tokens", Kind.HISTOGRAM, "Tokens in one batch.", (), TOKENS)
SCORED_TOKENS = Metric(
    "rerank_scored_tokens", Kind.COUNTER, "Tokens computed by this scorer, answered or not."
)
INFLIGHT_TOKENS = Metric(
    "rerank_inflight_tokens", Kind.GAUGE, "Tokens accepted by this scorer and not yet answered."
)
SHADOWS = Metric(
    "rerank_shadows",
    Kind.COUNTER,
    "Answered requests that were offered to a canary, by result: compared, skipped or failed.",
    ("result",),
)

EVENT_AGE_SECONDS = Metric(
    "rerank_event_age_seconds",
    Kind.GAUGE,
    "Age of the oldest event that the sink has not accepted yet; 0 if there is none.",
)

METRICS = (
    REQUESTS,
    REQUEST_SECONDS,
    WRONG_SECRETS,
    STAGE_SECONDS,
    DOCUMENTS,
    TOKENS_ANSWERED,
    TRUNCATED_DOCUMENTS,
    CREDITS,
    GATE_TOKENS,
    BACKLOG_TOKENS,
    PORTION_RETRIES,
    PORTION_HEDGES,
    QUEUE_WAIT_SECONDS,
    BATCH_SECONDS,
    BATCH_TOKENS,
    SCORED_TOKENS,
    INFLIGHT_TOKENS,
    SHADOWS,
    EVENT_AGE_SECONDS,
)


class Sink(Protocol):
    """Adds to a counter, sets a gauge, or observes a value."""

    def record(self, metric: Metric, value: float, labels: dict[str, str]) -> None: ...


class Metrics:
    """Records values, independently of any metrics library."""

    def __init__(self, sink: Sink, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock

    def record(self, metric: Metric, value: float = 1, **labels: str) -> None:
        assert set(labels) == set(metric.labels), f"{metric.name} takes {metric.labels}"
        self._sink.record(metric, value, labels)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of a request, even if it fails, for `STAGE_SECONDS` and its trace."""
        started = self._clock.instant()
        try:
            with span(name):
                yield
        finally:
            self.record(STAGE_SECONDS, self._clock.instant() - started, stage=name)
