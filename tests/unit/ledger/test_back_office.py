"""Waits of reports and changes for a thread or the database are limited."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from threading import Event

import pytest
from sqlalchemy import Connection, text

from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, Seconds
from serve_app.ledger.accounts import credit_grants, tenant_accounts
from serve_app.ledger.accounts.tenant_accounts import Tenant
from serve_app.ledger.back_office import CALLS_MAX, THREADS, BackOffice
from serve_app.ledger.db.engines import transaction
from tests.support.fakes import until
from tests.support.ledger import AUDIT, TIMEOUT_S, balance, database_held


@pytest.fixture
def office(database_url: str) -> Iterator[BackOffice]:
    with closing(BackOffice(database_url, TIMEOUT_S)) as built:
        yield built


@pytest.fixture
def hasty_office(database_url: str) -> Iterator[BackOffice]:
    """A back office with a short timeout, for calls that never succeed."""
    with closing(BackOffice(database_url, Seconds(1))) as built:
        yield built


def pay(connection: Connection, acme: Caller) -> None:
    credit_grants.grant(connection, acme.tenant, Credits(25), "invoice 17", AUDIT)


def test_a_change_is_durable_once_the_call_returns(
    office: BackOffice, acme: Caller, database_url: str
) -> None:
    asyncio.run(office.write(lambda connection: pay(connection, acme)))

    assert balance(database_url).available == 125


def test_a_refused_change_leaves_no_trace(
    office: BackOffice, acme: Caller, database_url: str
) -> None:
    def change(connection: Connection) -> None:
        pay(connection, acme)
        tenant_accounts.create_tenant(connection, "acme", AUDIT)

    with pytest.raises(tenant_accounts.AccountConflict):
        asyncio.run(office.write(change))

    assert balance(database_url).available == 100


def test_a_slow_report_is_aborted(hasty_office: BackOffice, acme: Caller) -> None:
    def endless(connection: Connection) -> object:
        numbers = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        )
        return connection.scalar(text(numbers))

    def short(connection: Connection) -> Tenant:
        return tenant_accounts.find_tenant(connection, acme.tenant)

    with pytest.raises(LedgerUnavailable):
        asyncio.run(hasty_office.read(endless))

    assert asyncio.run(hasty_office.read(short)).id == acme.tenant


def test_a_report_sees_one_snapshot(office: BackOffice, acme: Caller, database_url: str) -> None:
    def query(connection: Connection) -> tuple[int, int]:
        before = tenant_accounts.find_tenant(connection, acme.tenant).available
        with transaction(database_url, TIMEOUT_S) as other:
            pay(other, acme)
        return before, tenant_accounts.find_tenant(connection, acme.tenant).available

    assert asyncio.run(office.read(query)) == (100, 100)
    assert balance(database_url).available == 125


def test_a_report_does_not_wait_for_a_writer(
    office: BackOffice, acme: Caller, database_url: str
) -> None:
    def find(connection: Connection) -> Tenant:
        return tenant_accounts.find_tenant(connection, "acme")

    if database_url.startswith("sqlite"):
        with database_held(database_url):
            assert asyncio.run(office.read(find)).id == acme.tenant
    else:
        assert asyncio.run(office.read(find)).id == acme.tenant


def test_a_change_is_refused_while_the_database_is_locked(
    hasty_office: BackOffice, acme: Caller, database_url: str
) -> None:
    with database_held(database_url), pytest.raises(LedgerUnavailable):
        asyncio.run(hasty_office.write(lambda connection: pay(connection, acme)))

    assert balance(database_url).available == 100


def test_a_change_that_does_not_begin_in_time_is_never_made(hasty_office: BackOffice) -> None:
    release = Event()
    begun: list[bool] = []

    def hold(_connection: Connection) -> None:
        begun.append(True)
        release.wait()

    async def late() -> None:
        busy = [asyncio.create_task(hasty_office.read(hold)) for _ in range(THREADS)]
        try:
            await until(lambda: len(begun) == THREADS)
            with pytest.raises(LedgerUnavailable, match="take too long"):
                await hasty_office.read(hold)
        finally:
            release.set()
        await asyncio.gather(*busy)

    asyncio.run(late())

    assert len(begun) == THREADS


def test_reports_do_not_delay_changes(office: BackOffice, acme: Caller, database_url: str) -> None:
    release = Event()

    async def flood() -> None:
        reports = [
            asyncio.create_task(office.read(lambda _: release.wait())) for _ in range(CALLS_MAX)
        ]
        try:
            await asyncio.sleep(0)
            await office.write(lambda connection: pay(connection, acme))
        finally:
            release.set()
        await asyncio.gather(*reports)

    asyncio.run(flood())

    assert balance(database_url).available == 125


def test_changes_beyond_the_queue_limit_are_refused_immediately(database_url: str) -> None:
    release = Event()
    begun: list[bool] = []

    def hold(_connection: Connection) -> None:
        begun.append(True)
        release.wait()

    async def flood(office: BackOffice) -> None:
        tasks = [asyncio.create_task(office.read(hold)) for _ in range(CALLS_MAX)]
        try:
            await until(lambda: len(begun) == THREADS)
            with pytest.raises(LedgerUnavailable, match="are waiting"):
                await office.read(lambda _: None)
            for task in tasks:
                task.cancel()  # As if their clients disconnected.
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            release.set()
        assert await office.read(lambda _: "open again") == "open again"

    with closing(BackOffice(database_url, Seconds(60))) as office:
        asyncio.run(flood(office))

    assert len(begun) == THREADS
