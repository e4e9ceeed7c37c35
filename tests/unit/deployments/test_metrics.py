"""Ray receives every value of a histogram, sums of counters, and all gauges repeatedly."""

from collections.abc import Mapping, Sequence

import pytest
from ray.serve import metrics as ray_metrics

from serve_app.deployments import metrics
from serve_app.deployments.metrics import RaySink
from serve_app.telemetry.metrics import (
    BACKLOG_TOKENS,
    DOCUMENTS,
    REQUESTS,
    STAGE_SECONDS,
    TRUNCATED_DOCUMENTS,
)

Call = tuple[str, float, Mapping[str, str]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Replace Ray's metrics by a list of the calls of their methods."""
    made: list[Call] = []

    class Recorded:
        def __init__(self, name: str, *_: str | Sequence[object]) -> None:
            self._name = name

        def record(self, value: float, labels: Mapping[str, str]) -> None:
            made.append((self._name, value, labels))

        inc = set = observe = record

    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(ray_metrics, kind, Recorded)
    monkeypatch.setattr(metrics, "FLUSH_S", 3_600.0)
    return made


def test_a_flush_passes_on_new_sums_and_the_last_values_of_all_gauges(calls: list[Call]) -> None:
    sink = RaySink()
    for documents in (5, 7):
        sink.record(DOCUMENTS, documents, {})
        sink.record(REQUESTS, 1, {"code": "ok"})
        sink.record(TRUNCATED_DOCUMENTS, 0, {})
        sink.record(BACKLOG_TOKENS, 100 * documents, {"model": "a"})
    sink.record(REQUESTS, 1, {"code": "overloaded"})
    assert calls == []

    sink.flush()

    assert calls == [
        ("rerank_documents", 12, {}),
        ("rerank_requests", 2, {"code": "ok"}),
        ("rerank_requests", 1, {"code": "overloaded"}),
        ("rerank_backlog_tokens", 700, {"model": "a"}),
    ]
    calls.clear()
    sink.flush()
    assert calls == [("rerank_backlog_tokens", 700, {"model": "a"})]


def test_a_histogram_gets_every_value(calls: list[Call]) -> None:
    sink = RaySink()
    for seconds in (0.1, 0.2):
        sink.record(STAGE_SECONDS, seconds, {"stage": "score"})

    assert [value for _, value, _ in calls] == [0.1, 0.2]
