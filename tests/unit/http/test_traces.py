"""A request's trace has its steps and its result, and its texts only if they are asked for."""

from collections.abc import Iterator

import pytest

from serve_app.domain.errors import EngineFailure
from serve_app.telemetry.span_attributes import CHARACTERS_MAX, DOCUMENTS_MAX
from tests.support.app import FakeApp
from tests.support.fakes import FailingJobScorer
from tests.support.traces import CALLER, RecordingCollector

TEXTS = {
    "query": "xylophone",
    "documents": ["zeppelin", {"text": "quagmire " * 20, "walrus": "ocelot"}],
}
WORDS = ["xylophone", "zeppelin", "quagmire", "walrus", "ocelot", "rk-good"]


@pytest.fixture
def collector() -> RecordingCollector:
    return RecordingCollector()


@pytest.fixture
def traced(collector: RecordingCollector) -> Iterator[FakeApp]:
    built = FakeApp(collector=collector)
    yield built
    built.close()


@pytest.fixture
def with_texts(collector: RecordingCollector) -> Iterator[FakeApp]:
    built = FakeApp(collector=collector, with_texts=True)
    yield built
    built.close()


def test_an_answered_request_has_a_span_for_each_step(
    traced: FakeApp, collector: RecordingCollector
) -> None:
    assert traced.rerank(**TEXTS).status_code == 200

    root, *steps = collector.spans
    assert [step.name for step in steps] == [
        *("authenticate", "receive", "admit", "reserve", "tokenize", "score", "commit")
    ]
    assert {step.parent_id for step in steps} == {root.id}
    assert (root.name, root.kind, root.parent_id) == ("rerank", "server", CALLER.parent_id)
    assert not [span.name for span in collector.spans if span.failed]


def test_the_span_of_a_request_has_the_attributes_of_a_reranker(
    traced: FakeApp, collector: RecordingCollector
) -> None:
    traced.rerank(**TEXTS, top_n=1)

    assert collector.spans[0].attributes == {
        "openinference.span.kind": "RERANKER",
        "gen_ai.operation.name": "rerank",
        "gen_ai.request.model": "mini",
        "gen_ai.usage.input_tokens": 17,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "rerank.charge_micro_dollars": 16,
        "rerank.documents": 2,
        "rerank.key_id": "k1",
        "rerank.request_id": "rr_1",
        "rerank.tenant": "acme",
        "reranker.model_name": "mini",
        "reranker.top_k": 1,
        "url.path": "/v1/rerank",
    }


def test_every_wire_format_is_traced_by_its_route(
    traced: FakeApp, collector: RecordingCollector
) -> None:
    traced.send("POST", "/v1/score", body={"pairs": [["xylophone", "zeppelin"]]})
    traced.send("POST", "/v2//rerank/", body=TEXTS)

    roots = [export[0].attributes for export in collector.exports]
    assert [root["url.path"] for root in roots] == ["/v1/score", "/v2/rerank"]
    assert {root["gen_ai.operation.name"] for root in roots} == {"rerank"}


def test_the_headers_decide_about_the_trace(traced: FakeApp, collector: RecordingCollector) -> None:
    context = f"00-{CALLER.trace_id}-{CALLER.parent_id}-01"
    traced.send("POST", "/v1/rerank", headers={"traceparent": context}, body=TEXTS)

    assert collector.headers[0]["traceparent"] == context


def test_the_log_line_names_the_trace(traced: FakeApp) -> None:
    traced.rerank(**TEXTS)

    (line,) = traced.lines
    assert line["trace_id"] == CALLER.trace_id


def test_a_request_that_is_not_traced_has_no_trace_in_its_log_line(app: FakeApp) -> None:
    app.rerank(**TEXTS)

    (line,) = app.lines
    assert "trace_id" not in line


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({}, id="answered"),
        pytest.param({"top_n": "walrus"}, id="a wrong type"),
        pytest.param({"documents": ["zeppelin", ["quagmire"]]}, id="a wrong document"),
        pytest.param({"query": "xylophone " * 100}, id="a long query"),
        pytest.param({"model": "walrus"}, id="a model that is not served"),
    ],
)
def test_no_trace_contains_request_text(
    traced: FakeApp, collector: RecordingCollector, broken: dict[str, object]
) -> None:
    traced.rerank(**(TEXTS | broken))

    traced_text = " ".join(f"{each.name} {each.attributes}" for each in collector.spans)
    assert not [word for word in WORDS if word in traced_text]


