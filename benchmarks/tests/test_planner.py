"""The cases of `benchmarks.planner` cover what they must, and the README shows all of them."""

import json
from pathlib import Path

import pytest

from benchmarks.planner.__main__ import table
from benchmarks.planner.calibration import Calibration, median_of, profile
from benchmarks.planner.cases import cases
from benchmarks.planner.prediction import predict
from benchmarks.planner.sending import Answer, measured
from serve_app.planning.simulation import DATABASE, GATEWAYS, SCORERS

FOLDER = Path(__file__).parents[1]
CALIBRATION = Calibration(20_000, 0.001, 0.006, 0.000_03, 0.004, 0.0005, 0.0001)


@pytest.mark.parametrize("seed", [22, 1, 2])
def test_the_cases_have_all_sizes_arrivals_and_limits(seed: int) -> None:
    found = cases(seed)

    assert {size for each in found for size in each.traffic.documents} == {5, 50, 500}
    assert {each.traffic.burstiness for each in found} == {1.0, 2.0}
    assert {each.throttled for each in found} == {SCORERS, GATEWAYS, DATABASE}
    assert {each.scorers for each in found if each.throttled == SCORERS} == {1, 2, 3}
    assert sum(each.autoscaled for each in found) == 1
    assert len({each.name for each in found}) == 6


def test_the_prediction_names_the_slow_part() -> None:
    by_scorers = next(each for each in cases() if each.throttled == SCORERS)
    speed = by_scorers.gpu_tokens_per_s
    found = Calibration(speed, *(getattr(CALIBRATION, name) for name in CALIBRATION.__slots__[1:]))

    predicted = predict(by_scorers, profile(found, 0.0))

    assert predicted.bottleneck == SCORERS
    assert predicted.documents_per_s == pytest.approx(by_scorers.traffic.documents_per_s, rel=0.1)


def test_the_median_of_calibrations_is_that_of_each_speed() -> None:
    others = [
        Calibration(*(factor * getattr(CALIBRATION, name) for name in CALIBRATION.__slots__))
        for factor in (1, 2, 4)
    ]

    assert median_of(others) == others[1]


def test_figures_count_answers_after_the_warm_up() -> None:
    answers = [
        Answer(at, 0.001, seconds, 10, 670, 0.1, status)
        for at, seconds, status in ((1, 1, 200), (6, 0.2, 200), (7, 0.4, 200), (8, 0.1, 429))
    ]

    found = measured(answers, 15)

    assert found.requests == 3
    assert found.refused_ratio == pytest.approx(1 / 3)
    assert found.documents_per_s == 2
    assert (found.p50_s, found.p99_s) == (0.2, 0.4)


def test_the_readme_has_the_table_with_all_misses() -> None:
    result = json.loads((FOLDER / "results/planner.json").read_text())

    assert {each.name for each in cases(result["seed"])} == {*result["cases"]}
    assert table(result) in (FOLDER / "README.md").read_text()
