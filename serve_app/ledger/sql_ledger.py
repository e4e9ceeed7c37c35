"""The asyncio interface of the ledger and the key store.

An operation that has not begun after ``database_timeout_s`` is dropped and raises
`LedgerUnavailable`. The caller waits for one that has begun.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, select

from serve_app.domain.clock import Clock
from serve_app.domain.errors import LedgerUnavailable, RerankError
from serve_app.domain.job import Idempotency
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, KeyId, Moment, RequestId, Seconds
from serve_app.ledger.accounts import tenant_keys
from serve_app.ledger.db.bounded_threads import BoundedThreads, TooManyCalls
from serve_app.ledger.db.engines import open_reader, open_writer
from serve_app.ledger.db.failures import database_failures
from serve_app.ledger.db.tables import tenants
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.posting.books import Books
from serve_app.ledger.posting.rate_limits import Demand
from serve_app.ledger.writer.limits import LedgerLimits
from serve_app.ledger.writer.operation import Operation
from serve_app.ledger.writer.thread import Writer
from serve_app.ports import Quote, Reserved, StoredKey, StoredOutcome, Usage
from serve_app.telemetry.logs import get_logger

logger = get_logger(__name__)

T = TypeVar("T")


class SqlLedger:
    """Implements `serve_app.ports.Ledger` and `serve_app.ports.KeyStore` on a SQL database.

    The schema must exist (`serve_app.ledger.db.schema.migrate`).
    """

    def __init__(
        self,
        database_url: str,
        clock: Clock,
        reservation_margin_s: Seconds,
        limits: LedgerLimits | None = None,
        *,
        events: bool = False,
    ) -> None:
        """A reservation expires ``reservation_margin_s`` after the timeout of its request."""
        self._clock = clock
        self._margin_ms = round(reservation_margin_s * 1_000)
        self._limits = limits or LedgerLimits()
        timeout_s = self._limits.database_timeout_s
        threads = self._limits.reader_threads
        # No pings, because the writer recovers from failed writes.
        self._durable, self._relaxed = (
            open_writer(database_url, timeout_s, pre_ping=False, durable=durable)
            for durable in (True, False)
        )
        self._read_engine = open_reader(database_url, timeout_s, connections=threads)
        self._readers = BoundedThreads(
            "reads", threads=threads, calls_max=self._limits.reads_max, timeout_s=timeout_s
        )
        # Requests whose reservation may be written, and is neither charged nor void.
        self._reserved: set[RequestId] = set()
        self._reads_fail = False
        self._writer = Writer(
            self._durable.begin,
            clock,
            self._limits,
            relaxed=self._relaxed.begin,
            events=events,
        )
        self._closed = False

    def start(self) -> None:
        self._writer.start()

    def close(self) -> None:
        """Write the waiting operations, then disconnect. Blocks."""
        self._closed = True
        self._writer.close()
        self._readers.close()
        for engine in (self._durable, self._relaxed, self._read_engine):
            engine.dispose()

    def check(self) -> None:
        """Raises: LedgerUnavailable if the writer thread has ended, so nothing can be written."""
        if not self._writer.is_alive:
            raise LedgerUnavailable("the writer thread is not running")

    async def reserve(self, caller: Caller, quote: Quote) -> Reserved:
        if self._writer.is_failing:
            raise LedgerUnavailable("the database does not answer")
        now = self._clock.moment()
        wanted = Reservation(
            request_id=quote.request_id,
            tenant=caller.tenant,
            key_id=caller.key_id,
            model=quote.model,
            amount=quote.amount,
            created_at=now,
            expires_at=Moment(now + round(quote.timeout_s * 1_000) + self._margin_ms),
            key_capped=caller.key_limits.monthly_budget_micro_dollars is not None,
            revision=quote.revision,
        )
        demand = Demand(quote.documents, caller.key_limits, caller.tenant_limits)
        write = partial(Books.reserve, wanted=wanted, demand=demand, idempotency=quote.idempotency)
        operation = Operation(
            write,
            quote.request_id,
            caller.tenant,
            caller.key_id,
            quote.idempotency,
            is_new=True,
            durable=False,
        )
        self._reserved.add(quote.request_id)
        try:
            reserved: Reserved = await self._written(operation)
        except (RerankError, asyncio.CancelledError) as error:
            refused = isinstance(error, RerankError) and not isinstance(error, LedgerUnavailable)
            if refused or operation.prevent():
                self._reserved.discard(quote.request_id)
            raise
        if reserved.repeats is not None and quote.idempotency is not None:
            self._reserved.discard(quote.request_id)
            await self._replay(reserved.repeats, quote.idempotency)
        return reserved

    async def _replay(self, request_id: RequestId, idempotency: Idempotency) -> None:
        """Make the charge final. Durable, because a reversal could follow the repeat's answer."""
        write = partial(Books.replay, request_id=request_id, idempotency=idempotency)
        await self._written(Operation(write, request_id))

    async def commit(
        self,
        request_id: RequestId,
        amount: Credits,
        usage: Usage,
        stored: StoredOutcome | None = None,
    ) -> None:
        write = partial(
            Books.commit,
            request_id=request_id,
            amount=amount,
            usage=usage,
            now=self._clock.moment(),
            stored=stored,
        )
        self._reserved.discard(request_id)
        operation = Operation(write, request_id)
        try:
            await self._written(operation)
        except (LedgerUnavailable, asyncio.CancelledError):
            if operation.prevent():
                self._void(request_id, usage)
            else:
                # The COMMIT may be running or done. The client gets no result, so the charge must
                # not stay.
                self._reverse(request_id, usage, stored)
            raise

    def void(self, request_id: RequestId, usage: Usage) -> None:
        """Skip requests without a reservation: refusals in an outage would fill the queue."""
        if request_id in self._reserved:
            self._reserved.remove(request_id)
            self._void(request_id, usage)

    def _void(self, request_id: RequestId, usage: Usage) -> None:
        write = partial(Books.void, request_id=request_id, usage=usage, now=self._clock.moment())
        self._writer.submit_settlement(
            Operation(
                write,
                request_id,
                attempts_left=self._limits.settlement_attempts_max,
                durable=False,
            )
        )

    async def find_keys(self, key_ids: Sequence[KeyId]) -> dict[KeyId, StoredKey]:
        return await self._read(partial(tenant_keys.find_keys, key_ids=key_ids))

    async def ping(self) -> bool:
        """Return whether writes succeed and a read completes in time."""
        if self._writer.is_failing:
            return False
        try:
            await self._read(lambda connection: connection.scalar(select(tenants.c.id).limit(1)))
        except LedgerUnavailable as error:
            logger.warning("ledger_ping_failed", extra={"reason": error.reason})
            return False
        return True

    async def _written(self, operation: Operation) -> Any:
        """Return the result once it is written. Cancellation drops an operation not yet begun."""
        future = operation.future
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        future.add_done_callback(partial(_notify, loop, ended))
        timeout_s = self._limits.database_timeout_s
        timer = loop.call_later(timeout_s, future.cancel)  # No effect once it has begun.
        try:
            # Submit last: later work here would compete with the writer for the GIL.
            self._writer.submit(operation)
            await ended
        finally:
            timer.cancel()
            future.cancel()
        if future.cancelled():
            raise LedgerUnavailable("a write did not begin in time")
        return future.result()

    def _reverse(self, request_id: RequestId, usage: Usage, stored: StoredOutcome | None) -> None:
        write = partial(
            Books.reverse,
            request_id=request_id,
            usage=usage,
            now=self._clock.moment(),
            idempotency=stored.idempotency if stored else None,
        )
        self._writer.submit_reversal(Operation(write, request_id, attempts_left=None))

    async def _read(self, query: Callable[[Connection], T]) -> T:
        if self._closed:
            raise LedgerUnavailable("closed")
        if self._reads_fail and self._readers.calls > 0:
            raise LedgerUnavailable("reads are failing, and another read is testing the database")
        try:
            found = await self._readers.call(lambda: self._run_read(query), abandon=True)
        except TooManyCalls:
            raise
        except LedgerUnavailable:
            self._reads_fail = True
            raise
        self._reads_fail = False
        return found

    def _run_read(self, query: Callable[[Connection], T]) -> T:
        with database_failures(), self._read_engine.connect() as connection:
            return query(connection)


def _notify(loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None], _: object) -> None:
    """Wake the waiting coroutine from any thread. `asyncio.wrap_future` takes twice as long."""
    with suppress(RuntimeError):  # The loop is closed.
        loop.call_soon_threadsafe(_end, ended)


def _end(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
