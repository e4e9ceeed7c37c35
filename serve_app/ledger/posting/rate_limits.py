"""Check and count a caller's rate limits in the transaction that reserves its credit.

All gateways count in the same rows under the tenant's lock, so a limit holds across all of them. A
caller without limits costs no statement.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, insert, select, update

from serve_app.domain.errors import ConcurrencyLimited, RateLimited
from serve_app.domain.model import UNLIMITED, RateLimits, RateLimitState
from serve_app.domain.units import KeyId, Moment, TenantId
from serve_app.ledger.db.pipelined import UNREAD
from serve_app.ledger.db.tables import PENDING, rate_windows, reservations
from serve_app.ledger.money import rate_window
from serve_app.ledger.money.rate_window import Window
from serve_app.ledger.money.reservation import Reservation

Limited = Mapping[str, tuple[str, RateLimits]]
"""Limits per minute by the id of a key or tenant, with the word for it in messages."""

_windows = select(rate_windows).where(
    rate_windows.c.subject.in_(bindparam("subjects", expanding=True))
)
_replace = (
    update(rate_windows)
    .where(rate_windows.c.subject == bindparam("row_subject"))
    .values(counts=bindparam("new_counts", type_=rate_windows.c.counts.type))
    .execution_options(**UNREAD)
)
_begin_window = insert(rate_windows).execution_options(**UNREAD)
_running = (
    select(func.count(), func.count().filter(reservations.c.key_id == bindparam("key_id")))
    .select_from(reservations)
    .where(
        reservations.c.tenant_id == bindparam("tenant_id"),
        reservations.c.state == PENDING,
        reservations.c.expires_at > bindparam("now"),
    )
)


@dataclass(frozen=True, slots=True)
class Demand:
    """The size of a request, and the limits of its key and tenant."""

    documents: int
    key_limits: RateLimits = UNLIMITED
    tenant_limits: RateLimits = UNLIMITED

    @property
    def counts_running(self) -> bool:
        limits = (self.key_limits, self.tenant_limits)
        return any(each.concurrent_requests_max is not None for each in limits)


NOT_LIMITED = Demand(0)


@dataclass(frozen=True, slots=True)
class Admitted:
    """The windows for `count` to write, and the limit states."""

    windows: dict[str, Window]
    known: frozenset[str]
    """Subjects that already have a row."""

    states: tuple[RateLimitState, ...]


NOTHING_LIMITED = Admitted({}, frozenset(), ())


def check(connection: Connection, wanted: Reservation, demand: Demand) -> Admitted:
    """Check that one more request is within every limit; see `rate_window.admit`.

    Writes only windows that a fast clock had moved into the future.

    Raises: ConcurrencyLimited, RateLimited, TooLarge.
    """
    _check_running(connection, wanted, demand)
    limited = _limited(wanted, demand)
    if not limited:
        return NOTHING_LIMITED
    now = wanted.created_at
    stored = _stored(connection, sorted(limited), now)
    windows: dict[str, Window] = {}
    with_this, refusals = [], []
    for subject, (whose, limits) in limited.items():
        window = stored.get(subject, ())
        try:
            windows[subject], own = rate_window.admit(window, limits, demand.documents, now, whose)
            with_this.append(own)
        except RateLimited as refusal:
            refusals.append(refusal)
    if refusals:
        last = max(refusals, key=lambda refusal: refusal.retry_after_s)
        without = _states(stored, limited, now)
        raise RateLimited(last.whose, last.what, last.retry_after_s, without)
    return Admitted(windows, frozenset(stored), rate_window.tightest(*with_this))


def states(
    connection: Connection, wanted: Reservation, demand: Demand
) -> tuple[RateLimitState, ...]:
    """Return the states of the caller's limits without the request ``wanted``."""
    limited = _limited(wanted, demand)
    if not limited:
        return ()
    now = wanted.created_at
    return _states(_stored(connection, sorted(limited), now), limited, now)


def count(connection: Connection, admitted: Admitted) -> None:
    for subject, window in admitted.windows.items():
        counts = rate_window.encode(window)
        if subject in admitted.known:
            connection.execute(_replace, {"row_subject": subject, "new_counts": counts})
        else:
            connection.execute(_begin_window, {"subject": subject, "counts": counts})


def running(
    connection: Connection, tenant: TenantId, key_id: KeyId, now: Moment
) -> tuple[int, int]:
    """Return the running requests of the tenant and of its key."""
    of_tenant, of_key = connection.execute(
        _running, {"tenant_id": tenant, "key_id": key_id, "now": now}
    ).one()
    return of_tenant, of_key


def live_windows(connection: Connection, subjects: Sequence[str], now: Moment) -> dict[str, Window]:
    """Read live windows without writing."""
    rows = connection.execute(_windows, {"subjects": subjects})
    return {row.subject: rate_window.live(rate_window.decode(row.counts), now) for row in rows}


def _limited(wanted: Reservation, demand: Demand) -> Limited:
    return {
        subject: (whose, limits)
        for subject, whose, limits in (
            (wanted.key_id, "key", demand.key_limits),
            (wanted.tenant, "tenant", demand.tenant_limits),
        )
        if limits.requests_per_minute_max is not None or limits.documents_per_minute_max is not None
    }


def _states(
    stored: Mapping[str, Window], limited: Limited, now: Moment
) -> tuple[RateLimitState, ...]:
    return rate_window.tightest(
        *(
            rate_window.states(rate_window.live(stored.get(subject, ()), now), limits, now)
            for subject, (_, limits) in limited.items()
        )
    )


def _stored(connection: Connection, subjects: Sequence[str], now: Moment) -> dict[str, Window]:
    stored = {}
    for row in connection.execute(_windows, {"subjects": subjects}).all():
        window = rate_window.decode(row.counts)
        if rate_window.is_ahead(window, now):
            window = rate_window.live(window, now)
            counts = rate_window.encode(window)
            connection.execute(_replace, {"row_subject": row.subject, "new_counts": counts})
        stored[row.subject] = window
    return stored


def _check_running(connection: Connection, wanted: Reservation, demand: Demand) -> None:
    of_tenant, of_key = (
        limits.concurrent_requests_max for limits in (demand.tenant_limits, demand.key_limits)
    )
    if of_tenant is None and of_key is None:
        return
    in_tenant, in_key = running(connection, wanted.tenant, wanted.key_id, wanted.created_at)
    for whose, number, limit in (("key", in_key, of_key), ("tenant", in_tenant, of_tenant)):
        if limit is not None and number >= limit:
            raise ConcurrencyLimited(whose, limit)
