"""Traces of requests as data, without any tracing library.

    traces.begin ──> span, span, ... ──> traces.end ──> collector

`span` adds to the trace of the current task, which tasks inherit from their creators. The spans of
a request are exported together after its end. Trace contexts are the ``traceparent`` of W3C.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Protocol

from serve_app.domain.clock import Clock
from serve_app.domain.errors import RerankError
from serve_app.domain.units import Instant

SPANS_MAX = 100
"""Spans of a request after which only its steps get spans: a job of 10,000 documents has thousands
of portions."""

_random = Random()  # noqa: S311 - ids need no secrecy

Value = str | bool | int | float


class SpanKind(StrEnum):
    """The side of a call that a span describes."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


def new_trace_id() -> str:
    return f"{_random.getrandbits(128):032x}"


def new_span_id() -> str:
    return f"{_random.getrandbits(64):016x}"


@dataclass(slots=True, eq=False)
class Span:
    """One operation of a trace. Ids are hexadecimal digits in lower case."""

    name: str
    trace_id: str
    parent_id: str | None
    started: Instant
    kind: SpanKind = SpanKind.INTERNAL
    attributes: dict[str, Value] = field(default_factory=dict)
    links: Sequence[str] = ()
    """Contexts of related spans in other traces."""

    ended: Instant | None = None
    failed: bool = False
    id: str = field(default_factory=new_span_id)

    @property
    def context(self) -> str:
        """The ``traceparent`` of calls that this span makes."""
        return f"00-{self.trace_id}-{self.id}-01"

    def fail(self, error: BaseException) -> None:
        """Record the kind of ``error`` without its message, which may contain a text."""
        self.failed = True
        self.attributes["error.type"] = error_type(error)


def error_type(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return error.code if isinstance(error, RerankError) else type(error).__name__


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The trace that a request belongs to."""

    trace_id: str
    parent_id: str | None
    """The caller's span, if the caller sent its context."""


class Collector(Protocol):
    """Receives spans. No method raises, and only `close` blocks."""

    def context(self, headers: Mapping[str, str], /) -> TraceContext | None:
        """Return the caller's trace or else a new one; ``None`` if the request is not sampled."""

    def export(self, spans: Sequence[Span]) -> None:
        """Take ended spans, which may be lost."""

    def close(self) -> None:
        """Export the rest; block for a short time at most."""


class NoCollector:
    """Drops all spans."""

    def context(self, _headers: Mapping[str, str], /) -> None:
        return None

    def export(self, spans: Sequence[Span]) -> None:
        pass

    def close(self) -> None:
        pass


class Trace:
    """The spans of one request in this process."""

    def __init__(self, root: Span, clock: Clock) -> None:
        self.root = root
        self.spans = [root]
        self.spans_dropped = 0
        self.clock = clock

    @property
    def has_ended(self) -> bool:
        return self.root.ended is not None

    def begin(self, name: str, parent: Span, kind: SpanKind) -> Span | None:
        if parent is not self.root and len(self.spans) >= SPANS_MAX:
            self.spans_dropped += 1
            return None
        child = Span(name, self.root.trace_id, parent.id, self.clock.instant(), kind)
        self.spans.append(child)
        return child


_current: ContextVar[tuple[Trace, Span] | None] = ContextVar("current", default=None)


class _Block:
    """A span as a context manager. A generator would take twice as long."""

    __slots__ = ("_added", "_kind", "_name", "_token")

    def __init__(self, name: str, kind: SpanKind) -> None:
        self._name = name
        self._kind = kind
        self._added: tuple[Trace, Span] | None = None

    def __enter__(self) -> Span | None:
        current = _current.get()
        if current is None or current[0].has_ended:
            return None
        trace, parent = current
        child = trace.begin(self._name, parent, self._kind)
        if child is None:
            return None
        self._added = trace, child
        self._token = _current.set(self._added)
        return child

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._added is None:
            return
        trace, child = self._added
        if error is not None:
            child.fail(error)
        _current.reset(self._token)
        child.ended = trace.clock.instant()


def span(name: str, kind: SpanKind = SpanKind.INTERNAL) -> AbstractContextManager[Span | None]:
    """Add the block to the current trace as a span, which is yielded for its attributes.

    Yields ``None`` without a current trace, or if it has ended or has too many spans.
    """
    return _Block(name, kind)


def add_span(name: str, started: Instant) -> None:
    """Add a span from ``started`` until now to the current trace."""
    with span(name) as past:
        if past is not None:
            past.started = started


@contextmanager
def untraced() -> Iterator[None]:
    """Keep tasks that the block creates out of the current trace."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


class Traces:
    """Traces the requests of a gateway."""

    def __init__(self, collector: Collector, clock: Clock, *, with_texts: bool = False) -> None:
        """``with_texts``: spans may contain queries and documents."""
        self._collector = collector
        self._clock = clock
        self.with_texts = with_texts

    def begin(self, headers: Mapping[str, str], started: Instant) -> Trace | None:
        """Trace the current task's request, if it is sampled. `end` must be called."""
        context = self._collector.context(headers)
        if context is None:
            _current.set(None)
            return None
        root = Span("rerank", context.trace_id, context.parent_id, started, SpanKind.SERVER)
        trace = Trace(root, self._clock)
        _current.set((trace, root))
        return trace

    def end(self, trace: Trace, attributes: Mapping[str, Value], *, failed: bool) -> None:
        """Export the trace. Spans that have not ended, such as overtaken calls, end now."""
        root, ended = trace.root, self._clock.instant()
        root.attributes |= attributes
        root.failed = failed
        if trace.spans_dropped:
            root.attributes["rerank.spans_dropped"] = trace.spans_dropped
        for each in trace.spans:
            if each.ended is None:
                each.ended = ended
        self._collector.export(trace.spans)
