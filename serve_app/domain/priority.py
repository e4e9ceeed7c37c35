"""Tier, weight and size class, which decide the order of jobs."""

from dataclasses import dataclass
from typing import Self

from serve_app.domain.job import Job
from serve_app.domain.model import Caller, ServiceTier
from serve_app.domain.units import TenantId

DEFAULT_TOKENS_AHEAD = 4
"""The default tier gets one token in five while the priority tier has work."""

FLEX_TOKENS_AHEAD = 19

TOKENS_AHEAD = {
    ServiceTier.PRIORITY: 0,
    ServiceTier.DEFAULT: DEFAULT_TOKENS_AHEAD,
    ServiceTier.FLEX: FLEX_TOKENS_AHEAD,
}
"""Tokens of other tiers that go before one token of a waiting tier; highest tier first."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The tenant, weight and tier under which a job is queued."""

    tenant: TenantId
    weight: int
    """The tenant's share relative to others of its tier that have work; at least 1."""

    tier: ServiceTier

    @classmethod
    def of(cls, caller: Caller, job: Job) -> Self:
        return cls(caller.tenant, caller.tenant_settings.weight, job.service_tier)


def size_class(tokens: float) -> int:
    """Classes end at 255, 1,023, 4,095 tokens and so on."""
    return (int(tokens).bit_length() + 1) // 2
