"""Limits on the concurrent requests of a gateway."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from serve_app.admission.durations import RecentDurations
from serve_app.admission.gate import TENANTS_AT_LEAST
from serve_app.domain.clock import Clock
from serve_app.domain.errors import ConcurrencyLimited, Overloaded, retry_after
from serve_app.domain.model import Caller
from serve_app.domain.units import KeyId, Seconds, TenantId

Owner = TypeVar("Owner")

PLACES = 4_096
"""Requests inside one gateway. Each takes 40 KB of memory (measured) in addition to the body, which
`SharedGate` limits."""

KEYS_AT_LEAST = 2
"""A key may hold at most 1/N of its tenant's places."""

REPORTS = 32
"""Places for tenants' own reports: half of the concurrent database calls for reports, so that
operators' reports are not refused."""

CHANGES = REPORTS
"""Places for tenants' changes of their own keys."""

RETRY_AFTER_S = 1
"""A place becomes free when any request ends."""


class Places:
    """Limits requests in total, per tenant and per key. Not thread-safe.

    A place is taken before the body is read, so that bodies that never arrive use up only the
    places of their own key.
    """

    def __init__(self, clock: Clock, places: int = PLACES) -> None:
        self._clock = clock
        self._durations = RecentDurations()
        self._all_max = places
        self._tenant_max = places // TENANTS_AT_LEAST
        self._key_max = self._tenant_max // KEYS_AT_LEAST
        self._all = 0
        self._of_tenants: Counter[TenantId] = Counter()
        self._of_keys: Counter[KeyId] = Counter()

    @property
    def key_max(self) -> int:
        return self._key_max

    @contextmanager
    def take(self, caller: Caller) -> Iterator[None]:
        """Hold a place while the block runs. Raises: ConcurrencyLimited, Overloaded.

        Sets the wait of a `ConcurrencyLimited` that the block raises.
        """
        if self._of_keys[caller.key_id] >= self._key_max:
            raise self._with_wait(ConcurrencyLimited("key", self._key_max), caller.tenant)
        if self._of_tenants[caller.tenant] >= self._tenant_max:
            raise self._with_wait(ConcurrencyLimited("tenant", self._tenant_max), caller.tenant)
        if self._all >= self._all_max:
            raise Overloaded(RETRY_AFTER_S)
        started = self._clock.instant()
        self._all += 1
        self._of_tenants[caller.tenant] += 1
        self._of_keys[caller.key_id] += 1
        try:
            yield
        except ConcurrencyLimited as refusal:
            self._with_wait(refusal, caller.tenant)
            raise
        else:
            self._durations.add(caller.tenant, Seconds(self._clock.instant() - started))
        finally:
            self._all -= 1
            _release(self._of_tenants, caller.tenant)
            _release(self._of_keys, caller.key_id)

    def _with_wait(self, refusal: ConcurrencyLimited, tenant: TenantId) -> ConcurrencyLimited:
        """Set the time until a running request will most likely have ended."""
        wait_s = self._durations.typical_s(tenant) / max(1, refusal.limit)
        refusal.retry_after_s = retry_after(wait_s)
        return refusal


def _release(taken: Counter[Owner], owner: Owner) -> None:
    taken[owner] -= 1
    if not taken[owner]:
        del taken[owner]
