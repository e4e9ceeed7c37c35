"""How much a gateway works for requests that it then refuses."""

from serve_app.domain.clock import Clock
from serve_app.domain.errors import TooManyRefusals
from serve_app.domain.units import Instant, TenantId

REFUSALS_MAX = 200
"""A tenant's budget of refused requests when none was refused lately."""

REFUSALS_PER_S = 20
"""What comes back to the budget each second. A small refused request costs a gateway a few
milliseconds, so this is some 5 % of a core."""

BODY_BYTES_PER_REFUSAL = 100_000
"""A refused body of this size costs as much again as a small refused request."""


class RefusalBudget:
    """How much work a gateway does for requests that it then refuses, per tenant.

    Nobody pays for a refused request, although its body was received and parsed and the ledger was
    asked. A tenant whose budget is used up is refused before that. Answered requests earn the
    budget back, so a tenant that runs into a limit still gets all that the limit allows. Not
    shared between threads.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left: dict[TenantId, tuple[float, Instant]] = {}
        """What was left at an instant; a tenant that is absent has all of its budget."""

    def check(self, tenant: TenantId) -> None:
        """Raises: TooManyRefusals when nothing is left of the tenant's budget."""
        left = self._now_left(tenant)
        if left <= 0:
            raise TooManyRefusals(REFUSALS_MAX, (1 - left) / REFUSALS_PER_S)
        if left >= REFUSALS_MAX:
            self._left.pop(tenant, None)

    def refused(self, tenant: TenantId, body_bytes: int) -> None:
        """A request of the tenant was refused after ``body_bytes`` of its body had arrived."""
        self._change(tenant, -_cost(body_bytes))

    def answered(self, tenant: TenantId, body_bytes: int) -> None:
        """A request of the tenant was answered and charged."""
        if tenant in self._left:
            self._change(tenant, _cost(body_bytes))

    def _now_left(self, tenant: TenantId) -> float:
        left, since = self._left.get(tenant, (REFUSALS_MAX, Instant(0)))
        return min(REFUSALS_MAX, left + (self._clock.instant() - since) * REFUSALS_PER_S)

    def _change(self, tenant: TenantId, amount: float) -> None:
        # Not below the negative of the budget, so that a tenant is back after a few seconds.
        left = max(-REFUSALS_MAX, self._now_left(tenant) + amount)
        if left >= REFUSALS_MAX:
            self._left.pop(tenant, None)
        else:
            self._left[tenant] = (left, self._clock.instant())


def _cost(body_bytes: int) -> float:
    return 1 + body_bytes / BODY_BYTES_PER_REFUSAL
