"""Many writes, one transaction: the thread between the event loop and the database.

    submit ──> queue (bounded) ──> group ──BEGIN─ apply, apply, apply ─COMMIT──> outcomes

A durable commit costs a few milliseconds whether it holds one operation or two hundred, so the
writer takes whatever waits, and what arrives meanwhile forms the next group. An operation's future
is resolved only after COMMIT returned.

* An operation that refuses (a `RerankError`) does so before its first write: it leaves nothing
  behind, and its neighbours are committed.
* When the transaction fails, each operation runs once more alone, so that one which poisons the
  transaction fails only itself. All operations may be applied twice without harm.
* An operation may be cancelled until its group's transaction holds its locks; from then on its
  outcome is what the database says.

No asyncio here, and no decision about money.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from serve_app.domain.clock import Clock
from serve_app.domain.errors import LedgerUnavailable, RerankError
from serve_app.domain.units import Instant, RequestId, TenantId
from serve_app.ledger import store
from serve_app.ledger.database import reason
from serve_app.ledger.limits import LedgerLimits

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Operation:
    """One write: what to do on a connection, and whom to tell."""

    apply: Callable[[Connection], None]
    request_id: RequestId
    tenant: TenantId | None = None
    """Whose account it touches; ``None`` means that of the reservation ``request_id``."""

    attempts_left: int = 1
    """More than one: tried again in later groups when the database fails. Nobody waits for it."""

    future: Future[None] = field(default_factory=Future)


class Writer:
    """The writer thread and its queue. `start` it, submit, `close` it."""

    def __init__(self, engine: Engine, clock: Clock, limits: LedgerLimits) -> None:
        self._engine = engine
        self._clock = clock
        self._limits = limits
        # Unbounded by itself; `submit` and `submit_settlement` are where the bounds are kept.
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._failed: list[Operation] = []  # Waiting for the next tick; the writer's own.
        self._next_tick = Instant(0.0)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether what is submitted will be written."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to write, and to expire what is due every ``expiry_interval_s``."""
        self._thread.start()

    def close(self) -> None:
        """Refuse new operations, write those that wait, and end the thread. Blocks until then."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()
        while not self._queue.empty():
            # Somebody submitted between the flag and the end, or the writer never started.
            left = self._queue.get()
            if left is not None:
                _fail(left, LedgerUnavailable("closed"))

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

    def _run(self) -> None:
        going = True
        while going:
            group, going = self._take()
            try:
                if group:
                    self._write(group)
                if not going or self._tick_is_due(group):
                    self._tick()
            except Exception as error:
                # The outermost handler of this thread: without the writer there is no service.
                logger.exception("ledger_writer_failed")
                for operation in group:
                    _fail(operation, LedgerUnavailable(reason(error)))

    def _take(self) -> tuple[list[Operation], bool]:
        """What waits, at most one group of it, and whether to go on after it.

        Waits for the first operation, but no longer than until the next tick.
        """
        group: list[Operation] = []
        wait_s = self._next_tick - self._clock.instant()
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
            with self._engine.begin() as connection:
                _lock(connection, group)
                begun = [each for each in group if each.future.set_running_or_notify_cancel()]
                outcomes = [_outcome(each, connection) for each in begun]
        except Exception as error:  # noqa: BLE001 - reported to each caller, once it ran alone
            if not begun:
                self._give_up(group, error)
            else:
                self._write_alone(begun, error)
            return
        for operation, outcome in zip(begun, outcomes, strict=True):
            _resolve(operation, outcome)

    def _write_alone(self, begun: Sequence[Operation], group_error: Exception) -> None:
        logger.warning("ledger_group_failed", extra={"reason": reason(group_error)})
        started = self._clock.instant()
        for position, operation in enumerate(begun):
            try:
                with self._engine.begin() as connection:
                    _lock(connection, [operation])
                    outcome = _outcome(operation, connection)
            except Exception as error:  # noqa: BLE001 - reported to its caller
                self._give_up([operation], error)
                if self._clock.instant() - started >= self._limits.database_timeout_s:
                    self._give_up(begun[position + 1 :], error)
                    return
            else:
                _resolve(operation, outcome)

    def _give_up(self, operations: Sequence[Operation], error: Exception) -> None:
        """Fail them for now; those with attempts left wait for the next tick."""
        logger.warning(
            "ledger_write_failed",
            extra={"reason": reason(error), "operations": len(operations)},
            exc_info=None if isinstance(error, SQLAlchemyError) else error,
        )
        for operation in operations:
            operation.attempts_left -= 1
            if operation.attempts_left > 0:
                operation.future = Future()
                self._failed.append(operation)
            else:
                _fail(operation, LedgerUnavailable(reason(error)))

    def _tick_is_due(self, group: Sequence[Operation]) -> bool:
        # Nothing came until the next tick: it is due by the queue's clock, if not by ours.
        return not group or self._clock.instant() >= self._next_tick

    def _tick(self) -> None:
        """Try failed settlements again, then expire what is due."""
        self._next_tick = Instant(self._clock.instant() + self._limits.expiry_interval_s)
        again, self._failed = self._failed, []
        if again:
            self._write(again)
        count_max = self._limits.expired_per_transaction_max
        try:
            with self._engine.begin() as connection:
                count = store.expire_due(connection, self._clock.moment(), count_max)
        except SQLAlchemyError as error:
            logger.warning("ledger_expiry_failed", extra={"reason": reason(error)})
            return
        if count:
            logger.info("ledger_reservations_expired", extra={"count": count})
        if count == count_max:
            self._next_tick = self._clock.instant()  # There are more: go on after the next group.


def _lock(connection: Connection, group: Sequence[Operation]) -> None:
    tenants = {each.tenant for each in group if each.tenant is not None}
    requests = {each.request_id for each in group if each.tenant is None}
    store.lock_accounts(connection, tenants, requests)


def _outcome(operation: Operation, connection: Connection) -> RerankError | None:
    try:
        operation.apply(connection)
    except RerankError as refusal:
        return refusal
    return None


def _resolve(operation: Operation, outcome: RerankError | None) -> None:
    if outcome is None:
        operation.future.set_result(None)
    else:
        operation.future.set_exception(outcome)


def _fail(operation: Operation, error: LedgerUnavailable) -> None:
    """Tell the caller, unless it went away or was told already."""
    future = operation.future
    if not future.done() and (future.running() or future.set_running_or_notify_cancel()):
        future.set_exception(error)
