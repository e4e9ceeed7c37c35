"""What a plan costs, and what it earns."""

from dataclasses import dataclass

from serve_app.planning.catalogue import Core, Instance
from serve_app.planning.sizing import Plan

GATEWAY_CORES = 2
"""``num_cpus`` of a gateway in cluster/production.yaml."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a plan on one kind of machine, in dollars."""

    instance: Instance
    core: Core
    scorers_per_hour: float
    cores_per_hour: float
    """Gateways and the database."""

    per_1000_documents: float
    """If the planned traffic arrives all day."""

    price_per_1000_documents: float
    """What clients pay."""

    @property
    def per_hour(self) -> float:
        return self.scorers_per_hour + self.cores_per_hour

    @property
    def margin(self) -> float:
        """Share of the price that remains; negative for a loss."""
        return 1 - self.per_1000_documents / self.price_per_1000_documents


def cost(plan: Plan, instance: Instance, price_per_1000_documents: float) -> Cost:
    core = Core()
    cores = GATEWAY_CORES * plan.fleet.gateways + plan.fleet.database_cores
    scorers_per_hour = plan.fleet.scorers * instance.price_per_hour
    cores_per_hour = cores * core.price_per_hour
    thousands_per_hour = plan.demand.traffic.documents_per_s * 3_600 / 1_000
    per_1000 = (scorers_per_hour + cores_per_hour) / thousands_per_hour
    return Cost(
        instance, core, scorers_per_hour, cores_per_hour, per_1000, price_per_1000_documents
    )
