"""Descriptions of served models: prices, limits and readiness."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serve_app.domain.model import ServiceTier
from serve_app.domain.units import ModelId


@dataclass(frozen=True, slots=True)
class Prices:
    """Price of one unit by tier, in micro-dollars."""

    default: int
    flex: int
    priority: int

    def of(self, tier: ServiceTier) -> int:
        prices = {ServiceTier.FLEX: self.flex, ServiceTier.PRIORITY: self.priority}
        return prices.get(tier, self.default)


@dataclass(frozen=True, slots=True)
class Tariff:
    """A request costs the sum of both."""

    per_document: Prices
    per_million_tokens: Prices = Prices(0, flex=0, priority=0)


FACT_CHARACTERS_MAX = 200
FACTS_MAX = 100
"""Most characters of a short fact about a model, and most facts in a list."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A served model. What its replicas report is ``None`` until one has answered."""

    id: ModelId
    source: str
    revision: str | None
    description: str

    precision: str
    """As reported, or as configured until a replica has answered."""

    device: str | None
    tariff: Tariff
    pair_tokens_max: int
    ready: bool
    """Whether a replica answered the last probe or request."""

    activation: str | None
    """See `ReplicaInfo`."""

    aliases: tuple[str, ...] = ()

    tokens_per_s: float | None = None
    """Recent speed of one replica."""

    facts: Mapping[str, object] = field(default_factory=dict)
    """In the form of `serve_app.protocols.model_facts`."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service can answer requests."""

    ready: bool
    ledger: bool
    models: tuple[tuple[ModelId, bool], ...]
    """Readiness depends on the first, the default model."""


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """A scorer's description of itself."""

    replica_id: str
    device: str
    precision: str
    description: str
    activation: str
    """Torch's class, in lower case, that the model's authors apply to the logit."""
