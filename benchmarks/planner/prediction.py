"""What the planner predicts for a case."""

import statistics
from dataclasses import dataclass

from benchmarks.planner.cases import Case
from benchmarks.planner.services import GOALS
from serve_app.domain.units import Seconds
from serve_app.planning.arrivals import arrivals
from serve_app.planning.profiles import Service
from serve_app.planning.scorers import Autoscaling
from serve_app.planning.simulation import Fleet, Simulated, simulate
from serve_app.scaling.policy import Bounds, Goals

SIMULATIONS = 21
"""Number of simulated runs, of which the median is the prediction, because one run is too short for
an exact percentile. They are as long as the measured runs, and have other requests."""

FIRST_SEED = 1_000


@dataclass(frozen=True, slots=True)
class Predicted:
    """Medians of the simulated runs."""

    documents_per_s: float
    p50_s: float
    p99_s: float
    bottleneck: str
    busy: dict[str, float]


def fleet(case: Case) -> Fleet:
    if not case.autoscaled:
        return Fleet(case.scorers, gateways=1)
    goals = Goals(**{name: Seconds(value) for name, value in GOALS.items()})
    return Fleet(1, gateways=1, autoscaling=Autoscaling(Bounds(1, case.scorers), goals))


def predict(case: Case, service: Service) -> Predicted:
    """Simulate the case with random requests of its profile and the measured speeds."""
    runs = [_run(case, service, FIRST_SEED + number) for number in range(SIMULATIONS)]
    busy = {part: statistics.median(each.busy[part] for each in runs) for part in runs[0].busy}
    return Predicted(
        documents_per_s=statistics.median(each.documents_per_s for each in runs),
        p50_s=statistics.median(each.p50_s for each in runs),
        p99_s=statistics.median(each.p99_s for each in runs),
        bottleneck=max(busy, key=busy.__getitem__),
        busy=busy,
    )


def _run(case: Case, service: Service, seed: int) -> Simulated:
    requests = arrivals(case.traffic, case.seconds, seed, case.load)
    pair_tokens = case.traffic.pair_tokens
    return simulate(requests, service, pair_tokens, fleet(case), case.seconds)
