"""Single ledger operations, each in the caller's write transaction.

Gateways can run them concurrently: a tenant's row is the lock of all its data. Groups of operations
use `books` directly.
"""

from collections.abc import Collection, Mapping

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    func,
    literal_column,
    select,
    update,
)

from serve_app.domain.model import RateLimitState
from serve_app.domain.units import Credits, KeyId, Moment, RequestId, TenantId
from serve_app.ledger.db.tables import api_keys, reservations
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.posting.books import Books
from serve_app.ledger.posting.rate_limits import NOT_LIMITED, Demand
from serve_app.ports import Usage

PENDING: ColumnElement[str] = literal_column("'pending'")
"""A literal, not a parameter: otherwise the databases would not use the partial index."""

_due = (
    select(reservations.c.id, reservations.c.tenant_id)
    .where(reservations.c.state == PENDING, reservations.c.expires_at <= bindparam("now"))
    .order_by(reservations.c.expires_at)
    .limit(bindparam("count"))
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
    """Lock these tenants and the tenants of these reservations.

    Must run the first statement of the transaction.
    """
    Books.open(connection, tenant_ids, request_ids)


def reserve(
    connection: Connection, wanted: Reservation, demand: Demand = NOT_LIMITED
) -> tuple[RateLimitState, ...]:
    """See `Books.reserve`."""
    books = Books.open(connection, {wanted.tenant}, {wanted.request_id})
    states = books.reserve(wanted, demand)
    books.write()
    return states


def commit(
    connection: Connection, request_id: RequestId, amount: Credits, usage: Usage, now: Moment
) -> None:
    """See `Books.commit`."""
    books = Books.open(connection, (), {request_id})
    books.commit(request_id, amount, usage, now)
    books.write()


def void(connection: Connection, request_id: RequestId, usage: Usage, now: Moment) -> None:
    """See `Books.void`."""
    books = Books.open(connection, (), {request_id})
    books.void(request_id, usage, now)
    books.write()


def reverse(connection: Connection, request_id: RequestId, usage: Usage, now: Moment) -> None:
    """See `Books.reverse`."""
    books = Books.open(connection, (), {request_id})
    books.reverse(request_id, usage, now)
    books.write()


def expire_due(connection: Connection, now: Moment, count_max: int) -> int:
    """Expire up to ``count_max`` overdue reservations and return their number.

    The transaction must do nothing else, because it reads before it takes the locks.
    """
    due = connection.execute(_due, {"now": now, "count": count_max}).all()
    if not due:
        return 0
    # Another gateway may have settled some of them in the meantime; `expire` skips these.
    books = Books.open(connection, {row.tenant_id for row in due}, {row.id for row in due})
    count = books.expire(now)
    books.write()
    return count


def touch_keys(connection: Connection, used: Mapping[KeyId, Moment]) -> None:
    """Record the time of each key's last use. The transaction must do nothing else."""
    if used:
        rows = [{"key_id": key_id, "now": moment} for key_id, moment in sorted(used.items())]
        connection.execute(_touch, rows)
