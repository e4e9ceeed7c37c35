"""The service sends the traces of its requests to a collector, from both kinds of process."""

import json
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from testkit.log_leaks import DOCUMENT_MARKER, QUERY_MARKER, leaks_in_text
from testkit.otlp import OtlpReceiver, ReceivedSpan
from testkit.service import Service, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

CALLER_ID = "00f067aa0ba902b7"
GATEWAYS = 2


def rerank(
    service: Service,
    trace_id: str,
    *,
    sampled: bool = True,
    documents: Sequence[str] = (f"{DOCUMENT_MARKER} grey", "blue"),
    model: str = "embedded",
) -> None:
    body = {"model": model, "query": f"{QUERY_MARKER} blue sky", "documents": documents}
    context = f"00-{trace_id}-{CALLER_ID}-{'01' if sampled else '00'}"
    with service.client() as client:
        answer = client.post("/v1/rerank", json=body, headers={"traceparent": context})
    assert answer.status_code == 200


def trace(collector: OtlpReceiver, trace_id: str) -> dict[tuple[str, str], ReceivedSpan]:
    """Return the spans of a trace by name and service, once all have arrived."""

    def complete() -> dict[tuple[str, str], ReceivedSpan] | None:
        found = {
            (each.name, each.service): each for each in collector.spans if each.trace_id == trace_id
        }
        whole = {("rerank", "rerank-gateway"), ("portion", "rerank-scorer")} <= found.keys()
        return found if whole else None

    found: dict[tuple[str, str], ReceivedSpan] = wait_for(complete, what="the trace")
    return found


def test_a_callers_trace_continues_through_gateway_and_scorer(
    service: Service, collector: OtlpReceiver
) -> None:
    trace_id = secrets.token_hex(16)
    rerank(service, trace_id)

    spans = trace(collector, trace_id)
    root = spans["rerank", "rerank-gateway"]
    call = spans["portion", "rerank-gateway"]
    portion = spans["portion", "rerank-scorer"]
    steps = {name for (name, _), each in spans.items() if each.parent_id == root.id}
    assert steps == {
        *("authenticate", "receive", "admit", "reserve", "tokenize", "score", "commit")
    }
    assert root.parent_id == CALLER_ID
    assert root.attributes["openinference.span.kind"] == "RERANKER"
    assert root.attributes["reranker.model_name"] == "embedded"
    assert call.parent_id == spans["score", "rerank-gateway"].id
    assert portion.parent_id == call.id
    assert call.attributes["rerank.replica"] == portion.resource["service.instance.id"]
    assert portion.attributes["rerank.pairs"] == 2


def test_every_traced_portion_is_linked_to_the_one_batch_that_scored_it(
    service: Service, collector: OtlpReceiver
) -> None:
    traces = [secrets.token_hex(16) for _ in range(24)]
    with ThreadPoolExecutor(8) as clients:
        [*clients.map(lambda trace_id: rerank(service, trace_id), traces)]

    portions = [trace(collector, each)["portion", "rerank-scorer"] for each in traces]
    batches = {(each.trace_id, each.id): each for each in collector.named("batch")}
    for each in portions:
        (link,) = each.links
        assert (each.trace_id, each.id) in batches[link].links
        assert batches[link].started_ns <= each.ended_ns
    linked = [link for each in batches.values() for link in each.links]
    assert len(linked) == len(set(linked))


def test_portions_are_spread_over_the_scorers(service: Service, collector: OtlpReceiver) -> None:
    many = ["sky " * 128] * 160  # more tokens than a portion ever has
    for _ in range(2 * GATEWAYS):  # Both gateways know both scorers afterwards.
        rerank(service, secrets.token_hex(16), documents=many, model="tiny")

    for _ in range(8):
        trace_id = secrets.token_hex(16)
        rerank(service, trace_id, documents=many, model="tiny")
        trace(collector, trace_id)
        calls = collector.named("portion", "rerank-gateway")
        mine = sorted(
            (each for each in calls if each.trace_id == trace_id), key=lambda each: each.started_ns
        )
        first, second = (each.attributes["rerank.replica"] for each in mine[:2])
        assert first != second


def test_the_log_line_of_a_request_names_its_trace(
    service: Service, collector: OtlpReceiver
) -> None:
    trace_id = secrets.token_hex(16)
    rerank(service, trace_id)

    root = trace(collector, trace_id)["rerank", "rerank-gateway"]
    lines = [json.loads(line) for line in service.logs().splitlines() if trace_id in line]
    assert [line["id"] for line in lines] == [root.attributes["rerank.request_id"]]


def test_a_caller_that_does_not_sample_is_not_traced(
    service: Service, collector: OtlpReceiver
) -> None:
    unsampled, sampled = secrets.token_hex(16), secrets.token_hex(16)
    rerank(service, unsampled, sampled=False)
    rerank(service, sampled)

    trace(collector, sampled)
    assert not [each for each in collector.spans if each.trace_id == unsampled]


def test_traces_contain_no_text_and_no_secret(service: Service, collector: OtlpReceiver) -> None:
    trace_id = secrets.token_hex(16)
    rerank(service, trace_id)
    trace(collector, trace_id)

    everything = "\n".join(f"{each.name} {each.attributes}" for each in collector.spans)
    assert leaks_in_text(everything) == []
