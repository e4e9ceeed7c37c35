"""Which portion goes next, of many jobs, tenants and service tiers. Pure: no clock, no asyncio.

    tier     priority before default before flex; the one that is passed over is owed a share
    tenant   the one that was served least, in tokens over its weight
    job      the one with least left, in tokens; the oldest is owed a share

Among tenants always the least served, and not a round robin, so that a newcomer's first portion is
next whatever the others have waiting, and so that a tenant whose requests come one by one, with
nothing waiting in between, gets its weight and not more. A portion once taken is served: whoever
takes one sends it.

Among tenants this is start-time fair queueing (Goyal, Vin, Cheng 1996), among a tenant's jobs the
shortest remaining processing time, than which nothing answers sooner on average (Schrage 1968):
what a job takes is known, and jobs alike are answered one after the other, not all of them late.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from serve_app.dispatch.turns import LeastFirst, Patience
from serve_app.domain.model import Caller, RerankJob, ServiceTier
from serve_app.domain.units import RequestId, TenantId, Tokens

DEFAULT_PATIENCE = 4
"""The default tier keeps one token in five, however many of the priority tier wait."""

FLEX_PATIENCE = 19
"""The flex tier keeps one token in twenty."""

OLDEST_JOB_PATIENCE = 1
"""Of a tenant's tokens, its oldest job gets half, however many short ones come."""

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
    def of(cls, caller: Caller, job: RerankJob) -> Self:
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


class _Tier(Generic[T]):
    """The tenants of one service tier.

    A tenant's level is the tokens it was served, over its weight. A newcomer begins at the level of
    the portion that was taken last, so that nobody saves up turns by not asking; one that comes
    back begins no lower than it left.
    """

    def __init__(self, patience: int) -> None:
        self.patience = Patience(patience)
        self._tenants: dict[TenantId, _Tenant[T]] = {}
        self._order: LeastFirst[TenantId] = LeastFirst()
        self._level = 0.0
        self._left: dict[TenantId, float] = {}
        self._left_order: list[tuple[float, TenantId]] = []

    @property
    def waits(self) -> bool:
        return bool(self._tenants)

    @property
    def head(self) -> T:
        return self._tenants[self._order.first()].head

    def add(self, job: RequestId, claim: Claim, portions: Sequence[T]) -> None:
        tenant = self._tenants.get(claim.tenant)
        if tenant is None:
            level = max(self._level, self._left.pop(claim.tenant, 0.0))
            tenant = self._tenants[claim.tenant] = _Tenant(level)
            self._order.place(claim.tenant, level)
        tenant.weight = claim.weight
        tenant.add(job, portions)

    def take(self) -> tuple[RequestId, T, bool]:
        """The job, its next portion, and whether that was its last."""
        name = self._order.first()
        tenant = self._tenants[name]
        self._level = tenant.level
        job, portion, last = tenant.take()
        tenant.level += portion.tokens / tenant.weight
        if tenant.waits:
            self._order.place(name, tenant.level)
        else:
            self._leave(name)
        self._forget_overtaken()
        return job, portion, last

    def drop(self, job: RequestId, name: TenantId) -> list[T]:
        tenant = self._tenants[name]
        dropped = tenant.drop(job)
        if not tenant.waits:
            self._leave(name)
        return dropped

    def _leave(self, name: TenantId) -> None:
        self._order.remove(name)
        tenant = self._tenants.pop(name)
        self._left[name] = tenant.level
        heapq.heappush(self._left_order, (tenant.level, name))
        if not self._tenants:  # Nobody waited for anybody.
            self._left.clear()
            self._left_order.clear()
            self.patience.forget()

    def _forget_overtaken(self) -> None:
        """Who left below the present level would begin there anyway."""
        while self._left_order and self._left_order[0][0] <= self._level:
            level, name = heapq.heappop(self._left_order)
            if self._left.get(name) == level:
                del self._left[name]


class _Tenant(Generic[T]):
    """The jobs of one tenant in one tier."""

    def __init__(self, level: float) -> None:
        self.level = level
        self.weight = 1
        self._jobs: OrderedDict[RequestId, _Job[T]] = OrderedDict()
        self._order: LeastFirst[RequestId] = LeastFirst()
        self._patience = Patience(OLDEST_JOB_PATIENCE)

    @property
    def waits(self) -> bool:
        return bool(self._jobs)

    @property
    def head(self) -> T:
        return self._jobs[self._next()].portions[0]

    def add(self, job: RequestId, portions: Sequence[T]) -> None:
        waits = _Job(deque(portions), sum(portion.tokens for portion in portions))
        self._jobs[job] = waits
        self._order.place(job, waits.tokens)

    def take(self) -> tuple[RequestId, T, bool]:
        name = self._next()
        job = self._jobs[name]
        portion = job.portions.popleft()
        if name == self._oldest():
            self._patience.serve(portion.tokens)
        else:
            self._patience.pass_over(portion.tokens)
        job.tokens -= portion.tokens
        if job.portions:
            self._order.place(name, job.tokens)
        else:
            self.drop(name)
        return name, portion, not job.portions

    def drop(self, job: RequestId) -> list[T]:
        self._order.remove(job)
        return list(self._jobs.pop(job).portions)

    def _next(self) -> RequestId:
        oldest = self._oldest()
        if self._patience.is_over(self._jobs[oldest].portions[0].tokens):
            return oldest
        return self._order.first()

    def _oldest(self) -> RequestId:
        return next(iter(self._jobs))


@dataclass(slots=True)
class _Job(Generic[T]):
    """A job's portions that wait, and their tokens."""

    portions: deque[T]
    tokens: int
