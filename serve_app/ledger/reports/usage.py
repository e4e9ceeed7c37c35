"""Usage reports: sums of computed and charged work, and the latency of charged requests.

A daily sum of `retention` counts as a whole, by the first moment of its day.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Subquery,
    Table,
    and_,
    case,
    func,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
)

from serve_app.domain.units import KeyId, ModelId, Moment, TenantId
from serve_app.domain.usage import USAGE_SUMS, UsageSums
from serve_app.ledger.db.tables import (
    IS_NOT_CHARGED,
    IS_SETTLED,
    charges,
    latency_days,
    reservations,
    usage_days,
)
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY

_GROUP_COLUMNS = {"day": "day", "model": "model", "key": "key_id", "tenant": "tenant_id"}

_ZERO: ColumnElement[int] = literal_column("0")
_ONE: ColumnElement[int] = literal_column("1")
_NULL: ColumnElement[int] = literal_column("CAST(NULL AS BIGINT)")

LATENCY_PERCENTILES = (50, 95)


class Grouping(StrEnum):
    """A dimension of a report."""

    DAY = "day"
    MODEL = "model"
    KEY = "key"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Requests settled at or after ``since`` and before ``until``; ``None`` means any."""

    tenant: TenantId | None = None
    since: Moment | None = None
    until: Moment | None = None
    model: ModelId | None = None
    key: KeyId | None = None


@dataclass(frozen=True, slots=True)
class UsageRow(UsageSums):
    """The sums and latencies of one group."""

    group: tuple[str, ...]
    """For each grouping, a tenant id, a key id, a model, or the first moment of a UTC day."""

    latency_ms_p50: int | None = None
    latency_ms_p95: int | None = None
    """``None`` without a recorded latency."""


def usage(
    connection: Connection,
    which: UsageFilter,
    *by: Grouping,
    after: Sequence[str] | None = None,
    count_max: int | None = None,
) -> list[UsageRow]:
    """Return the sums per group, in the order of ``by``. Groups without requests have no row.

    Without ``by``, all requests are one group. ``after`` is the last group of the previous page.
    """
    if after and by[0] is Grouping.DAY:
        # Lets the query use the index. The tuple comparison below is exact.
        which = replace(which, since=Moment(max(which.since or 0, int(after[0]))))
    settled = _settled(which).subquery()
    columns = [_GROUP_COLUMNS[each] for each in by]
    counted = _counted_by_latency(settled, columns)
    groups = [counted.c[name] for name in columns]
    query = select(
        *groups, *(func.sum(counted.c[name]) for name in USAGE_SUMS), *_percentiles(counted)
    )
    if after:
        last = (
            int(value) if each is Grouping.DAY else value
            for each, value in zip(by, after, strict=True)
        )
        query = query.where(tuple_(*groups) > tuple_(*last))
    query = query.group_by(*groups).order_by(*groups).limit(count_max)
    found = connection.execute(query)
    # Without a grouping, there is a row without requests, too.
    return [_row(row, len(by)) for row in found if row[len(by)] is not None]


def _counted_by_latency(settled: Subquery, columns: Sequence[str]) -> Subquery:
    """Return the sums per group and latency.

    ``timed`` counts the requests with this latency, ``timed_up_to`` those of the group with at most
    this latency, and ``timed_in_group`` all of the group.
    """
    groups = [settled.c[name] for name in columns]
    latency, timed = settled.c.latency_ms, func.sum(settled.c.timed)
    sums = (func.sum(settled.c[name]).label(name) for name in USAGE_SUMS)
    return (
        select(
            *groups,
            *sums,
            latency,
            timed.label("timed"),
            func.sum(timed).over(partition_by=groups, order_by=latency).label("timed_up_to"),
            func.sum(timed).over(partition_by=groups).label("timed_in_group"),
        )
        .group_by(*groups, latency)
        .subquery()
    )


def _percentiles(counted: Subquery) -> list[ColumnElement[int]]:
    """Return the lowest latency that this share of the timed requests did not exceed."""
    return [
        func.min(
            case(
                (
                    and_(
                        counted.c.timed > _ZERO,
                        counted.c.timed_up_to * 100 >= counted.c.timed_in_group * percent,
                    ),
                    counted.c.latency_ms,
                )
            )
        )
        for percent in LATENCY_PERCENTILES
    ]


def _row(row: Sequence[object], groups: int) -> UsageRow:
    # PostgreSQL's sums are decimals.
    *sums, p50, p95 = (None if value is None else int(str(value)) for value in row[groups:])
    named = dict(zip(USAGE_SUMS, (each or 0 for each in sums), strict=True))
    group = tuple(str(value) for value in row[:groups])
    return UsageRow(**named, group=group, latency_ms_p50=p50, latency_ms_p95=p95)


def _settled(which: UsageFilter) -> CompoundSelect[tuple[object, ...]]:
    documents = reservations.c.documents
    return union_all(
        _branch(
            charges,
            _day_of(charges.c.charged_at),
            (_ONE, _ZERO, charges.c.documents, _ZERO, charges.c.tokens, charges.c.amount),
            charges.c.latency_ms,
            case((charges.c.latency_ms.is_(None), _ZERO), else_=_ONE),
        ).where(_matches(which, charges, charges.c.charged_at)),
        _branch(
            reservations,
            _day_of(reservations.c.settled_at),
            (_ONE, _ONE, documents, documents, reservations.c.tokens, _ZERO),
        ).where(
            IS_SETTLED, IS_NOT_CHARGED, _matches(which, reservations, reservations.c.settled_at)
        ),
        _branch(
            usage_days, usage_days.c.day, tuple(usage_days.c[name] for name in USAGE_SUMS)
        ).where(_matches(which, usage_days, usage_days.c.day)),
        _branch(
            latency_days,
            latency_days.c.day,
            (_ZERO,) * len(USAGE_SUMS),
            latency_days.c.latency_ms,
            latency_days.c.requests,
        ).where(_matches(which, latency_days, latency_days.c.day)),
    )


def _branch(
    table: Table,
    day: ColumnElement[int],
    sums: Sequence[ColumnElement[int]],
    latency_ms: ColumnElement[int] = _NULL,
    timed: ColumnElement[int] = _ZERO,
) -> Select[tuple[object, ...]]:
    return select(
        table.c.tenant_id,
        table.c.key_id,
        table.c.model,
        day.label("day"),
        *(column.label(name) for name, column in zip(USAGE_SUMS, sums, strict=True)),
        latency_ms.label("latency_ms"),
        timed.label("timed"),
    )


def _day_of(at: ColumnElement[int]) -> ColumnElement[int]:
    return at - at % literal_column(str(MILLISECONDS_PER_DAY))


def _matches(which: UsageFilter, table: Table, at: ColumnElement[int]) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = [true()]
    if which.tenant is not None:
        conditions.append(table.c.tenant_id == which.tenant)
    if which.since is not None:
        conditions.append(at >= which.since)
    if which.until is not None:
        conditions.append(at < which.until)
    if which.model is not None:
        conditions.append(table.c.model == which.model)
    if which.key is not None:
        conditions.append(table.c.key_id == which.key)
    return and_(*conditions)
