"""Tenants with credit, and a look into the books."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

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
from serve_app.ledger import accounts
from serve_app.ledger.audit import Balance, balances
from serve_app.ledger.database import open_writer, opened, transaction
from serve_app.ledger.rules import Reservation
from serve_app.ports import Usage

MODEL = ModelId("embedded")
R1 = RequestId("r1")
USAGE = Usage(documents=3, tokens=Tokens(90))
NOW = Moment(1_000_000)
TIMEOUT_S = Seconds(5)


def a_tenant(database_url: str, credit: int, name: str = "acme") -> Caller:
    """A new tenant with a key and ``credit``."""
    key_id = KeyId(f"key-of-{name}")
    with transaction(database_url, TIMEOUT_S) as connection:
        tenant = accounts.create_tenant(connection, name, NOW).id
        new = accounts.NewKey(key_id, bytes(32), "test", {"rerank"}, None, None)
        accounts.create_key(connection, tenant, new, NOW)
        if credit:
            accounts.grant(connection, tenant, Credits(credit), "test", "tester", NOW)
    return Caller(tenant, key_id, frozenset({"rerank"}), None)


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
    """The only tenant's balance, proven to add up."""
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
    """Nobody else can write while this lasts."""
    with (
        opened(open_writer(database_url, TIMEOUT_S)) as engine,
        engine.begin() as connection,
    ):
        if engine.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE"))
        yield
