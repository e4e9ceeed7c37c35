"""The first monthly spending cap of a key, which can be set in the middle of a month.

Spending is not counted without a cap, so it is summed up when the cap is set.
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select, update

from serve_app.domain.units import KeyId, Moment, TenantId
from serve_app.ledger.db.tables import PENDING, charges, reservations, usage_days
from serve_app.ledger.money.calendar import bounds_of, month_of


def begin(connection: Connection, tenant: TenantId, key_id: KeyId, now: Moment) -> dict[str, Any]:
    """Mark pending reservations as capped; return the new values of the key's row.

    The caller has locked the tenant's account.
    """
    pending = (
        reservations.c.tenant_id == tenant,
        reservations.c.key_id == key_id,
        reservations.c.state == PENDING,
    )
    month = month_of(now)
    since, until = bounds_of(month)
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
    # The release of one of these reservations then returns its amount to the cap.
    connection.execute(update(reservations).where(*pending).values(key_capped=True))
    return {"spent_month": month, "spent_amount": amount}


def _total(amount: ColumnElement[int], *where: ColumnElement[bool]) -> ColumnElement[int]:
    return select(func.coalesce(func.sum(amount), 0)).where(*where).scalar_subquery()
