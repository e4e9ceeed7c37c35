"""Guarantees of the service with real HAProxy, Ray, gateways, models and database."""

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from serve_app.access.api_keys import SCOPE_ADMIN
from serve_app.domain.units import Credits
from serve_app.http.openapi.scoring import RERANK, RERANK_AT_ROOT
from serve_app.planning import readers
from testkit.log_leaks import DOCUMENT_MARKER, EVENTS_TOKEN, QUERY_MARKER, leaks_in_text
from testkit.service import Service, wait_for
from testkit.tiny_models import POISON
from tests.support.event_sinks import Sink

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

QUERY = f"how tall is the eiffel tower {QUERY_MARKER}"
DOCUMENTS = [
    f"The Louvre is a museum in Paris. {DOCUMENT_MARKER}",
    f"The Eiffel Tower is 330 metres tall. {DOCUMENT_MARKER}",
    f"Paris is the capital of France. {DOCUMENT_MARKER}",
]
LONG = " ".join([f"a long document about towers and their height {DOCUMENT_MARKER}"] * 80)
MANY_LONG = [f"{LONG} {index}" for index in range(60)]


def rerank(
    client: httpx.Client,
    documents: list[str],
    model: str = "embedded",
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    body = {"model": model, "query": QUERY, "documents": documents}
    return client.post("/v1/rerank", json=body, headers=headers)


def pending(service: Service) -> list[str]:
    return [row[0] for row in service.rows("SELECT id FROM reservations WHERE state = 'pending'")]


def state(service: Service, request_id: str) -> str:
    (row,) = service.rows("SELECT state FROM reservations WHERE id = :id", id=request_id)
    return str(row[0])


def books_balance(service: Service) -> bool:
    """Check for every tenant that granted = available + pending + charged."""
    return not service.rows(
        """
        SELECT t.id FROM tenants t WHERE
          (SELECT coalesce(sum(amount), 0) FROM grants g WHERE g.tenant_id = t.id)
          != t.available
           + (SELECT coalesce(sum(amount), 0) FROM reservations r
              WHERE r.tenant_id = t.id AND r.state = 'pending')
           + (SELECT coalesce(sum(amount), 0) FROM charges c WHERE c.tenant_id = t.id)
        """
    )


@contextmanager
def request_in_flight(service: Service) -> Iterator[Future[httpx.Response]]:
    """Send a large request from a thread, with time for the replacement of a scorer."""

    def send() -> httpx.Response:
        with service.client(timeout_s=100) as client:
            return rerank(client, MANY_LONG[:30], headers={"x-request-timeout-s": "90"})

    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(send)
        wait_for(lambda: pending(service), what="the reservation")
        yield answer


def test_the_right_document_comes_first_and_its_charge_is_committed(service: Service) -> None:
    with service.client() as client:
        response = rerank(client, DOCUMENTS)

    answer = response.json()
    assert response.status_code == 200
    assert answer["results"][0]["index"] == 1
    (row,) = service.rows("SELECT * FROM charges WHERE request_id = :id", id=answer["id"])
    assert (row.documents, row.amount) == (3, 24)
    assert row.tokens == answer["usage"]["total_tokens"]
    assert answer["meta"]["charge_micro_dollars"] == 24
    assert state(service, answer["id"]) == "committed"


@pytest.mark.parametrize("path", [*RERANK.paths, *RERANK_AT_ROOT.paths])
def test_the_usage_in_a_response_equals_its_ledger_row(service: Service, path: str) -> None:
    """Every reported number equals the ledger's row, for texts of many kinds."""
    documents = [*DOCUMENTS, DOCUMENTS[0], "é", "塔の高さは三百三十メートル。", LONG]
    with service.client() as client:
        body = {"model": "embedded", "query": QUERY, "documents": documents, "top_n": 2}
        answer = client.post(path, json=body).json()

    (row,) = service.rows("SELECT * FROM charges WHERE request_id = :id", id=answer["id"])
    usage, meta = answer["usage"], answer["meta"]
    assert row.documents == usage["documents"] == len(documents)
    reported = (
        usage["prompt_tokens"],
        usage["total_tokens"],
        meta["billed_units"]["input_tokens"],
        meta["billed_units"]["total_tokens"],
        meta["tokens"]["input_tokens"],
    )
    assert set(reported) == {row.tokens}
    assert usage["search_units"] == meta["billed_units"]["search_units"] == 1
    assert meta["charge_micro_dollars"] == row.amount == 8 * len(documents)


def test_pairs_are_scored_as_in_a_rerank_and_charged_once(service: Service) -> None:
    pairs = [[QUERY, document] for document in DOCUMENTS] + [["where is the louvre", DOCUMENTS[0]]]
    with service.client() as client:
        ranked = rerank(client, DOCUMENTS).json()["results"]
        answer = client.post("/v1/score", json={"model": "embedded", "pairs": pairs}).json()

    scores = [each["score"] for each in answer["data"]]
    by_index = {result["index"]: result["relevance_score"] for result in ranked}
    assert scores[:3] == pytest.approx([by_index[index] for index in range(3)], abs=2e-2)
    assert scores[3] > 0.5 > scores[2]
    (row,) = service.rows("SELECT * FROM charges WHERE request_id = :id", id=answer["id"])
    assert (row.documents, row.amount) == (4, 32)
    assert row.tokens == answer["usage"]["total_tokens"]


def test_two_models_are_served_with_their_own_scores_and_prices(service: Service) -> None:
    with service.client() as client, ThreadPoolExecutor(8) as threads:
        models = ["embedded", "tiny"] * 10
        answers = list(threads.map(lambda model: rerank(client, DOCUMENTS, model).json(), models))
        listed = client.get("/v1/models").json()["data"]

    by_model = {
        model: {json.dumps(answer["results"]) for answer in answers if answer["model"] == model}
        for model in models
    }
    assert by_model["embedded"].isdisjoint(by_model["tiny"])
    assert {answer["meta"]["charge_micro_dollars"] for answer in answers} == {24, 9}
    assert [model["id"] for model in listed] == ["embedded", "tiny", "tiny-crash"]
    assert all(model["ready"] for model in listed)
    assert "cross-encoder BertForSequenceClassification" in listed[0]["description"]


def test_the_status_has_the_replicas_of_the_cluster(service: Service) -> None:
    headers = {"Authorization": f"Bearer {service.new_key('status', scope=SCOPE_ADMIN)}"}

    def status() -> Any:
        # A gateway that waited in vain for the controller answers without replicas.
        answer = httpx.get(f"{service.address}/admin/v1/status", headers=headers, timeout=30).json()
        return answer if answer["gateways"] else None

    found = wait_for(status, what="the answer of the controller")
    assert found["gateways"]["RUNNING"] == len(service.replicas("rerank"))
    assert found["models"][0]["id"] == "embedded"
    assert all(model["replicas"]["RUNNING"] >= 1 for model in found["models"])


def test_scores_do_not_depend_on_the_rest_of_the_batch(service: Service) -> None:
    with service.client() as client, ThreadPoolExecutor(16) as threads:
        alone = rerank(client, DOCUMENTS).json()["results"]
        crowd = list(threads.map(lambda _: rerank(client, DOCUMENTS).json()["results"], range(48)))

    expected = {result["index"]: result["relevance_score"] for result in alone}
    for results in crowd:
        for result in results:
            assert result["relevance_score"] == pytest.approx(expected[result["index"]], abs=2e-2)


def test_killing_a_scorer_fails_no_request(service: Service) -> None:
    (replica,) = service.replicas("embedded")
    idle_s = replica.cpu_times().user
    with request_in_flight(service) as answer:
        wait_for(lambda: replica.cpu_times().user > idle_s + 0.5, what="the forward pass")
        assert not answer.done()
        replica.send_signal(signal.SIGKILL)
        response = answer.result(timeout=100)

    assert response.status_code == 200, response.text
    assert len(response.json()["results"]) == 30
    wait_for(
        lambda: sum(metric_values(service, "ray_rerank_portion_retries_total", "gateway")) >= 1,
        what="the metric of retries",
    )
    assert books_balance(service)
    wait_for(service.is_ready, 180, "readiness after the replacement")


def test_a_client_that_disconnects_is_not_charged(service: Service) -> None:
    before = service.charges()
    where = urlsplit(service.address)
    body = json.dumps({"model": "embedded", "query": QUERY, "documents": MANY_LONG}).encode()
    head = (
        f"POST /v1/rerank HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {service.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((where.hostname, where.port or 80), 30) as connection:
        connection.sendall(head.encode() + body)
        (request_id,) = wait_for(lambda: pending(service), what="the reservation")

    wait_for(lambda: not pending(service), what="the void")
    assert state(service, request_id) == "voided"
    assert service.charges() == before
    assert books_balance(service)


@pytest.mark.parametrize("model", ["tiny", "tiny-crash"], ids=["NaN", "crash"])
def test_an_error_of_the_engine_keeps_its_type_across_the_handle(
    service: Service, model: str
) -> None:
    before = service.charges()
    with service.client() as client:
        poisoned = rerank(client, ["good", f"bad {POISON} bad"], model)
        good = rerank(client, ["good"], model)

    assert poisoned.status_code == 500
    assert poisoned.json()["error"]["code"] == "engine_failure"
    assert "Traceback" not in poisoned.text
    assert "ray::" not in poisoned.text
    assert good.status_code == 200
    assert service.charges() == before + 1
    wait_for(lambda: not pending(service), what="the void")


def test_a_request_out_of_time_is_answered_504_and_not_charged(service: Service) -> None:
    before = service.charges()
    with service.client() as client:
        response = client.post(
            "/v1/rerank",
            json={"model": "embedded", "query": QUERY, "documents": MANY_LONG},
            headers={"x-request-timeout-s": "0.5"},
        )

    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"
    wait_for(lambda: not pending(service), what="the void")
    assert service.charges() == before


def test_a_gateway_killed_between_score_and_commit_leaves_no_charge_and_no_200(
    service: Service,
) -> None:
    """The test holds the database's write lock, so the commit waits while the gateway is killed."""
    before = service.charges()
    gateways = service.replicas("rerank")
    assert len(gateways) == 2
    (scorer,) = service.replicas("embedded")
    idle_s = scorer.cpu_times().user
    outcome: list[object] = []

    def send() -> None:
        try:
            with service.client() as client:
                outcome.append(rerank(client, MANY_LONG[:20]).status_code)
        except httpx.TransportError as error:
            outcome.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    (request_id,) = wait_for(lambda: pending(service), what="the reservation")
    with service.database.connect() as lock:
        lock.execute(text("BEGIN IMMEDIATE"))
        # Once the scorer is idle again, the scores exist, but the commit is still blocked.
        wait_for(lambda: scorer.cpu_times().user > idle_s + 0.5, 60, "the forward pass")
        wait_for(lambda: is_idle(scorer), 60, "the scores")
        for gateway in gateways:
            gateway.send_signal(signal.SIGKILL)
        thread.join(timeout=60)
        lock.rollback()

    assert outcome != [200]
    assert service.charges() == before
    wait_for(service.is_ready, 180, "readiness after the replacement")
    # Time to live: the request's time (30 s) and the margin (1 s).
    wait_for(lambda: state(service, request_id) == "expired", 90, "the expiry")
    assert service.charges() == before
    assert books_balance(service)


def is_idle(process: psutil.Process) -> bool:
    """Wait for a second and return whether the process used almost no CPU time."""
    before_s = process.cpu_times().user
    time.sleep(1)
    return process.cpu_times().user - before_s < 0.2


def metric_values(service: Service, name: str, deployment: str) -> list[float]:
    """Return the samples named ``name`` of all replicas of ``deployment``."""
    page = httpx.get(service.metrics_address, timeout=30).text
    return [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and deployment in sample.labels.get("deployment", "")
    ]


def test_a_plan_reads_the_traffic_and_the_speed_from_the_metrics(service: Service) -> None:
    def metrics() -> str:
        return httpx.get(service.metrics_address, timeout=30).text

    before = metrics()
    with service.client() as client:
        answers = [rerank(client, ["a short document", "another"]) for _ in range(20)]
    tokens = sum(each.json()["usage"]["total_tokens"] for each in answers)
    grown = wait_for(
        lambda: (
            (found := readers.growth(before, metrics()))[readers.DOCUMENTS] >= 40
            # Two gateways report at different times, and one of them may report late metrics.
            and found[readers.REQUESTS] >= 20
            and found[readers.SCORED_TOKENS] >= tokens
            and found
        ),
        60,
        "the metrics",
    )

    traffic = readers.traffic_of_metrics(grown, seconds=10)
    assert traffic.requests_per_s >= 2
    assert traffic.pair_tokens >= 4  # Late metrics of earlier tests may be among them.
    assert readers.scorer_of_metrics(grown, "the service").tokens_per_s(10) > 0


def test_a_revoked_key_stops_working_within_five_seconds_on_every_gateway(
    service: Service,
) -> None:
    key = service.new_key("short-lived")
    key_id = key.split("_")[1]
    with service.client() as client:
        client.headers["Authorization"] = f"Bearer {key}"
        for _ in range(10):  # Both gateways have cached the key now.
            assert rerank(client, ["a"]).status_code == 200

        service.command("keys", "revoke", key_id)
        revoked_s = last_s = time.monotonic()

        def is_refused() -> bool:
            nonlocal last_s
            for _ in range(10):
                sent_s = time.monotonic()
                if rerank(client, ["a"]).status_code == 200:
                    last_s = sent_s
                    return False
            return True

        wait_for(is_refused, what="the revocation")
        assert last_s - revoked_s < 5.5, "the last request that was accepted was sent too late"


def test_a_tenant_without_credit_is_refused_and_served_after_a_grant(
    service: Service,
) -> None:
    key = service.new_key("poor", Credits(16))
    with service.client() as client:
        client.headers["Authorization"] = f"Bearer {key}"

        assert rerank(client, ["a", "b"]).status_code == 200
        refused = rerank(client, ["a"])
        assert refused.status_code == 402
        assert refused.json()["error"]["code"] == "out_of_credit"

        service.command("credit", "add", "poor", "1", "--reason", "test")
        assert rerank(client, ["a"]).status_code == 200

    usage = json.loads(service.command("usage", "--tenant", "poor", "--json"))
    assert "24" in json.dumps(usage), "3 documents at 8 micro-dollars"


def test_a_repeat_with_an_idempotency_key_is_charged_once(service: Service) -> None:
    """Also if another gateway answers it."""
    key = service.new_key("careful", Credits(8))
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "only once"}
    body = {"query": QUERY_MARKER, "documents": [DOCUMENT_MARKER]}
    with service.client() as client:
        first, *repeats = (client.post("/v1/rerank", json=body, headers=headers) for _ in range(5))

    assert first.status_code == 200
    assert "idempotent-replayed" not in first.headers
    assert {each.content for each in repeats} == {first.content}
    assert {each.headers["idempotent-replayed"] for each in repeats} == {"true"}


def test_a_body_over_the_limit_is_refused_before_it_is_read(service: Service) -> None:
    with service.client() as client:
        response = client.post("/v1/rerank", content=b"x" * 10_000_001)

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"


def test_every_request_leaves_a_log_line_and_metrics_but_no_text_and_no_secret(
    service: Service,
) -> None:
    with service.client() as client:
        response = client.post(
            "/v1/rerank",
            json={"model": "tiny", "query": QUERY_MARKER, "documents": [DOCUMENT_MARKER]},
            headers={"x-request-id": "my-trace-1"},
        )
    assert response.status_code == 200
    assert response.headers["x-request-id"] == "my-trace-1"

    line = wait_for(lambda: log_line(service, response.json()["id"]), what="the log line")
    assert line["x_request_id"] == "my-trace-1"
    assert (line["status"], line["code"], line["model"]) == (200, "ok", "tiny")
    assert line["charge_micro_dollars"] == 3

    wait_for(
        lambda: sum(metric_values(service, "ray_rerank_documents_total", "gateway")) > 0,
        60,
        "the metrics",
    )
    admin = service.new_key("acme-of-logs", scope=SCOPE_ADMIN)
    with service.client() as client:
        for key in (admin, admin[:-8] + "00000000", "rk_not_a_key_at_all"):
            client.headers["Authorization"] = f"Bearer {key}"
            assert rerank(client, ["a"]).status_code in {401, 403}
    metrics = httpx.get(service.metrics_address, timeout=30).text
    assert leaks_in_text(service.logs() + metrics) == []


def log_line(service: Service, request_id: str) -> dict[str, object] | None:
    for line in service.logs().splitlines():
        if request_id in line and '"rerank_request"' in line:
            found: dict[str, object] = json.loads(line)
            return found
    return None


def test_every_charge_was_sent_to_the_sink_once(service: Service, event_sink: Sink) -> None:
    wait_for(lambda: not service.rows("SELECT id FROM outbox LIMIT 1"), 120, "the last event")

    sent = {
        event["id"]: event["data"]["amount_micro_dollars"]
        for batch in event_sink.batches
        for event in batch
        if event["type"] == "rerank.charged"
    }
    charged = service.rows("SELECT request_id, amount FROM charges")
    assert sent == {row.request_id: row.amount for row in charged}
    assert {headers["authorization"] for headers in event_sink.headers} == {
        f"Bearer {EVENTS_TOKEN}"
    }


def test_the_books_balance_at_the_end(service: Service) -> None:
    wait_for(lambda: not pending(service), 120, "the end of the last reservation")

    assert books_balance(service)
    committed = service.rows("SELECT id FROM reservations WHERE state = 'committed' ORDER BY id")
    charged = service.rows("SELECT request_id FROM charges ORDER BY request_id")
    assert [row[0] for row in committed] == [row[0] for row in charged]
