"""Reproducible simulation of a service under a traffic profile on a virtual clock.

    arrivals ─> gateway with the fewest requests ─> ledger ─> fair queue ─> scorers ─> ledger

Not simulated: gateways that die, retries, several tenants, and the tokenizer's process for large
requests.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import simpy

from serve_app.domain.units import Seconds, Tokens
from serve_app.planning.arrivals import Arrival
from serve_app.planning.gateways import Answer, LedgerWriter, SimulatedGateway
from serve_app.planning.profiles import Service
from serve_app.planning.scorers import Autoscaling, Scorers, SimulatedScorer, Steps, autoscale

WARM_UP_S = Seconds(5)
"""Time at the start that is not counted: queues fill, and gateways learn the scorers' speed."""

SCORERS, GATEWAYS, DATABASE = "scorers", "gateways", "database"


@dataclass(frozen=True, slots=True)
class Fleet:
    """The number of replicas, and the cores of the database."""

    scorers: int
    gateways: int = 1
    database_cores: int = 2
    autoscaling: Autoscaling | None = None

    def slice(self, slices: int) -> "Fleet":
        """Return one of ``slices`` equal parts, rounded up, without autoscaling."""
        return Fleet(
            math.ceil(self.scorers / slices),
            math.ceil(self.gateways / slices),
            math.ceil(self.database_cores / slices),
        )


@dataclass(frozen=True, slots=True)
class Simulated:
    """What was observed after the warm-up."""

    requests: int
    """Those that arrived and left."""

    refused_ratio: float
    """Share of the requests that were refused or late."""

    documents_per_s: float
    """Documents in answers."""

    p50_s: float
    p99_s: float
    """Latency of answers; NaN without answers."""

    busy: dict[str, float]
    """Used share of the capacity of each kind of part; above 1 is overload."""

    scorers: tuple[tuple[float, int], ...]
    """See `Scorers.history`."""

    @property
    def bottleneck(self) -> str:
        return max(self.busy, key=self.busy.__getitem__)


def simulate(
    arrivals: Iterable[Arrival],
    service: Service,
    pair_tokens: float,
    fleet: Fleet,
    seconds: float,
) -> Simulated:
    """Simulate ``seconds`` of traffic, more than `WARM_UP_S`.

    ``pair_tokens`` decides the scorers' speed. Requests that have not left at the end do not count.
    """
    assert seconds > WARM_UP_S
    env = simpy.Environment()
    parts = _Parts(env, service, pair_tokens, fleet)
    env.process(_send(env, parts.gateways, arrivals))
    if fleet.autoscaling is not None:
        start_s = service.scorer.start_s
        env.process(autoscale(env, parts.scorers, fleet.autoscaling, start_s, parts.backlog))
    env.run(WARM_UP_S)
    before = parts.work_s()
    env.run(seconds)
    return _observed(parts, before, seconds)


class _Parts:
    def __init__(
        self,
        env: simpy.Environment,
        service: Service,
        pair_tokens: float,
        fleet: Fleet,
    ) -> None:
        speed = service.scorer.tokens_per_s(pair_tokens)
        self.fleet = fleet
        self.scorers = Scorers(
            env,
            lambda name: SimulatedScorer(env, name, speed, service.scorer.batch_s),
            fleet.scorers,
        )
        self.answers: list[Answer] = []
        cores = simpy.Resource(env, fleet.database_cores)
        self.gateways = [
            SimulatedGateway(
                env,
                service.gateway,
                LedgerWriter(env, service.database, cores),
                self.scorers,
                self.answers.append,
            )
            for _ in range(fleet.gateways)
        ]

    def backlog(self) -> Tokens:
        return Tokens(sum(each.backlog_tokens for each in self.gateways))

    def work_s(self) -> dict[str, float]:
        return {
            SCORERS: self.scorers.busy_s,
            GATEWAYS: sum(each.busy_s for each in self.gateways),
            DATABASE: sum(each.writer.busy_s for each in self.gateways),
        }


def _send(
    env: simpy.Environment, gateways: Sequence[SimulatedGateway], arrivals: Iterable[Arrival]
) -> Steps:
    for arrival in arrivals:
        yield env.timeout(max(0.0, arrival.at_s - env.now))
        env.process(min(gateways, key=lambda each: each.requests).serve(arrival))


def _observed(parts: _Parts, before: dict[str, float], seconds: float) -> Simulated:
    span_s = seconds - WARM_UP_S
    fleet = parts.fleet
    # A gateway writes one transaction at a time, so it uses one core of the database at most.
    capacity_s = {
        SCORERS: _scorer_seconds(parts.scorers.history, seconds),
        GATEWAYS: fleet.gateways * span_s,
        DATABASE: min(fleet.gateways, fleet.database_cores) * span_s,
    }
    work_s = parts.work_s()
    counted = [each for each in parts.answers if each.arrived_s >= WARM_UP_S]
    scored = [each for each in counted if each.scored]
    took = sorted(each.seconds for each in scored)
    ended = [each for each in parts.answers if each.scored and each.ended_s >= WARM_UP_S]
    return Simulated(
        requests=len(counted),
        refused_ratio=1 - len(scored) / len(counted) if counted else 0.0,
        documents_per_s=sum(each.documents for each in ended) / span_s,
        p50_s=percentile(took, 0.5),
        p99_s=percentile(took, 0.99),
        busy={name: (work_s[name] - before[name]) / capacity_s[name] for name in work_s},
        scorers=tuple(parts.scorers.history),
    )


def _scorer_seconds(history: Sequence[tuple[float, int]], seconds: float) -> float:
    ends = [at for at, _ in history[1:]] + [seconds]
    return sum(
        max(0.0, end - max(at, WARM_UP_S)) * running
        for (at, running), end in zip(history, ends, strict=True)
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the ``ordered`` values do not exceed."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
