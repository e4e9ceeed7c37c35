"""Usage reports: sums of computed and charged work.

A daily sum of `retention` counts as a whole: it belongs to a report if the first moment of its day
does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Table,
    and_,
    func,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
)

from serve_app.domain.units import Moment, TenantId
from serve_app.domain.usage import USAGE_SUMS, UsageSums
from serve_app.ledger.db.tables import IS_NOT_CHARGED, IS_SETTLED, charges, reservations, usage_days
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY

_GROUP_COLUMNS = {"day": "day", "model": "model", "key": "key_id", "tenant": "tenant_id"}

_ZERO: ColumnElement[int] = literal_column("0")
_ONE: ColumnElement[int] = literal_column("1")


class Grouping(StrEnum):
    """A dimension by which a report is grouped."""

    DAY = "day"
    MODEL = "model"
    KEY = "key"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Selects requests settled at or after ``since`` and before ``until``; ``None`` means any."""

    tenant: TenantId | None = None
    since: Moment | None = None
    until: Moment | None = None


@dataclass(frozen=True, slots=True)
class UsageRow(UsageSums):
    """The sums of one group."""

    group: tuple[str, ...]
    """For each grouping, a tenant id, a key id, a model, or the first moment of a UTC day."""


def usage(
    connection: Connection,
    which: UsageFilter,
    *by: Grouping,
    after: Sequence[str] | None = None,
    count_max: int | None = None,
) -> list[UsageRow]:
    """Return the sums per group, ordered by group. Groups without requests have no row.

    ``by`` has at least one grouping, in the order of sorting. ``after`` is the last group of the
    previous page.
    """
    if after is not None and by[0] is Grouping.DAY:
        # Lets the query use the index. The tuple comparison below is exact.
        which = replace(which, since=Moment(max(which.since or 0, int(after[0]))))
    settled = _settled(which).subquery()
    groups = [settled.c[_GROUP_COLUMNS[each]] for each in by]
    query = select(*groups, *(func.sum(settled.c[name]) for name in USAGE_SUMS))
    if after is not None:
        last = (
            int(value) if each is Grouping.DAY else value
            for each, value in zip(by, after, strict=True)
        )
        query = query.where(tuple_(*groups) > tuple_(*last))
    query = query.group_by(*groups).order_by(*groups).limit(count_max)
    return [_row(row, len(by)) for row in connection.execute(query)]


def _row(row: Sequence[object], groups: int) -> UsageRow:
    # PostgreSQL's sums are decimals.
    sums = (int(str(value)) for value in row[groups:])
    named = dict(zip(USAGE_SUMS, sums, strict=True))
    return UsageRow(**named, group=tuple(str(value) for value in row[:groups]))


def _settled(which: UsageFilter) -> CompoundSelect[tuple[object, ...]]:
    day_of_charge = _day_of(charges.c.charged_at)
    day_of_end = _day_of(reservations.c.settled_at)
    documents = reservations.c.documents
    return union_all(
        _branch(
            charges,
            day_of_charge,
            (_ONE, _ZERO, charges.c.documents, _ZERO, charges.c.tokens, charges.c.amount),
        ).where(_matches(which, charges, charges.c.charged_at)),
        _branch(
            reservations,
            day_of_end,
            (_ONE, _ONE, documents, documents, reservations.c.tokens, _ZERO),
        ).where(
            IS_SETTLED, IS_NOT_CHARGED, _matches(which, reservations, reservations.c.settled_at)
        ),
        _branch(
            usage_days, usage_days.c.day, tuple(usage_days.c[name] for name in USAGE_SUMS)
        ).where(_matches(which, usage_days, usage_days.c.day)),
    )


def _branch(
    table: Table, day: ColumnElement[int], sums: Sequence[ColumnElement[int]]
) -> Select[tuple[object, ...]]:
    named = (column.label(name) for name, column in zip(USAGE_SUMS, sums, strict=True))
    return select(table.c.tenant_id, table.c.key_id, table.c.model, day.label("day"), *named)


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
    return and_(*conditions)
