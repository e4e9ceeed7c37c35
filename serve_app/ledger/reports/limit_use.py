"""How much of its limits a key and its tenant use now."""

from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, select

from serve_app.domain.model import Caller, RateLimits
from serve_app.domain.units import Credits, Moment
from serve_app.ledger.accounts.tenant_accounts import limits_of
from serve_app.ledger.db.tables import api_keys, tenants
from serve_app.ledger.money.calendar import month_of
from serve_app.ledger.money.rate_window import Window
from serve_app.ledger.posting.rate_limits import live_windows, running


@dataclass(frozen=True, slots=True)
class LimitUse:
    """The used amount of each limit; ``None`` without a limit."""

    limits: RateLimits
    requests_per_minute: int | None
    documents_per_minute: int | None
    concurrent_requests: int | None
    month_spent: Credits | None


def limit_use(connection: Connection, caller: Caller, now: Moment) -> tuple[LimitUse, LimitUse]:
    """Return the use of the key's limits and of its tenant's."""
    key, tenant = (
        connection.execute(select(table).where(table.c.id == row_id)).mappings().one()
        for table, row_id in ((api_keys, caller.key_id), (tenants, caller.tenant))
    )
    windows = live_windows(connection, (caller.key_id, caller.tenant), now)
    of_tenant, of_key = running(connection, caller.tenant, caller.key_id, now)
    return (
        _use(key, windows.get(caller.key_id, ()), of_key, now),
        _use(tenant, windows.get(caller.tenant, ()), of_tenant, now),
    )


def _use(row: RowMapping, window: Window, running: int, now: Moment) -> LimitUse:
    limits = limits_of(row)
    return LimitUse(
        limits,
        _if_limited(limits.requests_per_minute_max, sum(each.requests for each in window)),
        _if_limited(limits.documents_per_minute_max, sum(each.documents for each in window)),
        _if_limited(limits.concurrent_requests_max, running),
        spent(row, now) if limits.monthly_budget_micro_dollars is not None else None,
    )


def spent(row: RowMapping, now: Moment) -> Credits:
    """Return the amount charged or reserved in the month of ``now``.

    The spending of a key is only counted while it has a monthly cap.
    """
    # As in `budget`, the counted month never moves back.
    return Credits(row["spent_amount"] if row["spent_month"] >= month_of(now) else 0)


def _if_limited(limit: int | None, used: int) -> int | None:
    return None if limit is None else used
