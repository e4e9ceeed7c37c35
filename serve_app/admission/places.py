"""Limits on the concurrent requests of a gateway, applied before their bodies are read."""

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
"""Requests that one gateway reads and processes concurrently. A place takes 40 KB of memory
(measured) in addition to the body, which `SharedGate` limits."""

KEYS_AT_LEAST = 2
"""A key may hold at most 1/N of its tenant's places."""

REPORTS = 32
"""Places for tenants' own reports: half of the concurrent database calls of all reports, so that
operators' reports are not refused because of tenants' reports."""

CHANGES = REPORTS
"""Places for tenants' changes of their own keys, as many as for their reports."""

RETRY_AFTER_S = 1
"""A place becomes free when any request ends."""


class Places:
    """Limits the requests inside a gateway: in total, per tenant and per key.

    A place is taken once the caller is known and before the body is read, so that bodies that never
    arrive use up only the places of their own key. Not thread-safe.
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
        """Hold a place while the block runs.

        Sets the wait of a `ConcurrencyLimited` that the block raises.

        Raises:
            ConcurrencyLimited: The key or its tenant already holds its maximum.
            Overloaded: All places are taken.
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
        """Set the time until one of the running requests will most likely have ended."""
        wait_s = self._durations.typical_s(tenant) / max(1, refusal.limit)
        refusal.retry_after_s = retry_after(wait_s)
        return refusal


def _release(taken: Counter[Owner], owner: Owner) -> None:
    taken[owner] -= 1
    if not taken[owner]:
        del taken[owner]
