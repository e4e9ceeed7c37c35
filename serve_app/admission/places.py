"""How many requests are inside a gateway at once, before anything of their bodies is read."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from serve_app.admission.gate import TENANTS_AT_LEAST
from serve_app.domain.errors import Overloaded, RateLimited
from serve_app.domain.model import Caller
from serve_app.domain.units import KeyId, TenantId

Owner = TypeVar("Owner")

PLACES = 4_096
"""Requests that one gateway reads and works on at once. A place takes 40 KB of memory, measured,
besides the body, which `SharedGate` bounds."""

KEYS_AT_LEAST = 2
"""The keys among which a tenant's places can always be shared."""

RETRY_AFTER_S = 1
"""Where nothing better is known: places are free again as soon as any request ends."""


class Places:
    """Bounds the requests inside a gateway: all of them, those of a tenant, and those of a key.

    A place is taken once the caller is known and before the body is read, so that bodies which
    never arrive use up the places of their own key only. Not shared between threads.
    """

    def __init__(self, places: int = PLACES) -> None:
        self._all_max = places
        self._tenant_max = places // TENANTS_AT_LEAST
        self._key_max = self._tenant_max // KEYS_AT_LEAST
        self._all = 0
        self._of_tenants: Counter[TenantId] = Counter()
        self._of_keys: Counter[KeyId] = Counter()

    @contextmanager
    def take(self, caller: Caller) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
            RateLimited: The key or its tenant holds as many as it may.
            Overloaded: All places are taken.
        """
        if self._of_keys[caller.key_id] >= self._key_max:
            raise RateLimited("key", "requests at once", RETRY_AFTER_S, ())
        if self._of_tenants[caller.tenant] >= self._tenant_max:
            raise RateLimited("tenant", "requests at once", RETRY_AFTER_S, ())
        if self._all >= self._all_max:
            raise Overloaded(RETRY_AFTER_S)
        self._all += 1
        self._of_tenants[caller.tenant] += 1
        self._of_keys[caller.key_id] += 1
        try:
            yield
        finally:
            self._all -= 1
            _release(self._of_tenants, caller.tenant)
            _release(self._of_keys, caller.key_id)


def _release(taken: Counter[Owner], owner: Owner) -> None:
    taken[owner] -= 1
    if not taken[owner]:
        del taken[owner]
