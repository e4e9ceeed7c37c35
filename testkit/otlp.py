"""A collector of traces: an HTTP server that receives spans by OTLP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from testkit.http_server import serving


class ReceivedSpan:
    """A span with the service that sent it; ids are hexadecimal digits."""

    def __init__(self, span: Span, resource: dict[str, Any]) -> None:
        self.name = span.name
        self.trace_id = span.trace_id.hex()
        self.id = span.span_id.hex()
        self.parent_id = span.parent_span_id.hex()
        self.kind = Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower()
        self.started_ns = span.start_time_unix_nano
        self.ended_ns = span.end_time_unix_nano
        self.failed = span.status.code == Status.STATUS_CODE_ERROR
        self.attributes = _values(span.attributes)
        self.links = {(link.trace_id.hex(), link.span_id.hex()) for link in span.links}
        self.resource = resource
        self.service = resource["service.name"]


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


class OtlpReceiver:
    """The server. It only counts the bytes unless ``decodes``."""

    def __init__(self, *, decodes: bool = True) -> None:
        self.spans: list[ReceivedSpan] = []
        self.bytes_received = 0
        self.open = threading.Event()
        """While this event is cleared, the receiver answers nothing."""

        self.open.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.bytes_received += len(body)
                if decodes:
                    receiver.spans += _spans(body)
                receiver.open.wait()
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def named(self, name: str, service: str | None = None) -> list[ReceivedSpan]:
        return [
            each
            for each in self.spans
            if each.name == name and (service is None or each.service == service)
        ]


def _spans(body: bytes) -> list[ReceivedSpan]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        ReceivedSpan(span, _values(resource.resource.attributes))
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


@contextmanager
def receiving(*, decodes: bool = True) -> Iterator[OtlpReceiver]:
    """Run a receiver during the block."""
    receiver = OtlpReceiver(decodes=decodes)
    with serving(receiver.server):
        try:
            yield receiver
        finally:
            receiver.open.set()
