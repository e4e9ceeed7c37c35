"""A tenant's credit: available, reserved, and spent this month."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from serve_app.domain.units import Credits, Moment, TenantId
from serve_app.ledger.accounts.tenant_accounts import Tenant, find_tenant
from serve_app.ledger.db.tables import PENDING, reservations, tenants
from serve_app.ledger.money.calendar import month_of
from serve_app.ledger.reports.limit_use import spent


@dataclass(frozen=True, slots=True)
class CreditState:
    """A tenant's credit at one moment."""

    tenant: Tenant
    available: Credits
    reserved: Credits
    """For running requests."""

    month: int
    """The number yyyymm."""

    month_spent: Credits
    """Charged or reserved, as the monthly cap counts it."""


def credit_state(connection: Connection, tenant: TenantId, now: Moment) -> CreditState:
    """Raises: AccountProblem."""
    found = find_tenant(connection, tenant)
    reserved = (
        select(func.coalesce(func.sum(reservations.c.amount), 0))
        .where(reservations.c.tenant_id == tenant, reservations.c.state == PENDING)
        .scalar_subquery()
    )
    # One statement, so that available and reserved credit belong together.
    query = select(tenants, reserved.label("reserved")).where(tenants.c.id == tenant)
    row = connection.execute(query).mappings().one()
    return CreditState(
        found,
        Credits(row["available"]),
        Credits(int(row["reserved"])),
        month_of(now),
        spent(row, now),
    )
