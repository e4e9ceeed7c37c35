"""Profiles are read from the results of benchmarks, load tests and metrics."""

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests.plan import Plan
from loadtests.summary import generator, summarize
from serve_app.planning import readers
from serve_app.planning.profiles import Basis, ProfileError
from tests.support.load_records import table

RESULTS = Path(__file__).parents[3] / "benchmarks/results"

METRICS = """\
# TYPE ray_rerank_requests_total counter
ray_rerank_requests_total{{application="rerank",code="ok"}} {requests}.0
ray_rerank_requests_total{{application="rerank",code="overloaded"}} {requests}.0
ray_rerank_documents_total{{application="rerank"}} {documents}.0
ray_rerank_tokens_total{{application="rerank"}} {tokens}.0
ray_rerank_scored_tokens_total{{replica="a"}} {tokens}.0
ray_rerank_scored_tokens_total{{replica="b"}} {tokens}.0
ray_rerank_batch_seconds_sum{{replica="a"}} {seconds}
ray_rerank_batch_seconds_sum{{replica="b"}} {seconds}
"""
BEFORE = METRICS.format(requests=10, documents=200, tokens=13_000, seconds=1.0)
AFTER = METRICS.format(requests=70, documents=1_400, tokens=91_000, seconds=21.0)


def result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return found


def test_the_speed_of_an_engine_by_length() -> None:
    scorer = readers.scorer(result("engine.json"), "engine.json")

    assert scorer.basis is Basis.MEASURED
    assert [tokens for tokens, _ in scorer.speeds] == sorted(t for t, _ in scorer.speeds)
    assert scorer.tokens_per_s(16) == 2857.95
    assert scorer.tokens_per_s(67.2) == 2730.85


def test_the_speed_of_a_gpu_by_length() -> None:
    rows = [
        {"batch_tokens": 8_192, "one_in_flight": 900, "two_in_flight": 1_000},
        {"batch_tokens": 32_768, "one_in_flight": 1_100, "two_in_flight": 1_500},
    ]
    speeds = {"MS MARCO": rows, "512 tokens": rows[:1]}
    found = {
        "device": "cuda",
        "environment": {"gpu": "Tesla V100"},
        "speed": {"documents_per_s": speeds},
    }

    scorer = readers.scorer(found, "gpu.json")

    assert scorer.name == "Tesla V100"
    assert scorer.speeds == ((67, 67 * 1_500), (512, 512 * 1_000))


def test_a_result_of_a_cpu_is_no_profile_of_a_gpu() -> None:
    with pytest.raises(ProfileError, match="without a GPU"):
        readers.scorer({"device": "cpu"}, "gpu.json")


def test_the_work_of_a_gateway_is_fitted() -> None:
    took = [
        {"clients": 32, "documents_per_request": size, "gateway_ms": (3 + 0.02 * size) / size}
        for size in (5, 50, 500)
    ]
    alone = {"clients": 1, "documents_per_request": 5, "gateway_ms": 100}

    gateway = readers.gateway({"took": [alone, *took]}, "gpu-overhead.json")

    assert gateway.request_s == pytest.approx(0.003)
    assert gateway.document_s == pytest.approx(0.000_02)


def test_the_work_of_a_database() -> None:
    database = readers.database(result("ledger.json"), "ledger.json")

    # 327.5 requests/s of 1 caller, and 2,892 of 64.
    assert database.write_s == pytest.approx(0.000_15, rel=0.1)
    assert database.transaction_s == pytest.approx(0.001_4, rel=0.1)


def test_the_traffic_of_a_load_test() -> None:
    sizes = [5, 5, 5, 50]
    rows = table(
        at_s=[0, 1, 2, 8], kind=[0, 0, 0, 1], documents=sizes, tokens=[60 * size for size in sizes]
    )
    found = summarize(rows, Plan(duration_s=10), 1, generator(rows, 1, 0, busy=False), {})

    traffic = readers.load_run(found, "run.json")

    assert traffic.requests_per_s == 0.4
    assert traffic.shares == {5: 0.75, 50: 0.25}
    assert traffic.pair_tokens == 60
    assert traffic.burstiness == pytest.approx(found["total"]["gaps_cv"])


def test_the_traffic_between_two_readings_of_metrics() -> None:
    traffic = readers.traffic_of_metrics(readers.growth(BEFORE, AFTER), seconds=60)

    assert traffic.requests_per_s == 1
    assert traffic.documents == {20: 1}
    assert traffic.pair_tokens == 65


def test_the_speed_of_running_scorers() -> None:
    scorer = readers.scorer_of_metrics(readers.growth(BEFORE, AFTER), "a service")

    assert scorer.speeds == ((65, 2 * 78_000 / 40),)


def test_without_requests_there_is_neither() -> None:
    grown = readers.growth(BEFORE, BEFORE)

    with pytest.raises(ProfileError, match="no request"):
        readers.traffic_of_metrics(grown, seconds=60)
    with pytest.raises(ProfileError, match="no batch"):
        readers.scorer_of_metrics(grown, "a service")


def test_another_page_is_refused() -> None:
    with pytest.raises(ProfileError, match="The metrics cannot be read"):
        readers.growth("", "<html>")


@pytest.mark.parametrize(
    "read", [readers.scorer, readers.gateway, readers.database, readers.load_run]
)
@pytest.mark.parametrize("found", [{}, {"device": "cuda"}, {"took": []}, {"total": {}}])
def test_other_files_are_refused(read: Any, found: dict[str, Any]) -> None:
    with pytest.raises(ProfileError, match=r"other\.json"):
        read(found, "other.json")
