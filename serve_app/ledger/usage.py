"""What was computed and charged, summed up for a report."""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Subquery,
    Table,
    and_,
    func,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.sql.elements import ColumnElement

from serve_app.domain.units import Credits, Moment, TenantId, Tokens
from serve_app.ledger.tables import charges, reservations, tenants

MILLISECONDS_PER_DAY = 86_400_000


class Grouping(StrEnum):
    """What a row of the report stands for."""

    DAY = "day"
    MODEL = "model"
    KEY = "key"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which requests count: those settled from ``since`` on and before ``until``."""

    tenant: TenantId | None = None
    since: Moment | None = None
    until: Moment | None = None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One group's sums. Documents and tokens include what was computed but not charged."""

    group: str
    """A tenant's name, a key's id, a model, or the first moment of a day in UTC."""

    requests: int
    requests_not_charged: int
    """Requests that ended without an answer: the client hung up, or something failed."""

    documents: int
    documents_not_charged: int
    tokens: Tokens
    charged: Credits


def usage(connection: Connection, which: UsageFilter, by: Grouping) -> list[UsageRow]:
    """Sums per group, in the group's order; groups without requests have no row."""
    settled = _settled(which).subquery()
    group = _group(settled, by)
    free = 1 - settled.c.paid
    query = (
        select(
            group,
            func.count(),
            func.sum(free),
            func.sum(settled.c.documents),
            func.sum(settled.c.documents * free),
            func.sum(settled.c.tokens),
            func.sum(settled.c.amount),
        )
        .select_from(settled.join(tenants, tenants.c.id == settled.c.tenant_id))
        .group_by(group)
        .order_by(group)
    )
    return [
        UsageRow(
            group=str(row[0]),
            requests=int(row[1]),
            requests_not_charged=int(row[2]),
            documents=int(row[3]),
            documents_not_charged=int(row[4]),
            tokens=Tokens(int(row[5])),
            charged=Credits(int(row[6])),
        )
        for row in connection.execute(query)
    ]


def _settled(which: UsageFilter) -> CompoundSelect[tuple[object, ...]]:
    """Every settled request: the charges, and the reservations that ended without one."""
    zero: ColumnElement[int] = literal_column("0").label("amount")
    # Written out, not bound: only then do the databases see that the partial index covers it.
    not_charged: ColumnElement[bool] = literal_column("state IN ('voided', 'expired')")
    return union_all(
        select(
            *_common(charges), charges.c.amount, charges.c.charged_at.label("at"), _paid(1)
        ).where(_matches(which, charges, charges.c.charged_at)),
        select(*_common(reservations), zero, reservations.c.settled_at.label("at"), _paid(0)).where(
            not_charged, _matches(which, reservations, reservations.c.settled_at)
        ),
    )


def _common(table: Table) -> list[ColumnElement[object]]:
    return [table.c[name] for name in ("tenant_id", "key_id", "model", "documents", "tokens")]


def _paid(paid: int) -> ColumnElement[int]:
    return literal_column(str(paid)).label("paid")


def _matches(which: UsageFilter, table: Table, at: ColumnElement[int]) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = [at.is_not(None)]
    if which.tenant is not None:
        conditions.append(table.c.tenant_id == which.tenant)
    if which.since is not None:
        conditions.append(at >= which.since)
    if which.until is not None:
        conditions.append(at < which.until)
    return and_(*conditions)


def _group(settled: Subquery, by: Grouping) -> ColumnElement[object]:
    match by:
        case Grouping.DAY:
            return settled.c.at - settled.c.at % literal_column(str(MILLISECONDS_PER_DAY))
        case Grouping.MODEL:
            return settled.c.model
        case Grouping.KEY:
            return settled.c.key_id
        case Grouping.TENANT:
            return tenants.c.name
