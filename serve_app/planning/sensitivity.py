"""How much a plan depends on each figure that it starts from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from serve_app.domain.units import Seconds
from serve_app.planning.profiles import ProfileError, Scorer, Service
from serve_app.planning.sizing import Demand, Plan, plan


@dataclass(frozen=True, slots=True)
class Variation:
    """A plan with one figure changed."""

    what: str
    plan: Plan | None
    """``None`` if no fleet meets the demand."""


def variations(demand: Demand, service: Service) -> Iterator[Variation]:
    for factor in (0.5, 2.0):
        speed = replace(service, scorer=_faster(service.scorer, factor))
        yield Variation(f"speed of a scorer, times {factor:g}", _planned(demand, speed))
    for factor in (0.5, 2.0):
        work = replace(
            service.gateway,
            request_s=Seconds(factor * service.gateway.request_s),
            document_s=Seconds(factor * service.gateway.document_s),
        )
        changed = replace(service, gateway=work)
        yield Variation(f"CPU time of a gateway, times {factor:g}", _planned(demand, changed))
    longer = replace(demand.traffic, pair_tokens=2 * demand.traffic.pair_tokens)
    yield Variation("tokens of a pair, times 2", _planned(replace(demand, traffic=longer), service))
    bursts = replace(demand.traffic, burstiness=3.0)
    yield Variation("bursts (variation 3)", _planned(replace(demand, traffic=bursts), service))


def _faster(scorer: Scorer, factor: float) -> Scorer:
    speeds = tuple((tokens, factor * speed) for tokens, speed in scorer.speeds)
    return replace(scorer, speeds=speeds)


def _planned(demand: Demand, service: Service) -> Plan | None:
    try:
        return plan(demand, service)
    except ProfileError:
        return None
