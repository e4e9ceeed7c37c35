"""SQL statements of `books`, which read and write a whole group.

All transactions lock accounts before reservations. A transaction that settles a reservation also
locks its row. Otherwise PostgreSQL would return the row's version from before the wait for the
account's lock.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Executable, Row, bindparam, delete, insert, or_, select, update

from serve_app.domain.units import Credits, Moment, RequestId, TenantId
from serve_app.domain.usage import rounded_latency_ms
from serve_app.ledger.db.pipelined import UNREAD
from serve_app.ledger.db.tables import api_keys, charges, reservations, tenants
from serve_app.ledger.money.reservation import Reservation, State
from serve_app.ports import Usage

_account = (
    tenants.c.available,
    tenants.c.alerts_below,
    tenants.c.monthly_budget_micro_dollars,
    tenants.c.spent_month,
    tenants.c.spent_amount,
)
_accounts = (
    select(tenants.c.id.label("tenant_id"), *_account)
    # Locking in one order prevents deadlocks.
    .order_by(tenants.c.id)
    .with_for_update(key_share=True)
)
_is_named = tenants.c.id.in_(bindparam("tenant_ids", expanding=True))
_has_reservation = tenants.c.id.in_(
    select(reservations.c.tenant_id).where(
        reservations.c.id.in_(bindparam("request_ids", expanding=True))
    )
)
ACCOUNT = _accounts.where(tenants.c.id == bindparam("tenant_id"))
ACCOUNTS = _accounts.where(_is_named)
ACCOUNTS_AND_THOSE_OF_REQUESTS = _accounts.where(or_(_is_named, _has_reservation))
_is_known = reservations.c.id.in_(bindparam("request_ids", expanding=True))
KNOWN = select(reservations).where(_is_known).with_for_update(key_share=True)
_known_with_accounts = (
    select(reservations, *_account)
    .select_from(tenants.join(reservations, reservations.c.tenant_id == tenants.c.id))
    .order_by(tenants.c.id)
    .with_for_update(key_share=True, of=[tenants, reservations])
)
KNOWN_WITH_ACCOUNT = _known_with_accounts.where(reservations.c.id == bindparam("request_id"))
KNOWN_WITH_ACCOUNTS = _known_with_accounts.where(_is_known)
CAPPED_KEY = select(
    api_keys.c.monthly_budget_micro_dollars, api_keys.c.spent_month, api_keys.c.spent_amount
).where(api_keys.c.id == bindparam("key_id"))
WRITE_ACCOUNT = (
    update(tenants)
    .where(tenants.c.id == bindparam("row_id"))
    .values(
        # Adding a difference keeps the table's CHECK on the sum effective.
        available=tenants.c.available + bindparam("difference"),
        spent_month=bindparam("month"),
        spent_amount=bindparam("spent"),
    )
    .execution_options(**UNREAD)
)
WRITE_KEY = (
    update(api_keys)
    .where(api_keys.c.id == bindparam("row_id"))
    .values(spent_month=bindparam("month"), spent_amount=bindparam("spent"))
    .execution_options(**UNREAD)
)
SETTLE = (
    update(reservations)
    .where(reservations.c.id == bindparam("row_id"))
    .values(
        state=bindparam("new_state"),
        charged=bindparam("new_charged"),
        documents=bindparam("new_documents"),
        tokens=bindparam("new_tokens"),
        settled_at=bindparam("now"),
    )
    .execution_options(**UNREAD)
)
RESERVE = insert(reservations).execution_options(**UNREAD)
CHARGE = insert(charges).execution_options(**UNREAD)
UNCHARGE = delete(charges).where(charges.c.request_id == bindparam("row_id"))


def lock_accounts(connection: Connection, tenant_ids: Collection[TenantId]) -> None:
    """Lock these tenants: a tenant's row is the lock of all its data.

    Data of a tenant that a change depends on must be read after this call.
    """
    connection.execute(ACCOUNTS, {"tenant_ids": sorted(tenant_ids)}).all()


def write(connection: Connection, statement: Executable, rows: Sequence[dict[str, Any]]) -> None:
    # Drivers use a slower path for lists.
    if rows:
        connection.execute(statement, rows[0] if len(rows) == 1 else rows)


def reservation_of(row: Row[Any]) -> Reservation:
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
        revision=row.revision,
    )


def reserved_row(wanted: Reservation) -> dict[str, Any]:
    return {
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
        "settled_at": None,
        "key_capped": wanted.key_capped,
        "revision": wanted.revision,
    }


def settled_row(
    request_id: RequestId, state: State, charged: Credits, usage: Usage, now: Moment
) -> dict[str, Any]:
    return {
        "row_id": request_id,
        "new_state": state.value,
        "new_charged": charged,
        "new_documents": usage.documents,
        "new_tokens": usage.tokens,
        "now": now,
    }


def charged_row(known: Reservation, amount: Credits, usage: Usage, now: Moment) -> dict[str, Any]:
    """The latency lasts from the reservation to the charge, by one gateway's clock.

    It includes tokenization, the wait for a scorer and scoring.
    """
    return {
        "request_id": known.request_id,
        "tenant_id": known.tenant,
        "key_id": known.key_id,
        "model": known.model,
        "documents": usage.documents,
        "tokens": usage.tokens,
        "amount": amount,
        "charged_at": now,
        "revision": known.revision,
        "latency_ms": rounded_latency_ms(now - known.created_at),
    }
