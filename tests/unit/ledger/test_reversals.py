"""A charge is reversed if its commit was reported as failed, even after a long outage."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, RequestId
from serve_app.ledger.posting.books import Books
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ledger.writer.operation import Operation
from serve_app.ledger.writer.thread import Writer
from tests.support import postings
from tests.support.fakes import FakeClock, until
from tests.support.ledger import (
    LIMITS,
    NOW,
    R1,
    USAGE,
    Begins,
    FailingEngine,
    LossyEngine,
    a_quote,
    a_reservation,
    balance,
    ledger_on,
    state_of,
    write_through,
)

LONG_OUTAGE = 5 * LIMITS.settlement_attempts_max
FOR_EVER = 10**9


class OutageAfterCommit:
    """Commits the first charge but loses the response, and then fails every transaction."""

    def __init__(self, engine: Begins, failures: int) -> None:
        self._lossy = LossyEngine(engine, losses=1)
        self._failing = FailingEngine(engine, 0)
        self._failures = failures

    @property
    def is_over(self) -> bool:
        return self._failing.failures == 0

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        if not self._failures:
            with self._failing.begin() as connection:
                yield connection
            return
        try:
            with self._lossy.begin() as connection:
                yield connection
        except OperationalError:
            self._failing.failures, self._failures = self._failures, 0
            raise


def break_down(ledger: SqlLedger, failures: int) -> OutageAfterCommit:
    outage = OutageAfterCommit(ledger._durable, failures)
    write_through(ledger, outage)
    return outage


async def fail_to_commit(ledger: SqlLedger, acme: Caller) -> None:
    await ledger.reserve(acme, a_quote(R1, 30))
    with pytest.raises(LedgerUnavailable):
        await ledger.commit(R1, Credits(30), USAGE)


def lost_ids(caplog: pytest.LogCaptureFixture) -> list[list[RequestId]]:
    return [
        record.__dict__["request_ids"]
        for record in caplog.records
        if record.message == "ledger_reversal_lost" and record.levelno == logging.ERROR
    ]


def a_charge(engine: Engine, acme: Caller, request_id: str = "r1") -> RequestId:
    with engine.begin() as connection:
        wanted = a_reservation(acme, 30, request_id, expires_at=NOW + 10**9)
        postings.reserve(connection, wanted)
        postings.commit(connection, wanted.request_id, wanted.amount, USAGE, NOW)
    return wanted.request_id


def a_reversal(request_id: RequestId = R1) -> Operation:
    write = partial(Books.reverse, request_id=request_id, usage=USAGE, now=NOW)
    return Operation(write, request_id, attempts_left=None)


def test_a_charge_is_reversed_after_a_long_outage(database_url: str, acme: Caller) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        await fail_to_commit(ledger, acme)
        assert state_of(database_url, R1) == "committed"
        await until(lambda: state_of(database_url, R1) == "voided")

    with ledger_on(database_url) as ledger:
        outage = break_down(ledger, LONG_OUTAGE)
        asyncio.run(scenario(ledger))

    assert outage.is_over
    assert (balance(database_url).available, balance(database_url).charged) == (100, 0)


def test_a_charge_is_reversed_however_many_writes_are_waiting(
    database_url: str, engine: Engine, acme: Caller
) -> None:
    a_charge(engine, acme)
    writer = Writer(engine.begin, FakeClock(), replace(LIMITS, operations_max=2))
    for _ in range(10):
        writer.submit_settlement(Operation(lambda _: None, RequestId("other"), attempts_left=4))

    writer.submit_reversal(a_reversal())
    writer.start()
    writer.close()

    assert balance(database_url).available == 100


def test_closing_retries_once(database_url: str, engine: Engine, acme: Caller) -> None:
    a_charge(engine, acme)
    failing = FailingEngine(engine, 1)
    writer = Writer(failing.begin, FakeClock(), LIMITS)
    writer.submit_reversal(a_reversal())

    writer.start()
    writer.close()

    assert state_of(database_url, R1) == "voided"


def test_a_reversal_submitted_while_closing_is_written(
    database_url: str, engine: Engine, acme: Caller
) -> None:
    a_charge(engine, acme)
    writer = Writer(engine.begin, FakeClock(), LIMITS)
    last = Operation(lambda _: writer.submit_reversal(a_reversal()), RequestId("last"))
    writer.submit(last)
    writer._queue.put(None)  # As `close` does.

    writer.start()
    writer.close()

    assert last.future.exception(timeout=30) is None
    assert state_of(database_url, R1) == "voided"


def test_charges_left_at_the_end_of_the_process_are_logged(
    engine: Engine, acme: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [a_charge(engine, acme, f"r{number}") for number in range(3)]
    writer = Writer(FailingEngine(engine, FOR_EVER).begin, FakeClock(), LIMITS)
    writer.submit_settlement(Operation(lambda _: None, RequestId("other"), attempts_left=FOR_EVER))
    for request_id in ids[:2]:
        writer.submit_reversal(a_reversal(request_id))

    writer.start()
    writer.close()
    writer.submit_reversal(a_reversal(ids[2]))

    assert lost_ids(caplog) == [ids[:2], ids[2:]]


def test_a_commit_that_never_began_needs_no_reversal(
    database_url: str, acme: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(acme, a_quote(R1, 30))
        write_through(ledger, FailingEngine(ledger._durable, FOR_EVER))
        with pytest.raises(LedgerUnavailable, match="no route"):
            await ledger.commit(R1, Credits(30), USAGE)
        ledger.close()
        with pytest.raises(LedgerUnavailable, match="closed"):
            await ledger.commit(R1, Credits(30), USAGE)

    with ledger_on(database_url) as ledger:
        asyncio.run(scenario(ledger))

    assert lost_ids(caplog) == []
    assert state_of(database_url, R1) == "pending"  # It will expire.


@pytest.mark.parametrize("fate", ["prevented", "failed", "applied"])
def test_only_an_operation_that_never_began_leaves_no_trace(fate: str) -> None:
    operation = Operation(lambda _: None, R1)
    steps: dict[str, list[Callable[[], object]]] = {
        "prevented": [],
        "failed": [lambda: operation.fail(LedgerUnavailable("closed"))],
        "applied": [operation.begin, lambda: operation.resolve(None)],
    }

    for step in steps[fate]:
        step()

    assert operation.prevent() == (fate != "applied")
    if fate == "prevented":
        assert not operation.begin()


# The thread ends with a BaseException, which pytest would report.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_writer_is_detected(database_url: str) -> None:
    class Deadly:
        def begin(self) -> AbstractContextManager[Connection]:
            raise KeyboardInterrupt

    with ledger_on(database_url) as ledger:
        ledger.check()

        write_through(ledger, Deadly())
        ledger._writer._thread.join(5)

        with pytest.raises(LedgerUnavailable, match="writer"):
            ledger.check()
