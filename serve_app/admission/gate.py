"""Limits on the tokens or bytes inside this gateway, in total and for each tenant."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.domain.errors import Overloaded
from serve_app.domain.units import TenantId

TENANTS_AT_LEAST = 4
"""A tenant may hold at most 1/N of a `SharedGate`, so at least N tenants fit."""

RETRY_AFTER_S = 5
"""A full gate drains within seconds."""


class Gate:
    """Limits the tokens or bytes inside this gateway. Not thread-safe."""

    def __init__(self, amount_max: int) -> None:
        assert amount_max >= 1
        self._amount_max = amount_max
        self._amount = 0
        self._requests = 0

    @property
    def amount(self) -> int:
        return self._amount

    @property
    def requests(self) -> int:
        """Requests inside now, including those that hold nothing."""
        return self._requests

    @contextmanager
    def admit(self, amount: int) -> Iterator[Callable[[int], None]]:
        """Hold ``amount`` while the block runs, or less after a call of the yielded function.

        An empty gate admits any request, so that none is refused forever. Raises: Overloaded.
        """
        if self._amount > 0 and self._amount + amount > self._amount_max:
            raise Overloaded(RETRY_AFTER_S)

        held = amount
        self._amount += held

        def hold_only(less: int) -> None:
            nonlocal held
            self._amount -= held - less
            held = less

        self._requests += 1
        try:
            yield hold_only
        finally:
            self._requests -= 1
            hold_only(0)


class SharedGate:
    """A gate of which a tenant may hold at most a quarter."""

    def __init__(self, amount_max: int) -> None:
        self._amount_max = amount_max
        self._all = Gate(amount_max)
        self._own: dict[TenantId, Gate] = {}

    @property
    def amount(self) -> int:
        return self._all.amount

    @property
    def is_half_full(self) -> bool:
        return 2 * self.amount > self._amount_max

    @contextmanager
    def admit(self, tenant: TenantId, amount: int) -> Iterator[Callable[[int], None]]:
        """See `Gate.admit`."""
        own = self._own.get(tenant)
        if own is None:
            own = self._own[tenant] = Gate(max(1, self._amount_max // TENANTS_AT_LEAST))
        try:
            with own.admit(amount) as hold_own, self._all.admit(amount) as hold_all:

                def hold_only(less: int) -> None:
                    hold_own(less)
                    hold_all(less)

                yield hold_only
        finally:
            if not own.requests:
                self._own.pop(tenant, None)
