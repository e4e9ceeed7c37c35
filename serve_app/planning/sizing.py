"""Find the smallest fleet whose simulated latency meets a target."""

import math
from dataclasses import dataclass, replace

from serve_app.domain.portion_size import TOKENS_MIN
from serve_app.planning.arrivals import arrivals
from serve_app.planning.profiles import WRITES_PER_REQUEST, ProfileError, Service, Traffic
from serve_app.planning.simulation import (
    DATABASE,
    GATEWAYS,
    SCORERS,
    WARM_UP_S,
    Fleet,
    Simulated,
    simulate,
)

SCORERS_BUSY_MAX = 0.85
GATEWAY_BUSY_MAX = 0.7
DATABASE_BUSY_MAX = 0.5
"""Largest shares of the capacity that a plan uses. The rest is for maintenance, and lets queues
drain after bursts."""

DATABASE_CORES_MIN = 2

SCORERS_OF_A_SLICE = 16
"""A larger fleet is simulated as slices of about this many scorers. Slices share no scorers, so the
simulated latency is slightly too high."""

REQUESTS = 4_000
SECONDS_MIN = 15.0
"""At least as many requests and seconds are simulated after the warm-up."""

GROWTH = 0.05
"""Each try adds this share of the scorers or gateways, and at least one replica."""

BUSY_MIN = 0.05
"""A fleet whose replicas are used less is not enlarged."""

ALONE_S = 100.0
"""Mean time between requests that never meet."""

BYTES_PER_CHARGE = 250
"""Measured by benchmarks.ledger.size on PostgreSQL, with indices."""

CHARGES_KEPT_DAYS = 90
"""The service's default."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a plan must achieve."""

    traffic: Traffic
    p99_s: float
    """Target of the latency."""

    spare: int = 1
    """Scorers, and also gateways, that may be lost without missing the target."""

    def __post_init__(self) -> None:
        """Raises: ProfileError."""
        if not (math.isfinite(self.p99_s) and self.p99_s > 0):
            raise ProfileError("The target of the latency must be above 0.")
        if self.spare < 0:
            raise ProfileError("The number of spare replicas must not be negative.")


@dataclass(frozen=True, slots=True)
class Plan:
    """A fleet that meets a demand."""

    demand: Demand
    service: Service
    needed: Fleet
    """Without the spare replicas."""

    slices: int
    simulated: Simulated
    """One slice of ``needed``."""

    @property
    def fleet(self) -> Fleet:
        """Includes the spare replicas."""
        spare = self.demand.spare
        return replace(
            self.needed,
            scorers=self.needed.scorers + spare,
            gateways=self.needed.gateways + spare,
        )

    @property
    def limits(self) -> dict[str, float]:
        """Requests per second at which each part of `fleet` is saturated, lowest first."""
        rate = self.demand.traffic.requests_per_s
        growth = {
            SCORERS: self.fleet.scorers / self.needed.scorers,
            GATEWAYS: self.fleet.gateways / self.needed.gateways,
            DATABASE: 1.0,
        }
        busy = self.simulated.busy | {DATABASE: database_busy(self)}
        found = {
            name: rate * growth[name] / share if share > 0 else math.inf
            for name, share in busy.items()
        }
        return dict(sorted(found.items(), key=lambda each: each[1]))

    @property
    def breaks_first(self) -> str:
        return next(iter(self.limits))

    @property
    def database_gb(self) -> float:
        """Size of the charges that are kept one by one."""
        seconds = CHARGES_KEPT_DAYS * 86_400
        return self.demand.traffic.requests_per_s * seconds * BYTES_PER_CHARGE / 1e9


def database_busy(plan: Plan) -> float:
    """Return the used share of the database's capacity.

    A gateway writes one transaction at a time, so it uses one core of the database at most.
    """
    work = plan.demand.traffic.requests_per_s * WRITES_PER_REQUEST * plan.service.database.write_s
    return work / min(plan.needed.gateways, plan.needed.database_cores)


