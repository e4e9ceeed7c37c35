"""Select the next portion among many jobs, tenants and service tiers. Pure.

    tier     priority before default before flex; a lower tier has a small guaranteed share
    tenant   the one that received the least service, in tokens divided by its weight
    size     among the tenant's jobs, the size class that received the least service
    job      within the size class, first come, first served

The algorithm is start-time fair queueing (Goyal, Vin, Cheng 1996); see `docs/decisions/0004`. The
caller must send every portion that it takes.

A size class holds jobs that are within a factor of four of each other. Short jobs overtake long
ones, and no job starves; see `docs/decisions/0009`.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from serve_app.dispatch.fair_share import Aging, FairShares
from serve_app.domain.priority import TOKENS_AHEAD, Claim, size_class
from serve_app.domain.units import RequestId, TenantId, Tokens


class Costly(Protocol):
    """An item whose cost must not change."""

    @property
    def tokens(self) -> Tokens: ...


T = TypeVar("T", bound=Costly)


class FairQueue(Generic[T]):
    """The portions of a job leave in the order in which they were added."""

    def __init__(self) -> None:
        self._tiers = {tier: _Tier[T](tokens_ahead) for tier, tokens_ahead in TOKENS_AHEAD.items()}
        self._claims: dict[RequestId, Claim] = {}
        self._portions = 0
        self._tokens = 0

    def __len__(self) -> int:
        return self._portions

    @property
    def tokens(self) -> Tokens:
        return Tokens(self._tokens)

    def add(self, job: RequestId, claim: Claim, portions: Sequence[T]) -> None:
        """``job`` must have no portions in the queue."""
        assert portions
        assert claim.weight >= 1
        assert job not in self._claims
        self._claims[job] = claim
        self._tiers[claim.tier].add(job, claim, portions)
        self._count(portions, 1)

    def peek(self) -> T | None:
        """Return what `take` would return."""
        tier = self._next_tier()
        return None if tier is None else tier.head

    def take(self) -> T | None:
        """Remove and return the next portion, if any."""
        tier = self._next_tier()
        if tier is None:
            return None
        job, portion, last = tier.take()
        for each in self._tiers.values():
            if each is tier:
                each.aging.serve(portion.tokens)
            elif each.waits:
                each.aging.pass_over(portion.tokens)
        if last:
            del self._claims[job]
        self._count([portion], -1)
        return portion

    def drop(self, job: RequestId) -> list[T]:
        """Remove and return the portions of ``job``; an unknown job has none."""
        claim = self._claims.pop(job, None)
        if claim is None:
            return []
        dropped = self._tiers[claim.tier].drop(job, claim.tenant)
        self._count(dropped, -1)
        return dropped

    def _next_tier(self) -> "_Tier[T] | None":
        waiting = [tier for tier in self._tiers.values() if tier.waits]
        for tier in reversed(waiting[1:]):
            if tier.aging.is_due(tier.head.tokens):
                return tier
        return waiting[0] if waiting else None

    def _count(self, portions: Sequence[T], sign: int) -> None:
        self._portions += sign * len(portions)
        self._tokens += sign * sum(portion.tokens for portion in portions)


class _Tier(Generic[T]):
    def __init__(self, tokens_ahead: int) -> None:
        self.aging = Aging(tokens_ahead)
        self._tenants: dict[TenantId, _Tenant[T]] = {}
        self._shares: FairShares[TenantId] = FairShares()

    @property
    def waits(self) -> bool:
        return bool(self._tenants)

    @property
    def head(self) -> T:
        return self._tenants[self._shares.first()].head

    def add(self, job: RequestId, claim: Claim, portions: Sequence[T]) -> None:
        tenant = self._tenants.get(claim.tenant)
        if tenant is None:
            tenant = self._tenants[claim.tenant] = _Tenant()
            self._shares.join(claim.tenant)
        tenant.weight = claim.weight
        tenant.add(job, portions)

    def take(self) -> tuple[RequestId, T, bool]:
        """Return a job, its next portion, and whether that was its last one."""
        name = self._shares.first()
        tenant = self._tenants[name]
        job, portion, last = tenant.take()
        self._shares.serve(name, portion.tokens / tenant.weight)
        self._leave_if_done(name)
        return job, portion, last

    def drop(self, job: RequestId, name: TenantId) -> list[T]:
        dropped = self._tenants[name].drop(job)
        self._leave_if_done(name)
        return dropped

    def _leave_if_done(self, name: TenantId) -> None:
        if self._tenants[name].waits:
            return
        self._shares.leave(name)
        del self._tenants[name]
        if not self._tenants:
            self.aging.reset()


class _Tenant(Generic[T]):
    def __init__(self) -> None:
        self.weight = 1
        self._sizes: dict[RequestId, int] = {}
        self._jobs: dict[int, OrderedDict[RequestId, deque[T]]] = {}
        self._shares: FairShares[int] = FairShares()

    @property
    def waits(self) -> bool:
        return bool(self._sizes)

    @property
    def head(self) -> T:
        portions = next(iter(self._jobs[self._shares.first()].values()))
        return portions[0]

    def add(self, job: RequestId, portions: Sequence[T]) -> None:
        size = self._sizes[job] = size_class(sum(portion.tokens for portion in portions))
        if size not in self._jobs:
            self._jobs[size] = OrderedDict()
            self._shares.join(size)
        self._jobs[size][job] = deque(portions)

    def take(self) -> tuple[RequestId, T, bool]:
        size = self._shares.first()
        job, portions = next(iter(self._jobs[size].items()))
        portion = portions.popleft()
        self._shares.serve(size, portion.tokens)
        if not portions:
            self.drop(job)
        return job, portion, not portions

    def drop(self, job: RequestId) -> list[T]:
        size = self._sizes.pop(job)
        dropped = self._jobs[size].pop(job)
        if not self._jobs[size]:
            del self._jobs[size]
            self._shares.leave(size)
        return list(dropped)
