"""Report what a scorer does: as metrics, and as spans in the traces of its portions.

A batch belongs to several requests, so it has a trace of its own, which is linked with theirs.
"""

from collections.abc import Sequence

from serve_app.batching.batch_size import Batch, Waiting
from serve_app.domain.errors import RerankError
from serve_app.domain.units import Instant, Tokens
from serve_app.telemetry import span_attributes
from serve_app.telemetry.metrics import (
    BATCH_SECONDS,
    BATCH_TOKENS,
    INFLIGHT_TOKENS,
    QUEUE_WAIT_SECONDS,
    SCORED_TOKENS,
    Metrics,
)
from serve_app.telemetry.traces import Collector, Span, SpanKind, new_trace_id

Answers = Sequence[list[float] | RerankError]


class BatchReport:
    """Reports for one scorer."""

    def __init__(self, metrics: Metrics, collector: Collector) -> None:
        self._metrics = metrics
        self._collector = collector

    def holds(self, tokens: int) -> None:
        """``tokens`` were accepted and not yet answered."""
        self._metrics.record(INFLIGHT_TOKENS, tokens)

    def ended(self, batch: Batch, portions: Sequence[Waiting], answers: Answers) -> Tokens:
        """Report a batch and its portions, and return the tokens of those that were scored."""
        scored = [
            each
            for each, answer in zip(portions, answers, strict=True)
            if not isinstance(answer, RerankError)
        ]
        tokens = Tokens(sum(each.portion.tokens for each in scored))
        self._metrics.record(BATCH_SECONDS, batch.run_s)
        self._metrics.record(BATCH_TOKENS, batch.tokens)
        self._metrics.record(SCORED_TOKENS, tokens)
        for each in scored:
            self._metrics.record(QUEUE_WAIT_SECONDS, batch.started - each.since)
        if any(each.traceparent for each in portions):
            self._collector.export(spans(batch, portions, answers))
        return tokens


def spans(batch: Batch, portions: Sequence[Waiting], answers: Answers) -> list[Span]:
    ended = Instant(batch.started + batch.run_s)
    whole = Span("batch", new_trace_id(), None, batch.started, ended=ended)
    whole.attributes |= {"rerank.portions": len(portions), "rerank.tokens": batch.tokens}
    parts = []
    for each, answer in zip(portions, answers, strict=True):
        if not each.traceparent:
            continue
        _, trace_id, caller_id, _ = each.traceparent.split("-")
        part = Span("portion", trace_id, caller_id, each.since, SpanKind.SERVER, ended=ended)
        part.attributes |= span_attributes.of_portion(each.portion)
        part.attributes |= {
            "rerank.queue_wait_s": batch.started - each.since,
            "rerank.run_s": batch.run_s,
        }
        part.links = (whole.context,)
        if isinstance(answer, RerankError):
            part.fail(answer)
        parts.append(part)
    whole.links = [part.context for part in parts]
    return [whole, *parts]
