"""Writes share a transaction, but refusals, faults and cancellations stay separate."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
from sqlalchemy import Connection, Engine, event, select
from sqlalchemy.exc import OperationalError

from serve_app.domain.errors import LedgerUnavailable, OutOfCredit, ReservationClosed
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, KeyId, RequestId, Revision, Seconds
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.db.tables import charges, reservations
from serve_app.ledger.posting.books import Books
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ledger.writer.operation import Operation
from serve_app.ledger.writer.thread import Writer
from serve_app.ports import Reserved
from tests.support import postings
from tests.support.fakes import FakeClock, until
from tests.support.ledger import (
    LIMITS,
    MARGIN_S,
    NOW,
    R1,
    TIMEOUT_OF_REQUEST_S,
    TIMEOUT_S,
    USAGE,
    Begins,
    FailingEngine,
    LossyEngine,
    a_quote,
    a_reservation,
    balance,
    database_held,
    ledger_on,
    reserve_again,
    state_of,
    write_through,
)

R2 = RequestId("r2")
R3 = RequestId("r3")
IMPATIENT = replace(LIMITS, database_timeout_s=Seconds(1))


@asynccontextmanager
async def one_group(ledger: SqlLedger, database_url: str) -> AsyncIterator[None]:
    """Hold back all operations started in the block, so that they are written as one group."""
    with database_held(database_url):
        await asyncio.sleep(0.06)  # The writer is now stuck in its tick, unless it is late.
        if database_url.startswith("sqlite"):  # Only there, a tick without work needs the lock.
            await until(lambda: ledger._writer._busy_since is not None)
        yield
        await asyncio.sleep(0.01)  # Tasks have put their operations into the queue.


def test_a_request_is_reserved_charged_and_durable_when_the_call_returns(
    database_url: str, acme: Caller
) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(acme, a_quote(R1, 30))
        assert balance(database_url).pending == 30
        await ledger.commit(R1, Credits(12), USAGE)
        assert (balance(database_url).available, balance(database_url).charged) == (88, 12)

    with ledger_on(database_url) as ledger:
        asyncio.run(scenario(ledger))


def test_a_charge_has_the_revision_for_which_its_credit_was_reserved(
    database_url: str, acme: Caller, engine: Engine
) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        for request_id, revision in ((R1, "embedded"), (R2, "embedded-2@v2"), (R3, "embedded-2")):
            quote = replace(a_quote(request_id, 5), revision=Revision(revision))
            await ledger.reserve(acme, quote)
        await ledger.commit(R1, Credits(1), USAGE)
        await ledger.commit(R2, Credits(1), USAGE)
        ledger.void(R3, USAGE)

    with ledger_on(database_url) as ledger:
        asyncio.run(scenario(ledger))

    with engine.begin() as connection:
        charged = connection.execute(select(charges.c.request_id, charges.c.revision)).all()
        reserved = connection.execute(select(reservations.c.id, reservations.c.revision)).all()
    assert sorted(map(tuple, charged)) == [("r1", "embedded"), ("r2", "embedded-2@v2")]
    assert sorted(map(tuple, reserved)) == [
        *(("r1", "embedded"), ("r2", "embedded-2@v2"), ("r3", "embedded-2"))
    ]


def test_acknowledged_writes_survive_the_death_of_the_process(
    database_url: str, acme: Caller
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SPENDER, database_url, acme.tenant, acme.key_id],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as lines:
        acknowledged = [lines.readline().strip() for _ in range(10)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in lines if line.endswith("\n")]
    process.wait(10)

    with transaction(database_url, TIMEOUT_S) as connection:
        charged = set(connection.scalars(select(charges.c.request_id)))
    assert set(acknowledged) <= charged
    assert balance(database_url).charged == len(charged)


SPENDER = """
import asyncio, sys
from serve_app.domain.clock import SystemClock
from serve_app.domain.model import Caller
from serve_app.ledger.sql_ledger import SqlLedger
from tests.support.ledger import USAGE, a_quote

url, tenant, key_id = sys.argv[1:]
caller = Caller(tenant, key_id, frozenset(), None)

async def main():
    ledger = SqlLedger(url, SystemClock(), 60)
    ledger.start()
    for number in range(90):
        await ledger.reserve(caller, a_quote(f"r{number}", 1))
        await ledger.commit(f"r{number}", 1, USAGE)
        print(f"r{number}", flush=True)

