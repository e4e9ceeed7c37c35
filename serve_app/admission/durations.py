"""How long the recent requests of each tenant took."""

from collections import OrderedDict, deque
from statistics import median

from serve_app.domain.units import Seconds, TenantId

REQUESTS = 32
"""Durations kept per tenant; few, to follow a change of its requests quickly."""

TENANTS_MAX = 1_000
"""Tenants kept, about 1 KB each; the one with the oldest last answer is dropped first."""


class RecentDurations:
    """Durations of each tenant's last answered requests. Not thread-safe."""

    def __init__(self) -> None:
        self._of: OrderedDict[TenantId, deque[Seconds]] = OrderedDict()

    def add(self, tenant: TenantId, duration_s: Seconds) -> None:
        own = self._of.get(tenant)
        if own is None:
            own = self._of[tenant] = deque(maxlen=REQUESTS)
            if len(self._of) > TENANTS_MAX:
                self._of.popitem(last=False)
        else:
            self._of.move_to_end(tenant)
        own.append(duration_s)

    def typical_s(self, tenant: TenantId) -> Seconds:
        """Return the median, or 0 without a recent answer."""
        return Seconds(median(self._of.get(tenant, (Seconds(0.0),))))
