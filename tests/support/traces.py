"""A collector of traces in memory."""

from collections.abc import Mapping, Sequence

from serve_app.telemetry.traces import Span, TraceContext

CALLER = TraceContext("c0ffee" + "0" * 26, "fedcba9876543210")
"""The trace that requests belong to by default."""


class RecordingCollector:
    """Keeps all spans. Requests belong to ``contexts`` in turn; the last one is repeated."""

    def __init__(self, *contexts: TraceContext) -> None:
        self._contexts = [*(contexts or (CALLER,))]
        self.exports: list[Sequence[Span]] = []
        self.headers: list[Mapping[str, str]] = []

    @property
    def spans(self) -> list[Span]:
        return [each for export in self.exports for each in export]

    def context(self, headers: Mapping[str, str]) -> TraceContext:
        self.headers.append(headers)
        return self._contexts.pop(0) if len(self._contexts) > 1 else self._contexts[0]

    def export(self, spans: Sequence[Span]) -> None:
        self.exports.append(spans)

    def close(self) -> None:
        pass
