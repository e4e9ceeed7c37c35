"""Monthly billing statement of a tenant, as an HTML page and as CSV.

    opening balance + grants, refunds and corrections - charges == closing balance

A statement has no time of printing, so a complete month gives the same bytes from either database,
before and after retention replaces its rows by daily sums. Only a reversal that a gateway could not
write earlier can still change it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from sqlalchemy import (
    Connection,
    func,
    select,
)

from serve_app.domain import csv_export
from serve_app.domain.formats import dollars, write_day, write_second
from serve_app.domain.units import Credits, ModelId, Moment
from serve_app.domain.usage import USAGE_COUNTS
from serve_app.ledger.accounts.credit_grants import Grant, list_grants
from serve_app.ledger.accounts.tenant_accounts import AccountProblem, Tenant
from serve_app.ledger.db.tables import charges, usage_days
from serve_app.ledger.money.calendar import bounds_of
from serve_app.ledger.reports.usage import Grouping, UsageFilter, UsageRow, usage

PAGE = Path(__file__).with_name("statement.html.jinja")

COMPLETE_AFTER_MS = 3_600_000
"""Time after the end of a month for open requests and clock differences."""

CSV_COLUMNS = (
    "tenant_id",
    "month",
    "line",
    "time",
    "model",
    *USAGE_COUNTS,
    "amount_micro_dollars",
    "reason",
    "request_id",
)


@dataclass(frozen=True, slots=True)
class DayOfModel:
    """Requests of one day and model."""

    day: Moment
    model: ModelId
    sums: UsageRow


@dataclass(frozen=True, slots=True)
class Statement:
    """A tenant's month. Its balances ignore pending reservations."""

    tenant: Tenant
    month: int
    """The number yyyymm."""

    until: Moment
    """The end of the month, or the current time for an incomplete month."""

    so_far: bool
    opening: Credits
    changes: tuple[Grant, ...]
    """Oldest first."""

    usage: tuple[DayOfModel, ...]
    """By day, then by model."""

    @property
    def changed(self) -> Credits:
        return Credits(sum(change.amount for change in self.changes))

    @property
    def charged(self) -> Credits:
        return Credits(sum(each.sums.charged for each in self.usage))

    @property
    def closing(self) -> Credits:
        return Credits(self.opening + self.changed - self.charged)


def statement(
    connection: Connection, tenant: Tenant, month: int, now: Moment, *, so_far: bool = False
) -> Statement:
    """Return the statement of the month yyyymm, which may be incomplete if ``so_far``.

    The connection must see one snapshot of the ledger. Raises: AccountProblem, also for an
    incomplete month without ``so_far``.
    """
    since, until = bounds_of(month)
    ended = now >= until + COMPLETE_AFTER_MS
    if now < since:
        raise AccountProblem(f"month {month_name(month)} has not begun")
    if not ended and not so_far:
        complete = Moment(until + COMPLETE_AFTER_MS)
        raise AccountProblem(f"month {month_name(month)} is not complete until {_time(complete)}")
    end = until if ended else min(now, until)
    # The databases sort text differently.
    known = sorted(list_grants(connection, tenant.id), key=lambda each: (each.created_at, each.id))
    granted = sum(each.amount for each in known if each.created_at < since)
    return Statement(
        tenant=tenant,
        month=month,
        until=Moment(end),
        so_far=not ended,
        opening=Credits(granted - _charged_before(connection, tenant, since)),
        changes=tuple(each for each in known if since <= each.created_at < end),
        usage=tuple(_usage(connection, tenant, since, Moment(end))),
    )


def month_name(month: int) -> str:
    """Format 202611 as 2026-11."""
    return f"{month // 100:04d}-{month % 100:02d}"


def aligned(amount: int) -> str:
    """Format micro-dollars for aligned columns: -1_500_000 is ``-$1.500000``."""
    return dollars(amount, decimals_min=6)


def render_html(statement: Statement) -> str:
    return _page().render(statement=statement)


def lines(statement: Statement) -> Iterator[dict[str, Any]]:
    begin, _ = bounds_of(statement.month)
    yield {
        "line": "opening balance",
        "time": _time(begin),
        "amount_micro_dollars": statement.opening,
    }
    for change in statement.changes:
        yield {
            "line": change.kind,
            "time": _time(change.created_at),
            "amount_micro_dollars": change.amount,
            "reason": change.reason,
            "request_id": change.request_id or "",
        }
    for used in statement.usage:
        yield {
            "line": "charges of a day",
            "time": write_day(used.day),
            "model": used.model,
            **used.sums.counts(),
            "amount_micro_dollars": -used.sums.charged,
        }
    yield {
        "line": "balance so far" if statement.so_far else "closing balance",
        "time": _time(statement.until),
        "amount_micro_dollars": statement.closing,
    }


def render_csv(statement: Statement) -> str:
    """The last line's amount is the sum of the lines above it."""
    owner = {"tenant_id": statement.tenant.id, "month": month_name(statement.month)}
    return csv_export.render_csv(
        CSV_COLUMNS, (owner | line for line in lines(statement)), line_end="\n"
    )


def _charged_before(connection: Connection, tenant: Tenant, moment: Moment) -> int:
    parts = ((charges.c.amount, charges.c.charged_at), (usage_days.c.charged, usage_days.c.day))
    queries = (
        select(func.coalesce(func.sum(amount), 0)).where(
            amount.table.c.tenant_id == tenant.id, at < moment
        )
        for amount, at in parts
    )
    return sum(int(connection.scalar(query) or 0) for query in queries)


def _usage(
    connection: Connection, tenant: Tenant, since: Moment, until: Moment
) -> list[DayOfModel]:
    which = UsageFilter(tenant.id, since, until)
    rows = usage(connection, which, Grouping.DAY, Grouping.MODEL)
    days = ((Moment(int(row.group[0])), ModelId(row.group[1]), row) for row in rows)
    # The databases sort text differently.
    return [
        DayOfModel(day, model, row) for day, model, row in sorted(days, key=lambda day: day[:2])
    ]


@cache
def _page() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(dollars=aligned, day=write_day, time=_time, month=month_name)
    return environment.from_string(PAGE.read_text(encoding="utf-8"))


def _time(moment: Moment) -> str:
    return f"{write_second(moment)} UTC"
