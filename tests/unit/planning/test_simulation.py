"""The simulation agrees with calculations from the profiles, and is reproducible."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from serve_app.batching.batch_size import IDLE_WAIT_S
from serve_app.domain.units import Seconds
from serve_app.planning.arrivals import Arrival, arrivals
from serve_app.planning.profiles import Service, Traffic
from serve_app.planning.scorers import Autoscaling
from serve_app.planning.simulation import (
    DATABASE,
    GATEWAYS,
    SCORERS,
    WARM_UP_S,
    Fleet,
    Simulated,
    percentile,
    simulate,
)
from serve_app.scaling.policy import Bounds, Goals

PAIR_TOKENS = 50
LENGTHS = (PAIR_TOKENS,) * 10


def simulated(service: Service, rate: float, fleet: Fleet, seconds: float = 15.0) -> Simulated:
    traffic = Traffic(rate, {10: 1}, PAIR_TOKENS)
    return simulate(arrivals(traffic, seconds, 1), service, PAIR_TOKENS, fleet, seconds)


def test_a_lone_request_takes_the_sum_of_its_steps(service: Service) -> None:
    lone = [Arrival(WARM_UP_S + number, LENGTHS) for number in range(1, 6)]
    found = simulate(lone, service, PAIR_TOKENS, Fleet(1), WARM_UP_S + 10)
    gateway, database, scorer = service.gateway, service.database, service.scorer
    steps_s = (
        gateway.transit_s,
        gateway.cpu_s(10),
        2 * (database.write_s + database.transaction_s),
        gateway.call_s,
        IDLE_WAIT_S,
        scorer.batch_s + 500 / 50_000,
    )

    assert found.requests == 5
    assert found.p50_s == pytest.approx(sum(steps_s))
    assert found.p99_s == pytest.approx(sum(steps_s))
    assert found.documents_per_s == 5


@pytest.mark.parametrize(("rate", "fleet"), [(50, Fleet(2)), (150, Fleet(4, 2))])
def test_parts_are_as_busy_as_the_traffic_makes_them(
    service: Service, rate: float, fleet: Fleet
) -> None:
    found = simulated(service, rate, fleet)

    assert found.refused_ratio == 0
    assert found.documents_per_s == pytest.approx(10 * rate, rel=0.1)
    assert found.busy[GATEWAYS] == pytest.approx(rate * 0.005 / fleet.gateways, rel=0.1)
    assert found.busy[DATABASE] == pytest.approx(rate * 0.001 / fleet.gateways, rel=0.1)
    assert found.busy[SCORERS] > rate * 10 / 1_000 / fleet.scorers


def slow_scorers(service: Service) -> Service:
    return replace(service, scorer=replace(service.scorer, speeds=((50, 2_500),)))


def slow_gateways(service: Service) -> Service:
    return replace(service, gateway=replace(service.gateway, request_s=Seconds(0.1)))


def slow_database(service: Service) -> Service:
    return replace(service, database=replace(service.database, write_s=Seconds(0.05)))


@pytest.mark.parametrize(
    ("throttled", "part", "documents_per_s"),
    [
        (slow_scorers, SCORERS, 100),
        (slow_gateways, GATEWAYS, 99),
        (slow_database, DATABASE, 100),
    ],
)
@pytest.mark.parametrize("load", [0.6, 2.0])
def test_the_throttled_part_is_the_bottleneck(
    service: Service,
    throttled: Callable[[Service], Service],
    part: str,
    documents_per_s: float,
    load: float,
) -> None:
    limit = documents_per_s / 10
    found = simulated(throttled(service), load * limit, Fleet(2), seconds=65)

    assert found.bottleneck == part
    assert found.busy[part] == pytest.approx(min(load, 1), abs=0.2)
    # Few requests arrive, so their number varies.
    assert found.documents_per_s < 1.2 * min(load, 1) * documents_per_s


def test_scorers_at_their_limit_refuse_what_is_too_much(service: Service) -> None:
    found = simulated(slow_scorers(service), 40, Fleet(1), seconds=65)

    assert 0.8 < found.refused_ratio < 0.97  # Five of 40 can be scored.
    assert found.p99_s < 30


def test_more_scorers_answer_sooner(service: Service) -> None:
    few, many = (simulated(service, 150, Fleet(count, 2)) for count in (2, 6))

    assert many.p99_s < few.p99_s


def test_portions_go_to_the_least_loaded_scorer(service: Service) -> None:
    found = simulated(service, 150, Fleet(3, 2), seconds=30)

    assert found.p99_s < 0.11  # 0.137 with random scorers.


def test_the_autoscaler_starts_scorers_after_a_step(service: Service) -> None:
    traffic = Traffic(150, {10: 1}, PAIR_TOKENS)
    seconds = 60.0
    requests = arrivals(traffic, seconds, 1, lambda at: 1.0 if at > 20 else 0.2)
    fleet = Fleet(1, 2, autoscaling=Autoscaling(Bounds(1, 4), Goals(down_after_s=Seconds(100))))

    found = simulate(requests, service, PAIR_TOKENS, fleet, seconds)

    assert found.scorers[0] == (0.0, 1)
    first = found.scorers[1][0]
    assert 20 + service.scorer.start_s < first < 20 + service.scorer.start_s + 8
    assert 2 <= found.scorers[-1][1] <= 4


def test_a_seed_gives_the_same_result(service: Service) -> None:
    assert simulated(service, 80, Fleet(2)) == simulated(service, 80, Fleet(2))


def test_percentiles() -> None:
    values = [float(number) for number in range(1, 101)]

    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile([3.0], 0.99) == 3
    assert math.isnan(percentile([], 0.5))
