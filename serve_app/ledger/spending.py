"""What an account has left, and what that and the month's caps let it spend. Pure.

The month of a cap never goes back, so that a gateway whose clock is behind does not forget what
was spent; one that is ahead ends the month early for everybody, never twice.
"""

from dataclasses import dataclass, replace

from serve_app.domain.errors import OutOfCredit, SpendCapReached
from serve_app.domain.units import Credits, TenantId


@dataclass(frozen=True, slots=True)
class Spending:
    """What is reserved or charged in a month, and how much that may be at most."""

    cap: Credits | None
    month: int
    """yyyymm."""

    amount: Credits


@dataclass(frozen=True, slots=True)
class Account:
    """A tenant's, as a transaction found it or as it is to leave it."""

    tenant: TenantId
    available: Credits
    alerts_below: tuple[Credits, ...]
    spending: Spending


def take(account: Account, amount: Credits, month: int) -> Account:
    """The account without ``amount``.

    Raises: OutOfCredit, SpendCapReached.
    """
    if account.available < amount:
        raise OutOfCredit(amount, account.available)
    return replace(
        account,
        available=Credits(account.available - amount),
        spending=spend(account.spending, amount, month, "tenant"),
    )


def give_back(account: Account, amount: Credits, month: int) -> Account:
    """The account with what was taken in ``month``."""
    return replace(
        account,
        available=Credits(account.available + amount),
        spending=unspend(account.spending, amount, month),
    )


def spend(spending: Spending, amount: Credits, month: int, whose: str) -> Spending:
    """``amount`` more in ``month``.

    Raises: SpendCapReached.
    """
    so_far = spending.amount if spending.month >= month else Credits(0)
    total = Credits(so_far + amount)
    if spending.cap is not None and total > spending.cap:
        raise SpendCapReached(whose, spending.cap)
    return Spending(spending.cap, max(spending.month, month), total)


def unspend(spending: Spending, amount: Credits, month: int) -> Spending:
    """``amount`` less, if what was spent in ``month`` still counts."""
    if spending.month != month:
        return spending
    return replace(spending, amount=Credits(max(0, spending.amount - amount)))


def crossed(account: Account, amount: Credits) -> Credits | None:
    """The lowest alert that taking ``amount`` went below; the account is as it left it."""
    left = account.available
    passed = [below for below in account.alerts_below if left < below <= left + amount]
    return min(passed) if passed else None
