"""The credit of a tenant: what is available, what is reserved, and what was spent this month."""

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
    """Set aside for requests that are running."""

    month: int
    """The month as the number yyyymm."""

    month_spent: Credits
    """Charged or reserved in this month, as the monthly cap counts it."""


def credit_state(connection: Connection, tenant: TenantId, now: Moment) -> CreditState:
    """Return the tenant's credit. Raises: AccountProblem."""
    found = find_tenant(connection, tenant)
    reserved = (
        select(func.coalesce(func.sum(reservations.c.amount), 0))
        .where(reservations.c.tenant_id == tenant, reservations.c.state == PENDING)
        .scalar_subquery()
    )
    # One statement, so that the available and the reserved credit belong together.
    query = select(tenants, reserved.label("reserved")).where(tenants.c.id == tenant)
    row = connection.execute(query).mappings().one()
    return CreditState(
        found,
        Credits(row["available"]),
        Credits(int(row["reserved"])),
        month_of(now),
        spent(row, now),
    )
