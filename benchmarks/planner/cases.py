"""The traffic profiles for which predictions are compared with measurements of a real service.

A seed chooses them. In each, one part is so slow that it limits the service: the scorers, the
gateway or the database. Scorers have simulated GPUs, so two cores can run several of them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.planning.arrivals import steady
from serve_app.planning.profiles import PAIR_TOKENS, WRITES_PER_REQUEST, Traffic
from serve_app.planning.simulation import DATABASE, GATEWAYS, SCORERS

SEED = 22
SECONDS = 40.0
STEP_SECONDS = 60.0
STEP_AT_S = 15.0
STEP_SCORERS = 3

GPU_TOKENS_PER_S = {5: 8_000, 50: 20_000, 500: 100_000}
"""Speed of a simulated GPU, by documents per request. It is so low that the other processes, which
share two cores, are never the limit."""

FAST_GPU_TOKENS_PER_S = 60_000
SLOW_GATEWAY_SHARE = 0.15
"""Share of a core that a slow gateway gets."""

USUAL_GATEWAY_S = 0.011
"""CPU time of a gateway on one node with SQLite for a request of 50 documents, from which the
traffic follows. In the lab, with PostgreSQL, it is 17 ms, so the slow gateway has more load."""

SLOW_WRITE_S = 0.01
"""Time that a slow database takes for each reservation and each charge."""

BURSTINESS = 2.0
LOAD_RANGE = (0.5, 0.75)
"""Traffic, as a share of the capacity of the slow part."""


@dataclass(frozen=True, slots=True)
class Case:
    """One held-out profile, and the service that receives its traffic."""

    name: str
    throttled: str
    """The part that limits the service."""

    traffic: Traffic
    scorers: int
    gpu_tokens_per_s: int
    autoscaled: bool = False
    """Whether the service begins with one scorer and a fraction of the traffic."""

    @property
    def seconds(self) -> float:
        return STEP_SECONDS if self.autoscaled else SECONDS

    @property
    def load(self) -> Callable[[float], float]:
        if not self.autoscaled:
            return steady
        return lambda at: 1.0 if at >= STEP_AT_S else 1 / STEP_SCORERS


def cases(seed: int = SEED) -> list[Case]:
    """Return six profiles: all sizes, both kinds of arrivals, 1 to 3 scorers, one step."""
    chance = random.Random(seed)
    scorers = chance.sample((1, 2, 3), 3)
    burstiness = chance.sample((1.0, 1.0, 1.0, 1.0, BURSTINESS, BURSTINESS), 6)
    loads = [chance.uniform(*LOAD_RANGE) for _ in range(6)]
    small = chance.choice((5, 50))
    found = [
        _by_scorers(size, count, loads.pop(), burstiness.pop())
        for size, count in zip(GPU_TOKENS_PER_S, scorers, strict=True)
    ]
    gateway_limit = SLOW_GATEWAY_SHARE / USUAL_GATEWAY_S
    database_limit = 1 / (WRITES_PER_REQUEST * SLOW_WRITE_S)
    found += [
        _case(GATEWAYS, small, 2, loads.pop() * gateway_limit, burstiness.pop()),
        _case(DATABASE, 5, 2, loads.pop() * database_limit, burstiness.pop()),
        _by_scorers(50, STEP_SCORERS, loads.pop(), 1.0, autoscaled=True),
    ]
    return found


def _by_scorers(
    size: int, scorers: int, load: float, burstiness: float, *, autoscaled: bool = False
) -> Case:
    speed = GPU_TOKENS_PER_S[size]
    rate = load * scorers * speed / (size * PAIR_TOKENS)
    traffic = Traffic(round(rate, 2), {size: 1.0}, burstiness=burstiness)
    name = f"{size} documents, {scorers} scorers"
    return Case(
        f"{name}, a step" if autoscaled else name, SCORERS, traffic, scorers, speed, autoscaled
    )


def _case(throttled: str, size: int, scorers: int, rate: float, burstiness: float) -> Case:
    traffic = Traffic(round(rate, 2), {size: 1.0}, burstiness=burstiness)
    name = f"{size} documents, slow {throttled.removesuffix('s')}"
    return Case(name, throttled, traffic, scorers, FAST_GPU_TOKENS_PER_S)
