"""Who did what and when, for every change that a person makes. Only ever added to."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from serve_app.domain.units import Moment, TenantId
from serve_app.ledger.tables import admin_acts


@dataclass(frozen=True, slots=True)
class Act:
    """A change about to be made: by whom and when."""

    who: str
    """A user of the command line, or ``key <id>`` of an administrator's API key."""

    now: Moment


@dataclass(frozen=True, slots=True)
class Remembered:
    """A change that was made."""

    id: int
    at: Moment
    who: str
    act: str
    tenant: TenantId | None
    subject: str
    """Id of what was changed."""

    details: dict[str, Any]


def remember(
    connection: Connection,
    act: Act,
    what: str,
    tenant: TenantId | None,
    subject: str,
    details: dict[str, Any],
) -> None:
    """Part of the change's own transaction: neither is there without the other."""
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
    """Changes in the order in which they were made, of one tenant or of all."""
    query = select(admin_acts).where(admin_acts.c.id > after)
    if tenant is not None:
        query = query.where(admin_acts.c.tenant_id == tenant)
    rows = connection.execute(query.order_by(admin_acts.c.id).limit(count_max))
    return [
        Remembered(row.id, row.at, row.who, row.act, row.tenant_id, row.subject, row.details)
        for row in rows
    ]
