"""The money path in SQL: reserve and settle. Decides nothing: `rules` does.

Every function runs inside the caller's write transaction and refuses before its first write. Any
number of gateways may do this at once: a tenant's row is the lock of everything that is the
tenant's, and `lock_accounts` takes several of them in one order, so that nobody waits in a circle.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from serve_app.domain.model import RateLimitState
from serve_app.domain.units import Credits, KeyId, Moment, RequestId, TenantId
from serve_app.ledger import caller_limits, outbox, rules, spending
from serve_app.ledger.caller_limits import NOT_LIMITED, Demand
from serve_app.ledger.months import month_of
from serve_app.ledger.rules import Reservation, Settlement, State
from serve_app.ledger.tables import api_keys, charges, reservations, tenants
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
    .returning(
        reservations.c.tenant_id,
        reservations.c.key_id,
        reservations.c.key_capped,
        reservations.c.created_at,
        reservations.c.amount,
    )
)
_touch = (
    update(api_keys)
    .where(
        api_keys.c.id == bindparam("key_id"),
        func.coalesce(api_keys.c.last_used_at, 0) < bindparam("now"),
    )
    .values(last_used_at=bindparam("now"))
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


def reserve(
    connection: Connection,
    wanted: Reservation,
    demand: Demand = NOT_LIMITED,
    *,
    events: bool = False,
) -> tuple[RateLimitState, ...]:
    """Set ``wanted.amount`` aside; answers where that leaves the caller with its limits.

    ``events``: tell the outbox when little credit is left.

    Raises:
        ReservationClosed, RateLimited, TooLarge, SpendCapReached, OutOfCredit
    """
    if not rules.must_reserve(_reservation(connection, wanted.request_id), wanted):
        return ()
    admitted = caller_limits.check(connection, wanted, demand)
    left, alerts_below = spending.take(connection, wanted)
    caller_limits.count(connection, admitted)
    below = rules.crossed(alerts_below, left, wanted.amount)
    if below is not None:
        outbox.tell_low_credit(connection, wanted, left, below, events=events)
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
            "key_capped": wanted.key_capped,
        },
    )
    return admitted.states


def commit(
    connection: Connection,
    request_id: RequestId,
    amount: Credits,
    usage: Usage,
    now: Moment,
    *,
    events: bool = False,
) -> None:
    """Charge ``amount``; what was reserved beyond it goes back. ``events``: tell the outbox.

    Raises: ReservationClosed.
    """
    known = _reservation(connection, request_id)
    settlement = rules.commit(known, amount)
    if known is None or settlement is None:
        return
    _settle(connection, known, settlement, usage, now)
    charge = {
        "request_id": known.request_id,
        "tenant_id": known.tenant,
        "key_id": known.key_id,
        "model": known.model,
        "documents": usage.documents,
        "tokens": usage.tokens,
        "amount": amount,
        "charged_at": now,
    }
    connection.execute(insert(charges), charge)
    if events:
        outbox.tell_charge(connection, charge)


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
        outbox.take_back(connection, request_id)
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
    returned: Counter[tuple[TenantId, KeyId | None, int]] = Counter()
    for row in expired:
        key_id = row.key_id if row.key_capped else None
        returned[row.tenant_id, key_id, month_of(row.created_at)] += row.amount
    for (tenant, key_id, month), amount in returned.items():
        spending.give_back(connection, tenant, key_id, month, Credits(amount))
    return len(expired)


def touch_keys(connection: Connection, used: Mapping[KeyId, Moment]) -> None:
    """Remember when each key was last used. The transaction must do nothing else."""
    for key_id, moment in sorted(used.items()):
        connection.execute(_touch, {"key_id": key_id, "now": moment})


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
        key_capped=row.key_capped,
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
        key_id = known.key_id if known.key_capped else None
        month = month_of(known.created_at)
        spending.give_back(connection, known.tenant, key_id, month, settlement.returned)
