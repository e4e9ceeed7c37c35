"""The money path in SQL: reserve and settle. Decides nothing: `rules` does.

Every function runs inside the caller's write transaction and refuses before its first write. Any
number of gateways may do this at once: a tenant's row is the lock of everything that is the
tenant's, and `lock_accounts` takes several of them in one order, so that nobody waits in a circle.
"""

from collections import defaultdict
from collections.abc import Collection

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    delete,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from serve_app.domain.errors import OutOfCredit
from serve_app.domain.units import Credits, Moment, RequestId, TenantId
from serve_app.ledger import rules
from serve_app.ledger.rules import Reservation, Settlement, State
from serve_app.ledger.tables import charges, reservations, tenants
from serve_app.ports import Usage

PENDING: ColumnElement[str] = literal_column("'pending'")
"""Written out, not bound: only then do the databases see that the partial index covers it."""

_lock = (
    select(tenants.c.id)
    .where(
        or_(
            tenants.c.id.in_(bindparam("tenant_ids", expanding=True)),
            tenants.c.id.in_(
                select(reservations.c.tenant_id).where(
                    reservations.c.id.in_(bindparam("request_ids", expanding=True))
                )
            ),
        )
    )
    .order_by(tenants.c.id)
    .with_for_update(key_share=True)
)
_find = select(reservations).where(reservations.c.id == bindparam("request_id"))
_available = select(tenants.c.available).where(tenants.c.id == bindparam("tenant_id"))
_take = (
    update(tenants)
    .where(tenants.c.id == bindparam("tenant_id"), tenants.c.available >= bindparam("amount"))
    .values(available=tenants.c.available - bindparam("amount"))
)
_give_back = (
    update(tenants)
    .where(tenants.c.id == bindparam("tenant_id"))
    .values(available=tenants.c.available + bindparam("amount"))
)
_settle_row = (
    update(reservations)
    .where(reservations.c.id == bindparam("request_id"), reservations.c.state == bindparam("was"))
    .values(
        state=bindparam("new_state"),
        charged=bindparam("new_charged"),
        documents=bindparam("new_documents"),
        tokens=bindparam("new_tokens"),
        settled_at=bindparam("now"),
    )
)
_uncharge = delete(charges).where(charges.c.request_id == bindparam("id"))
_due = (
    select(reservations.c.id, reservations.c.tenant_id)
    .where(reservations.c.state == PENDING, reservations.c.expires_at <= bindparam("now"))
    .order_by(reservations.c.expires_at)
    .limit(bindparam("count"))
)
_expire_rows = (
    update(reservations)
    .where(
        reservations.c.id.in_(bindparam("ids", expanding=True)),
        reservations.c.state == PENDING,
    )
    .values(state=State.EXPIRED, settled_at=bindparam("now"))
    .returning(reservations.c.tenant_id, reservations.c.amount)
)


def lock_accounts(
    connection: Connection, tenant_ids: Collection[TenantId], request_ids: Collection[RequestId]
) -> None:
    """Keep others from these tenants, and from the tenants of these reservations.

    Must be a transaction's first statement. SQLite needs none of it: it has one writer at a time.
    """
    if connection.dialect.name == "sqlite":
        return
    connection.execute(
        _lock, {"tenant_ids": sorted(tenant_ids), "request_ids": sorted(request_ids)}
    ).all()


def reserve(connection: Connection, wanted: Reservation) -> None:
    """Set ``wanted.amount`` aside.

    Raises: OutOfCredit, ReservationClosed.
    """
    if not rules.must_reserve(_reservation(connection, wanted.request_id), wanted):
        return
    account = {"tenant_id": wanted.tenant, "amount": wanted.amount}
    if connection.execute(_take, account).rowcount == 0:
        available = connection.scalar(_available, {"tenant_id": wanted.tenant})
        raise OutOfCredit(wanted.amount, Credits(available or 0))
    connection.execute(
        insert(reservations),
        {
            "id": wanted.request_id,
            "tenant_id": wanted.tenant,
            "key_id": wanted.key_id,
            "model": wanted.model,
            "amount": wanted.amount,
            "state": wanted.state.value,
            "charged": wanted.charged,
            "documents": 0,
            "tokens": 0,
            "created_at": wanted.created_at,
            "expires_at": wanted.expires_at,
        },
    )


def commit(
    connection: Connection, request_id: RequestId, amount: Credits, usage: Usage, now: Moment
) -> None:
    """Charge ``amount``; what was reserved beyond it goes back.

    Raises: ReservationClosed.
    """
    known = _reservation(connection, request_id)
    settlement = rules.commit(known, amount)
    if known is None or settlement is None:
        return
    _settle(connection, known, settlement, usage, now)
    connection.execute(
        insert(charges),
        {
            "request_id": known.request_id,
            "tenant_id": known.tenant,
            "key_id": known.key_id,
            "model": known.model,
            "documents": usage.documents,
            "tokens": usage.tokens,
            "amount": amount,
            "charged_at": now,
        },
    )


def void(connection: Connection, request_id: RequestId, usage: Usage, now: Moment) -> None:
    """Give a pending reservation back; does nothing to any other, or to none."""
    known = _reservation(connection, request_id)
    settlement = rules.void(known)
    if known is not None and settlement is not None:
        _settle(connection, known, settlement, usage, now)


def reverse(connection: Connection, request_id: RequestId, usage: Usage, now: Moment) -> None:
    """Void, and take back the charge of a commit whose outcome its caller never learned."""
    known = _reservation(connection, request_id)
    settlement = rules.reverse(known)
    if known is not None and settlement is not None:
        connection.execute(_uncharge, {"id": request_id})
        _settle(connection, known, settlement, usage, now)


def expire_due(connection: Connection, now: Moment, count_max: int) -> int:
    """Give back up to ``count_max`` reservations whose time has come; answers how many.

    The transaction must do nothing else, because the locks come after the first look.
    """
    due = connection.execute(_due, {"now": now, "count": count_max}).all()
    if not due:
        return 0
    lock_accounts(connection, {row.tenant_id for row in due}, ())
    # Another gateway may have settled some of them since: those are not pending any more.
    expired = connection.execute(_expire_rows, {"ids": [row.id for row in due], "now": now}).all()
    returned: defaultdict[str, int] = defaultdict(int)
    for row in expired:
        returned[row.tenant_id] += row.amount
    for tenant_id, amount in returned.items():
        connection.execute(_give_back, {"tenant_id": tenant_id, "amount": amount})
    return len(expired)


def _reservation(connection: Connection, request_id: RequestId) -> Reservation | None:
    row = connection.execute(_find, {"request_id": request_id}).one_or_none()
    if row is None:
        return None
    return Reservation(
        request_id=row.id,
        tenant=row.tenant_id,
        key_id=row.key_id,
        model=row.model,
        amount=row.amount,
        created_at=row.created_at,
        expires_at=row.expires_at,
        state=State(row.state),
        charged=row.charged,
    )


def _settle(
    connection: Connection,
    known: Reservation,
    settlement: Settlement,
    usage: Usage,
    now: Moment,
) -> None:
    written = connection.execute(
        _settle_row,
        {
            "request_id": known.request_id,
            "was": known.state.value,
            "new_state": settlement.state.value,
            "new_charged": settlement.charged,
            "new_documents": usage.documents,
            "new_tokens": usage.tokens,
            "now": now,
        },
    )
    assert written.rowcount == 1, "the tenant's lock was not held"
    if settlement.returned > 0:
        account = {"tenant_id": known.tenant, "amount": settlement.returned}
        connection.execute(_give_back, account)