asyncio.run(main())
"""


def test_a_refusal_does_not_affect_its_group(database_url: str, acme: Caller) -> None:
    async def scenario(ledger: SqlLedger) -> list[object]:
        async with one_group(ledger, database_url):
            together = asyncio.gather(
                ledger.reserve(acme, a_quote(R1, 30)),
                ledger.reserve(acme, a_quote(R2, 71)),
                ledger.commit(R3, Credits(1), USAGE),
                ledger.reserve(acme, a_quote(R3, 20)),
                return_exceptions=True,
            )
            await asyncio.sleep(0)
        return list(await together)

    with ledger_on(database_url) as ledger:
        outcomes = asyncio.run(scenario(ledger))

    assert [type(each) for each in outcomes] == [
        Reserved,
        OutOfCredit,
        ReservationClosed,
        Reserved,
    ]
    # The commit without a reservation failed as closed, and the reservation of r3 stays.
    assert balance(database_url).pending == 50


def test_an_operation_that_breaks_its_transaction_fails_alone(
    database_url: str, acme: Caller
) -> None:
    stranger = replace(acme, key_id=KeyId("no-such-key"))  # Breaks a foreign key.

    async def scenario(ledger: SqlLedger) -> list[object]:
        async with one_group(ledger, database_url):
            together = asyncio.gather(
                ledger.reserve(acme, a_quote(R1, 30)),
                ledger.reserve(stranger, a_quote(R2, 5)),
                ledger.reserve(acme, a_quote(R3, 20)),
                return_exceptions=True,
            )
            await asyncio.sleep(0)
        return list(await together)

    with ledger_on(database_url) as ledger:
        outcomes = asyncio.run(scenario(ledger))

    assert [type(each) for each in outcomes] == [Reserved, LedgerUnavailable, Reserved]
    assert balance(database_url).pending == 50


def test_waiting_operations_share_one_transaction(database_url: str, acme: Caller) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        async with one_group(ledger, database_url):
            together = asyncio.gather(
                *(ledger.reserve(acme, a_quote(RequestId(f"r{n}"), 1)) for n in range(50))
            )
            await asyncio.sleep(0)
            counted.append(commits)
        await together
        counted.append(commits)

    commits = 0
    counted: list[int] = []

    def count(_connection: Connection) -> None:
        nonlocal commits
        commits += 1

    idle = replace(LIMITS, expiry_interval_s=Seconds(0.05))
    with ledger_on(database_url, idle) as ledger:
        event.listen(ledger._durable, "commit", count)
        asyncio.run(scenario(ledger))

    assert counted[1] - counted[0] <= 3  # The blocked tick, the group, and another tick.
    assert balance(database_url).pending == 50


def test_a_reserve_cancelled_before_it_began_is_not_made(database_url: str, acme: Caller) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        async with one_group(ledger, database_url):
            reserve = asyncio.create_task(ledger.reserve(acme, a_quote(R1, 30)))
            await asyncio.sleep(0)
            reserve.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reserve
            ledger.void(R1, USAGE)
        await ledger.reserve(acme, a_quote(R2, 1))

    with ledger_on(database_url) as ledger:
        asyncio.run(scenario(ledger))

    assert state_of(database_url, R1) is None
    assert balance(database_url).available == 99


def test_a_void_after_a_reserve_in_the_same_group_gives_the_credit_back(
    database_url: str, acme: Caller
) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        async with one_group(ledger, database_url):
            reserve = asyncio.create_task(ledger.reserve(acme, a_quote(R1, 30)))
            await asyncio.sleep(0)
            ledger.void(R1, USAGE)
        await reserve

    with ledger_on(database_url) as ledger:
        asyncio.run(scenario(ledger))

    assert state_of(database_url, R1) == "voided"
    assert balance(database_url).available == 100


def test_a_commit_whose_caller_was_cancelled_is_reversed(database_url: str, acme: Caller) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(acme, a_quote(R1, 30))
        commit = asyncio.create_task(ledger.commit(R1, Credits(30), USAGE))
        await asyncio.sleep(0)
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit

    with ledger_on(database_url) as ledger:
        asyncio.run(scenario(ledger))

    assert state_of(database_url, R1) == "voided"
    assert balance(database_url).available == 100


def test_a_locked_database_is_reported_in_time_and_used_again_afterwards(
    database_url: str, acme: Caller
) -> None:
    async def scenario(ledger: SqlLedger) -> float:
        await ledger.reserve(acme, a_quote(R1, 30))
        with database_held(database_url):
            started = time.monotonic()
            with pytest.raises(LedgerUnavailable):
                await ledger.commit(R1, Credits(30), USAGE)
            took_s = time.monotonic() - started
        await reserve_again(ledger, acme, a_quote(R2, 10))
        await until(lambda: balance(database_url).pending == 10)
        return took_s

    with ledger_on(database_url, IMPATIENT) as ledger:
        took_s = asyncio.run(scenario(ledger))

    assert took_s < 10
    assert (state_of(database_url, R1), balance(database_url).charged) == ("voided", 0)


def test_a_write_that_did_not_begin_in_time_is_never_made(database_url: str, acme: Caller) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        with database_held(database_url), pytest.raises(LedgerUnavailable):
            await ledger.reserve(acme, a_quote(R1, 30))
        await reserve_again(ledger, acme, a_quote(R2, 10))

    with ledger_on(database_url, IMPATIENT) as ledger:
        asyncio.run(scenario(ledger))

    assert balance(database_url).pending == 10


def test_writes_beyond_the_queue_limit_are_refused_immediately(
    database_url: str, acme: Caller
) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        waiting = [
            asyncio.create_task(ledger.reserve(acme, a_quote(RequestId(f"r{n}"), 1)))
            for n in range(2)
        ]
        await asyncio.sleep(0)
        started = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="too many"):
            await ledger.reserve(acme, a_quote(R3, 1))
        assert time.monotonic() - started < 1
        for _ in range(10):
            ledger.void(R1, USAGE)  # Dropped without an error for the caller.
        ledger.start()
        await asyncio.gather(*waiting)

    ledger = SqlLedger(database_url, FakeClock(), MARGIN_S, replace(LIMITS, operations_max=2))
    try:
        asyncio.run(scenario(ledger))
    finally:
        ledger.close()


def test_an_abandoned_reservation_expires_and_its_late_commit_is_refused(
    database_url: str, acme: Caller
) -> None:
    clock = FakeClock()

    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(acme, a_quote(R1, 30))
        clock.advance(TIMEOUT_OF_REQUEST_S + MARGIN_S - 0.1)
        await asyncio.sleep(0.06)
        assert balance(database_url).pending == 30
        clock.advance(0.2)
        await until(lambda: balance(database_url).available == 100)
        with pytest.raises(ReservationClosed, match="expired"):
            await ledger.commit(R1, Credits(30), USAGE)

    with ledger_on(database_url, clock=clock) as ledger:
        asyncio.run(scenario(ledger))


def test_a_ledger_forgets_the_requests_that_it_has_settled(database_url: str, acme: Caller) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        for request_id in (R1, R2, R3):
            await ledger.reserve(acme, a_quote(request_id, 30))
        await ledger.commit(R1, Credits(30), USAGE)
        ledger.void(R2, USAGE)
        await ledger.commit(R3, Credits(20), USAGE)
        with pytest.raises(ReservationClosed):
            await ledger.commit(R2, Credits(30), USAGE)
        await ledger.commit(R1, Credits(30), USAGE)  # A repetition has no effect.
        assert not ledger._reserved

    with ledger_on(database_url) as ledger:
        asyncio.run(scenario(ledger))

    states = [state_of(database_url, each) for each in (R1, R2, R3)]
    assert states == ["committed", "voided", "committed"]
    assert (balance(database_url).available, balance(database_url).charged) == (50, 50)


def test_closing_writes_waiting_operations_and_refuses_later_ones(
    database_url: str, acme: Caller
) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        reserve = asyncio.create_task(ledger.reserve(acme, a_quote(R1, 30)))
        await asyncio.sleep(0)
        ledger.close()
        await reserve
        for late in (ledger.reserve(acme, a_quote(R2, 1)), ledger.find_keys([acme.key_id])):
            with pytest.raises(LedgerUnavailable, match="closed"):
                await cast(Awaitable[Any], late)
        ledger.void(R1, USAGE)

    with ledger_on(database_url) as ledger:
        asyncio.run(scenario(ledger))

    assert balance(database_url).pending == 30


def test_keys_are_found_and_readiness_follows_the_database(database_url: str, acme: Caller) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        found = await ledger.find_keys([KeyId("nobody"), acme.key_id])
        assert {key_id: key.caller for key_id, key in found.items()} == {acme.key_id: acme}
        assert await ledger.ping()

    with ledger_on(database_url) as ledger:
        asyncio.run(scenario(ledger))


def test_a_database_without_tables_is_not_ready(empty_url: str) -> None:
    with ledger_on(empty_url) as ledger:
        assert not asyncio.run(ledger.ping())


@pytest.mark.parametrize(
    ("losses", "state", "charged"),
    [
        pytest.param(1, "committed", 30, id="confirmed by a retry"),
        pytest.param(2, "voided", 0, id="not confirmed, so reversed"),
    ],
)
def test_a_commit_with_a_lost_outcome_is_charged_only_if_it_is_answered(
    database_url: str, acme: Caller, losses: int, state: str, charged: int
) -> None:
    async def scenario(ledger: SqlLedger) -> bool:
        await ledger.reserve(acme, a_quote(R1, 30))
        try:
            await ledger.commit(R1, Credits(30), USAGE)
        except LedgerUnavailable:
            await until(lambda: state_of(database_url, R1) == "voided")
            return False
        return True

    with ledger_on(database_url) as ledger:
        lossy = LossyEngine(ledger._durable, losses)
        write_through(ledger, lossy)
        answered = asyncio.run(scenario(ledger))

    assert answered == (charged > 0)
    assert (state_of(database_url, R1), balance(database_url).charged) == (state, charged)


def test_after_a_failure_groups_keep_their_size_limit(database_url: str, acme: Caller) -> None:
    limits = replace(LIMITS, group_operations_max=4, settlement_attempts_max=100)
    ids = [RequestId(f"many-{number}") for number in range(20)]
    sizes: list[int] = []

    async def scenario(ledger: SqlLedger) -> None:
        for each in ids:
            await ledger.reserve(acme, a_quote(each, 1))
        failing = FailingEngine(ledger._durable, 12)
        write_through(ledger, failing)
        written = ledger._writer._write

        def write(group: Sequence[Operation]) -> None:
            sizes.append(len(group))
            written(group)

        ledger._writer._write = write  # type: ignore[method-assign]
        for each in ids:
            ledger.void(each, USAGE)
        await until(lambda: balance(database_url).pending == 0)
        assert failing.failures == 0

    with ledger_on(database_url, limits) as ledger:
        asyncio.run(scenario(ledger))

    assert max(sizes) == 4
    assert balance(database_url).available == 100


class SlowEngine:
    """Commits slowly."""

    def __init__(self, engine: Begins, commit_s: float) -> None:
        self._engine = engine
        self._commit_s = commit_s

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection
            time.sleep(self._commit_s)


def test_a_write_that_has_begun_is_waited_for(database_url: str, acme: Caller) -> None:
    with ledger_on(database_url, replace(LIMITS, database_timeout_s=Seconds(0.5))) as ledger:
        write_through(ledger, SlowEngine(ledger._durable, 0.6))
        asyncio.run(ledger.reserve(acme, a_quote(R1, 30)))

    assert balance(database_url).pending == 30


class DyingEngine:
    """Fails during the first group; every later attempt takes a whole timeout."""

    def __init__(self, engine: Begins, clock: FakeClock) -> None:
        self._engine = engine
        self._clock = clock
        self.attempts = 0

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        self.attempts += 1
        if self.attempts == 1:
            with self._engine.begin() as connection:
                yield connection
                connection.rollback()
        self._clock.advance(LIMITS.database_timeout_s)
        raise OperationalError("COMMIT", {}, ConnectionError("no route"))


def test_a_group_does_not_wait_for_a_dead_database_once_per_operation(
    engine: Engine, acme: Caller
) -> None:
    clock = FakeClock()
    dying = DyingEngine(engine, clock)
    writer = Writer(dying.begin, clock, replace(LIMITS, expiry_interval_s=Seconds(3_600)))
    operations = [
        Operation(
            partial(Books.reserve, wanted=a_reservation(acme, 1, f"r{number}")),
            RequestId(f"r{number}"),
            acme.tenant,
        )
        for number in range(5)
    ]
    for operation in operations:
        writer.submit(operation)

    writer.start()
    errors = [operation.future.exception(timeout=30) for operation in operations]
    writer.close()

    assert [type(error) for error in errors] == [LedgerUnavailable] * 5
    assert dying.attempts <= 4  # The group, one operation alone, and two ticks.


def test_a_void_is_retried_after_a_database_failure(
    database_url: str, engine: Engine, acme: Caller
) -> None:
    failing = FailingEngine(engine, 0)
    writer = Writer(failing.begin, FakeClock(), LIMITS)
    with engine.begin() as connection:
        postings.reserve(connection, a_reservation(acme, 30, expires_at=NOW + 10**9))
    failing.failures = 3
    writer.submit_settlement(
        Operation(lambda books: books.void(R1, USAGE, NOW), R1, attempts_left=4)
    )

    writer.start()
    asyncio.run(until(lambda: state_of(database_url, R1) == "voided"))

    writer.close()
    assert balance(database_url).available == 100
