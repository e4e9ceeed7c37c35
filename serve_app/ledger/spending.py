"""Credit out of an account and back into it, and what that leaves of the month's caps.

Inside the caller's transaction, which holds the tenant's lock. A tenant's row counts what is
reserved or charged in a month whether or not there is a cap; a key's only while it has one.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    Update,
    bindparam,
    case,
    or_,
    select,
    update,
)

from serve_app.domain.errors import OutOfCredit, SpendCapReached
from serve_app.domain.units import Credits, KeyId, TenantId
from serve_app.ledger.months import month_of
from serve_app.ledger.rules import Reservation
from serve_app.ledger.tables import api_keys, tenants


def _spent(table: Table) -> ColumnElement[int]:
    """Of the month that ``:month`` belongs to. The stored month never goes back, so that a gateway
    whose clock is behind does not forget what was spent."""
    return case((table.c.spent_month >= bindparam("month"), table.c.spent_amount), else_=0)


def _spend(table: Table) -> Update:
    """``:amount`` more for the row ``:row_id``, unless that passes its cap of the month."""
    spent = _spent(table) + bindparam("amount")
    later = table.c.spent_month >= bindparam("month")
    return (
        update(table)
        .where(
            table.c.id == bindparam("row_id"),
            or_(table.c.month_amount_max.is_(None), spent <= table.c.month_amount_max),
        )
        .values(
            spent_amount=spent,
            spent_month=case((later, table.c.spent_month), else_=bindparam("month")),
        )
    )


def _unspend(table: Table) -> Update:
    """``:amount`` less for the row ``:row_id``, if what was reserved in ``:month`` still counts."""
    counts = table.c.spent_month == bindparam("month")
    rest = table.c.spent_amount - bindparam("amount")
    return (
        update(table)
        .where(table.c.id == bindparam("row_id"))
        .values(spent_amount=case((counts, rest), else_=table.c.spent_amount))
    )


_account = select(
    tenants.c.available, tenants.c.month_amount_max, _spent(tenants).label("spent")
).where(tenants.c.id == bindparam("row_id"))
_take = (
    _spend(tenants)
    .where(tenants.c.available >= bindparam("amount"))
    .values(available=tenants.c.available - bindparam("amount"))
    .returning(tenants.c.available, tenants.c.alerts_below)
)
_give_back = _unspend(tenants).values(available=tenants.c.available + bindparam("amount"))
_key_room = select(api_keys.c.month_amount_max, _spent(api_keys).label("spent")).where(
    api_keys.c.id == bindparam("row_id")
)
_take_of_key = _spend(api_keys)
_give_back_to_key = _unspend(api_keys)


def take(connection: Connection, wanted: Reservation) -> tuple[Credits, Sequence[int]]:
    """Take ``wanted.amount``; answers what is left, and the tenant's ``alerts_below``.

    Raises:
        OutOfCredit, SpendCapReached: Nothing was written.
    """
    taking = {"amount": wanted.amount, "month": month_of(wanted.created_at)}
    if wanted.key_capped:
        _check_key_cap(connection, wanted.key_id, taking)
    taken = connection.execute(_take, taking | {"row_id": wanted.tenant}).one_or_none()
    if taken is None:
        raise _refusal(connection, wanted, taking)
    if wanted.key_capped:
        connection.execute(_take_of_key, taking | {"row_id": wanted.key_id})
    return Credits(taken.available), taken.alerts_below


def give_back(
    connection: Connection, tenant: TenantId, key_id: KeyId | None, month: int, amount: Credits
) -> None:
    """Give back what was taken in ``month``; ``key_id``: whose cap counted it too."""
    returned = {"amount": amount, "month": month}
    connection.execute(_give_back, returned | {"row_id": tenant})
    if key_id is not None:
        connection.execute(_give_back_to_key, returned | {"row_id": key_id})


def _check_key_cap(connection: Connection, key_id: KeyId, taking: Mapping[str, int]) -> None:
    """Before the first write; what it finds stays true, since the tenant is locked."""
    room = connection.execute(_key_room, {**taking, "row_id": key_id}).one()
    cap = room.month_amount_max
    if cap is not None and room.spent + taking["amount"] > cap:
        raise SpendCapReached("key", Credits(cap))


def _refusal(
    connection: Connection, wanted: Reservation, taking: Mapping[str, int]
) -> OutOfCredit | SpendCapReached:
    """Why `_take` took nothing."""
    account = connection.execute(_account, {**taking, "row_id": wanted.tenant}).one_or_none()
    if account is None or account.available < wanted.amount:
        return OutOfCredit(wanted.amount, Credits(0 if account is None else account.available))
    return SpendCapReached("tenant", Credits(account.month_amount_max))
