"""The sweep finds the limit of a simulated server."""

from typing import Any

import numpy as np
import pytest

from loadtests.arrivals import generated
from loadtests.limit import Limit, Point, limit
from loadtests.saturation import GATEWAYS, GENERATOR, LEDGER, LIMITS, SCORERS, UNKNOWN, saturated
from loadtests.search import search
from loadtests.shapes import Shape

TARGET_MS = 100.0
SERVICE_S = 0.01
DOCUMENTS = 10


def p99_ms(rate_per_s: float, seconds: float, seed: int) -> float:
    """Return the p99 of a server that takes `SERVICE_S` for each request, one after the other."""
    at_s = generated(Shape("constant", seconds, 1), [(DOCUMENTS, rate_per_s)], 1, seed).at_s
    done_s = SERVICE_S * np.arange(1, len(at_s) + 1)
    done_s += np.maximum.accumulate(at_s - done_s + SERVICE_S)
    return 1_000 * float(np.percentile(done_s - at_s, 99))


def true_limit() -> float:
    """Return the documents/s at which the p99 of a long simulation is the target."""
    rates = np.linspace(60, 90, 31)
    p99s = [p99_ms(rate, 10_000, seed=1) for rate in rates]
    return DOCUMENTS * float(np.interp(TARGET_MS, p99s, rates))


def swept(seed: int) -> Limit:
    points: list[Point] = []

    def measure(rate: float) -> Point:
        p99 = p99_ms(rate, seconds=60, seed=1_000 * seed + len(points))
        points.append(Point(rate, DOCUMENTS * rate, p99))
        return points[-1]

    assert [*search(measure, 10, TARGET_MS, steps_around=10, steps_max=16)] == points
    return limit(points, TARGET_MS)


def test_the_interval_contains_the_limit_of_a_queue() -> None:
    true = true_limit()
    found = [swept(seed) for seed in range(20)]

    assert sum((each.low or 0) <= true <= (each.high or np.inf) for each in found) >= 17
    assert np.median([each.documents_per_s or 0 for each in found]) == pytest.approx(true, rel=0.03)
    assert all(each.high / each.low < 1.2 for each in found if each.high and each.low)


def rates(limit_per_s: float, first: float, **options: int) -> list[float]:
    """Return the rates of a search on a deterministic server, which refuses above its limit."""
    chosen = {"steps_around": 5, "steps_max": 16} | options

    def measure(rate: float) -> Point:
        return Point(rate, DOCUMENTS * rate, 50 if rate < limit_per_s else np.inf)

    points = search(measure, first, TARGET_MS, **chosen)
    return [round(point.rate_per_s, 1) for point in points]


def test_the_search_doubles_and_then_narrows_its_bracket() -> None:
    assert rates(20, first=8, steps_around=0) == [8, 16, 32, 22.6, 19.0, 20.7]


def test_the_search_goes_down_from_a_rate_that_is_too_high() -> None:
    assert rates(3, first=8, steps_around=0)[:3] == [8, 4, 2]


def test_steps_around_the_limit_follow() -> None:
    around = rates(20, first=8)[-5:]

    assert min(around) < 19
    assert max(around) > 21


def test_the_search_ends_without_a_limit() -> None:
    assert len(rates(1e9, first=8, steps_max=5)) == 5
    assert len(rates(0, first=8, steps_max=5)) == 5


def test_a_limit_outside_of_the_steps_is_unknown() -> None:
    assert limit([Point(1, 10, 200)], TARGET_MS) == limit([Point(1, 10, 50)], TARGET_MS)
    assert limit([Point(1, 10, 200)], TARGET_MS) == Limit(None)


def test_a_few_steps_give_a_limit_without_an_interval() -> None:
    found = limit([Point(1, 10, 50), Point(2, 20, np.inf)], TARGET_MS)

    assert found.documents_per_s == pytest.approx(14.1)
    assert (found.low, found.high) == (None, None)


def test_steps_whose_p99_falls_with_the_load_give_no_interval() -> None:
    points = [
        Point(load, load, p99) for load, p99 in ((10, 120), (10.5, 110), (11, 90), (11.5, 80))
    ]

    assert limit(points, TARGET_MS).low is None


def step(load: float, *, kept: bool = True, **facts: Any) -> dict[str, Any]:
    """Return a step of a sweep; ``facts`` are fields of the JSON that differ from the defaults."""
    times = {"queue_ms": 0.0, "run_ms": 10.0, "rest_ms": 5.0}
    summary = {
        "generator": {"is_bottleneck": facts.get("is_bottleneck", False)},
        "problems": facts.get("problems", {}),
        "total": {"documents_per_s": load},
        "server_times": times | {name: facts[name] for name in times if name in facts},
    }
    return {"is_kept": kept, "summary": summary, "stage_ms": facts.get("stage_ms", {})}


@pytest.mark.parametrize(
    ("facts", "part"),
    [
        ({"queue_ms": 300.0, "rest_ms": 20.0}, SCORERS),
        ({"queue_ms": 30.0, "rest_ms": 400.0}, GATEWAYS),
        ({"rest_ms": 400.0, "stage_ms": {"reserve": 300.0, "commit": 50.0}}, LEDGER),
        ({"rest_ms": 400.0, "stage_ms": {"reserve": 10.0, "tokenize": 350.0}}, GATEWAYS),
        ({"problems": {"rate_limit_exceeded": 9, "overloaded": 1}}, LIMITS),
        ({"problems": {"overloaded": 9}, "queue_ms": 50.0}, SCORERS),
        ({"is_bottleneck": True, "queue_ms": 300.0}, GENERATOR),
        ({"queue_ms": None}, UNKNOWN),
    ],
)
def test_the_part_whose_time_grows_saturates_first(facts: dict[str, Any], part: str) -> None:
    steps = [step(100, stage_ms={"reserve": 2.0, "commit": 3.0}), step(200, kept=False, **facts)]

    assert saturated(steps)[0] == part


def test_nothing_saturates_while_every_step_keeps_the_target() -> None:
    assert saturated([step(100), step(200)])[0] == UNKNOWN
