"""Which portion goes next, of many jobs, tenants and service tiers. Pure: no clock, no asyncio.

    tier     priority before default before flex; the one that is passed over is owed a share
    tenant   the one that was served least, in tokens over its weight
    size     of the tenant's jobs those whose size was served least
    job      of that size the first that came

Among tenants always the least served, and not a round robin, so that a newcomer's first portion is
next whatever the others have waiting, and so that a tenant whose requests come one by one, with
nothing waiting in between, gets its weight and not more. A portion once taken is served: whoever
takes one sends it. This is start-time fair queueing (Goyal, Vin, Cheng 1996).

A tenant's jobs are of one size if they are within a factor of four. Those are done one after the
other, since side by side all of them would be late. Sizes have equal shares, so that short jobs
pass long ones, long ones get on however many short ones come, and nobody waits for ever.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from serve_app.dispatch.turns import FairShares, Patience
from serve_app.domain.job import Job
from serve_app.domain.model import Caller, ServiceTier
from serve_app.domain.units import RequestId, TenantId, Tokens

DEFAULT_PATIENCE = 4
"""The default tier keeps one token in five, however many of the priority tier wait."""

FLEX_PATIENCE = 19
"""The flex tier keeps one token in twenty."""

PATIENCE = {
    ServiceTier.PRIORITY: 0,
    ServiceTier.DEFAULT: DEFAULT_PATIENCE,
    ServiceTier.FLEX: FLEX_PATIENCE,
}
"""How many tokens of higher tiers each lets pass for one of its own; highest tier first."""


class Costly(Protocol):
    """What waits: it has a cost, which stays the same."""

    @property
    def tokens(self) -> Tokens: ...


T = TypeVar("T", bound=Costly)


@dataclass(frozen=True, slots=True)
class Claim:
    """On whose account a job waits."""

    tenant: TenantId
    weight: int
    """What the tenant gets beside the others of its tier, while all of them wait; at least 1."""

    tier: ServiceTier

    @classmethod
    def of(cls, caller: Caller, job: Job) -> Self:
        """That of a caller's job."""
        return cls(caller.tenant, caller.tenant_weight, job.service_tier)


class FairQueue(Generic[T]):
    """Portions that wait. Within a job they leave in the order in which they came."""

    def __init__(self) -> None:
        self._tiers = {tier: _Tier[T](patience) for tier, patience in PATIENCE.items()}
        self._claims: dict[RequestId, Claim] = {}
        self._portions = 0
        self._tokens = 0

    def __len__(self) -> int:
        """Portions that wait."""
        return self._portions

    @property
    def tokens(self) -> Tokens:
        """The backlog: tokens that wait."""
        return Tokens(self._tokens)

    def add(self, job: RequestId, claim: Claim, portions: Sequence[T]) -> None:
        """Let a job's portions wait; ``job`` must have none waiting."""
        assert portions
        assert claim.weight >= 1
        assert job not in self._claims
        self._claims[job] = claim
        self._tiers[claim.tier].add(job, claim, portions)
        self._count(portions, 1)

    def peek(self) -> T | None:
        """What `take` would return, or ``None`` when nothing waits."""
        tier = self._next_tier()
        return None if tier is None else tier.head

    def take(self) -> T | None:
        """Remove and return the next portion; ``None`` when nothing waits, and only then."""
        tier = self._next_tier()
        if tier is None:
            return None
        job, portion, last = tier.take()
        for each in self._tiers.values():
            if each is tier:
                each.patience.serve(portion.tokens)
            elif each.waits:
                each.patience.pass_over(portion.tokens)
        if last:
            del self._claims[job]
        self._count([portion], -1)
        return portion

    def drop(self, job: RequestId) -> list[T]:
        """Remove and return what of ``job`` still waits; nothing if it is unknown."""
        claim = self._claims.pop(job, None)
        if claim is None:
            return []
        dropped = self._tiers[claim.tier].drop(job, claim.tenant)
        self._count(dropped, -1)
        return dropped

    def _next_tier(self) -> "_Tier[T] | None":
        """The highest, unless a lower one has been passed over for long enough."""
        waiting = [tier for tier in self._tiers.values() if tier.waits]
        for tier in reversed(waiting[1:]):
            if tier.patience.is_over(tier.head.tokens):
                return tier
        return waiting[0] if waiting else None

    def _count(self, portions: Sequence[T], sign: int) -> None:
        self._portions += sign * len(portions)
        self._tokens += sign * sum(portion.tokens for portion in portions)


def size_class(tokens: float) -> int:
    """Jobs of one class are alike: up to 255 tokens, 1,023, 4,095, and so on."""
    return (int(tokens).bit_length() + 1) // 2


class _Tier(Generic[T]):
    """The tenants of one service tier."""

    def __init__(self, patience: int) -> None:
        self.patience = Patience(patience)
        self._tenants: dict[TenantId, _Tenant[T]] = {}
        self._turns: FairShares[TenantId] = FairShares()

    @property
    def waits(self) -> bool:
        return bool(self._tenants)

    @property
    def head(self) -> T:
        return self._tenants[self._turns.first()].head

    def add(self, job: RequestId, claim: Claim, portions: Sequence[T]) -> None:
        tenant = self._tenants.get(claim.tenant)
        if tenant is None:
            tenant = self._tenants[claim.tenant] = _Tenant()
            self._turns.join(claim.tenant)
        tenant.weight = claim.weight
        tenant.add(job, portions)

    def take(self) -> tuple[RequestId, T, bool]:
        """The job, its next portion, and whether that was its last."""
        name = self._turns.first()
        tenant = self._tenants[name]
        job, portion, last = tenant.take()
        self._turns.serve(name, portion.tokens / tenant.weight)
        self._leave_if_done(name)
        return job, portion, last

    def drop(self, job: RequestId, name: TenantId) -> list[T]:
        dropped = self._tenants[name].drop(job)
        self._leave_if_done(name)
        return dropped

    def _leave_if_done(self, name: TenantId) -> None:
        if self._tenants[name].waits:
            return
        self._turns.leave(name)
        del self._tenants[name]
        if not self._tenants:
            self.patience.forget()


class _Tenant(Generic[T]):
    """The jobs of one tenant in one tier."""

    def __init__(self) -> None:
        self.weight = 1
        self._sizes: dict[RequestId, int] = {}
        self._jobs: dict[int, OrderedDict[RequestId, deque[T]]] = {}
        self._turns: FairShares[int] = FairShares()

    @property
    def waits(self) -> bool:
        return bool(self._sizes)

    @property
    def head(self) -> T:
        portions = next(iter(self._jobs[self._turns.first()].values()))
        return portions[0]

    def add(self, job: RequestId, portions: Sequence[T]) -> None:
        size = self._sizes[job] = size_class(sum(portion.tokens for portion in portions))
        if size not in self._jobs:
            self._jobs[size] = OrderedDict()
            self._turns.join(size)
        self._jobs[size][job] = deque(portions)

    def take(self) -> tuple[RequestId, T, bool]:
        size = self._turns.first()
        job, portions = next(iter(self._jobs[size].items()))
        portion = portions.popleft()
        self._turns.serve(size, portion.tokens)
        if not portions:
            self.drop(job)
        return job, portion, not portions

    def drop(self, job: RequestId) -> list[T]:
        size = self._sizes.pop(job)
        dropped = self._jobs[size].pop(job)
        if not self._jobs[size]:
            del self._jobs[size]
            self._turns.leave(size)
        return list(dropped)
