"""With a slow or missing database, requests fail immediately and recovery is automatic."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from serve_app.domain.clock import SystemClock
from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, RequestId, Seconds
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ledger.writer.limits import LedgerLimits
from testkit.postgres import Postgres, running
from tests.support.fakes import until
from tests.support.ledger import (
    MARGIN_S,
    R1,
    USAGE,
    a_quote,
    a_tenant,
    balance,
    database_held,
    reserve_again,
)

LIMITS = LedgerLimits(
    database_timeout_s=Seconds(2), stuck_after_s=Seconds(0.1), probe_interval_s=Seconds(0.05)
)
PATIENT = replace(LIMITS, database_timeout_s=Seconds(30))
"""For tests that do not measure the timeout, also on a busy machine."""

MANY = 2_000


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A separate PostgreSQL server, which the test kills."""
    with running(durable=False) as server:
        migrate(server.url())
        yield server


async def refusals(ledger: SqlLedger, caller: Caller) -> int:
    """Make many concurrent reservations and return the number of refusals."""
    quotes = [a_quote(RequestId(f"many-{number}"), 1) for number in range(MANY)]
    asked = (ledger.reserve(caller, quote) for quote in quotes)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    return sum(isinstance(answer, LedgerUnavailable) for answer in answers)


def test_no_request_is_accepted_while_a_write_is_stuck(database_url: str, acme: Caller) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        with database_held(database_url):
            stuck = asyncio.create_task(ledger.reserve(acme, a_quote(R1, 10)))
            await until(lambda: ledger._writer.is_failing)
            assert not await ledger.ping()
            assert await refusals(ledger, acme) == MANY
            assert not stuck.done()  # No other reservation waited for it.
        await stuck
        await ledger.commit(R1, Credits(10), USAGE)

    ledger = SqlLedger(database_url, SystemClock(), MARGIN_S, PATIENT)
    ledger.start()
    asyncio.run(scenario(ledger))
    ledger.close()
    assert balance(database_url).charged == 10


def test_refused_requests_take_no_queue_places_of_scored_ones(
    database_url: str, acme: Caller
) -> None:
    """The pipeline voids every failed request, even one without a reservation."""

    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(acme, a_quote(R1, 10))
        with database_held(database_url):
            stuck = asyncio.create_task(ledger.reserve(acme, a_quote(RequestId("stuck"), 1)))
            await until(lambda: ledger._writer.is_failing)
            assert await refusals(ledger, acme) == MANY
            for number in range(MANY):
                ledger.void(RequestId(f"many-{number}"), USAGE)
            charge = asyncio.create_task(ledger.commit(R1, Credits(10), USAGE))
            await asyncio.sleep(0.05)
        await charge
        await stuck

    ledger = SqlLedger(
        database_url, SystemClock(), MARGIN_S, replace(PATIENT, operations_max=MANY // 2)
    )
    ledger.start()
    asyncio.run(scenario(ledger))
    ledger.close()
    assert balance(database_url).charged == 10


@pytest.mark.slow
def test_after_a_restart_that_maintenance_has_noticed_no_request_fails(server: Postgres) -> None:
    """The writer has a connection for each kind of transaction, and the restart closes both."""
    caller = a_tenant(server.url(), 10_000)
    r2 = RequestId("r2")

    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(caller, a_quote(R1, 10))
        await ledger.commit(R1, Credits(10), USAGE)
        server.kill()
        await until(lambda: ledger._writer.is_failing)
        server.start()
        await until(lambda: not ledger._writer.is_failing)
        await ledger.reserve(caller, a_quote(r2, 20))
        await ledger.commit(r2, Credits(20), USAGE)

    limits = replace(LIMITS, expiry_interval_s=Seconds(1))
    ledger = SqlLedger(server.url(), SystemClock(), MARGIN_S, limits)
    ledger.start()
    asyncio.run(scenario(ledger))
    ledger.close()
    assert balance(server.url()).charged == 30


@pytest.mark.slow
def test_a_killed_server_is_detected_immediately_and_used_again_once_it_is_back(
    server: Postgres,
) -> None:
    caller = a_tenant(server.url(), 10_000)

    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(caller, a_quote(R1, 10))
        server.kill()
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(caller, a_quote(RequestId("r2"), 10))
        assert not await ledger.ping()
        assert await refusals(ledger, caller) == MANY
        with pytest.raises(LedgerUnavailable):
            await ledger.find_keys([caller.key_id])
        # The response was refused because its charge failed. Its reservation is released later.
        with pytest.raises(LedgerUnavailable):
            await ledger.commit(R1, Credits(10), USAGE)
        server.start()
        await reserve_again(ledger, caller, a_quote(RequestId("r3"), 20))
        assert await ledger.ping()
        assert await ledger.find_keys([caller.key_id])
        await until(lambda: balance(server.url()).pending == 20)
        await ledger.commit(RequestId("r3"), Credits(20), USAGE)

    ledger = SqlLedger(server.url(), SystemClock(), MARGIN_S, LIMITS)
    ledger.start()
    asyncio.run(scenario(ledger))
    ledger.close()
    left = balance(server.url())
    assert (left.charged, left.pending, left.available) == (20, 0, 9_980)
