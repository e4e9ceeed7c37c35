"""Send spans to an OpenTelemetry collector by OTLP over HTTP. Only this module knows OpenTelemetry.

OpenTelemetry's own variables ``OTEL_...`` set the address of the collector, the sampler, the name
of the service and the size of the queue. A thread exports the spans. Spans that do not fit
into its queue are dropped.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Thread

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serve_app import __version__
from serve_app.domain.clock import unix_ns
from serve_app.domain.units import Instant
from serve_app.telemetry.traces import Span, SpanKind, TraceContext, new_trace_id

SAMPLED = api.TraceFlags(api.TraceFlags.SAMPLED)
KINDS = {
    SpanKind.INTERNAL: api.SpanKind.INTERNAL,
    SpanKind.SERVER: api.SpanKind.SERVER,
    SpanKind.CLIENT: api.SpanKind.CLIENT,
}
ERROR = api.Status(api.StatusCode.ERROR)
UNSET = api.Status()

CLOSE_S = 2.0
"""Longest time for the export of queued spans when a process ends."""


class _Process(Resource):
    """A resource with a fast hash, because the exporter looks it up for each span.

    The hash of `Resource` writes all attributes as JSON, which takes 5 us.
    """

    def __hash__(self) -> int:
        return id(self)


class OtlpCollector:
    """Implements `serve_app.telemetry.traces.Collector`."""

    def __init__(self, service: str, instance: str) -> None:
        """``service`` and ``instance`` name this process in its spans."""
        names = {
            "service.name": service,
            "service.version": __version__,
            "service.instance.id": instance,
        }
        resource = Resource(names).merge(OTELResourceDetector().detect())
        self._resource = _Process(resource.attributes)
        self._scope = InstrumentationScope("serve_app", __version__)
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler
        self._propagator = TraceContextTextMapPropagator()
        self._processor = BatchSpanProcessor(OTLPSpanExporter())

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
            zero_ns = unix_ns(Instant(0))
            for each in spans:
                self._processor.on_end(self._readable(each, zero_ns))

    def _readable(self, span: Span, zero_ns: int) -> ReadableSpan:
        """Return a span in OpenTelemetry's form.

        A `Tracer` cannot make it, because a `Tracer` makes its own sampling decision for each span
        and chooses the span's id.
        """
        assert span.ended is not None
        caller = f"00-{span.trace_id}-{span.parent_id}-01" if span.parent_id else None
        return ReadableSpan(
            span.name,
            _context(span.context),
            _context(caller, is_remote=span.kind is SpanKind.SERVER) if caller else None,
            self._resource,
            dict(span.attributes),  # A copy: an overtaken call may add more.
            links=[api.Link(_context(each)) for each in span.links],
            kind=KINDS[span.kind],
            status=ERROR if span.failed else UNSET,
            start_time=zero_ns + round(span.started * 1e9),
            end_time=zero_ns + round(span.ended * 1e9),
            instrumentation_scope=self._scope,
        )

    def close(self) -> None:
        """Export what is queued, or lose it if that takes longer than `CLOSE_S`."""
        closing = Thread(target=self._processor.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def _context(traceparent: str, *, is_remote: bool = False) -> api.SpanContext:
    _, trace_id, span_id, _ = traceparent.split("-")
    return api.SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=is_remote, trace_flags=SAMPLED
    )
