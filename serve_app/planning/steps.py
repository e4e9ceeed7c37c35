"""What happens while a service scales up after a sudden rise of its traffic."""

import math
from dataclasses import dataclass, replace

from serve_app.planning.arrivals import arrivals
from serve_app.planning.profiles import ProfileError
from serve_app.planning.scorers import Autoscaling
from serve_app.planning.simulation import WARM_UP_S, Simulated, simulate
from serve_app.planning.sizing import Plan, share_of
from serve_app.scaling.policy import Bounds

STEP_AT_S = WARM_UP_S
AFTER_S = 60.0
"""Simulated time after the started scorers are ready."""


@dataclass(frozen=True, slots=True)
class Step:
    """The traffic rises at once from a fraction of a plan's traffic to all of it."""

    factor: float
    before: int
    """Scorers before the step, in one slice."""

    simulated: Simulated
    """One slice, from the step on."""

    full_after_s: float | None
    """Time from the step until the highest number of scorers runs; ``None`` if none was started."""


def step(plan: Plan, factor: float) -> Step:
    """Simulate one slice of a plan in which the autoscaler starts with a fraction of the scorers.

    Raises: ProfileError if ``factor``, by which the traffic grows, is not above 1.
    """
    if not (math.isfinite(factor) and factor > 1):
        raise ProfileError("The factor of a step must be above 1.")
    planned = plan.fleet.slice(plan.slices)
    before = max(1, math.ceil(planned.scorers / factor))
    autoscaling = Autoscaling(Bounds(before, planned.scorers))
    fleet = replace(planned, scorers=before, autoscaling=autoscaling)
    traffic = plan.demand.traffic
    share = share_of(traffic, 1 / plan.slices)
    seconds = STEP_AT_S + plan.service.scorer.start_s + AFTER_S
    requests = arrivals(share, seconds, 1, lambda at: 1.0 if at >= STEP_AT_S else 1 / factor)
    simulated = simulate(requests, plan.service, traffic.pair_tokens, fleet, seconds)
    highest = max(running for _, running in simulated.scorers)
    full_at = next(at for at, running in simulated.scorers if running == highest)
    grown = highest > before
    return Step(factor, before, simulated, full_at - STEP_AT_S if grown else None)
