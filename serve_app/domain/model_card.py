"""Descriptions of served models: prices, limits and readiness."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serve_app.domain.model import ServiceTier
from serve_app.domain.units import ModelId


@dataclass(frozen=True, slots=True)
class Prices:
    """Price of one unit in each tier, in micro-dollars."""

    default: int
    flex: int
    priority: int

    def of(self, tier: ServiceTier) -> int:
        prices = {ServiceTier.FLEX: self.flex, ServiceTier.PRIORITY: self.priority}
        return prices.get(tier, self.default)


@dataclass(frozen=True, slots=True)
class Tariff:
    """The prices of a model. A request costs the sum of both."""

    per_document: Prices
    per_million_tokens: Prices = Prices(0, flex=0, priority=0)


FACT_CHARACTERS_MAX = 200
FACTS_MAX = 100
"""The longest short fact about a model, and the most facts in a list."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A served model, as listed by `GET /v1/models`."""

    id: ModelId
    source: str
    revision: str | None
    description: str

    precision: str
    """Precision reported by the replicas, or the configured one until a replica has answered."""

    device: str | None
    """``None`` until a replica has answered."""

    tariff: Tariff
    pair_tokens_max: int
    ready: bool
    """Whether a replica answered the most recent probe or request."""

    activation: str | None
    """See `ReplicaInfo`. ``None`` until a replica has answered."""

    aliases: tuple[str, ...] = ()

    tokens_per_s: float | None = None
    """Recent speed of one replica. ``None`` before its first answer."""

    facts: Mapping[str, object] = field(default_factory=dict)
    """What the model's files and the operator's model card state, in the form of
    `serve_app.protocols.model_facts`."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service can answer requests, with the state of each dependency."""

    ready: bool
    ledger: bool
    models: tuple[tuple[ModelId, bool], ...]
    """The first is the default model, on which readiness depends."""


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """A scorer replica's description of itself."""

    replica_id: str
    device: str
    precision: str
    description: str
    activation: str
    """Class of torch, in lower case, that the model's authors apply to the logit by default."""
