"""Spans for an OpenTelemetry collector, by OTLP over HTTP. Only this module knows OpenTelemetry.

Its variables ``OTEL_...`` configure the export. Spans that do not fit into the queue are dropped.

Spans become protobuf messages directly: by way of OpenTelemetry's own spans, a trace would take
0.23 ms of CPU time instead of 0.1 ms.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serve_app import __version__
from serve_app.domain.clock import unix_ns
from serve_app.domain.units import Instant
from serve_app.telemetry.traces import Span, SpanKind, TraceContext, Value, new_trace_id

KINDS = {
    SpanKind.INTERNAL: trace_pb2.Span.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: trace_pb2.Span.SPAN_KIND_SERVER,
    SpanKind.CLIENT: trace_pb2.Span.SPAN_KIND_CLIENT,
}
LOCAL_PARENT = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
REMOTE_PARENT = LOCAL_PARENT | trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
SAMPLED = api.SpanContext(
    trace_id=1, span_id=1, is_remote=False, trace_flags=api.TraceFlags(api.TraceFlags.SAMPLED)
)

CLOSE_S = 2.0
"""Longest time for the export of queued spans when a process ends."""


class _Ended(ReadableSpan):
    """An ended span in the queue, which looks only at the context's sampling decision."""

    def __init__(self, span: Span) -> None:
        self.ours = span
        self.ours_attributes = dict(span.attributes)  # A copy: an overtaken call may add more.

    @property
    def context(self) -> api.SpanContext:
        return SAMPLED


class _Exporter(OTLPSpanExporter):
    def __init__(self, resource: Resource, scope: InstrumentationScope) -> None:
        super().__init__()
        without_name = ReadableSpan("", SAMPLED, resource=resource, instrumentation_scope=scope)
        self._envelope = encode_spans([without_name])
        del self._envelope.resource_spans[0].scope_spans[0].spans[:]

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        request = ExportTraceServiceRequest()
        request.CopyFrom(self._envelope)
        messages = request.resource_spans[0].scope_spans[0].spans
        zero_ns = unix_ns(Instant(0))
        for each in spans:
            assert isinstance(each, _Ended)
            _add(messages, each.ours, each.ours_attributes, zero_ns)
        sent = self._client.export(request.SerializeToString())
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


def _add(messages: Any, span: Span, attributes: Mapping[str, Value], zero_ns: int) -> None:
    assert span.ended is not None
    message = messages.add(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.id),
        parent_span_id=bytes.fromhex(span.parent_id or ""),
        flags=REMOTE_PARENT if span.kind is SpanKind.SERVER and span.parent_id else LOCAL_PARENT,
        name=span.name,
        kind=KINDS[span.kind],
        start_time_unix_nano=zero_ns + round(span.started * 1e9),
        end_time_unix_nano=zero_ns + round(span.ended * 1e9),
    )
    if span.failed:
        message.status.code = trace_pb2.Status.STATUS_CODE_ERROR
    for name, value in attributes.items():
        _set(message.attributes.add(key=name).value, value)
    for each in span.links:
        _, trace_id, span_id, _ = each.split("-")
        message.links.add(
            trace_id=bytes.fromhex(trace_id), span_id=bytes.fromhex(span_id), flags=LOCAL_PARENT
        )


def _set(message: AnyValue, value: Value) -> None:
    match value:
        case str():
            message.string_value = value
        case bool():
            message.bool_value = value
        case int():
            message.int_value = value
        case float():
            message.double_value = value


class OtlpCollector:
    """Implements `serve_app.telemetry.traces.Collector`."""

    def __init__(self, service: str, instance: str) -> None:
        names = {
            "service.name": service,
            "service.version": __version__,
            "service.instance.id": instance,
        }
        resource = Resource(names).merge(OTELResourceDetector().detect())
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler
        self._propagator = TraceContextTextMapPropagator()
        scope = InstrumentationScope("serve_app", __version__)
        self._processor = BatchSpanProcessor(_Exporter(resource, scope))

    def context(self, headers: Mapping[str, str], /) -> TraceContext | None:
        with suppress(Exception):  # A fault here must not fail a request.
            return self._context(headers)
        return None

    def _context(self, headers: Mapping[str, str]) -> TraceContext | None:
        sent = self._propagator.extract(headers)
        caller = api.get_current_span(sent).get_span_context()
        trace_id = f"{caller.trace_id:032x}" if caller.is_valid else new_trace_id()
        decided = self._sampler.should_sample(
            sent, int(trace_id, 16), "rerank", api.SpanKind.SERVER
        )
        if decided.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        return TraceContext(trace_id, f"{caller.span_id:016x}" if caller.is_valid else None)

    def export(self, spans: Sequence[Span]) -> None:
        with suppress(Exception):  # As above.
            for each in spans:
                self._processor.on_end(_Ended(each))

    def close(self) -> None:
        """Export what is queued, or lose it after `CLOSE_S`."""
        closing = Thread(target=self._processor.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)
