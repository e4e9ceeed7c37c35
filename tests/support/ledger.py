"""Helpers: tenants with credit, balances, and failing databases."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import OperationalError

from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.model import Caller
from serve_app.domain.units import (
    Credits,
    KeyId,
    ModelId,
    Moment,
    RequestId,
    Seconds,
    Tokens,
)
from serve_app.ledger.accounts import credit_grants, tenant_accounts, tenant_keys
from serve_app.ledger.db.audit_log import AuditContext
from serve_app.ledger.db.engines import open_writer, opened, transaction
from serve_app.ledger.db.tables import charges, reservations
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.reports.balances import Balance, balances
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ledger.writer.limits import LedgerLimits
from serve_app.ports import Quote, Usage
from tests.support.fakes import FakeClock

MODEL = ModelId("embedded")
R1 = RequestId("r1")
USAGE = Usage(documents=3, tokens=Tokens(90))
NOW = Moment(1_000_000)
AUDIT = AuditContext("tester", NOW)
TIMEOUT_S = Seconds(5)
TIMEOUT_OF_REQUEST_S, MARGIN_S = Seconds(30), Seconds(30)
LIMITS = LedgerLimits(expiry_interval_s=Seconds(0.02))


def a_tenant(database_url: str, credit: int, name: str = "acme") -> Caller:
    """Create a tenant with a key and ``credit``."""
    key_id = KeyId(f"key-of-{name}")
    with transaction(database_url, TIMEOUT_S) as connection:
        tenant = tenant_accounts.create_tenant(connection, name, AUDIT).id
        new = tenant_keys.NewKey(key_id, bytes(32), "test", {"rerank"}, None, None)
        tenant_keys.create_key(connection, tenant, new, AUDIT)
        if credit:
            credit_grants.grant(connection, tenant, Credits(credit), "test", AUDIT)
    return Caller(tenant, key_id, frozenset({"rerank"}), None)


def a_quote(request_id: RequestId, amount: int, documents: int = 1) -> Quote:
    return Quote(request_id, MODEL, documents, Credits(amount), TIMEOUT_OF_REQUEST_S)


def a_reservation(
    caller: Caller, amount: int, request_id: str = "r1", expires_at: int = NOW + 60_000
) -> Reservation:
    return Reservation(
        RequestId(request_id),
        caller.tenant,
        caller.key_id,
        MODEL,
        Credits(amount),
        created_at=NOW,
        expires_at=Moment(expires_at),
    )


def balance(database_url: str) -> Balance:
    """Return the only tenant's balance and check that it adds up."""
    with transaction(database_url, TIMEOUT_S) as connection:
        (only,) = balances(connection)
    assert only.adds_up, only
    return only


def balance_in(engine: Engine) -> Balance:
    with engine.begin() as connection:
        (only,) = balances(connection)
    assert only.adds_up, only
    return only


@contextmanager
def database_held(database_url: str) -> Iterator[None]:
    """Block all other writers for the length of the block."""
    with (
        opened(open_writer(database_url, TIMEOUT_S)) as engine,
        engine.begin() as connection,
    ):
        if engine.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE"))
        yield


@contextmanager
def ledger_on(
    database_url: str, limits: LedgerLimits = LIMITS, clock: FakeClock | None = None
) -> Iterator[SqlLedger]:
    ledger = SqlLedger(database_url, clock or FakeClock(), MARGIN_S, limits)
    ledger.start()
    try:
        yield ledger
    finally:
        ledger.close()


async def reserve_again(ledger: SqlLedger, caller: Caller, quote: Quote) -> None:
    """Retry the reservation until the ledger has noticed that the database is back."""
    async with asyncio.timeout(30):
        while True:
            try:
                await ledger.reserve(caller, quote)
            except LedgerUnavailable:
                await asyncio.sleep(0.01)
            else:
                return


def state_of(database_url: str, request_id: RequestId) -> str | None:
    with transaction(database_url, TIMEOUT_S) as connection:
        query = select(reservations.c.state).where(reservations.c.id == request_id)
        state: str | None = connection.scalar(query)
        return state


class Begins(Protocol):
    """An engine or a test double."""

    def begin(self) -> AbstractContextManager[Connection]: ...


def write_through(ledger: SqlLedger, double: Begins) -> None:
    """Make the ledger write through this double."""
    ledger._writer._durable = ledger._writer._relaxed = double.begin


class LossyEngine:
    """Commits a transaction, but raises an error as if the response to the COMMIT were lost."""

    def __init__(self, engine: Begins, losses: int) -> None:
        self._engine = engine
        self._losses = losses

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        wrote = False
        with self._engine.begin() as connection:
            yield connection
            wrote = connection.scalar(select(charges.c.request_id).limit(1)) is not None
        if wrote and self._losses > 0:
            self._losses -= 1
            raise OperationalError("COMMIT", {}, ConnectionError("the network ate it"))


class FailingEngine:
    """Fails the first ``failures`` transactions."""

    def __init__(self, engine: Begins, failures: int) -> None:
        self._engine = engine
        self.failures = failures

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        if self.failures > 0:
            self.failures -= 1
            raise OperationalError("BEGIN", {}, ConnectionError("no route"))
        with self._engine.begin() as connection:
            yield connection