def plan(demand: Demand, service: Service) -> Plan:
    """Return the smallest fleet that meets the demand.

    Each try adds scorers if they are busier than the gateways, or else gateways.

    Raises: ProfileError if no fleet meets it.
    """
    traffic = demand.traffic
    busy_scorers = traffic.tokens_per_s / service.scorer.tokens_per_s(traffic.pair_tokens)
    slices = max(1, round(busy_scorers / SCORERS_OF_A_SLICE))
    share = share_of(traffic, 1 / slices)
    cpu_s = service.gateway.cpu_s(traffic.documents_per_request)
    fleet = Fleet(
        scorers=max(1, math.ceil(busy_scorers / slices / SCORERS_BUSY_MAX)),
        gateways=max(1, math.ceil(share.requests_per_s * cpu_s / GATEWAY_BUSY_MAX)),
        database_cores=_database_cores(share, service),
    )
    alone_s = _p99_alone_s(traffic, service)
    if alone_s > demand.p99_s:
        raise _too_slow(demand, alone_s, "No number", "an idle service")
    while True:
        simulated = run(share, service, fleet)
        if simulated.p99_s <= demand.p99_s and _has_room(simulated):
            return Plan(demand, service, _times(fleet, slices, traffic, service), slices, simulated)
        if max(simulated.busy[SCORERS], simulated.busy[GATEWAYS]) < BUSY_MIN:
            whole = _times(fleet, slices, traffic, service)
            best = f"{whole.scorers} scorers and {whole.gateways} gateways, which are hardly busy"
            raise _too_slow(demand, simulated.p99_s, "No sensible number", best)
        fleet = _grown(fleet, simulated)


def _too_slow(demand: Demand, p99_s: float, number: str, best: str) -> ProfileError:
    return ProfileError(
        f"{number} of replicas meets a p99 of {1_000 * demand.p99_s:,.0f} ms: with {best}, it is "
        f"{1_000 * p99_s:,.0f} ms. Choose a faster device, smaller requests or a higher target."
    )


def _p99_alone_s(traffic: Traffic, service: Service) -> float:
    largest = max(traffic.documents) * traffic.pair_tokens
    fleet = Fleet(scorers=math.ceil(largest / TOKENS_MIN), gateways=1)
    alone = replace(traffic, requests_per_s=1 / ALONE_S, burstiness=1.0)
    return run(alone, service, fleet).p99_s


def share_of(traffic: Traffic, share: float) -> Traffic:
    return replace(traffic, requests_per_s=share * traffic.requests_per_s)


def run(traffic: Traffic, service: Service, fleet: Fleet, seed: int = 1) -> Simulated:
    seconds = WARM_UP_S + max(SECONDS_MIN, REQUESTS / traffic.requests_per_s)
    requests = arrivals(traffic, seconds, seed)
    return simulate(requests, service, traffic.pair_tokens, fleet, seconds)


def _has_room(simulated: Simulated) -> bool:
    return simulated.refused_ratio == 0 and simulated.busy[SCORERS] <= SCORERS_BUSY_MAX


def _grown(fleet: Fleet, simulated: Simulated) -> Fleet:
    if simulated.busy[SCORERS] >= simulated.busy[GATEWAYS]:
        return replace(fleet, scorers=fleet.scorers + max(1, round(GROWTH * fleet.scorers)))
    return replace(fleet, gateways=fleet.gateways + max(1, round(GROWTH * fleet.gateways)))


def _times(fleet: Fleet, slices: int, traffic: Traffic, service: Service) -> Fleet:
    """Return the whole fleet of which ``fleet`` is a slice."""
    return Fleet(fleet.scorers * slices, fleet.gateways * slices, _database_cores(traffic, service))


def _database_cores(traffic: Traffic, service: Service) -> int:
    busy = traffic.requests_per_s * WRITES_PER_REQUEST * service.database.write_s
    return max(DATABASE_CORES_MIN, math.ceil(busy / DATABASE_BUSY_MAX))
