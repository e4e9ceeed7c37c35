"""Available credit and monthly spending caps.

The month of a cap never moves back, so that a gateway with a slow clock does not reset the
spending.
"""

from dataclasses import dataclass, replace

from serve_app.domain.errors import OutOfCredit, SpendCapReached
from serve_app.domain.units import Credits, TenantId


@dataclass(frozen=True, slots=True)
class Spending:
    """The amount reserved or charged in a month, and its cap."""

    cap: Credits | None
    month: int
    """The number yyyymm."""

    amount: Credits


@dataclass(frozen=True, slots=True)
class Account:
    """A tenant's account within a transaction."""

    tenant: TenantId
    available: Credits
    alerts_below: tuple[Credits, ...]
    spending: Spending


def take(account: Account, amount: Credits, month: int) -> Account:
    """Take ``amount`` in ``month``. Raises: OutOfCredit, SpendCapReached."""
    if account.available < amount:
        raise OutOfCredit(amount, account.available)
    return replace(
        account,
        available=Credits(account.available - amount),
        spending=spend(account.spending, amount, month, "tenant"),
    )


def give_back(account: Account, amount: Credits, month: int) -> Account:
    """Return ``amount``, which was taken in ``month``, to the account."""
    return replace(
        account,
        available=Credits(account.available + amount),
        spending=unspend(account.spending, amount, month),
    )


def spend(spending: Spending, amount: Credits, month: int, whose: str) -> Spending:
    """Add ``amount`` to the spending of ``month``. Raises: SpendCapReached."""
    so_far = spending.amount if spending.month >= month else Credits(0)
    total = Credits(so_far + amount)
    if spending.cap is not None and total > spending.cap:
        raise SpendCapReached(whose, spending.cap)
    return Spending(spending.cap, max(spending.month, month), total)


def unspend(spending: Spending, amount: Credits, month: int) -> Spending:
    """Subtract ``amount`` if ``month`` is still the counted month."""
    if spending.month != month:
        return spending
    return replace(spending, amount=Credits(max(0, spending.amount - amount)))


def crossed(account: Account, amount: Credits) -> Credits | None:
    """Return the lowest alert threshold that was crossed when ``amount`` left ``account``."""
    left = account.available
    passed = [below for below in account.alerts_below if left < below <= left + amount]
    return min(passed) if passed else None
