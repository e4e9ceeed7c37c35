"""A key's first cap for a month, which may begin in the middle of one.

Nobody counts what a key without a cap spends, so what the month has seen is summed up when the cap
is set. From then on `books` counts, with each reservation that says that its key has one.
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select, update

from serve_app.domain.units import KeyId, Moment, TenantId
from serve_app.ledger.months import bounds_of, month_of
from serve_app.ledger.store import PENDING
from serve_app.ledger.tables import charges, reservations, usage_days


def begin(connection: Connection, tenant: TenantId, key_id: KeyId, now: Moment) -> dict[str, Any]:
    """Count what is pending from now on; answers what the key's row must say.

    The tenant's account is locked. Reads all that the key was charged in the month of ``now``.
    """
    pending = (
        reservations.c.tenant_id == tenant,
        reservations.c.key_id == key_id,
        reservations.c.state == PENDING,
    )
    month = month_of(now)
    since, until = bounds_of(month)
    # By tenant and time first: that is the index. At once, or one might become the other meanwhile.
    spent = (
        _total(
            charges.c.amount,
            charges.c.tenant_id == tenant,
            charges.c.charged_at.between(since, until - 1),
            charges.c.key_id == key_id,
        )
        + _total(
            usage_days.c.charged,
            usage_days.c.tenant_id == tenant,
            usage_days.c.day.between(since, until - 1),
            usage_days.c.key_id == key_id,
        )
        + _total(reservations.c.amount, *pending)
    )
    amount = int(connection.scalar(select(spent)) or 0)
    # What of these comes back is given back to the cap, too.
    connection.execute(update(reservations).where(*pending).values(key_capped=True))
    return {"spent_month": month, "spent_amount": amount}


def _total(amount: ColumnElement[int], *where: ColumnElement[bool]) -> ColumnElement[int]:
    return select(func.coalesce(func.sum(amount), 0)).where(*where).scalar_subquery()
