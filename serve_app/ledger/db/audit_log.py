"""Audit log of administrative changes. Entries are never changed or deleted."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from serve_app.domain.units import Moment, TenantId
from serve_app.ledger.db.tables import admin_acts


@dataclass(frozen=True, slots=True)
class Act:
    """The author and time of a change."""

    who: str
    """A command-line user, or ``key <id>`` for an administrator's API key."""

    now: Moment


@dataclass(frozen=True, slots=True)
class Remembered:
    """One audit log entry."""

    id: int
    at: Moment
    who: str
    act: str
    tenant: TenantId | None
    subject: str
    details: dict[str, Any]


def remember(
    connection: Connection,
    act: Act,
    what: str,
    tenant: TenantId | None,
    subject: str,
    details: dict[str, Any],
) -> None:
    """Add an entry in the transaction of the change, so that both commit or neither does."""
    row = {
        "at": act.now,
        "who": act.who,
        "act": what,
        "tenant_id": tenant,
        "subject": subject,
        "details": details,
    }
    connection.execute(insert(admin_acts), row)


def remembered(
    connection: Connection, tenant: TenantId | None = None, *, after: int = 0, count_max: int = 100
) -> list[Remembered]:
    """Return the changes of one tenant or of all tenants, oldest first."""
    query = select(admin_acts).where(admin_acts.c.id > after)
    if tenant is not None:
        query = query.where(admin_acts.c.tenant_id == tenant)
    rows = connection.execute(query.order_by(admin_acts.c.id).limit(count_max))
    return [
        Remembered(row.id, row.at, row.who, row.act, row.tenant_id, row.subject, row.details)
        for row in rows
    ]
