"""Many writes, one transaction: the thread between the event loop and the database.

    submit ──> queue (bounded) ──> group ──BEGIN─ read, apply, apply, write ─COMMIT──> outcomes

A durable commit costs a few milliseconds whether it holds one operation or two hundred, so the
writer takes whatever waits, and what arrives meanwhile forms the next group. An operation's future
is resolved only after COMMIT returned.

* An operation that refuses (a `RerankError`) does so before its first write: it leaves nothing
  behind, and its neighbours are committed.
* When the transaction fails, each operation runs once more alone, so that one which poisons the
  transaction fails only itself. All operations may be applied twice without harm.
* An operation may be cancelled until its group's transaction holds its locks; from then on its
  outcome is what the database says.
* While the database fails or a transaction is stuck in it, `is_failing` says so at once. A probe
  every half second finds out when writes succeed again.
* What nobody waits for is tried again at every tick while the database fails: a settlement a few
  times, because its reservation expires anyway; a reversal until it is written, because the charge
  that it takes back would stay for ever.

No asyncio here, and no decision about money.
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
from serve_app.ledger import operation_group
from serve_app.ledger.database import probe, reason
from serve_app.ledger.limits import LedgerLimits
from serve_app.ledger.operation import Operation
from serve_app.ledger.upkeep import Transaction, Upkeep
from serve_app.telemetry.logs import get_logger

logger = get_logger(__name__)


class Writer:
    """The writer thread and its queue. `start` it, submit, `close` it."""

    def __init__(
        self,
        durable: Transaction,
        clock: Clock,
        limits: LedgerLimits,
        *,
        forgettable: Transaction | None = None,
        events: bool = False,
    ) -> None:
        """``forgettable`` is for groups whose operations all are; ``events`` fill the outbox."""
        self._events = events
        self._durable = durable
        self._forgettable = forgettable or durable
        self._clock = clock
        self._limits = limits
        # Unbounded by itself; the bounds are kept, or explained, by the `submit` methods.
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._failed: list[Operation] = []  # Waiting for the next tick; the writer's own.
        self._next_tick = Instant(0.0)
        self._upkeep = Upkeep(clock, limits)
        self._probes_left = 0  # Until the next tick, if the database goes on failing.
        self._failing = False
        self._busy_since: Instant | None = None
        self._closed = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether what is submitted will be written."""
        return self._thread.is_alive()

    @property
    def is_failing(self) -> bool:
        """Whether a new write would most likely wait in vain."""
        busy_since = self._busy_since  # Once: the writer's thread sets it.
        stuck = (
            busy_since is not None
            and self._clock.instant() - busy_since > self._limits.stuck_after_s
        )
        return self._failing or stuck

    def start(self) -> None:
        """Begin to write, and to expire what is due every ``expiry_interval_s``."""
        self._thread.start()

    def close(self) -> None:
        """Refuse new operations, write those that wait, and end the thread. Blocks until then.

        Reversals are tried once more; the ids of those that fail are logged.
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
        """Queue an operation that its caller waits for.

        Raises:
            LedgerUnavailable: Too many are waiting, or the writer is closed.
        """
        if self._closed:
            raise LedgerUnavailable("closed")
        if self._queue.qsize() >= self._limits.operations_max:
            raise LedgerUnavailable("too many writes are waiting")
        self._queue.put(operation)

    def submit_settlement(self, operation: Operation) -> None:
        """Queue an operation that gives credit back; without room it is dropped, never refused.

        Its reservation expires instead.
        """
        if self._closed or self._queue.qsize() >= 2 * self._limits.operations_max:
            logger.warning("ledger_settlement_dropped", extra={"request_id": operation.request_id})
            return
        self._queue.put(operation)

    def submit_reversal(self, operation: Operation) -> None:
        """Queue an operation that takes a charge back; it is never dropped for lack of room.

        Each belongs to a commit that was submitted and had begun, so they are as few as those.
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
                    # What came after the end was announced, such as the reversal of a commit that
                    # failed just now, gets its chance in the last tick.
                    self._failed.extend(self._drained())
                if not going or self._tick_is_due(group):
                    self._tick()
            except Exception as error:  # Without this thread there is no service.
                logger.exception("ledger_writer_failed")
                untold = [each for each in group if not each.future.done()]
                self._give_up([each for each in untold if each not in self._failed], error)

    def _let_go(self) -> None:
        """After the end: nothing more will be written."""
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
        """What waits, at most one group of it, and whether to go on after it.

        Waits for the first operation, but no longer than until the next tick.
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
            may_forget = all(each.forgettable for each in group)
            with self._transaction(may_be_forgotten=may_forget) as connection:
                outcomes = operation_group.apply(connection, group, begun, events=self._events)
        except Exception as error:  # noqa: BLE001 - reported to each caller, once it ran alone
            if not begun:
                self._give_up(group, error)
            else:
                self._write_alone(begun, error)
            return
        for operation, outcome in zip(begun, outcomes, strict=True):
            self._upkeep.note_use(operation.key_id)
            operation.resolve(outcome)

    def _write_alone(self, begun: Sequence[Operation], group_error: Exception) -> None:
        logger.warning("ledger_group_failed", extra={"reason": reason(group_error)})
        started = self._clock.instant()
        for position, operation in enumerate(begun):
            try:
                with self._transaction(may_be_forgotten=operation.forgettable) as connection:
                    outcome = operation_group.apply_again(
                        connection, operation, events=self._events
                    )
            except Exception as error:  # noqa: BLE001 - reported to its caller
                self._give_up([operation], error)
                if self._clock.instant() - started >= self._limits.database_timeout_s:
                    self._give_up(begun[position + 1 :], error)
                    return
            else:
                self._upkeep.note_use(operation.key_id)
                operation.resolve(outcome)

    @contextmanager
    def _transaction(self, *, may_be_forgotten: bool = False) -> Iterator[Connection]:
        """A transaction whose beginning and end `is_failing` knows."""
        self._busy_since = self._clock.instant()
        transaction = self._forgettable if may_be_forgotten else self._durable
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
        """Whether a tick makes sense: the database writes again, or a tick's time has come."""
        self._probes_left -= 1
        try:
            with self._transaction() as connection:
                probe(connection)
        except SQLAlchemyError:
            return self._probes_left <= 0
        return True

    def _give_up(self, operations: Sequence[Operation], error: Exception) -> None:
        """Fail them for now; those with attempts left wait for the next tick."""
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
        """Reversals are as few as the commits that began; the reservations of others expire."""
        return failed.attempts_left is None or len(self._failed) < self._limits.operations_max

    def _tick_is_due(self, group: Sequence[Operation]) -> bool:
        # Without a group it is due by the queue's clock, if not by ours.
        return not group or self._clock.instant() >= self._next_tick

    def _tick(self) -> None:
        """Try failed settlements and reversals again, then do what else is due."""
        limits = self._limits
        self._next_tick = Instant(self._clock.instant() + limits.expiry_interval_s)
        self._probes_left = round(limits.expiry_interval_s / limits.probe_interval_s)
        # Reversals first: what they take back stays for ever, and a reservation expires.
        self._failed.sort(key=lambda each: each.attempts_left is not None)
        size = limits.group_operations_max
        for _ in range(-(-len(self._failed) // size)):
            some, self._failed = self._failed[:size], self._failed[size:]
            self._write(some)
            if self._failing:
                break
        if not self._failing:
            self._next_tick = self._upkeep.run(self._transaction)
