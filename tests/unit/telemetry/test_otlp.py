"""Spans arrive at a real OTLP collector over HTTP, and a missing collector harms no request."""

import time
from collections.abc import Iterator

import pytest

from serve_app.domain.clock import SystemClock
from serve_app.domain.units import Instant
from serve_app.telemetry import otlp
from serve_app.telemetry.otlp import OtlpCollector
from serve_app.telemetry.traces import Span, SpanKind, TraceContext, Traces, span
from testkit.otlp import OtlpReceiver, receiving

TRACE_ID, CALLER_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{CALLER_ID}-01"
UNSAMPLED = f"00-{TRACE_ID}-{CALLER_ID}-00"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    with receiving() as started:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", started.endpoint)
        yield started


def test_a_trace_arrives_as_it_was_recorded(receiver: OtlpReceiver) -> None:
    collector, clock = OtlpCollector("rerank-gateway", "replica-1"), SystemClock()
    traces = Traces(collector, clock)
    before_ns = time.time_ns()
    trace = traces.begin({"traceparent": TRACEPARENT}, clock.instant())
    assert trace is not None
    with span("portion", SpanKind.CLIENT) as call:
        assert call is not None
        call.attributes |= {"rerank.pairs": 3, "rerank.replica": "r", "rerank.run_s": 0.5}
        call.links = (f"00-{'ab' * 16}-{'cd' * 8}-01",)
    traces.end(trace, {"openinference.span.kind": "RERANKER"}, failed=True)
    collector.close()
    after_ns = time.time_ns()

    root, portion = receiver.named("rerank")[0], receiver.named("portion")[0]
    assert (root.trace_id, root.parent_id, root.kind) == (TRACE_ID, CALLER_ID, "server")
    assert (portion.trace_id, portion.parent_id, portion.kind) == (TRACE_ID, root.id, "client")
    assert (root.failed, portion.failed) == (True, False)
    assert root.attributes == {"openinference.span.kind": "RERANKER"}
    assert portion.attributes == {"rerank.pairs": 3, "rerank.replica": "r", "rerank.run_s": 0.5}
    assert portion.links == {("ab" * 16, "cd" * 8)}
    assert before_ns <= root.started_ns <= portion.started_ns <= portion.ended_ns
    assert portion.ended_ns <= root.ended_ns <= after_ns
    assert root.resource["service.name"] == "rerank-gateway"
    assert root.resource["service.instance.id"] == "replica-1"


def test_standard_variables_name_the_service(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "search")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    collector = OtlpCollector("rerank-gateway", "replica-1")
    collector.export([Span("rerank", "ab" * 16, None, Instant(1), ended=Instant(2))])
    collector.close()

    (root,) = receiver.spans
    assert root.resource["service.name"] == "search"
    assert root.resource["deployment.environment.name"] == "test"
    assert root.parent_id == ""
    assert root.ended_ns - root.started_ns == 1_000_000_000


@pytest.mark.parametrize(
    ("sampler", "ratio", "headers", "sampled"),
    [
        (None, None, {}, True),
        (None, None, {"traceparent": TRACEPARENT}, True),
        (None, None, {"traceparent": UNSAMPLED}, False),
        ("parentbased_traceidratio", "0", {}, False),
        ("parentbased_traceidratio", "0", {"traceparent": TRACEPARENT}, True),
        ("traceidratio", "0", {"traceparent": TRACEPARENT}, False),
        ("always_off", None, {"traceparent": TRACEPARENT}, False),
    ],
)
def test_standard_variables_choose_the_sampler(
    monkeypatch: pytest.MonkeyPatch,
    sampler: str | None,
    ratio: str | None,
    headers: dict[str, str],
    *,
    sampled: bool,
) -> None:
    if sampler is not None:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    if ratio is not None:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    collector = OtlpCollector("rerank-gateway", "replica-1")

    assert (collector.context(headers) is not None) == sampled
    collector.close()


@pytest.mark.parametrize(
    "sent", ["", "00", "garbage", f"00-{'0' * 32}-{CALLER_ID}-01", TRACEPARENT + "-x", "é" * 600]
)
def test_a_malformed_context_starts_a_new_trace(sent: str) -> None:
    collector = OtlpCollector("rerank-gateway", "replica-1")
    context = collector.context({"traceparent": sent})
    collector.close()

    assert isinstance(context, TraceContext)
    assert context.parent_id is None
    assert context.trace_id not in (TRACE_ID, "0" * 32)
    assert len(context.trace_id) == 32


def test_a_collector_that_hangs_delays_neither_requests_nor_the_end(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise this test does not end: the receiver answers only after it."""
    monkeypatch.setattr(otlp, "CLOSE_S", 0.2)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    receiver.open.clear()
    collector = OtlpCollector("rerank-gateway", "replica-1")

    collector.export(
        [Span("rerank", "ab" * 16, None, Instant(1), ended=Instant(2)) for _ in range(1_000)]
    )
    collector.close()

    assert len(receiver.spans) <= 20


def test_what_is_added_to_a_span_after_its_export_is_not_sent(receiver: OtlpReceiver) -> None:
    """A call that was overtaken ends after its request, while a thread exports its span."""
    collector = OtlpCollector("rerank-gateway", "replica-1")
    overtaken = Span("portion", "ab" * 16, "cd" * 8, Instant(1), ended=Instant(2))
    collector.export([overtaken])
    overtaken.attributes["rerank.replica"] = "late"
    collector.close()

    assert receiver.spans[0].attributes == {}


def test_an_export_that_fails_raises_nothing() -> None:
    collector = OtlpCollector("rerank-gateway", "replica-1")
    collector.export([Span("rerank", "not hexadecimal", None, Instant(1), ended=Instant(2))])
    collector.close()
