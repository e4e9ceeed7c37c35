"""Maintenance by the writer thread: expiry, last uses of keys, and retention.

It runs between two groups in short transactions, so that a charge waits for one of them at most.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from sqlalchemy import Connection, bindparam, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from serve_app.domain.clock import Clock
from serve_app.domain.units import Instant, KeyId, Moment, Seconds
from serve_app.ledger.db.failures import reason
from serve_app.ledger.db.tables import PENDING, api_keys, reservations
from serve_app.ledger.posting.books import Books
from serve_app.ledger.writer import retention
from serve_app.ledger.writer.limits import LedgerLimits
from serve_app.telemetry.logs import get_logger

RETENTION_INTERVAL_S = Seconds(60.0)
PAUSE = 9
"""Pause after a retention step, in multiples of its duration. So retention takes a tenth of the
time."""

logger = get_logger(__name__)

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

Transaction = Callable[[], AbstractContextManager[Connection]]


class Maintenance:
    """Due times of maintenance; the writer calls `run` at every tick."""

    def __init__(self, clock: Clock, limits: LedgerLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._used: dict[KeyId, Moment] = {}  # Since the last run.
        self._next_retention = Instant(clock.instant() + RETENTION_INTERVAL_S)

    def note_use(self, key_id: KeyId | None) -> None:
        if key_id is not None:
            self._used[key_id] = self._clock.moment()

    def run(self, transaction: Transaction) -> Instant:
        """Run due maintenance; return the latest time of the next run. Failures are only logged."""
        instant = self._clock.instant()
        try:
            again = self._expire(transaction)
            if self._used:
                with transaction() as connection:
                    touch_keys(connection, self._used)
                self._used = {}
            if self._clock.instant() >= self._next_retention:
                self._retire(transaction)
        except SQLAlchemyError as error:
            logger.warning("ledger_maintenance_failed", extra={"reason": reason(error)})
            return Instant(instant + self._limits.expiry_interval_s)
        after = Seconds(0.0) if again else self._limits.expiry_interval_s
        return min(Instant(instant + after), self._next_retention)

    def _expire(self, transaction: Transaction) -> bool:
        """Expire overdue reservations; return whether more of them may be left."""
        count_max = self._limits.expired_per_transaction_max
        with transaction() as connection:
            count = expire_due(connection, self._clock.moment(), count_max)
        if count:
            logger.info("ledger_reservations_expired", extra={"count": count})
        return count == count_max

    def _retire(self, transaction: Transaction) -> None:
        limits = self._limits
        started = self._clock.instant()
        self._next_retention = Instant(started + RETENTION_INTERVAL_S)
        with transaction() as connection:
            count = retention.step(
                connection,
                self._clock.moment(),
                limits.charges_kept_days,
                limits.retired_per_transaction_max,
            )
        if count:
            ended = self._clock.instant()
            self._next_retention = Instant(ended + PAUSE * (ended - started))


def expire_due(connection: Connection, now: Moment, count_max: int) -> int:
    """The transaction must do nothing else, because it reads before it takes the locks."""
    due = connection.execute(_due, {"now": now, "count": count_max}).all()
    if not due:
        return 0
    # `expire` skips those that another gateway has settled in the meantime.
    books = Books.open(connection, {row.tenant_id for row in due}, {row.id for row in due})
    count = books.expire(now)
    books.write()
    return count


def touch_keys(connection: Connection, used: Mapping[KeyId, Moment]) -> None:
    """The transaction must do nothing else."""
    if used:
        rows = [{"key_id": key_id, "now": moment} for key_id, moment in sorted(used.items())]
        connection.execute(_touch, rows)
