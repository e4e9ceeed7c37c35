"""Refunds of a charge, and their reversal."""

import secrets

from sqlalchemy import Connection, func, insert, select

from serve_app.domain.units import Credits, Moment, RequestId, TenantId
from serve_app.ledger.db.audit_log import AuditContext, record
from serve_app.ledger.db.tables import grants

REVERSED = "the refunded charge was reversed"


def refunded(connection: Connection, request_id: RequestId) -> Credits:
    """Return the net amount refunded, after the negative entries of `take_back`."""
    total = select(func.sum(grants.c.amount)).where(grants.c.request_id == request_id)
    return Credits(int(connection.scalar(total) or 0))


def take_back(
    connection: Connection, tenant: TenantId, request_id: RequestId, amount: Credits, now: Moment
) -> None:
    """The caller updates the available credit."""
    row = {
        "id": f"gr_{secrets.token_hex(8)}",
        "tenant_id": tenant,
        "amount": -amount,
        "reason": REVERSED,
        "granted_by": "ledger",
        "created_at": now,
        "kind": "correction",
        "request_id": request_id,
        "idempotency_key": None,
    }
    connection.execute(insert(grants), row)
    details = {"amount": -amount, "reason": REVERSED, "grant": row["id"]}
    record(
        connection, AuditContext("ledger", now), "credit.correction", tenant, request_id, details
    )
