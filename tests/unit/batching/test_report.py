"""A batch is counted once, and its span is linked to the requests of all its portions."""

from serve_app.batching.batch_size import Batch, Waiting
from serve_app.batching.report import Answers, BatchReport
from serve_app.domain.errors import EngineFailure
from serve_app.domain.model import Portion
from serve_app.domain.units import Instant, RequestId, Seconds, Tokens
from tests.support.fakes import RecordingSink, some_metrics
from tests.support.traces import RecordingCollector

ONE, TWO = (f"00-{digit * 32}-{digit * 16}-01" for digit in "12")
BATCH = Batch(Instant(10.5), Seconds(0.25), Tokens(9))


def waiting(since: float, *lengths: int, traceparent: str = "") -> Waiting:
    portion = Portion(RequestId("r"), bytes(4 * sum(lengths)), lengths, tuple(1 for _ in lengths))
    return Waiting(portion, Instant(since), traceparent)


def test_the_span_of_a_batch_is_linked_to_all_requests_and_they_to_it() -> None:
    collector = RecordingCollector()
    portions = [waiting(10, 2, traceparent=ONE), waiting(10.25, 3, 4, traceparent=TWO)]

    BatchReport(some_metrics(), collector).ended(BATCH, portions, [[1.0], [2.0, 3.0]])

    batch, first, second = collector.spans
    assert (first.trace_id, first.parent_id) == ("1" * 32, "1" * 16)
    assert (second.trace_id, second.parent_id) == ("2" * 32, "2" * 16)
    assert batch.trace_id not in (first.trace_id, second.trace_id)
    assert batch.parent_id is None
    assert [*batch.links] == [first.context, second.context]
    assert [*first.links] == [*second.links] == [batch.context]
    assert (batch.name, batch.started, batch.ended) == ("batch", 10.5, 10.75)
    assert batch.attributes == {"rerank.portions": 2, "rerank.tokens": 9}
    assert (second.name, second.kind, second.started, second.ended) == (
        *("portion", "server"),
        *(10.25, 10.75),
    )
    assert second.attributes == {
        "rerank.pairs": 2,
        "rerank.tokens": 7,
        "rerank.queue_wait_s": 0.25,
        "rerank.run_s": 0.25,
    }


def test_portions_that_are_not_traced_have_no_span() -> None:
    collector = RecordingCollector()
    report = BatchReport(some_metrics(), collector)

    report.ended(BATCH, [waiting(10, 2)], [[1.0]])
    assert collector.spans == []

    report.ended(BATCH, [waiting(10, 2), waiting(10, 3, traceparent=ONE)], [[1.0], [2.0]])
    assert [each.name for each in collector.spans] == ["batch", "portion"]
    assert collector.spans[0].attributes["rerank.portions"] == 2


def test_a_portion_that_failed_is_a_failed_span_and_does_not_count_as_scored() -> None:
    collector, sink = RecordingCollector(), RecordingSink()
    portions = [waiting(10, 2, traceparent=ONE), waiting(10, 7, traceparent=TWO)]
    answers: Answers = [[1.0], EngineFailure("NaN")]

    scored = BatchReport(some_metrics(sink), collector).ended(BATCH, portions, answers)

    assert scored == 2
    assert sink.values["rerank_scored_tokens"] == [(2, {})]
    assert sink.values["rerank_batch_tokens"] == [(9, {})]
    assert sink.values["rerank_queue_wait_seconds"] == [(0.5, {})]
    _, first, second = collector.spans
    assert (first.failed, second.failed) == (False, True)
    assert second.attributes["error.type"] == "engine_failure"
