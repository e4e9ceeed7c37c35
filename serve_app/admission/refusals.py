"""Limits on the work that a gateway does for requests that it then refuses."""

from serve_app.domain.clock import Clock
from serve_app.domain.errors import TooManyRefusals
from serve_app.domain.units import Instant, TenantId

REFUSALS_MAX = 200

REFUSALS_PER_S = 20
"""Budget regained per second. A small refused request costs at most 3 ms of CPU, so this is at most
6 % of a core."""

BODY_BYTES_PER_REFUSAL = 100_000
"""A refused body of this size costs as much as one more small refused request."""


class RefusalBudget:
    """Each tenant's budget of refused requests. Not thread-safe.

    A refused request is not charged, although it was received, parsed and checked by the ledger. A
    tenant without budget is refused before that work. Answered requests restore the budget, so that
    a tenant at a rate limit can use the whole limit.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left: dict[TenantId, tuple[float, Instant]] = {}
        """Budget left at an instant. An absent tenant has its full budget."""

    def check(self, tenant: TenantId) -> None:
        left = self._now_left(tenant)
        if left <= 0:
            raise TooManyRefusals(REFUSALS_MAX, (1 - left) / REFUSALS_PER_S)
        if left >= REFUSALS_MAX:
            self._left.pop(tenant, None)

    def refused(self, tenant: TenantId, body_bytes: int) -> None:
        """Count a request that was refused after ``body_bytes`` of its body had arrived."""
        self._change(tenant, -_cost(body_bytes))

    def answered(self, tenant: TenantId, body_bytes: int) -> None:
        if tenant in self._left:
            self._change(tenant, _cost(body_bytes))

    def _now_left(self, tenant: TenantId) -> float:
        left, since = self._left.get(tenant, (REFUSALS_MAX, Instant(0)))
        return min(REFUSALS_MAX, left + (self._clock.instant() - since) * REFUSALS_PER_S)

    def _change(self, tenant: TenantId, amount: float) -> None:
        # The deficit is limited, so that a tenant is accepted again after about ten seconds.
        left = max(-REFUSALS_MAX, self._now_left(tenant) + amount)
        if left >= REFUSALS_MAX:
            self._left.pop(tenant, None)
        else:
            self._left[tenant] = (left, self._clock.instant())


def _cost(body_bytes: int) -> float:
    return 1 + body_bytes / BODY_BYTES_PER_REFUSAL
