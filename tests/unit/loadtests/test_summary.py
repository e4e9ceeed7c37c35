"""The summary of a run."""

import json
import math

import numpy as np
import pytest

from loadtests.plan import Plan
from loadtests.records import Records
from loadtests.summary import figures, generator, summarize
from loadtests.thresholds import Thresholds
from tests.support.load_records import BLANK, table


def test_figures_count_latency_only_of_correct_answers() -> None:
    rows = table(
        at_s=np.arange(100) / 10,
        latency_s=[0.1] * 96 + [0.2] + [9.0] * 3,
        status=[200] * 97 + [429, 503, 0],
        correct=[1] * 97 + [0, 0, 0],
    )

    found = figures("all", rows, 10)

    assert found.latency_ms is not None
    assert (found.latency_ms["p50"], found.latency_ms["max"]) == (100, 200)
    assert (found.requests_per_s, found.documents_per_s) == (10, 100)
    assert found.goodput_documents_per_s == 97
    assert (found.refused_ratio, found.error_ratio) == (0.02, 0.01)
    assert found.statuses == {"0": 1, "200": 97, "429": 1, "503": 1}
    assert found.pair_tokens_mean == 67
    assert found.dollars_per_1000_documents == pytest.approx(0.002)
    assert found.gaps_cv == pytest.approx(0, abs=1e-6)


def test_a_p99_of_all_requests_needs_answers_to_99_percent() -> None:
    one_in_100 = table(at_s=range(100), correct=[1] * 99 + [0])
    two_in_100 = table(at_s=range(100), correct=[1] * 98 + [0, 0])

    assert figures("all", one_in_100, 100).p99_ms == 100
    assert figures("all", two_in_100, 100).p99_ms is None


def test_a_wrong_answer_counts_as_an_error() -> None:
    found = figures("all", table(status=[200, 200], correct=[1, 0]), 1)

    assert found.error_ratio == 0.5
    assert found.goodput_requests_per_s == 1


def test_servers_that_say_little_leave_fields_empty() -> None:
    found = figures("all", table(tokens=[math.nan], micro_dollars=[math.nan]), 1)

    assert found.pair_tokens_mean is None
    assert found.dollars_per_1000_documents is None


def test_the_warm_up_is_not_measured_but_in_the_timeline() -> None:
    plan = Plan(duration_s=10, warm_up_s=5, tiers=(("default", 0.5), ("flex", 0.5)))
    rows = table(at_s=[1, 2, 6, 7], kind=[0, 0, 1, 1], tier=[0, 0, 0, 1], tenant=[0, 0, 1, 1])

    found = summarize(rows, plan, 2, generator(rows, 1, 0, busy=False), {"host": "http://h"})

    assert found["total"]["requests"] == 2
    assert [each["requests"] for each in found["classes"]] == [0, 2, 0]
    assert [each["requests"] for each in found["tenants"]] == [0, 2]
    assert [(each["name"], each["requests"]) for each in found["tiers"]] == [
        ("default", 1),
        ("flex", 1),
    ]
    assert len(found["timeline"]) == 10
    assert [row["in_flight"] for row in found["timeline"]] == [0] * 10
    assert sum(row["requests_per_s"] for row in found["timeline"]) == 4
    assert found["server_times"] == {"queue_ms": 20, "run_ms": 30, "rest_ms": 50}
    json.dumps(found, allow_nan=False)


def test_the_timeline_counts_requests_in_flight() -> None:
    rows = table(at_s=[0.5, 1.5, 2.5], latency_s=[3.0, 0.2, 9.0])

    found = summarize(rows, Plan(duration_s=5), 1, generator(rows, 1, 0, busy=False), {})

    assert [row["in_flight"] for row in found["timeline"]] == [0, 1, 1, 2, 1]


def test_an_empty_run_has_a_summary() -> None:
    rows = Records().table()
    made_by = generator(rows, 1, 0, busy=False)

    found = summarize(rows, Plan(), 1, made_by, {})

    assert found["total"]["latency_ms"] is None
    assert not made_by["is_bottleneck"]
    assert list(Thresholds(p99_ms=5).exceeded(found)) == [
        "No request was sent.",
        "There is no correct answer, so the p99 is unknown.",
    ]


@pytest.mark.parametrize(
    ("error_s", "busy", "is_bottleneck"),
    [(0.004, False, False), (0.006, False, True), (0.004, True, True)],
)
def test_a_late_or_busy_generator_is_the_bottleneck(
    error_s: float, busy: bool, is_bottleneck: bool
) -> None:
    rows = table(schedule_error_s=[error_s] * 10)

    assert generator(rows, 1, 0, busy=busy)["is_bottleneck"] is is_bottleneck


def test_rows_of_several_processes_are_sorted_by_time() -> None:
    first, second = Records(), Records()
    first.add(BLANK._replace(at_s=2))
    second.add(BLANK._replace(at_s=1))
    first.extend(second.take())

    assert first.table()["at_s"].tolist() == [1, 2]
    assert len(second) == 0


def test_thresholds_name_what_they_fail() -> None:
    rows = table(latency_s=[0.1, 0.1, 0.3, 0.1], status=[200, 200, 200, 429], correct=[1, 1, 1, 0])
    found = summarize(rows, Plan(), 1, generator(rows, 1, 0, busy=False), {})

    assert list(Thresholds(300, 0.0, 0.25).exceeded(found)) == []
    assert list(Thresholds(299, 0.0, 0.2).exceeded(found)) == [
        "The p99 is 300 ms, above 299 ms.",
        "The refused ratio is 0.2500, above 0.2.",
    ]