def test_an_exception_message_with_a_document_is_not_traced(collector: RecordingCollector) -> None:
    app = FakeApp(scorer=FailingJobScorer(ValueError("'zeppelin'")), collector=collector)
    app.rerank(**TEXTS)
    app.close()

    root = collector.spans[0]
    assert root.failed
    assert root.attributes["http.response.status_code"] == 500
    assert root.attributes["error.type"] == "internal"
    assert [span.name for span in collector.spans if span.failed] == ["rerank", "score"]
    assert "zeppelin" not in str([each.attributes for each in collector.spans])


def test_a_refusal_fails_its_step_and_not_the_request(collector: RecordingCollector) -> None:
    """Monitoring counts failed server spans as faults of the service."""
    app = FakeApp(granted=1, collector=collector)
    assert app.rerank(**TEXTS).status_code == 402
    app.close()

    root = collector.spans[0]
    assert not root.failed
    assert root.attributes["error.type"] == "out_of_credit"
    assert "reserve" in [span.name for span in collector.spans if span.failed]


def test_a_fault_of_a_scorer_is_a_failed_request(collector: RecordingCollector) -> None:
    app = FakeApp(scorer=FailingJobScorer(EngineFailure("NaN")), collector=collector)
    app.rerank(**TEXTS)
    app.close()

    assert collector.spans[0].failed
    assert collector.spans[0].attributes["error.type"] == "engine_failure"


def test_a_repeat_names_the_request_that_it_repeats(
    traced: FakeApp, collector: RecordingCollector
) -> None:
    for _ in range(2):
        headers = {"idempotency-key": "k"}
        traced.send("POST", "/v1/rerank", headers=headers, body=TEXTS)

    root = collector.exports[1][0]
    assert root.attributes["rerank.repeats"] == "rr_1"
    assert "rerank.charge_micro_dollars" not in root.attributes


def test_texts_and_scores_are_traced_if_asked_for(
    with_texts: FakeApp, collector: RecordingCollector
) -> None:
    with_texts.rerank(query="blue sky", documents=["grey", "a blue sky"], top_n=1)

    attributes = collector.spans[0].attributes
    texts = {name: value for name, value in attributes.items() if "document." in name}
    score = texts.pop("reranker.output_documents.0.document.score")
    assert attributes["reranker.query"] == "blue sky"
    assert texts == {
        "reranker.input_documents.0.document.id": "0",
        "reranker.input_documents.0.document.content": "grey",
        "reranker.input_documents.1.document.id": "1",
        "reranker.input_documents.1.document.content": "a blue sky",
        "reranker.output_documents.0.document.id": "1",
        "reranker.output_documents.0.document.content": "a blue sky",
    }
    assert score == pytest.approx(0.7311, abs=1e-4)


def test_traced_texts_are_bounded(with_texts: FakeApp, collector: RecordingCollector) -> None:
    documents = ["word " * (CHARACTERS_MAX // 4), *("word" for _ in range(2 * DOCUMENTS_MAX))]
    assert with_texts.rerank(documents=documents).status_code == 200

    attributes = collector.spans[0].attributes
    contents = [each for name, each in attributes.items() if name.endswith(".content")]
    assert len(contents) == 2 * DOCUMENTS_MAX
    assert max(len(str(each)) for each in contents) == CHARACTERS_MAX


def test_the_texts_of_a_refused_request_are_traced_as_far_as_they_are_known(
    collector: RecordingCollector,
) -> None:
    app = FakeApp(granted=1, collector=collector, with_texts=True)
    app.rerank(query="blue sky", documents=["grey"])
    app.close()

    attributes = collector.spans[0].attributes
    assert attributes["reranker.input_documents.0.document.content"] == "grey"
    assert not [name for name in attributes if name.startswith("reranker.output_documents")]
