"""Replace old rows by daily sums; the totals stay the same.

    charges, voided and expired reservations ──after charges_kept_days──> usage_days, latency_days
    committed reservations ──a day after they were settled──> deleted; their charge stays
    rate windows ──unused for an hour──> deleted
    idempotency keys with their outcomes ──after 24 hours──> deleted
    comparisons with canaries ──after 7 days──> deleted

A step is a small transaction that locks the accounts of its tenants. Concurrent gateways never
count a request twice: it is either a row or part of a daily sum.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from serve_app.domain.units import Moment, RequestId, TenantId
from serve_app.ledger.db import comparisons
from serve_app.ledger.db.tables import (
    IS_COMMITTED,
    IS_NOT_CHARGED,
    IS_SETTLED,
    api_keys,
    charges,
    latency_days,
    rate_windows,
    reservations,
    tenants,
    usage_days,
)
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY, day_of
from serve_app.ledger.posting import keyed_requests
from serve_app.ledger.posting.sql import lock_accounts

RESERVATIONS_KEPT_MS = MILLISECONDS_PER_DAY
"""A committed reservation is kept for a reversal, which follows within seconds of the charge or of
the end of an outage."""

WINDOWS_KEPT_S = 3_600

TENANTS_SHARE = 10
"""A step of N rows retires charges of the tenants with the N / 10 oldest ones, so that few tenants
wait for it."""

_due_committed = (
    select(reservations.c.id, reservations.c.tenant_id)
    .where(IS_SETTLED, IS_COMMITTED, reservations.c.settled_at < bindparam("before"))
    .order_by(reservations.c.settled_at)
    .limit(bindparam("count"))
)
_due_not_charged = (
    select(reservations.c.id, reservations.c.tenant_id)
    .where(IS_SETTLED, IS_NOT_CHARGED, reservations.c.settled_at < bindparam("before"))
    .limit(bindparam("count"))
)
_tenants_of_oldest = (
    select(charges.c.tenant_id)
    .where(charges.c.charged_at < bindparam("before"))
    .order_by(charges.c.charged_at)
    .limit(bindparam("count"))
)
_due_charges = (
    select(charges.c.request_id.label("id"), charges.c.tenant_id)
    .where(
        charges.c.tenant_id.in_(bindparam("tenant_ids", expanding=True)),
        charges.c.charged_at < bindparam("before"),
    )
    .limit(bindparam("count"))
)
_forget_committed = delete(reservations).where(
    reservations.c.id.in_(bindparam("ids", expanding=True)), IS_COMMITTED
)
_take_not_charged = (
    delete(reservations)
    .where(reservations.c.id.in_(bindparam("ids", expanding=True)), IS_NOT_CHARGED)
    .returning(
        reservations.c.tenant_id,
        reservations.c.settled_at.label("at"),
        reservations.c.key_id,
        reservations.c.model,
        reservations.c.documents,
        reservations.c.tokens,
        literal_column("0").label("amount"),
        literal_column("1").label("not_charged"),
        literal_column("NULL").label("latency_ms"),
    )
)
_take_charges = (
    delete(charges)
    .where(
        charges.c.request_id.in_(bindparam("ids", expanding=True)),
        # A reversal must find its charge.
        ~exists().where(reservations.c.id == charges.c.request_id),
    )
    .returning(
        charges.c.tenant_id,
        charges.c.charged_at.label("at"),
        charges.c.key_id,
        charges.c.model,
        charges.c.documents,
        charges.c.tokens,
        charges.c.amount,
        literal_column("0").label("not_charged"),
        charges.c.latency_ms,
    )
)


@dataclass(slots=True)
class _Due:
    committed: Sequence[RequestId] = ()
    not_charged: Sequence[RequestId] = ()
    charges: Sequence[RequestId] = ()
    tenants: set[TenantId] = field(default_factory=set)


def step(connection: Connection, now: Moment, keep_days: int, count_max: int) -> int:
    """Retire up to ``count_max`` rows, and as many idempotency keys and comparisons.

    Returns their number, which is 0 if none is left. The transaction must do nothing else, because
    it reads before it takes the locks. A wrong ``now`` is harmless: rows retired too early still
    count. ``keep_days`` counts whole UTC days besides the current one.
    """
    assert keep_days >= 1
    due = _find_due(connection, now, keep_days, count_max)
    if due.tenants:
        retired = _retire(connection, due)
    else:
        retired = _forget_windows(connection, now, count_max)
    retired += comparisons.forget(connection, now, count_max)
    return retired + keyed_requests.forget(connection, now, count_max)


def _retire(connection: Connection, due: _Due) -> int:
    lock_accounts(connection, due.tenants)
    # Skips rows that another gateway has retired or reversed in the meantime.
    forgotten = connection.execute(_forget_committed, {"ids": due.committed}).rowcount
    taken = [
        *connection.execute(_take_not_charged, {"ids": due.not_charged}),
        *connection.execute(_take_charges, {"ids": due.charges}),
    ]
    _add_to_days(connection, taken)
    return forgotten + len(taken)


def _find_due(connection: Connection, now: Moment, keep_days: int, count_max: int) -> _Due:
    due = _Due()

    def find(query: Any, **parameters: Any) -> list[RequestId]:
        rows = connection.execute(query, parameters).all()
        due.tenants.update(row.tenant_id for row in rows)
        return [row.id for row in rows]

    due.committed = find(_due_committed, before=now - RESERVATIONS_KEPT_MS, count=count_max)
    before = day_of(now) - keep_days * MILLISECONDS_PER_DAY
    room = count_max - len(due.committed)
    due.not_charged = find(_due_not_charged, before=before, count=room)
    room -= len(due.not_charged)
    oldest = {"before": before, "count": -(-room // TENANTS_SHARE)}
    chosen = sorted(set(connection.scalars(_tenants_of_oldest, oldest)))
    due.charges = find(_due_charges, tenant_ids=chosen, before=before, count=room)
    return due


def _add_to_days(connection: Connection, taken: Iterable[Row[Any]]) -> None:
    sums: dict[tuple[Any, ...], Sequence[int]] = {}
    latencies: Counter[tuple[Any, ...]] = Counter()
    for row in taken:
        day = (row.tenant_id, day_of(row.at), row.key_id, row.model)
        free = row.not_charged
        one = (1, free, row.documents, row.documents * free, row.tokens, row.amount)
        known = sums.get(day)
        sums[day] = one if known is None else [*map(add, known, one)]
        if row.latency_ms is not None:
            latencies[*day, row.latency_ms] += 1
    _add_rows(connection, usage_days, sums)
    _add_rows(connection, latency_days, {key: (count,) for key, count in latencies.items()})


def _add_rows(
    connection: Connection, table: Table, rows: Mapping[tuple[Any, ...], Sequence[int]]
) -> None:
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    numbers = [column.name for column in table.c if not column.primary_key]
    on_sqlite = connection.dialect.name == "sqlite"
    adding = sqlite.insert(table) if on_sqlite else postgresql.insert(table)
    added = {name: table.c[name] + adding.excluded[name] for name in numbers}
    connection.execute(
        adding.on_conflict_do_update(index_elements=keys, set_=added),
        [
            dict(zip((*keys, *numbers), (*key, *values), strict=True))
            for key, values in rows.items()
        ],
    )


def _forget_windows(connection: Connection, now: Moment, count_max: int) -> int:
    last = _last_second(connection)
    before = now // 1_000 - WINDOWS_KEPT_S
    query = (
        select(rate_windows.c.subject, func.coalesce(api_keys.c.tenant_id, tenants.c.id))
        .outerjoin_from(rate_windows, api_keys, api_keys.c.id == rate_windows.c.subject)
        .outerjoin(tenants, tenants.c.id == rate_windows.c.subject)
        .where(last < before)
        .limit(count_max)
    )
    idle = connection.execute(query).all()
    if not idle:
        return 0
    lock_accounts(connection, {tenant for _, tenant in idle if tenant is not None})
    subjects = [subject for subject, _ in idle]
    forget = delete(rate_windows).where(rate_windows.c.subject.in_(subjects), last < before)
    return connection.execute(forget).rowcount


def _last_second(connection: Connection) -> ColumnElement[int]:
    """See `rate_window.encode`."""
    on_sqlite = connection.dialect.name == "sqlite"
    second: ColumnElement[int] = (
        func.json_extract(rate_windows.c.counts, "$[#-1][0]")
        if on_sqlite
        else rate_windows.c.counts[-1][0].as_integer()
    )
    return second
