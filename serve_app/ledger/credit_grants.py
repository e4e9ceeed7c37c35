"""Credit: granted, refunded, corrected. Every change is an `Act`, kept by `admin_acts`."""

import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from serve_app.domain.units import Credits, Moment, RequestId, TenantId
from serve_app.ledger.accounts import (
    AMOUNT_MAX,
    AccountConflict,
    AccountProblem,
    Tenant,
    UnknownAccount,
    check_text,
    create_tenant,
    find_tenant,
)
from serve_app.ledger.admin_acts import Act, remember
from serve_app.ledger.refunds import refunded
from serve_app.ledger.store import lock_accounts
from serve_app.ledger.tables import charges, grants, tenants

OTHER_GRANT = "the idempotency key stands for another grant"


@dataclass(frozen=True, slots=True)
class Grant:
    """What changed a tenant's credit, other than a charge."""

    id: str
    tenant: TenantId
    amount: Credits
    kind: str
    """``grant``, ``refund`` of a charge, or ``correction``, the only one that may be negative."""

    reason: str
    who: str
    created_at: Moment
    request_id: RequestId | None


@dataclass(frozen=True, slots=True)
class FirstCredit:
    """What a new tenant is granted at once, and why."""

    amount: Credits
    reason: str


def first_credit(wanted: Credits | None, free: Credits) -> FirstCredit:
    """``wanted`` by the operator, or else what every new tenant gets for free."""
    if wanted is None:
        return FirstCredit(free, "free credit")
    return FirstCredit(wanted, "first credit")


def open_account(connection: Connection, name: str, credit: FirstCredit, act: Act) -> Tenant:
    """A new tenant with its first credit, if that is not zero.

    Raises: AccountProblem.
    """
    tenant = create_tenant(connection, name, act)
    if credit.amount != 0:
        grant(connection, tenant.id, credit.amount, credit.reason, act)
    return find_tenant(connection, tenant.id)


def grant(
    connection: Connection,
    tenant: TenantId,
    amount: Credits,
    reason: str,
    act: Act,
    *,
    idempotency_key: str | None = None,
) -> Grant:
    """Add ``amount`` to what the tenant may spend; below zero it is a correction.

    Args:
        idempotency_key: Chosen by the caller; a second grant with it is the first one, not made
            again. So a payment that is reported twice is granted once.

    Raises:
        AccountProblem: There is no such tenant, it has less than a correction takes, the amount
            is absurd, or the key stands for another grant.
    """
    if amount == 0 or abs(amount) > AMOUNT_MAX:
        raise AccountProblem(f"an amount is at most {AMOUNT_MAX:,} micro-dollars, and not zero")
    if idempotency_key is not None:
        # Whoever comes second waits here, and then finds what the first one wrote.
        lock_accounts(connection, {tenant}, ())
        known = _grant_of(connection, idempotency_key)
        if known is not None:
            if (known.tenant, known.amount, known.request_id) != (tenant, amount, None):
                raise AccountConflict(OTHER_GRANT)
            return known
    kind = "grant" if amount > 0 else "correction"
    return _give(connection, tenant, amount, reason, act, kind=kind, key=idempotency_key)


def refund(
    connection: Connection,
    request_id: RequestId,
    amount: Credits | None,
    reason: str,
    act: Act,
    *,
    idempotency_key: str | None = None,
) -> Grant:
    """Give back ``amount`` of a request's charge, or what is left of it.

    Args:
        idempotency_key: Chosen by the caller; a second refund with it is the first one, not made
            again. Without an ``amount``, it stands for whatever was left then.

    Raises:
        AccountProblem: There is no such charge (or it is part of a day's sum by now), less is left
            of it, or the key stands for another grant.
    """
    query = select(charges).where(charges.c.request_id == request_id)
    found = connection.execute(query).one_or_none()
    if found is not None:
        lock_accounts(connection, {found.tenant_id}, ())
        # Again, since it may have been reversed before the lock was ours.
        found = connection.execute(query).one_or_none()
    known = None if idempotency_key is None else _grant_of(connection, idempotency_key)
    if known is not None:
        if known.request_id != request_id or amount not in (None, known.amount):
            raise AccountConflict(OTHER_GRANT)
        return known
    if found is None:
        raise UnknownAccount(f"charge for a request '{request_id}'")
    charge = found
    left = charge.amount - refunded(connection, request_id)
    wanted = Credits(left) if amount is None else amount
    if not 0 < wanted <= left:
        raise AccountProblem(
            f"{left:,} micro-dollars are left of that charge; a refund is above zero and within it"
        )
    return _give(
        connection,
        charge.tenant_id,
        wanted,
        reason,
        act,
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
    """Everything that changed the tenant's credit, other than charges; oldest first.

    Args:
        after: When the last grant of the page before was made, and its id.
        count_max: Of grants.
    """
    order = (grants.c.created_at, grants.c.id)
    query = select(grants).where(grants.c.tenant_id == tenant).order_by(*order).limit(count_max)
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*after))
    return [_grant(row) for row in connection.execute(query).mappings()]


def _give(  # noqa: PLR0913 - what a grant is
    connection: Connection,
    tenant: TenantId,
    amount: Credits,
    reason: str,
    act: Act,
    *,
    kind: str,
    request_id: RequestId | None = None,
    key: str | None = None,
) -> Grant:
    check_text("reason", reason, 512)
    check_text("who", act.who, 128)
    given = connection.execute(
        update(tenants)
        .where(tenants.c.id == tenant, tenants.c.available + amount >= 0)
        .values(available=tenants.c.available + amount)
    )
    if given.rowcount == 0:
        find_tenant(connection, tenant)  # Raises if there is none.
        raise AccountProblem("the tenant has less than that")
    made = Grant(
        f"gr_{secrets.token_hex(8)}", tenant, amount, kind, reason, act.who, act.now, request_id
    )
    row = {
        "id": made.id,
        "tenant_id": tenant,
        "amount": amount,
        "reason": reason,
        "granted_by": act.who,
        "created_at": act.now,
        "kind": kind,
        "request_id": request_id,
        "idempotency_key": key,
    }
    try:
        with connection.begin_nested():
            connection.execute(insert(grants), row)
    except IntegrityError:
        # At the same time, for another tenant: the lock of this one did not keep that out.
        raise AccountConflict(OTHER_GRANT) from None
    details = {"amount": amount, "reason": reason, "grant": made.id}
    remember(connection, act, f"credit.{kind}", tenant, request_id or tenant, details)
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
