"""Group commit: the writer thread between the event loop and the database.

    submit ──> queue (bounded) ──> group ──BEGIN─ read, apply, apply, write ─COMMIT──> outcomes

A durable commit takes a few milliseconds for one operation or for two hundred, so all waiting
operations form one group. An operation's future is resolved only after COMMIT has returned.

* A rejected operation (a `RerankError`) changes nothing, and the rest of its group is committed.
* If the transaction fails, each operation is retried alone, so that only a faulty one fails. All
  operations are idempotent.
* An operation can be cancelled until its group's transaction holds its locks.
* While the database fails or a transaction is stuck in it, `is_failing` is true. A probe detects
  when writes succeed again.
* Operations without a waiting caller are retried at every tick: a settlement a few times, because
  its reservation expires anyway; a reversal until it is written.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from serve_app.domain.clock import Clock
from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.units import Instant
from serve_app.ledger.db.engines import probe
from serve_app.ledger.db.failures import reason
from serve_app.ledger.writer.limits import LedgerLimits
from serve_app.ledger.writer.maintenance import Maintenance, Transaction
from serve_app.ledger.writer.operation import Operation, apply_again, apply_group
from serve_app.telemetry.logs import get_logger

logger = get_logger(__name__)


class Writer:
    """The writer thread and its queue."""

    def __init__(
        self,
        durable: Transaction,
        clock: Clock,
        limits: LedgerLimits,
        *,
        relaxed: Transaction | None = None,
        events: bool = False,
    ) -> None:
        """``relaxed`` opens transactions for groups without a durable operation."""
        self._events = events
        self._durable = durable
        self._relaxed = relaxed or durable
        self._clock = clock
        self._limits = limits
        # Unbounded; the `submit` methods enforce the limits.
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._failed: list[Operation] = []  # Waiting for the next tick.
        self._next_tick = Instant(0.0)
        self._maintenance = Maintenance(clock, limits)
        self._probes_left = 0  # Until the next tick, if the database keeps failing.
        self._failing = False
        self._busy_since: Instant | None = None
        self._closed = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_failing(self) -> bool:
        """Whether a new write would probably fail."""
        busy_since = self._busy_since  # Read once, because the writer thread changes it.
        stuck = (
            busy_since is not None
            and self._clock.instant() - busy_since > self._limits.stuck_after_s
        )
        return self._failing or stuck

    def start(self) -> None:
        """The thread also runs maintenance, at least every ``expiry_interval_s``."""
        self._thread.start()

    def close(self) -> None:
        """Refuse new operations, write the waiting ones and end the thread. Blocks.

        Retries failed reversals once and logs the ids of those that fail again.
        """
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self._ended = True
        self._let_go()

    def submit(self, operation: Operation) -> None:
        """Queue an operation with a waiting caller. Raises: LedgerUnavailable."""
        if self._closed:
            raise LedgerUnavailable("closed")
        if self._queue.qsize() >= self._limits.operations_max:
            raise LedgerUnavailable("too many writes are waiting")
        self._queue.put(operation)

    def submit_settlement(self, operation: Operation) -> None:
        """Queue an operation that releases credit, or drop it: its reservation then expires."""
        if self._closed or self._queue.qsize() >= 2 * self._limits.operations_max:
            logger.warning("ledger_settlement_dropped", extra={"request_id": operation.request_id})
            return
        self._queue.put(operation)

    def submit_reversal(self, operation: Operation) -> None:
        """Queue an operation that takes a charge back. A full queue does not drop it.

        Their number is limited, because each belongs to a commit that had begun.
        """
        assert operation.attempts_left is None
        self._queue.put(operation)
        if self._ended:
            self._let_go()

    def _run(self) -> None:
        going = True
        while going:
            group, going = self._take()
            try:
                if group:
                    self._write(group)
                elif going and self._failing and not self._probe():
                    continue
                if not going:
                    # Include operations since `close` began, such as reversals of failed commits.
                    self._failed.extend(self._drained())
                if not going or self._tick_is_due(group):
                    self._tick()
            except Exception as error:  # The service cannot run without this thread.
                logger.exception("ledger_writer_failed")
                unresolved = [each for each in group if not each.future.done()]
                self._give_up([each for each in unresolved if each not in self._failed], error)

    def _let_go(self) -> None:
        """Fail the remaining operations after the thread has ended, and log lost reversals."""
        left = [*self._failed, *self._drained()]
        self._failed = []
        lost = [each.request_id for each in left if each.attempts_left is None]
        if lost:
            logger.error("ledger_reversal_lost", extra={"request_ids": lost})
        for operation in left:
            operation.fail(LedgerUnavailable("closed"))

    def _drained(self) -> Iterator[Operation]:
        with suppress(queue.Empty):
            while True:
                operation = self._queue.get(block=False)
                if operation is not None:
                    yield operation

    def _take(self) -> tuple[list[Operation], bool]:
        """Return the next group, and whether the thread should continue.

        Waits for the first operation, but only until the next tick.
        """
        group: list[Operation] = []
        wait_s = self._next_tick - self._clock.instant()
        if self._failing:
            wait_s = min(wait_s, self._limits.probe_interval_s)
        try:
            while len(group) < self._limits.group_operations_max:
                if group or wait_s <= 0:
                    operation = self._queue.get(block=False)
                else:
                    operation = self._queue.get(timeout=wait_s)
                if operation is None:
                    return group, False
                group.append(operation)
        except queue.Empty:
            pass
        return group, True

    def _write(self, group: Sequence[Operation]) -> None:
        group = [each for each in group if not each.future.cancelled()]
        if not group:
            return
        begun: list[Operation] = []
        try:
            durable = any(each.durable for each in group)
            with self._transaction(durable=durable) as connection:
                outcomes = apply_group(connection, group, begun, events=self._events)
        except Exception as error:  # noqa: BLE001 - reported per operation
            if not begun:
                self._give_up(group, error)
            else:
                self._write_alone(begun, error)
            return
        for operation, outcome in zip(begun, outcomes, strict=True):
            self._maintenance.note_use(operation.key_id)
            operation.resolve(outcome)

    def _write_alone(self, begun: Sequence[Operation], group_error: Exception) -> None:
        logger.warning("ledger_group_failed", extra={"reason": reason(group_error)})
        started = self._clock.instant()
        for position, operation in enumerate(begun):
            try:
                with self._transaction(durable=operation.durable) as connection:
                    outcome = apply_again(connection, operation, events=self._events)
            except Exception as error:  # noqa: BLE001 - reported to its caller
                self._give_up([operation], error)
                if self._clock.instant() - started >= self._limits.database_timeout_s:
                    self._give_up(begun[position + 1 :], error)
                    return
            else:
                self._maintenance.note_use(operation.key_id)
                operation.resolve(outcome)

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[Connection]:
        self._busy_since = self._clock.instant()
        transaction = self._durable if durable else self._relaxed
        try:
            with transaction() as connection:
                yield connection
        except (OperationalError, InterfaceError, PoolTimeout):
            self._failing = True
            raise
        else:
            self._failing = False
        finally:
            self._busy_since = None

    def _probe(self) -> bool:
        """Return whether the database writes again or the next tick is due anyway.

        After a restart of the database, both kinds of transaction must connect again.
        """
        self._probes_left -= 1
        try:
            for durable in (False, True):
                with self._transaction(durable=durable) as connection:
                    probe(connection)
        except SQLAlchemyError:
            return self._probes_left <= 0
        return True

    def _give_up(self, operations: Sequence[Operation], error: Exception) -> None:
        logger.warning(
            "ledger_write_failed",
            extra={"reason": reason(error), "operations": len(operations)},
            exc_info=None if isinstance(error, SQLAlchemyError) else error,
        )
        for operation in operations:
            if operation.may_be_tried_again() and self._has_room_for(operation):
                self._failed.append(operation)
            else:
                operation.fail(LedgerUnavailable(reason(error)))

    def _has_room_for(self, failed: Operation) -> bool:
        return failed.attempts_left is None or len(self._failed) < self._limits.operations_max

    def _tick_is_due(self, group: Sequence[Operation]) -> bool:
        # Without a group, the queue's timeout has already measured the wait.
        return not group or self._clock.instant() >= self._next_tick

    def _tick(self) -> None:
        limits = self._limits
        self._next_tick = Instant(self._clock.instant() + limits.expiry_interval_s)
        self._probes_left = round(limits.expiry_interval_s / limits.probe_interval_s)
        # Reversals first: a charge does not expire, but a reservation does.
        self._failed.sort(key=lambda each: each.attempts_left is not None)
        size = limits.group_operations_max
        for _ in range(-(-len(self._failed) // size)):
            some, self._failed = self._failed[:size], self._failed[size:]
            self._write(some)
            if self._failing:
                break
        if not self._failing:
            self._next_tick = self._maintenance.run(self._transaction)
