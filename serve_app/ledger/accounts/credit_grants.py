"""Grants, refunds and corrections of credit."""

import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from serve_app.domain.units import Credits, Moment, RequestId, TenantId
from serve_app.ledger.accounts.tenant_accounts import (
    AMOUNT_MAX,
    AccountConflict,
    AccountProblem,
    Tenant,
    UnknownAccount,
    check_text,
    create_tenant,
    find_tenant,
)
from serve_app.ledger.db.audit_log import AuditContext, record
from serve_app.ledger.db.tables import charges, grants, tenants
from serve_app.ledger.posting.refunds import refunded
from serve_app.ledger.posting.sql import lock_accounts

OTHER_GRANT = "the idempotency key was already used for another grant"


@dataclass(frozen=True, slots=True)
class Grant:
    """A change of a tenant's credit, other than a charge."""

    id: str
    tenant: TenantId
    amount: Credits
    kind: str
    """``grant``, ``refund`` or ``correction``. Only a correction can be negative."""

    reason: str
    who: str
    created_at: Moment
    request_id: RequestId | None


@dataclass(frozen=True, slots=True)
class FirstCredit:
    """The first grant of a new tenant."""

    amount: Credits
    reason: str


def first_credit(wanted: Credits | None, free: Credits) -> FirstCredit:
    if wanted is None:
        return FirstCredit(free, "free credit")
    return FirstCredit(wanted, "first credit")


def open_account(
    connection: Connection, name: str, credit: FirstCredit, audit: AuditContext
) -> Tenant:
    """Create a tenant with its first credit. Raises: AccountProblem."""
    tenant = create_tenant(connection, name, audit)
    if credit.amount != 0:
        grant(connection, tenant.id, credit.amount, credit.reason, audit)
    return find_tenant(connection, tenant.id)


def grant(
    connection: Connection,
    tenant: TenantId,
    amount: Credits,
    reason: str,
    audit: AuditContext,
    *,
    idempotency_key: str | None = None,
) -> Grant:
    """Add ``amount`` to the available credit; a negative amount is a correction.

    A repeated ``idempotency_key`` returns the first grant. Raises: AccountProblem, also if the key
    belongs to a different grant.
    """
    if amount == 0 or abs(amount) > AMOUNT_MAX:
        raise AccountProblem(f"the amount must be at most {AMOUNT_MAX:,} micro-dollars, not zero")
    if idempotency_key is not None:
        # A concurrent repetition waits here.
        lock_accounts(connection, {tenant})
        known = _grant_of(connection, idempotency_key)
        if known is not None:
            if (known.tenant, known.amount, known.request_id) != (tenant, amount, None):
                raise AccountConflict(OTHER_GRANT)
            return known
    kind = "grant" if amount > 0 else "correction"
    return _give(connection, tenant, amount, reason, audit, kind=kind, key=idempotency_key)


def refund(
    connection: Connection,
    request_id: RequestId,
    amount: Credits | None,
    reason: str,
    audit: AuditContext,
    *,
    idempotency_key: str | None = None,
) -> Grant:
    """Refund ``amount`` of a request's charge, by default the part not yet refunded.

    A repeated ``idempotency_key`` returns the first refund. Without an ``amount``, it matches any.

    Raises: AccountProblem, also if the charge is already part of a daily sum, or the key belongs
    to a different grant.
    """
    query = select(charges).where(charges.c.request_id == request_id)
    found = connection.execute(query).one_or_none()
    if found is not None:
        lock_accounts(connection, {found.tenant_id})
        # Read again: it may have been reversed before the lock was held.
        found = connection.execute(query).one_or_none()
    known = None if idempotency_key is None else _grant_of(connection, idempotency_key)
    if known is not None:
        if known.request_id != request_id or amount not in (None, known.amount):
            raise AccountConflict(OTHER_GRANT)
        return known
    if found is None:
        raise UnknownAccount(f"charge for request '{request_id}'")
    charge = found
    left = charge.amount - refunded(connection, request_id)
    wanted = Credits(left) if amount is None else amount
    if not 0 < wanted <= left:
        raise AccountProblem(
            f"{left:,} micro-dollars of the charge can be refunded; a refund must be above zero and"
            " at most that amount"
        )
    return _give(
        connection,
        charge.tenant_id,
        wanted,
        reason,
        audit,
        kind="refund",
        request_id=request_id,
        key=idempotency_key,
    )


def list_grants(
    connection: Connection,
    tenant: TenantId,
    *,
    after: tuple[Moment, str] | None = None,
    count_max: int | None = None,
) -> list[Grant]:
    """Return grants of all kinds, oldest first.

    ``after`` is the creation time and id of the previous page's last grant.
    """
    order = (grants.c.created_at, grants.c.id)
    query = select(grants).where(grants.c.tenant_id == tenant).order_by(*order).limit(count_max)
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*after))
    return [_grant(row) for row in connection.execute(query).mappings()]


def _give(  # noqa: PLR0913 - the fields of a grant
    connection: Connection,
    tenant: TenantId,
    amount: Credits,
    reason: str,
    audit: AuditContext,
    *,
    kind: str,
    request_id: RequestId | None = None,
    key: str | None = None,
) -> Grant:
    check_text("reason", reason, 512)
    check_text("who", audit.who, 128)
    given = connection.execute(
        update(tenants)
        .where(tenants.c.id == tenant, tenants.c.available + amount >= 0)
        .values(available=tenants.c.available + amount)
    )
    if given.rowcount == 0:
        find_tenant(connection, tenant)  # Raises if the tenant does not exist.
        raise AccountProblem("the available credit is less than that")
    made = Grant(
        f"gr_{secrets.token_hex(8)}", tenant, amount, kind, reason, audit.who, audit.now, request_id
    )
    row = {
        "id": made.id,
        "tenant_id": tenant,
        "amount": amount,
        "reason": reason,
        "granted_by": audit.who,
        "created_at": audit.now,
        "kind": kind,
        "request_id": request_id,
        "idempotency_key": key,
    }
    try:
        with connection.begin_nested():
            connection.execute(insert(grants), row)
    except IntegrityError:
        # The lock does not cover a grant to another tenant.
        raise AccountConflict(OTHER_GRANT) from None
    details = {"amount": amount, "reason": reason, "grant": made.id}
    record(connection, audit, f"credit.{kind}", tenant, request_id or tenant, details)
    return made


def _grant_of(connection: Connection, idempotency_key: str) -> Grant | None:
    check_text("idempotency key", idempotency_key, 128)
    query = select(grants).where(grants.c.idempotency_key == idempotency_key)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _grant(row)


def _grant(row: RowMapping) -> Grant:
    return Grant(
        row["id"],
        row["tenant_id"],
        row["amount"],
        row["kind"],
        row["reason"],
        row["granted_by"],
        row["created_at"],
        row["request_id"],
    )
