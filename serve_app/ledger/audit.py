"""Proof that no credit was made or lost, for tests and for operators who want to know."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, select

from serve_app.domain.units import Credits, TenantId
from serve_app.ledger.store import PENDING
from serve_app.ledger.tables import charges, grants, reservations, tenants


@dataclass(frozen=True, slots=True)
class Balance:
    """Where a tenant's credit is. ``granted`` is what everything else must add up to."""

    tenant: TenantId
    granted: Credits
    available: Credits
    pending: Credits
    charged: Credits

    @property
    def adds_up(self) -> bool:
        parts = (self.available, self.pending, self.charged)
        return self.granted == sum(parts) and min(parts) >= 0


def balances(connection: Connection) -> list[Balance]:
    """Every tenant's balance, by id; reads every grant and charge there is."""
    granted = _sum(grants.c.amount, grants.c.tenant_id == tenants.c.id)
    charged = _sum(charges.c.amount, charges.c.tenant_id == tenants.c.id)
    pending = _sum(
        reservations.c.amount,
        (reservations.c.tenant_id == tenants.c.id) & (reservations.c.state == PENDING),
    )
    rows = connection.execute(
        select(tenants.c.id, tenants.c.available, granted, pending, charged).order_by(tenants.c.id)
    )
    return [
        Balance(TenantId(row[0]), *(Credits(int(amount)) for amount in (row[2], row[1], *row[3:])))
        for row in rows
    ]


def audit(connection: Connection) -> list[Balance]:
    """The tenants whose books do not add up: none, unless something is badly wrong."""
    return [balance for balance in balances(connection) if not balance.adds_up]


def _sum(amount: ColumnElement[int], where: ColumnElement[bool]) -> ColumnElement[int]:
    return select(func.coalesce(func.sum(amount), 0)).where(where).scalar_subquery()
