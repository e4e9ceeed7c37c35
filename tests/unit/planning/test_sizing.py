"""Plans meet their targets, with spare replicas, and say what limits them."""

from dataclasses import replace

import pytest

from serve_app.domain.units import Seconds
from serve_app.planning import sizing
from serve_app.planning.catalogue import instances
from serve_app.planning.costs import cost
from serve_app.planning.profiles import ProfileError, Service, Traffic
from serve_app.planning.report import as_json
from serve_app.planning.sensitivity import variations
from serve_app.planning.simulation import DATABASE, GATEWAYS, SCORERS
from serve_app.planning.sizing import SCORERS_BUSY_MAX, Demand, plan, run
from serve_app.planning.steps import step

pytestmark = pytest.mark.slow  # Simulates many fleets.

TRAFFIC = Traffic(100, {20: 1}, 50)


def test_a_plan_meets_its_target_and_one_scorer_less_does_not(service: Service) -> None:
    found = plan(Demand(TRAFFIC, 0.15), service)
    less = run(TRAFFIC, service, replace(found.needed, scorers=found.needed.scorers - 1))

    assert found.needed.scorers >= 3  # Two would be busy all the time.
    assert found.simulated.p99_s <= 0.15
    assert found.simulated.busy[SCORERS] <= SCORERS_BUSY_MAX
    assert less.p99_s > 0.15 or less.busy[SCORERS] > SCORERS_BUSY_MAX


def test_no_scorer_is_busy_all_the_time_even_if_the_target_is_high(service: Service) -> None:
    found = plan(Demand(TRAFFIC, 30), service)

    assert found.simulated.busy[SCORERS] <= SCORERS_BUSY_MAX


def test_spare_replicas_are_added(service: Service) -> None:
    found = plan(Demand(TRAFFIC, 0.2, spare=2), service)

    assert found.fleet.scorers == found.needed.scorers + 2
    assert found.fleet.gateways == found.needed.gateways + 2


def test_what_breaks_first_has_the_lowest_limit(service: Service) -> None:
    found = plan(Demand(TRAFFIC, 0.2, spare=0), service)

    assert found.breaks_first == min(found.limits, key=found.limits.__getitem__)
    assert min(found.limits.values()) > TRAFFIC.requests_per_s
    # A gateway needs 6 ms of its core for a request of 20 documents.
    assert found.limits[GATEWAYS] == pytest.approx(found.needed.gateways / 0.006, rel=0.05)
    assert found.limits[DATABASE] == pytest.approx(
        min(found.needed.gateways, found.needed.database_cores) / 0.001, rel=0.01
    )


def test_a_large_fleet_is_simulated_in_slices(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "SCORERS_OF_A_SLICE", 4)
    large = replace(TRAFFIC, requests_per_s=1_000)

    found = plan(Demand(large, 0.5), service)

    assert found.slices == 5
    assert found.needed.scorers % 5 == 0
    assert 24 <= found.needed.scorers < 40


def test_a_target_below_the_latency_of_an_idle_service_is_an_error(service: Service) -> None:
    with pytest.raises(ProfileError, match="p99 of 10 ms: with an idle service, it is") as raised:
        plan(Demand(TRAFFIC, 0.01), service)
    alone_ms = float(str(raised.value).split("it is ")[1].split(" ms")[0])

    slightly_above = plan(Demand(TRAFFIC, 1.5 * alone_ms / 1_000), service)

    assert slightly_above.needed.scorers > plan(Demand(TRAFFIC, 0.2), service).needed.scorers


def test_a_target_that_only_an_idle_fleet_would_meet_is_an_error(service: Service) -> None:
    few = replace(TRAFFIC, requests_per_s=2)
    hardly_above = 1.0001 * sizing._p99_alone_s(few, service)

    with pytest.raises(ProfileError, match="gateways, which are hardly busy, it is"):
        plan(Demand(few, hardly_above), service)


@pytest.mark.parametrize(("p99_s", "spare"), [(0, 1), (float("nan"), 1), (1, -1)])
def test_an_impossible_demand_is_refused(p99_s: float, spare: int) -> None:
    with pytest.raises(ProfileError):
        Demand(TRAFFIC, p99_s, spare)


def test_costs_and_margin(service: Service) -> None:
    found = plan(Demand(TRAFFIC, 0.2), service)
    (machine,) = instances("V100")

    costs = cost(found, machine, price_per_1000_documents=0.008)

    cores = 2 * found.fleet.gateways + found.fleet.database_cores
    assert costs.per_hour == pytest.approx(found.fleet.scorers * 0.79 + cores * 0.048)
    assert costs.per_1000_documents == pytest.approx(costs.per_hour / (2_000 * 3.6))
    assert costs.margin == pytest.approx(1 - costs.per_1000_documents / 0.008)


def test_the_size_of_the_ledger_grows_with_the_requests(service: Service) -> None:
    found = plan(Demand(TRAFFIC, 0.2), service)

    assert found.database_gb == pytest.approx(100 * 86_400 * 90 * 250 / 1e9)


def test_the_sensitivity_names_what_matters(service: Service) -> None:
    found = {each.what: each.plan for each in variations(Demand(TRAFFIC, 0.2), service)}
    slow, fast = found["speed of a scorer, times 0.5"], found["speed of a scorer, times 2"]

    assert len(found) == 6
    assert slow is not None
    assert fast is not None
    assert slow.needed.scorers > fast.needed.scorers


def test_a_step_starts_the_other_scorers(service: Service) -> None:
    found = step(plan(Demand(TRAFFIC, 0.2), service), factor=5)

    assert found.before == 1
    assert found.full_after_s is not None
    assert found.full_after_s > service.scorer.start_s
    assert found.simulated.p99_s > 0.2


def test_a_slice_of_a_step_has_its_share_of_the_database(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "SCORERS_OF_A_SLICE", 1)
    slow = replace(
        service,
        gateway=replace(service.gateway, request_s=Seconds(0.1)),  # So there are many gateways.
        database=replace(service.database, write_s=Seconds(0.02)),
    )
    found = plan(Demand(TRAFFIC, 1, spare=0), slow)

    after = step(found, factor=2).simulated

    assert found.slices == 2
    assert after.busy[DATABASE] == pytest.approx(found.simulated.busy[DATABASE], rel=0.1)


def test_a_step_must_grow(service: Service) -> None:
    with pytest.raises(ProfileError):
        step(plan(Demand(TRAFFIC, 0.2), service), factor=1)


def test_the_report_has_all_figures_of_the_plan(service: Service) -> None:
    found = plan(Demand(TRAFFIC, 0.2), service)

    report = as_json(found)

    assert report["scorers"] == found.fleet.scorers
    assert report["breaks_first"] in (SCORERS, GATEWAYS, DATABASE)
    assert report["simulated"]["p99_s"] == pytest.approx(found.simulated.p99_s, abs=1e-4)
    assert report["profiles"]["scorer"]["basis"] == "measured"


def test_slow_writes_need_more_gateways(service: Service) -> None:
    slow = replace(service, database=replace(service.database, write_s=Seconds(0.01)))

    found = plan(Demand(TRAFFIC, 0.5), slow)

    # Each gateway has one writer, which is busy for 20 ms of each request.
    assert found.needed.gateways > 2
