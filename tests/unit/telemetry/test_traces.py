"""Spans form the tree of a request, also across tasks. Without a trace, they do nothing."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import pytest

from serve_app.domain.errors import OutOfCredit
from serve_app.domain.units import Credits, Instant
from serve_app.telemetry.traces import (
    SPANS_MAX,
    NoCollector,
    Span,
    Trace,
    TraceContext,
    Traces,
    add_span,
    span,
    untraced,
)
from tests.support.fakes import FakeClock
from tests.support.traces import CALLER, RecordingCollector

STARTED = Instant(1_000)


def trace_of(work: Coroutine[Any, Any, None], collector: RecordingCollector) -> Sequence[Span]:
    """Return the spans of a request that does ``work``."""
    traces = Traces(collector, FakeClock())

    async def request() -> None:
        trace = traces.begin({}, STARTED)
        assert trace is not None
        try:
            await work
        finally:
            traces.end(trace, {}, failed=False)

    asyncio.run(request())
    return collector.spans


def names_by_parent(spans: Sequence[Span]) -> Mapping[str, str]:
    names = {each.id: each.name for each in spans}
    return {each.name: names.get(each.parent_id or "", "the caller") for each in spans}


async def scored() -> None:
    async def portion(number: int) -> None:
        with span(f"portion {number}"):
            await asyncio.sleep(0)

    with span("reserve"):
        await asyncio.sleep(0)
    with span("score"):
        async with asyncio.TaskGroup() as group:
            for number in (1, 2):
                group.create_task(portion(number))
    with span("commit"):
        pass


def test_spans_have_the_span_of_their_block_as_parent_also_in_tasks() -> None:
    spans = trace_of(scored(), RecordingCollector())

    assert names_by_parent(spans) == {
        "rerank": "the caller",
        "reserve": "rerank",
        "score": "rerank",
        "portion 1": "score",
        "portion 2": "score",
        "commit": "rerank",
    }
    assert {each.trace_id for each in spans} == {CALLER.trace_id}
    assert all(each.ended is not None for each in spans)


def test_requests_at_the_same_time_have_their_own_traces() -> None:
    collector = RecordingCollector(TraceContext("a" * 32, None), TraceContext("b" * 32, None))
    traces = Traces(collector, FakeClock())

    async def request() -> None:
        trace = traces.begin({}, STARTED)
        assert trace is not None
        await scored()
        traces.end(trace, {}, failed=False)

    async def both() -> None:
        await asyncio.gather(request(), request())

    asyncio.run(both())

    assert len(collector.exports) == 2
    for export in collector.exports:
        assert len(export) == 6
        assert len({each.trace_id for each in export}) == 1


def test_a_failed_block_is_a_failed_span_without_the_message() -> None:
    collector = RecordingCollector()

    async def work() -> None:
        with span("reserve"):
            raise OutOfCredit(Credits(5), Credits(4))

    with pytest.raises(OutOfCredit):
        trace_of(work(), collector)

    (reserve,) = (each for each in collector.spans if each.name == "reserve")
    assert reserve.failed
    assert reserve.attributes == {"error.type": "out_of_credit"}


def test_a_bug_and_a_cancellation_are_named_by_their_kind() -> None:
    collector = RecordingCollector()

    async def work() -> None:
        with pytest.raises(ValueError, match="zeppelin"), span("bug"):
            raise ValueError("zeppelin")
        with pytest.raises(asyncio.CancelledError), span("gone"):
            raise asyncio.CancelledError

    kinds = {each.name: each.attributes for each in trace_of(work(), collector)}

    assert kinds["bug"] == {"error.type": "ValueError"}
    assert kinds["gone"] == {"error.type": "cancelled"}


def test_without_a_trace_a_block_just_runs() -> None:
    with span("reserve") as nothing:
        assert nothing is None


def test_an_unsampled_request_has_no_trace_even_after_a_sampled_one_in_the_same_task() -> None:
    sampled = Traces(RecordingCollector(), FakeClock())
    unsampled = Traces(NoCollector(), FakeClock())

    async def one_task() -> None:
        assert sampled.begin({}, STARTED) is not None
        assert unsampled.begin({}, STARTED) is None
        with span("reserve") as nothing:
            assert nothing is None

    asyncio.run(one_task())


def test_what_runs_on_after_the_request_ends_with_it_and_adds_nothing() -> None:
    collector = RecordingCollector()
    goes = asyncio.Event()

    async def overtaken() -> None:
        with span("portion"):
            await goes.wait()
        with span("too late") as nothing:
            assert nothing is None

    async def work() -> None:
        task = asyncio.create_task(overtaken())
        await asyncio.sleep(0)
        tasks.append(task)

    tasks: list[asyncio.Task[None]] = []

    async def request() -> None:
        traces = Traces(collector, FakeClock())
        trace = traces.begin({}, STARTED)
        assert trace is not None
        await work()
        traces.end(trace, {}, failed=False)
        goes.set()
        await tasks[0]

    asyncio.run(request())

    assert [each.name for each in collector.spans] == ["rerank", "portion"]
    assert collector.spans[1].ended == collector.spans[0].ended


def test_tasks_can_be_kept_out_of_the_trace() -> None:
    async def shadow() -> None:
        with span("shadow") as nothing:
            assert nothing is None

    async def work() -> None:
        with untraced():
            task = asyncio.create_task(shadow())
        await task
        with span("commit"):
            pass

    spans = trace_of(work(), RecordingCollector())

    assert [each.name for each in spans] == ["rerank", "commit"]


def test_a_job_of_many_portions_has_a_bounded_trace_with_all_its_steps() -> None:
    async def work() -> None:
        with span("score"):
            for _ in range(3 * SPANS_MAX):
                with span("portion"):
                    pass
        with span("commit"):
            pass

    spans = trace_of(work(), RecordingCollector())

    assert len(spans) == SPANS_MAX + 1
    assert spans[-1].name == "commit"
    assert spans[0].attributes["rerank.spans_dropped"] == 2 * SPANS_MAX + 2


def test_the_context_of_a_span_is_a_traceparent() -> None:
    root = Trace(Span("rerank", "ab" * 16, None, STARTED), FakeClock()).root

    assert root.context == f"00-{'ab' * 16}-{root.id}-01"
    assert len(root.id) == 16


def test_a_span_can_be_added_when_it_has_ended() -> None:
    async def work() -> None:
        add_span("queue", Instant(997))

    _, queue = trace_of(work(), RecordingCollector())

    assert (queue.name, queue.started, queue.ended) == ("queue", Instant(997), STARTED)
    add_span("queue", Instant(997))  # Without a trace it does nothing.
