"""Check that each tenant's credit adds up."""

from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Table,
    and_,
    func,
    select,
    true,
    union_all,
)

from serve_app.domain.units import Credits, TenantId
from serve_app.ledger.db.tables import PENDING, charges, grants, reservations, tenants, usage_days


@dataclass(frozen=True, slots=True)
class Balance:
    """A tenant's credit by state. The other amounts must add up to ``granted``."""

    tenant: TenantId
    granted: Credits
    available: Credits
    pending: Credits
    charged: Credits

    @property
    def adds_up(self) -> bool:
        parts = (self.available, self.pending, self.charged)
        return self.granted == sum(parts) and min(parts) >= 0


def balances(connection: Connection, tenant: TenantId | None = None) -> list[Balance]:
    """Return balances by tenant id. Reads every grant and charge of these tenants."""
    charged = union_all(
        _sums(charges, charges.c.amount, tenant), _sums(usage_days, usage_days.c.charged, tenant)
    ).subquery()
    parts = [
        _sums(grants, grants.c.amount, tenant).subquery(),
        _sums(
            reservations, reservations.c.amount, tenant, reservations.c.state == PENDING
        ).subquery(),
        select(charged.c.tenant_id, func.sum(charged.c.total).label("total"))
        .group_by(charged.c.tenant_id)
        .subquery(),
    ]
    totals = (func.coalesce(part.c.total, 0) for part in parts)
    query = select(tenants.c.id, tenants.c.available, *totals)
    joined: FromClause = tenants
    for part in parts:
        joined = joined.outerjoin(part, part.c.tenant_id == tenants.c.id)
    if tenant is not None:
        query = query.where(tenants.c.id == tenant)
    rows = connection.execute(query.select_from(joined).order_by(tenants.c.id))
    return [
        Balance(
            tenant=row[0],
            available=row[1],
            granted=Credits(int(row[2])),
            pending=Credits(int(row[3])),
            charged=Credits(int(row[4])),
        )
        for row in rows
    ]


def check_balances(connection: Connection) -> list[Balance]:
    return [balance for balance in balances(connection) if not balance.adds_up]


def _sums(
    table: Table,
    amount: ColumnElement[int],
    tenant: TenantId | None,
    counts: ColumnElement[bool] | None = None,
) -> Select[tuple[str, int]]:
    where = true() if counts is None else counts
    if tenant is not None:
        where = and_(where, table.c.tenant_id == tenant)
    return (
        select(table.c.tenant_id, func.sum(amount).label("total"))
        .where(where)
        .group_by(table.c.tenant_id)
    )
