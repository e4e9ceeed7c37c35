"""Audit log of grants and of changes to tenants and keys. Entries are never changed or deleted."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from serve_app.domain.units import Moment, TenantId
from serve_app.ledger.db.tables import audit_log


@dataclass(frozen=True, slots=True)
class AuditContext:
    """The author and time of a change."""

    who: str
    """A command-line user, or ``key <id>`` for a change over HTTP."""

    now: Moment


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One audit log entry."""

    id: int
    at: Moment
    who: str
    action: str
    tenant: TenantId | None
    subject: str
    details: dict[str, Any]


def record(
    connection: Connection,
    audit: AuditContext,
    action: str,
    tenant: TenantId | None,
    subject: str,
    details: dict[str, Any],
) -> None:
    """Add an entry in the transaction of the change, so that both commit or neither does."""
    row = {
        "at": audit.now,
        "who": audit.who,
        "action": action,
        "tenant_id": tenant,
        "subject": subject,
        "details": details,
    }
    connection.execute(insert(audit_log), row)


def read_entries(
    connection: Connection, tenant: TenantId | None = None, *, after: int = 0, count_max: int = 100
) -> list[AuditEntry]:
    query = select(audit_log).where(audit_log.c.id > after)
    if tenant is not None:
        query = query.where(audit_log.c.tenant_id == tenant)
    rows = connection.execute(query.order_by(audit_log.c.id).limit(count_max))
    return [
        AuditEntry(row.id, row.at, row.who, row.action, row.tenant_id, row.subject, row.details)
        for row in rows
    ]
